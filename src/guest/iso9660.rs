//! Writes a small ISO 9660 image with Rock Ridge and Joliet names, the same bytes for the same input.
//!
//! One flat folder whose records fit into one sector, each file stored once for both trees. Times
//! are fixed, so nothing of the moment gets in.
//! (ECMA-119; IEEE P1282 "Rock Ridge Interchange Protocol"; Joliet specification, level 3.)

use crate::error::{Error, Result};

const SECTOR: usize = 2048;
/// 1 January 1980, 00:00:00 UTC as ECMA-119 9.1.5 writes it: years since 1900, month, day, ….
const RECORD_TIME: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
/// The same as ECMA-119 8.4.26.1 writes it: digits, then the zone.
const VOLUME_TIME: &[u8; 17] = b"1980010100000000\0";
/// Sectors in their order: descriptors at 16, 17, 18, then path tables, then the two root folders.
const PATHS: [u32; 4] = [19, 20, 21, 22];
const ROOT_PLAIN: u32 = 23;
const ROOT_JOLIET: u32 = 24;
const FIRST_FILE: u32 = 25;

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// ASCII letters, digits, `-`, `.`, `_`; at most 60 bytes.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// The image of these files; `label` is the volume's name, at most 16 bytes of ASCII.
///
/// # Errors
/// A name or the label has other characters or is too long, a name occurs twice, or the records do
/// not fit into one sector.
pub fn image(label: &str, files: &[File]) -> Result<Vec<u8>> {
    let bad = |why: String| Err(Error::failed("cannot make the seed image").cause(why));
    let plain = |s: &str, max: usize| {
        !s.is_empty()
            && s.len() <= max
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if !plain(label, 16) {
        return bad(format!("the label `{label}` is not allowed"));
    }
    let mut placed = Vec::new();
    let mut next = FIRST_FILE;
    for file in files {
        if !plain(&file.name, 60) || file.name.starts_with('.') {
            return bad(format!("the name `{}` is not allowed", file.name));
        }
        let Ok(size) = u32::try_from(file.bytes.len()) else {
            return bad(format!("`{}` is larger than 4 GiB", file.name));
        };
        placed.push(Placed { name: &file.name, extent: next, size });
        next += size.div_ceil(SECTOR as u32);
    }
    let mut out = vec![0u8; 16 * SECTOR];
    for (joliet, root) in [(false, ROOT_PLAIN), (true, ROOT_JOLIET)] {
        out.extend(volume(label, joliet, root, next));
    }
    out.extend(sector(b"\xffCD001\x01".to_vec()));
    for (n, root) in [ROOT_PLAIN, ROOT_PLAIN, ROOT_JOLIET, ROOT_JOLIET].into_iter().enumerate() {
        out.extend(sector(path_table(root, n % 2 == 1)));
    }
    for (joliet, root) in [(false, ROOT_PLAIN), (true, ROOT_JOLIET)] {
        let folder = folder(&placed, joliet, root);
        let Some(folder) = folder.filter(|f| f.len() <= SECTOR) else {
            return bad("a name occurs twice, or there are too many files".to_owned());
        };
        out.extend(sector(folder));
    }
    for file in files {
        out.extend(&file.bytes);
        out.resize(out.len().next_multiple_of(SECTOR), 0);
    }
    Ok(out)
}

struct Placed<'a> {
    name: &'a str,
    extent: u32,
    size: u32,
}

fn sector(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
}

/// ECMA-119 7.3.3: little-endian, then big-endian.
fn both32(n: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&n.to_le_bytes());
    out[4..].copy_from_slice(&n.to_be_bytes());
    out
}

/// ECMA-119 7.2.3.
fn both16(n: u16) -> [u8; 4] {
    let mut out = [0; 4];
    out[..2].copy_from_slice(&n.to_le_bytes());
    out[2..].copy_from_slice(&n.to_be_bytes());
    out
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// The primary (ECMA-119 8.4) or supplementary (8.5) volume descriptor.
fn volume(label: &str, joliet: bool, root: u32, sectors: u32) -> Vec<u8> {
    let text = |s: &str, width: usize| {
        let (mut bytes, pad): (Vec<u8>, &[u8]) =
            if joliet { (ucs2(s), b"\0 ") } else { (s.as_bytes().to_vec(), b" ") };
        bytes.truncate(width);
        while bytes.len() < width {
            bytes.extend(&pad[..pad.len().min(width - bytes.len())]);
        }
        bytes
    };
    let mut d = vec![if joliet { 2 } else { 1 }];
    d.extend(b"CD001\x01\0");
    d.extend(text("LINUX", 32));
    d.extend(text(label, 32));
    d.extend([0; 8]);
    d.extend(both32(sectors));
    // Joliet's escape sequence for UCS-2 level 3.
    d.extend(if joliet { *b"%/E" } else { [0; 3] });
    d.extend([0; 29]);
    d.extend(both16(1));
    d.extend(both16(1));
    d.extend(both16(SECTOR as u16));
    d.extend(both32(10));
    let (little, big) = if joliet { (PATHS[2], PATHS[3]) } else { (PATHS[0], PATHS[1]) };
    d.extend(little.to_le_bytes());
    d.extend([0; 4]);
    d.extend(big.to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(&[0], root, SECTOR as u32, true, &[]));
    for width in [128, 128, 128, 128, 37, 37, 37] {
        d.extend(text("", width));
    }
    for time in [VOLUME_TIME, VOLUME_TIME] {
        d.extend(time);
    }
    // Neither an expiry nor an effective date: sixteen zeros (8.4.26.1).
    for _ in 0..2 {
        d.extend(b"0000000000000000\0");
    }
    d.push(1);
    sector(d)
}

/// ECMA-119 9.4: the root alone.
fn path_table(root: u32, big: bool) -> Vec<u8> {
    let mut t = vec![1, 0];
    t.extend(if big { root.to_be_bytes() } else { root.to_le_bytes() });
    t.extend(if big { [0, 1] } else { [1, 0] });
    t.extend([0, 0]);
    t
}

/// ECMA-119 9.1, with the system use field at its end.
fn record(name: &[u8], extent: u32, size: u32, folder: bool, system_use: &[u8]) -> Vec<u8> {
    let mut r = vec![0, 0];
    r.extend(both32(extent));
    r.extend(both32(size));
    r.extend(RECORD_TIME);
    r.push(if folder { 2 } else { 0 });
    r.extend([0, 0]);
    r.extend(both16(1));
    r.push(name.len() as u8);
    r.extend(name);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r.extend(system_use);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r[0] = r.len() as u8;
    r
}

/// All records of the root folder in the order that the standard wants; `None` if two are the same.
fn folder(files: &[Placed<'_>], joliet: bool, root: u32) -> Option<Vec<u8>> {
    let mut named: Vec<(Vec<u8>, &Placed<'_>)> =
        files.iter().map(|f| (if joliet { ucs2(f.name) } else { plain_name(f.name) }, f)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    if named.windows(2).any(|w| w[0].0 == w[1].0) {
        return None;
    }
    let links = 2;
    let (mut dot, dotdot) = (vec![], if joliet { vec![] } else { px(0o040_555, links) });
    if !joliet {
        // SP marks that Rock Ridge is used, ER names the version (SUSP 5.3, 5.5).
        dot.extend(b"SP\x07\x01\xbe\xef\0");
        dot.extend(px(0o040_555, links));
        dot.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    }
    let mut out = record(&[0], root, SECTOR as u32, true, &dot);
    out.extend(record(&[1], root, SECTOR as u32, true, &dotdot));
    for (name, file) in named {
        let mut system_use = vec![];
        if !joliet {
            system_use.extend(px(0o100_444, 1));
            system_use.extend([b'N', b'M', 5 + file.name.len() as u8, 1, 0]);
            system_use.extend(file.name.as_bytes());
        }
        out.extend(record(&name, file.extent, file.size, false, &system_use));
    }
    Some(out)
}

/// Mode, links, owner and group (P1282 4.1.1); all belongs to root.
fn px(mode: u32, links: u32) -> Vec<u8> {
    let mut f = b"PX\x24\x01".to_vec();
    for n in [mode, links, 0, 0] {
        f.extend(both32(n));
    }
    f
}

/// A name by ECMA-119 7.5 (level 2: up to 30 characters of A-Z, 0-9 and `_`, one dot): for readers
/// that know neither extension.
fn plain_name(name: &str) -> Vec<u8> {
    let clean = |s: &str| -> String {
        s.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect()
    };
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let (mut stem, mut extension) = (clean(stem), clean(extension));
    extension.truncate(3);
    stem.truncate(26);
    format!("{stem}.{extension};1").into_bytes()
}

#[cfg(test)]
#[path = "iso9660_tests.rs"]
mod tests;
