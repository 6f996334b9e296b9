//! Writes a small ISO 9660 image with Rock Ridge and Joliet names, the same bytes for the same input.
//!
//! Folders whose records fit into one sector each, each file stored once for both trees. Times
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
/// Then two sectors for each further folder, then the files.
const FIRST: u32 = 25;
/// Deepest path of a file, in parts (ECMA-119 6.8.2.1 has eight levels with the root).
const DEPTH: usize = 8;

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Parts of ASCII letters, digits, `-`, `.`, `_`, at most 60 bytes each, with `/` between them.
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
    let Some(folders) = folders(files) else { return bad("there are too many folders".to_owned()) };
    let mut placed = Vec::new();
    let mut next = FIRST + 2 * (folders.len() as u32 - 1);
    for file in files {
        let parts: Vec<&str> = file.name.split('/').collect();
        let allowed = |part: &&str| plain(part, 60) && !part.starts_with('.');
        if parts.len() > DEPTH || !parts.iter().all(allowed) {
            return bad(format!("the name `{}` is not allowed", file.name));
        }
        let Ok(size) = u32::try_from(file.bytes.len()) else {
            return bad(format!("`{}` is larger than 4 GiB", file.name));
        };
        placed.push(Placed { parts, extent: next, size });
        next += size.div_ceil(SECTOR as u32);
    }
    let tables =
        [false, true].map(|joliet| [false, true].map(|big| path_table(&folders, joliet, big)));
    let mut out = vec![0u8; 16 * SECTOR];
    for (joliet, [table, _]) in [false, true].into_iter().zip(&tables) {
        out.extend(volume(label, joliet, table.len() as u32, next));
    }
    out.extend(sector(b"\xffCD001\x01".to_vec()));
    for table in tables.into_iter().flatten() {
        if table.len() > SECTOR {
            return bad("there are too many folders".to_owned());
        }
        out.extend(sector(table));
    }
    for number in 0..folders.len() {
        for joliet in [false, true] {
            let folder = folder(&placed, &folders, number, joliet);
            let Some(folder) = folder.filter(|f| f.len() <= SECTOR) else {
                return bad("a name occurs twice, or there are too many files".to_owned());
            };
            out.extend(sector(folder));
        }
    }
    for file in files {
        out.extend(&file.bytes);
        out.resize(out.len().next_multiple_of(SECTOR), 0);
    }
    Ok(out)
}

struct Placed<'a> {
    parts: Vec<&'a str>,
    extent: u32,
    size: u32,
}

/// The parts of a folder's path; none for the root.
type Folder<'a> = Vec<&'a str>;

/// All folders, the root first, each behind the one that it lies in, as path tables have them (ECMA-119 6.9.1); `None` if
/// they are more than a path table can hold.
fn folders(files: &[File]) -> Option<Vec<Folder<'_>>> {
    let mut all: Vec<Folder<'_>> = vec![vec![]];
    for file in files {
        let parts: Vec<&str> = file.name.split('/').take(DEPTH + 1).collect();
        all.extend((1..parts.len()).map(|n| parts[..n].to_vec()));
    }
    all.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    all.dedup();
    // A record of a path table takes ten bytes or more.
    (all.len() <= SECTOR / 10).then_some(all)
}

/// The sector of a folder, by its number.
fn extent(number: usize, joliet: bool) -> u32 {
    match (number, joliet) {
        (0, false) => ROOT_PLAIN,
        (0, true) => ROOT_JOLIET,
        (n, _) => FIRST + 2 * (n as u32 - 1) + u32::from(joliet),
    }
}

/// The number of the folder that a path lies in.
fn parent(folders: &[Folder<'_>], path: &[&str]) -> usize {
    let above = &path[..path.len().saturating_sub(1)];
    folders.iter().position(|folder| folder == above).unwrap_or(0)
}

/// A folder's name in one of the trees.
fn folder_name(name: &str, joliet: bool) -> Vec<u8> {
    if joliet { ucs2(name) } else { clean(name, 31).into_bytes() }
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
fn volume(label: &str, joliet: bool, table: u32, sectors: u32) -> Vec<u8> {
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
    d.extend(both32(table));
    let (little, big) = if joliet { (PATHS[2], PATHS[3]) } else { (PATHS[0], PATHS[1]) };
    d.extend(little.to_le_bytes());
    d.extend([0; 4]);
    d.extend(big.to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(&[0], extent(0, joliet), SECTOR as u32, true, &[]));
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

/// ECMA-119 9.4.
fn path_table(folders: &[Folder<'_>], joliet: bool, big: bool) -> Vec<u8> {
    let mut t = vec![];
    for (number, folder) in folders.iter().enumerate() {
        let name = folder.last().map_or(vec![0], |name| folder_name(name, joliet));
        let (extent, above) = (extent(number, joliet), parent(folders, folder) as u16 + 1);
        t.extend([name.len() as u8, 0]);
        t.extend(if big { extent.to_be_bytes() } else { extent.to_le_bytes() });
        t.extend(if big { above.to_be_bytes() } else { above.to_le_bytes() });
        t.extend(&name);
        if name.len() % 2 == 1 {
            t.push(0);
        }
    }
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

/// All records of a folder in the order that the standard wants; `None` if two are the same.
fn folder(
    files: &[Placed<'_>],
    folders: &[Folder<'_>],
    number: usize,
    joliet: bool,
) -> Option<Vec<u8>> {
    let own = &folders[number];
    let is_in = |path: &[&str]| path.len() == own.len() + 1 && path.starts_with(own);
    let links = |folder: &[&str]| {
        let below = folders.iter().filter(|f| f.len() == folder.len() + 1 && f.starts_with(folder));
        2 + below.count() as u32
    };
    // Name, extent, size, whether it is a folder, mode and links, and the POSIX name.
    let mut named = vec![];
    for (n, path) in folders.iter().enumerate().filter(|(_, path)| is_in(path)) {
        let name = path.last()?;
        let fields = px(0o040_555, links(path));
        named.push((
            folder_name(name, joliet),
            (extent(n, joliet), SECTOR as u32, true, fields, *name),
        ));
    }
    for file in files.iter().filter(|file| is_in(&file.parts)) {
        let name = file.parts.last()?;
        let plain = if joliet { ucs2(name) } else { plain_name(name) };
        named.push((plain, (file.extent, file.size, false, px(0o100_444, 1), *name)));
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    if named.windows(2).any(|w| w[0].0 == w[1].0) {
        return None;
    }
    let above = parent(folders, own);
    let (mut dot, mut dotdot) = (vec![], vec![]);
    if !joliet {
        if number == 0 {
            // SP marks that Rock Ridge is used, ER names the version (SUSP 5.3, 5.5).
            dot.extend(b"SP\x07\x01\xbe\xef\0");
        }
        dot.extend(px(0o040_555, links(own)));
        if number == 0 {
            dot.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
        }
        dotdot.extend(px(0o040_555, links(&folders[above])));
    }
    let mut out = record(&[0], extent(number, joliet), SECTOR as u32, true, &dot);
    out.extend(record(&[1], extent(above, joliet), SECTOR as u32, true, &dotdot));
    for (plain, (extent, size, folder, mut fields, name)) in named {
        fields.extend([b'N', b'M', 5 + name.len() as u8, 1, 0]);
        fields.extend(name.as_bytes());
        let system_use = if joliet { &[][..] } else { &fields };
        out.extend(record(&plain, extent, size, folder, system_use));
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
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    format!("{}.{};1", clean(stem, 26), clean(extension, 3)).into_bytes()
}

fn clean(text: &str, longest: usize) -> String {
    let letters = text.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    });
    letters.take(longest).collect()
}

#[cfg(test)]
#[path = "iso9660_tests.rs"]
mod tests;
