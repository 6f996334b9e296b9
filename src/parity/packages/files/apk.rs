//! apk's lists: `F:` a folder, `R:` a file in it, `Z:` the checksum of the file before (apk-tools,
//! src/database.c; the checksum's form in src/blob.c).

use super::{Checksum, Owners};
use crate::error::Result;
use crate::parity::lookup::Files;

/// With a merged `/usr` both paths are one file.
const INSTALLED: [&[u8]; 2] = [b"/lib/apk/db/installed", b"/usr/lib/apk/db/installed"];

/// Adds what apk's database says, if there is one.
pub(super) fn read(files: Files<'_>, owners: &mut Owners) -> Result<()> {
    for path in INSTALLED {
        if let Some(text) = owners.list(files, path)? {
            parse(&text, owners);
            return Ok(());
        }
    }
    Ok(())
}

fn parse(text: &[u8], owners: &mut Owners) {
    let (mut package, mut name, mut folder, mut file) = (None, &b""[..], &b""[..], None);
    for line in text.split(|b| *b == b'\n') {
        match line {
            [] => (package, name, folder, file) = (None, b"", b"", None),
            [b'P', b':', value @ ..] => name = value,
            [b'A', b':', arch @ ..] => package = Some(owners.add_package(name, arch)),
            [b'F', b':', value @ ..] => {
                folder = value;
                file = None;
                if let Some(package) = package.filter(|_| !folder.is_empty()) {
                    owners.own(folder, package);
                }
            }
            [b'R', b':', value @ ..] => {
                let separator: &[u8] = if folder.is_empty() { b"" } else { b"/" };
                let path = [folder, separator, value].concat();
                if let Some(package) = package {
                    owners.own(&path, package);
                }
                file = Some(path);
            }
            [b'Z', b':', value @ ..] => {
                if let Some(path) = &file
                    && let Some(owned) = owners.entry(path)
                {
                    owned.checksum = checksum(value);
                    // apk keeps what was changed below /etc (apk-tools, protected paths).
                    owned.is_config = path.starts_with(b"etc/");
                }
            }
            _ => {}
        }
    }
}

/// `Q1` and 20 bytes in Base64.
fn checksum(text: &[u8]) -> Option<Checksum> {
    let digits = text.strip_prefix(b"Q1")?.strip_suffix(b"=")?;
    if digits.len() != 27 {
        return None;
    }
    let mut out = Vec::with_capacity(21);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(Checksum::Sha1(out.try_into().ok()?))
}
