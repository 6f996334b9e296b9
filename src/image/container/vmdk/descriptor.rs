//! The text that describes a VMDK disk: its kind, its parent, and the extents it is made of.
//!
//! Source: VMware, Virtual Disk Format 5.0, section "The Descriptor File".

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The first line of a descriptor, as every program writes it.
pub(in crate::image::container) const MARK: &[u8] = b"# Disk DescriptorFile";

/// Longest descriptor in bytes. A 2 TiB disk in pieces of 2 GiB needs 60 KiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Most extents: a 2 TiB disk in pieces of 2 GiB has 1024.
const MAX_EXTENTS: usize = 4096;
/// The `parentCID` of a disk without a parent.
const NO_PARENT: u32 = 0xffff_ffff;

/// Kinds whose extents are read here.
const CREATE_TYPES: &[&[u8]] = &[
    b"monolithicSparse",
    b"monolithicFlat",
    b"twoGbMaxExtentSparse",
    b"twoGbMaxExtentFlat",
    b"streamOptimized",
    b"vmfs",
    b"custom",
];

/// What is wrong with a descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It breaks the rules of the format.
    Damaged(String),
    /// It uses something that is not read here.
    Feature(String),
}

/// Where the bytes of one extent are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: zeros.
    Zero,
    /// Plain bytes of a file from this sector on.
    Flat { name: PathBuf, sector: u64 },
    /// A file with tables of its own.
    Sparse { name: PathBuf },
}

/// One line of the extent description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Length in sectors of 512 bytes.
    pub(super) sectors: u64,
    pub(super) place: Place,
}

/// A descriptor, checked.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) extents: Vec<Extent>,
}

impl Descriptor {
    /// Reads the text up to the first zero byte, as QEMU does. What is behind it is padding:
    /// QEMU leaves the end of an older text there when a new one is shorter.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let damaged = |why: String| Problem::Damaged(why);
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        if let Some(at) = text.iter().position(|b| *b < b' ' && !b"\t\r\n".contains(b)) {
            return Err(damaged(format!("its descriptor has a control character at byte {at}")));
        }
        let mut keys = Keys::default();
        let mut extents = vec![];
        for line in text.split(|b| *b == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if let Some(extent) = extent_line(line)? {
                if extents.len() >= MAX_EXTENTS {
                    return Err(damaged(format!("it has more than {MAX_EXTENTS} extents")));
                }
                extents.push(extent);
            } else {
                keys.line(line)?;
            }
        }
        keys.check()?;
        if extents.is_empty() {
            return Err(damaged("its descriptor names no extent".to_owned()));
        }
        Ok(Descriptor { extents })
    }
}

/// The keys that decide how the disk is read.
#[derive(Default)]
struct Keys {
    version: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
    create_type: Option<Vec<u8>>,
}

impl Keys {
    fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        let Some(at) = line.iter().position(|b| *b == b'=') else {
            return Err(Problem::Damaged(format!(
                "its descriptor has a line that is not understood: `{}`",
                shown(line)
            )));
        };
        let (key, value) = (line[..at].trim_ascii(), unquoted(line[at + 1..].trim_ascii()));
        let lower = key.to_ascii_lowercase();
        let slot = match lower.as_slice() {
            b"version" => &mut self.version,
            b"parentcid" => &mut self.parent,
            b"createtype" => &mut self.create_type,
            b"parentfilenamehint" => {
                return Err(Problem::Feature(format!("a parent disk (`{}`)", shown(value))));
            }
            // VMware's encrypted disks name their keys here.
            key if [&b"crypt"[..], b"keysafe", b"keyid"].iter().any(|w| contains(key, w)) => {
                return Err(Problem::Feature(format!("encryption (`{}`)", shown(key))));
            }
            // The identity of the contents, and facts for other programs (`ddb.*`).
            _ => return Ok(()),
        };
        if slot.replace(value.to_vec()).is_some() {
            return Err(Problem::Damaged(format!("its descriptor says `{}` twice", shown(key))));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Problem> {
        let missing = |key: &str| Problem::Damaged(format!("its descriptor has no `{key}`"));
        let version = self.version.as_deref().ok_or_else(|| missing("version"))?;
        if !matches!(version, b"1" | b"2" | b"3") {
            return Err(Problem::Feature(format!("descriptor version {}", shown(version))));
        }
        let parent = self.parent.as_deref().ok_or_else(|| missing("parentCID"))?;
        let number = std::str::from_utf8(parent).ok().and_then(|p| u32::from_str_radix(p, 16).ok());
        match number {
            Some(NO_PARENT) => {}
            Some(_) => {
                return Err(Problem::Feature(format!(
                    "a parent disk (parentCID {}): it is a delta or a linked clone",
                    shown(parent)
                )));
            }
            None => {
                return Err(Problem::Damaged(format!("its parentCID is `{}`", shown(parent))));
            }
        }
        let kind = self.create_type.as_deref().ok_or_else(|| missing("createType"))?;
        if !CREATE_TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            return Err(Problem::Feature(format!("createType `{}`", shown(kind))));
        }
        Ok(())
    }
}

/// `ACCESS SECTORS TYPE ["NAME" [OFFSET]]`; none if the line begins with no access.
fn extent_line(line: &[u8]) -> Result<Option<Extent>, Problem> {
    let (access, rest) = word(line);
    if ![&b"RW"[..], b"RDONLY", b"NOACCESS"].contains(&access) {
        return Ok(None);
    }
    let bad = |why: &str| Problem::Damaged(format!("{why} in its extent line `{}`", shown(line)));
    if access == b"NOACCESS" {
        return Err(Problem::Feature("an extent without access (NOACCESS)".to_owned()));
    }
    let (sectors, rest) = word(rest);
    let sectors = number(sectors).ok_or_else(|| bad("there is no size"))?;
    let (kind, rest) = word(rest);
    let (name, rest) = match rest.split_first() {
        None => (None, rest),
        Some((b'"', inner)) => {
            let end =
                inner.iter().position(|b| *b == b'"').ok_or_else(|| bad("a quote is open"))?;
            (Some(PathBuf::from(OsStr::from_bytes(&inner[..end]))), inner[end + 1..].trim_ascii())
        }
        Some(_) => return Err(bad("the file's name is not quoted")),
    };
    let place = match (kind, name, rest) {
        (b"ZERO", None, b"") => Place::Zero,
        (b"FLAT", Some(name), offset) => {
            let sector = number(offset).ok_or_else(|| bad("there is no offset"))?;
            Place::Flat { name, sector }
        }
        // Plain bytes too, on VMware's own filesystem; an offset is not written.
        (b"VMFS", Some(name), offset) => {
            let sector = if offset.is_empty() { Some(0) } else { number(offset) };
            Place::Flat { name, sector: sector.ok_or_else(|| bad("the offset is no number"))? }
        }
        (b"SPARSE", Some(name), b"") => Place::Sparse { name },
        (b"ZERO" | b"SPARSE", ..) | (b"FLAT" | b"VMFS", None, _) => {
            return Err(bad("the fields are not as they should be"));
        }
        _ => return Err(Problem::Feature(format!("an extent of type `{}`", shown(kind)))),
    };
    if sectors == 0 {
        return Err(bad("the size is zero"));
    }
    Ok(Some(Extent { sectors, place }))
}

/// The first word, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_ascii())
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Bytes of the descriptor for a message: escaped, and not more than a line of them.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(80)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &str) -> Result<Descriptor, Problem> {
        let head = "# Disk DescriptorFile\r\nversion=1\r\nCID=12345678\r\nparentCID=ffffffff\r\n";
        Descriptor::parse(
            format!("{head}createType=\"monolithicFlat\"\n{lines}\n\0\n\0RW").as_bytes(),
        )
    }

    #[test]
    fn extent_lines_are_read_as_the_specification_writes_them() {
        let found = with(
            "RW 4192256 SPARSE \"a b-s001.vmdk\"\nRDONLY 63 FLAT \"x-flat.vmdk\" 17\r\nRW 5 ZERO\nRW 9 VMFS \"v\"",
        )
        .expect("sound");
        let places: Vec<_> = found.extents.iter().map(|e| (e.sectors, e.place.clone())).collect();
        assert_eq!(
            places,
            [
                (4_192_256, Place::Sparse { name: "a b-s001.vmdk".into() }),
                (63, Place::Flat { name: "x-flat.vmdk".into(), sector: 17 }),
                (5, Place::Zero),
                (9, Place::Flat { name: "v".into(), sector: 0 }),
            ]
        );
    }

    #[test]
    fn what_is_not_read_is_named() {
        let cases = [
            ("RW 5 VMFSSPARSE \"x\"", "VMFSSPARSE"),
            ("RW 5 SESPARSE \"x\"", "SESPARSE"),
            ("RW 5 VMFSRDM \"x\"", "VMFSRDM"),
            ("RW 5 VMFSRAW \"x\"", "VMFSRAW"),
            ("NOACCESS 5 FLAT \"x\" 0", "NOACCESS"),
            ("parentFileNameHint=\"/etc/base.vmdk\"\nRW 5 ZERO", "a parent disk"),
            ("encryptionKeys=\"x\"\nRW 5 ZERO", "encryption"),
        ];
        for (lines, word) in cases {
            let Err(Problem::Feature(what)) = with(lines) else { panic!("{lines}") };
            assert!(what.contains(word), "{what}");
        }
        let text = |parent: &str, kind: &str| {
            let text = format!("version=1\nparentCID={parent}\ncreateType=\"{kind}\"\nRW 1 ZERO\n");
            match Descriptor::parse(text.as_bytes()) {
                Err(Problem::Feature(what)) => what,
                other => panic!("{other:?}"),
            }
        };
        assert!(text("0badf00d", "monolithicSparse").contains("0badf00d"));
        for kind in ["seSparse", "vmfsSparse", "vmfsRDM", "fullDevice", "partitionedDevice"] {
            assert!(text("ffffffff", kind).contains(kind));
        }
    }

    #[test]
    fn what_breaks_the_rules_is_damaged() {
        let cases = [
            ("", "no extent"),
            ("RW 0 ZERO", "zero"),
            ("RW -5 ZERO", "no size"),
            ("RW 99999999999999999999 ZERO", "no size"),
            ("RW 5 ZERO \"x\"", "fields"),
            ("RW 5 SPARSE x", "not quoted"),
            ("RW 5 SPARSE \"x", "open"),
            ("RW 5 SPARSE \"x\" 0", "fields"),
            ("RW 5 FLAT \"x\"", "no offset"),
            ("RW 5 FLAT \"x\" 0 partitionUUID", "no offset"),
            ("version=1\nRW 5 ZERO", "twice"),
            ("what is this\nRW 5 ZERO", "not understood"),
            ("RW 5 \x01ZERO", "control character"),
        ];
        for (lines, word) in cases {
            let Err(Problem::Damaged(why)) = with(lines) else { panic!("{lines}") };
            assert!(why.contains(word), "{lines}: {why}");
        }
        let many = "RW 1 ZERO\n".repeat(MAX_EXTENTS + 1);
        assert!(matches!(with(&many), Err(Problem::Damaged(_))));
        for missing in ["version=1", "parentCID=ffffffff", "createType=\"custom\""] {
            let text = "version=1\nparentCID=ffffffff\ncreateType=\"custom\"\nRW 1 ZERO\n";
            assert!(Descriptor::parse(text.as_bytes()).is_ok());
            let Err(Problem::Damaged(why)) =
                Descriptor::parse(text.replace(missing, "").as_bytes())
            else {
                panic!("{missing}")
            };
            assert!(why.contains("has no"), "{why}");
        }
    }
}
