//! Finds files on an ISO 9660 image by path: the kernel and the initial RAM disk of an installation medium.
//!
//! Rock Ridge names where there are any, else the plain ones in any case and without their version. No Joliet and no
//! UDF: every installer for Linux has Rock Ridge. (ECMA-119; IEEE P1281 "SUSP"; IEEE P1282 "RRIP".)

use std::ops::Range;

use super::ReadAt;
use super::field::le32;
use crate::error::{Error, Result};

const SECTOR: u64 = 2048;
/// Volume descriptors begin here (ECMA-119 8.1); a medium has a handful.
const DESCRIPTORS: Range<u64> = 16..48;
/// Largest folder in bytes: some ten thousand names.
const FOLDER: u32 = 4 << 20;
/// Deepest path, in parts.
const DEPTH: usize = 32;
/// Most continuation areas of one record's system use fields.
const CONTINUATIONS: usize = 16;
/// Where the root's record stands in the primary descriptor (ECMA-119 8.4.18).
const ROOT: usize = 156;

/// A file's bytes on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes; the range is inside the medium.
    pub size: u64,
}

/// One record of a folder.
#[derive(Debug)]
struct Entry {
    name: Vec<u8>,
    /// The name comes from Rock Ridge.
    posix: bool,
    extent: u32,
    size: u32,
    folder: bool,
    link: bool,
    more: bool,
}

/// A medium.
pub struct Volume<'a> {
    reader: &'a dyn ReadAt,
    root: (u32, u32),
    /// Bytes in front of the system use fields of each record (SUSP 5.3); `None` without Rock Ridge.
    skip: Option<usize>,
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("root", &self.root).finish_non_exhaustive()
    }
}

fn damaged(what: &str) -> Error {
    Error::undetermined(format!("the ISO 9660 image is damaged: {what}"))
}

impl<'a> Volume<'a> {
    /// Reads the primary volume descriptor.
    ///
    /// # Errors
    /// This is no ISO 9660 image, or a damaged one.
    pub fn open(reader: &'a dyn ReadAt) -> Result<Self> {
        for number in DESCRIPTORS {
            let mut sector = [0; SECTOR as usize];
            if (number + 1) * SECTOR > reader.size() {
                break;
            }
            reader.read_at(&mut sector, number * SECTOR)?;
            if &sector[1..6] != b"CD001" || sector[0] == 255 {
                break;
            }
            if sector[0] == 1 {
                let root = (le32(&sector, ROOT + 2), le32(&sector, ROOT + 10));
                let mut volume = Volume { reader, root, skip: None };
                volume.skip = volume.system_use()?;
                return Ok(volume);
            }
        }
        Err(Error::undetermined("this is no ISO 9660 image: it has no primary volume descriptor"))
    }

    /// The SP field in the root's own record, which says that system use fields are used (SUSP 5.3).
    fn system_use(&self) -> Result<Option<usize>> {
        let bytes = self.folder(self.root)?;
        let Some(record) = record_at(&bytes, 0)? else { return Ok(None) };
        let area = system_use(record);
        Ok(match area {
            [b'S', b'P', _, _, 0xbe, 0xef, skip, ..] => Some(usize::from(*skip)),
            _ => None,
        })
    }

    /// The bytes of the file at `path`, whose parts are separated by `/`.
    ///
    /// # Errors
    /// There is none, it is a folder or a link, or the image is damaged.
    pub fn file(&self, path: &str) -> Result<Extent> {
        let mut folder = self.root;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.len() > DEPTH {
            return Err(Error::undetermined(format!("`{path}` has more than {DEPTH} parts")));
        }
        for (n, part) in parts.iter().enumerate() {
            let Some(entry) = self.find(folder, part)? else {
                return Err(Error::failed(format!("the medium has no `{path}`"))
                    .detail(format!("`{part}` is not in `/{}`", parts[..n].join("/")))
                    .hint("List what the medium has, with `xorriso -indev FILE -find` or `isoinfo -f -R -i FILE`, and correct the path."));
            };
            let last = n + 1 == parts.len();
            let wrong = |what: &str| {
                let at = parts[..=n].join("/");
                Err(Error::failed(format!("`{at}` on the medium is {what}"))
                    .hint("Name the file itself."))
            };
            match (last, &entry) {
                (_, Entry { link: true, .. }) => return wrong("a link"),
                (true, Entry { folder: true, .. }) => return wrong("a folder"),
                (true, Entry { more: true, .. }) => {
                    return wrong("in several pieces, as files of 4 GiB are");
                }
                (false, Entry { folder: false, .. }) => return wrong("no folder"),
                (false, entry) => folder = (entry.extent, entry.size),
                (true, entry) => {
                    let offset = u64::from(entry.extent) * SECTOR;
                    let size = u64::from(entry.size);
                    if offset + size > self.reader.size() {
                        return Err(damaged("a file lies behind its end"));
                    }
                    return Ok(Extent { offset, size });
                }
            }
        }
        Err(Error::failed("the empty path is no file on the medium"))
    }

    fn folder(&self, (extent, size): (u32, u32)) -> Result<Vec<u8>> {
        if size > FOLDER {
            return Err(damaged(&format!("a folder has {size} bytes")));
        }
        self.bytes(u64::from(extent) * SECTOR, size as usize)
    }

    fn bytes(&self, offset: u64, size: usize) -> Result<Vec<u8>> {
        if offset + size as u64 > self.reader.size() {
            return Err(damaged("a folder lies behind its end"));
        }
        let mut bytes = vec![0; size];
        self.reader.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn find(&self, folder: (u32, u32), name: &str) -> Result<Option<Entry>> {
        let bytes = self.folder(folder)?;
        let mut at = 0;
        while at < bytes.len() {
            let Some(record) = record_at(&bytes, at)? else {
                // The rest of the sector is empty: a record never crosses its end (ECMA-119 6.8.1.1).
                at = (at / SECTOR as usize + 1) * SECTOR as usize;
                continue;
            };
            at += record.len();
            let entry = self.entry(record)?;
            let same = if entry.posix {
                entry.name == name.as_bytes()
            } else {
                entry.name.eq_ignore_ascii_case(name.as_bytes())
            };
            if same {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn entry(&self, record: &[u8]) -> Result<Entry> {
        let flags = record[25];
        let mut entry = Entry {
            name: plain_name(identifier(record)),
            posix: false,
            extent: le32(record, 2),
            size: le32(record, 10),
            folder: flags & 2 != 0,
            link: false,
            more: flags & 0x80 != 0,
        };
        if let Some(skip) = self.skip {
            self.fields(system_use(record).get(skip..).unwrap_or_default(), &mut entry)?;
        }
        Ok(entry)
    }

    /// The fields of Rock Ridge: NM is a name, SL a link, CE says where more fields are (P1282 4.1; SUSP 5.1).
    fn fields(&self, area: &[u8], entry: &mut Entry) -> Result<()> {
        let mut name: Option<Vec<u8>> = None;
        let mut area = area.to_vec();
        for _ in 0..=CONTINUATIONS {
            let (mut rest, mut next) = (&area[..], None);
            while let [a, b, length, _, ..] = *rest {
                let length = usize::from(length);
                let Some(field) = rest.get(..length).filter(|_| length >= 4) else { break };
                match (&[a, b], field) {
                    // Flags 2 and 4 stand for `.` and `..`, which nobody looks for.
                    (b"NM", [_, _, _, _, 0 | 1, part @ ..]) => {
                        name.get_or_insert_default().extend_from_slice(part);
                    }
                    (b"SL", _) => entry.link = true,
                    (b"CE", field) if length >= 28 => {
                        next = Some((le32(field, 4), le32(field, 12), le32(field, 20)));
                    }
                    (b"ST", _) => break,
                    _ => {}
                }
                rest = &rest[length..];
            }
            let Some((sector, offset, size)) = next else { break };
            if u64::from(size) > SECTOR {
                return Err(damaged("a continuation of a record is longer than a sector"));
            }
            area = self.bytes(u64::from(sector) * SECTOR + u64::from(offset), size as usize)?;
        }
        if let Some(name) = name {
            entry.name = name;
            entry.posix = true;
        }
        Ok(())
    }
}

/// The record that begins at `at`; `None` where there is none before the sector's end.
fn record_at(folder: &[u8], at: usize) -> Result<Option<&[u8]>> {
    let length = usize::from(folder.get(at).copied().unwrap_or(0));
    if length == 0 {
        return Ok(None);
    }
    match folder.get(at..at + length) {
        // 33 bytes, then the name.
        Some(record) if length >= 34 && 33 + usize::from(record[32]) <= length => Ok(Some(record)),
        _ => Err(damaged("a record is shorter than it can be, or crosses the end of its folder")),
    }
}

fn identifier(record: &[u8]) -> &[u8] {
    record.get(33..33 + usize::from(record[32])).unwrap_or_default()
}

/// What stands behind the name, which is padded to an even length.
fn system_use(record: &[u8]) -> &[u8] {
    let name = usize::from(record[32]);
    record.get(33 + name + usize::from(name % 2 == 0)..).unwrap_or_default()
}

/// Without the version, and without the dot of a name that has no extension (ECMA-119 7.5).
fn plain_name(identifier: &[u8]) -> Vec<u8> {
    let name = identifier.split(|&b| b == b';').next().unwrap_or_default();
    name.strip_suffix(b".").unwrap_or(name).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::{run, tool};

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let at = usize::try_from(offset).expect("small");
            buf.copy_from_slice(&self.0[at..at + buf.len()]);
            Ok(())
        }
    }

    fn content(image: &Bytes, path: &str) -> Result<Vec<u8>> {
        let Extent { offset, size } = Volume::open(image)?.file(path)?;
        let mut bytes = vec![0; usize::try_from(size).expect("small")];
        image.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn made(options: &[&str]) -> Option<Bytes> {
        let xorriso = tool("xorriso", "an ISO image by another writer")?;
        let dir = tempfile::tempdir().expect("dir");
        let long = "a-name-that-is-longer-than-any-record-of-a-folder-".repeat(5);
        std::fs::create_dir_all(dir.path().join("tree/casper/deep")).expect("made");
        std::fs::write(dir.path().join("tree/casper/vmlinuz"), "kernel").expect("written");
        std::fs::write(dir.path().join("tree/casper/deep").join(&long), "long").expect("written");
        for n in 0..200 {
            std::fs::write(dir.path().join(format!("tree/casper/{n}.cfg")), "x").expect("written");
        }
        std::os::unix::fs::symlink("vmlinuz", dir.path().join("tree/casper/link")).expect("linked");
        let words = [&["-as", "mkisofs", "-quiet", "-o", "out.iso"], options, &["tree"]].concat();
        run(dir.path(), &xorriso, &words);
        Some(Bytes(std::fs::read(dir.path().join("out.iso")).expect("read")))
    }

    #[test]
    fn files_of_another_writer_are_found_by_their_posix_names() {
        let Some(image) = made(&["-R", "-J"]) else { return };
        assert_eq!(content(&image, "casper/vmlinuz").expect("there"), b"kernel");
        let long = "a-name-that-is-longer-than-any-record-of-a-folder-".repeat(5);
        assert_eq!(content(&image, &format!("/casper/deep/{long}")).expect("there"), b"long");
        assert_eq!(content(&image, "casper/199.cfg").expect("there"), b"x");
        for (path, said) in [
            ("casper/VMLINUZ", "the medium has no `casper/VMLINUZ`"),
            ("casper", "`casper` on the medium is a folder"),
            ("casper/link", "`casper/link` on the medium is a link"),
            ("casper/vmlinuz/x", "`casper/vmlinuz` on the medium is no folder"),
        ] {
            assert_eq!(content(&image, path).expect_err("refused").what(), said);
        }
    }

    #[test]
    fn without_rock_ridge_plain_names_do_in_any_case() {
        let Some(image) = made(&["--norock", "-iso-level", "3"]) else { return };
        assert_eq!(content(&image, "casper/vmlinuz").expect("there"), b"kernel");
        assert_eq!(content(&image, "CASPER/7.CFG").expect("there"), b"x");
    }

    #[test]
    fn damage_never_panics_and_reads_nothing_outside() {
        let Some(image) = made(&["-R"]) else { return };
        // Every byte of descriptor and root folder, by turns the worst values.
        let root = le32(&image.0, 16 * SECTOR as usize + ROOT + 2) as usize * SECTOR as usize;
        let places = (16 * SECTOR as usize..16 * SECTOR as usize + 200).chain(root..root + 400);
        for at in places {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = image.0.clone();
                bytes[at] = value;
                let _ = content(&Bytes(bytes), "casper/vmlinuz");
            }
        }
        for size in [0, 5, 32 << 10, (16 << 11) + 2048, 40 << 10] {
            assert!(content(&Bytes(image.0[..size].to_vec()), "casper/vmlinuz").is_err(), "{size}");
        }
    }
}
