//! apk's database: `lib/apk/db/installed`, records of lines `<letter>:<value>` with an empty line
//! between (apk-tools, src/database.c and src/package.c).

use super::{MAX_DATABASE, Package, damaged};
use crate::error::Result;
use crate::image::boot::Files as _;
use crate::parity::lookup::Files;

/// With a merged `/usr` both paths are one file.
pub(super) const INSTALLED: [&[u8]; 2] = [b"/lib/apk/db/installed", b"/usr/lib/apk/db/installed"];

/// The packages; none if there is no database.
pub(super) fn read(files: Files<'_>) -> Result<Option<Vec<Package>>> {
    let [here, there] = INSTALLED.map(|path| files.tree.find(path));
    let mut found: Option<Vec<Package>> = None;
    for (path, skip) in [(INSTALLED[0], false), (INSTALLED[1], here == there)] {
        if !skip && let Some(text) = files.read(path, MAX_DATABASE)? {
            parse(path, &text, found.get_or_insert_default())?;
        }
    }
    Ok(found)
}

/// Name, architecture, version, and flags of what is broken.
const FIELDS: [u8; 4] = [b'P', b'A', b'V', b'f'];

pub(super) fn parse(path: &[u8], text: &[u8], out: &mut Vec<Package>) -> Result<()> {
    let mut values: [Option<&[u8]>; 4] = [None; 4];
    let mut start = None;
    // An empty line at the end closes a last record that has none.
    for (i, line) in text.split(|b| *b == b'\n').chain([&b""[..]]).enumerate() {
        let fail = |why: &str| damaged(path, i + 1, why);
        match line {
            [] => {
                let values = std::mem::take(&mut values).map(Option::unwrap_or_default);
                if let Some(first) = start.take() {
                    out.extend(package(path, first, values)?);
                }
            }
            [letter, b':', value @ ..] => {
                start.get_or_insert(i + 1);
                if let Some(at) = FIELDS.iter().position(|field| field == letter)
                    && values[at].replace(value).is_some()
                {
                    return Err(fail("a field is there twice"));
                }
            }
            _ => return Err(fail("it is no field")),
        }
    }
    Ok(())
}

/// The package of a record; none for the record without a name that holds overlay files.
fn package(path: &[u8], line: usize, values: [&[u8]; 4]) -> Result<Option<Package>> {
    let [name, arch, version, status] = values.map(<[u8]>::to_vec);
    match (name.is_empty(), version.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(damaged(path, line, "the record has no name")),
        _ => Ok(Some(Package { kind: "apk", name, arch, version, status })),
    }
}
