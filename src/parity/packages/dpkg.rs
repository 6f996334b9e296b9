//! dpkg's database: `/var/lib/dpkg/status` (deb-status fields of dpkg(1), syntax of deb822(5)), and
//! `status.d` with one file a package, as distroless images have it.

use super::{MAX_DATABASE, Package, damaged};
use crate::error::Result;
use crate::image::boot::Files as _;
use crate::parity::lookup::Files;

const STATUS: &[u8] = b"/var/lib/dpkg/status";
const STATUS_D: &[u8] = b"/var/lib/dpkg/status.d";
/// In `status.d`, lists of a package's files.
const SUMS: &[u8] = b".md5sums";

/// The packages; none if there is no database.
pub(super) fn read(files: Files<'_>) -> Result<Option<Vec<Package>>> {
    let mut found = None;
    if let Some(text) = files.read(STATUS, MAX_DATABASE)? {
        parse(STATUS, &text, found.get_or_insert_default())?;
    }
    let mut total = 0u64;
    for name in files.list(STATUS_D)?.iter().filter(|name| !name.ends_with(SUMS)) {
        let path = [STATUS_D, b"/", name].concat();
        if let Some(text) = files.read(&path, MAX_DATABASE - total)? {
            total += text.len() as u64;
            parse(&path, &text, found.get_or_insert_default())?;
        }
    }
    Ok(found)
}

/// Whether [`read`] reads the file at `path`.
pub(super) fn is_database(path: &[u8]) -> bool {
    path == STATUS || (in_folder(path) && !is_list(path))
}

/// Whether it lists the files of a package in `status.d`.
pub(super) fn is_list(path: &[u8]) -> bool {
    in_folder(path) && path.ends_with(SUMS)
}

fn in_folder(path: &[u8]) -> bool {
    let name = path.strip_prefix(STATUS_D).and_then(|rest| rest.strip_prefix(b"/"));
    name.is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// The fields of a record that count.
const FIELDS: [&str; 4] = ["package", "architecture", "version", "status"];

/// One record: the line it begins at, and the values of [`FIELDS`].
#[derive(Default)]
struct Record<'a> {
    line: usize,
    values: [Option<&'a [u8]>; 4],
}

pub(super) fn parse(path: &[u8], text: &[u8], out: &mut Vec<Package>) -> Result<()> {
    let mut record = Record::default();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        let fail = |why: &str| damaged(path, i + 1, why);
        match line {
            _ if line.trim_ascii().is_empty() => {
                out.extend(std::mem::take(&mut record).finish(path)?);
                continue;
            }
            // The value of the field above goes on.
            [b' ' | b'\t', ..] if record.line > 0 => continue,
            _ => {}
        }
        if record.line == 0 {
            record.line = i + 1;
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.ok_or_else(|| fail("it is no field"))?);
        let same = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        if let Some(at) = FIELDS.iter().position(|field| same(field))
            && record.values[at].replace(value[1..].trim_ascii()).is_some()
        {
            return Err(fail("a field is there twice"));
        }
    }
    out.extend(record.finish(path)?);
    Ok(())
}

impl Record<'_> {
    /// The package; none for nothing at all, and for what is remembered but not installed.
    fn finish(self, path: &[u8]) -> Result<Option<Package>> {
        if self.line == 0 {
            return Ok(None);
        }
        let fail = |why: &str| damaged(path, self.line, why);
        let [name, arch, version, status] = self.values.map(|value| value.unwrap_or_default());
        if name.is_empty() {
            return Err(fail("the record has no `Package`"));
        }
        let status = words(status).ok_or_else(|| fail("`Status` is not three words"))?;
        if status.ends_with(b",not-installed") {
            return Ok(None);
        }
        Ok(Some(Package {
            kind: "deb",
            name: name.to_vec(),
            arch: arch.to_vec(),
            version: version.to_vec(),
            status,
        }))
    }
}

/// The wish, the flag and the state with commas between; nothing for nothing.
fn words(status: &[u8]) -> Option<Vec<u8>> {
    if status.is_empty() {
        return Some(vec![]);
    }
    let words: Vec<_> =
        status.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let plain = |word: &&[u8]| word.iter().all(|b| b.is_ascii_lowercase() || *b == b'-');
    (words.len() == 3 && words.iter().all(plain)).then(|| words.join(&b','))
}
