//! The header, its extensions, and which features are read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::image::ReadAt as _;
use crate::image::container::source::Source;
use crate::image::container::{Format, too_large};
use crate::image::field::{be32, be64};

/// The first four bytes (section "Header").
pub(in crate::image::container) const MAGIC: [u8; 4] = *b"QFI\xfb";

const V2_LENGTH: usize = 72;
const V3_LENGTH: usize = 104;
/// Bounds of QEMU's own driver: clusters of 512 bytes to 2 MiB, an L1 table of 32 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
const MAX_L1_BYTES: u64 = 32 << 20;
/// Longest name of a backing file (section "Header").
const MAX_BACKING_NAME: u32 = 1023;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// Smallest cluster with extended entries: 32 subclusters of a sector (section "Extended L2 Entries").
const EXTENDED_CLUSTER_BITS: u32 = 14;

/// How compressed clusters are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Zlib,
    Zstd,
}

/// The backing file that an image names.
#[derive(Debug)]
pub(super) struct BackingName {
    pub(super) path: PathBuf,
    format: Option<Vec<u8>>,
}

/// What the header says, checked.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Guest-visible size in bytes.
    pub(super) size: u64,
    pub(super) l1_offset: u64,
    /// As many entries as the size needs; the table may have more.
    pub(super) l1_entries: usize,
    pub(super) compression: Compression,
    /// Whether second-level entries have 128 bits, with the state of 32 subclusters.
    pub(super) extended: bool,
    pub(super) backing: Option<BackingName>,
    pub(super) notes: Vec<String>,
}

impl Header {
    /// Log2 of the entries of one second-level table.
    pub(super) fn l2_bits(&self) -> u32 {
        l2_bits(self.cluster_bits, self.extended)
    }

    /// Log2 of the bytes that have one state: a cluster, or one of its 32 subclusters.
    pub(super) fn unit_bits(&self) -> u32 {
        if self.extended { self.cluster_bits - 5 } else { self.cluster_bits }
    }

    pub(super) fn read(file: &Source, max_size: u64) -> Result<Self> {
        let path = file.name();
        let bad = |why: String| {
            Error::undetermined(format!("`{path}` is not a sound qcow2 image"))
                .cause(why)
                .hint("Look at it with `qemu-img check`, or fetch or build the image again.")
        };
        let refuse = |feature: &str| {
            Error::undetermined(format!(
                "`{path}` uses a qcow2 feature that is not read: {feature}"
            ))
            .hint("Convert it with `qemu-img convert -O qcow2`, and use the result.")
        };

        let fixed = file.read_up_to(0, V3_LENGTH + 8)?;
        if !fixed.starts_with(&MAGIC) {
            return Err(bad("it does not begin with the qcow2 mark".to_owned())
                .hint("Give the format that the file has."));
        }
        if fixed.len() < V2_LENGTH {
            return Err(bad(format!("it ends after {} bytes, inside the header", fixed.len())));
        }
        let version = be32(&fixed, 4);
        if !(2..=3).contains(&version) {
            return Err(refuse(&format!("version {version}")));
        }
        let cluster_bits = be32(&fixed, 20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(bad(format!("it claims clusters of 2^{cluster_bits} bytes")));
        }
        let mut notes = vec![];
        let mut header_length = V2_LENGTH;
        let mut compression = Compression::Zlib;
        let (mut extended, mut data_file) = (false, false);
        if version == 3 {
            if fixed.len() < V3_LENGTH {
                return Err(bad(format!("it ends after {} bytes, inside the header", fixed.len())));
            }
            header_length = be32(&fixed, 100) as usize;
            if header_length < V3_LENGTH
                || !header_length.is_multiple_of(8)
                || header_length > 1 << cluster_bits
            {
                return Err(bad(format!("it claims a header of {header_length} bytes")));
            }
            let incompatible = be64(&fixed, 72);
            check_features(incompatible, &mut notes).map_err(|f| match f {
                Feature::Unread(name) => refuse(&name),
                Feature::Corrupt => Error::undetermined(format!("`{path}` is marked corrupt"))
                    .hint("Look at it with `qemu-img check`, or fetch or build the image again."),
            })?;
            extended = incompatible & EXTENDED_L2 != 0;
            data_file = incompatible & DATA_FILE != 0;
            if extended && cluster_bits < EXTENDED_CLUSTER_BITS {
                return Err(bad(format!("it claims subclusters of 2^{cluster_bits} bytes in 32")));
            }
            // The field exists only where the header is long enough; zero means zlib.
            let kind =
                if header_length > V3_LENGTH { fixed.get(104).copied().unwrap_or(0) } else { 0 };
            compression = match (incompatible & COMPRESSION_TYPE != 0, kind) {
                (false, 0) => Compression::Zlib,
                (true, 1) => Compression::Zstd,
                (_, kind) => return Err(refuse(&format!("compression type {kind}"))),
            };
        }
        match be32(&fixed, 32) {
            0 => {}
            1 => return Err(refuse("encryption (AES)")),
            2 => return Err(refuse("encryption (LUKS)")),
            method => return Err(refuse(&format!("encryption (method {method})"))),
        }
        let snapshots = be32(&fixed, 60);
        if snapshots != 0 {
            notes.push(format!("{snapshots} internal snapshots of the image are not looked at"));
        }

        let size = be64(&fixed, 24);
        if size > max_size {
            return Err(too_large(file, size, max_size));
        }
        if !size.is_multiple_of(512) {
            return Err(bad(format!("its size of {size} bytes is not a whole number of sectors")));
        }
        let (l1_offset, l1_entries) =
            l1_range(&fixed, size, cluster_bits, extended, file.size()).map_err(&bad)?;

        let first_cluster = file.read_up_to(0, 1 << cluster_bits)?;
        // The list ends where the backing file's name begins, which old images put without an end mark.
        let end = match usize::try_from(be64(&fixed, 8)) {
            Ok(name) if (header_length..first_cluster.len()).contains(&name) => name,
            _ => first_cluster.len(),
        };
        let extensions = Extensions::read(&first_cluster[..end], header_length).map_err(&bad)?;
        if extensions.encrypted {
            return Err(refuse("encryption (LUKS)"));
        }
        if data_file || extensions.data_file.is_some() {
            let name = extensions.data_file.unwrap_or_default();
            let name = String::from_utf8_lossy(&name).escape_debug().to_string();
            return Err(refuse(&format!("external data file `{name}`")));
        }
        if extensions.bitmaps > 0 {
            notes.push(format!("{} bitmaps of the image are not looked at", extensions.bitmaps));
        }
        let backing =
            backing_name(&fixed, &first_cluster, extensions.backing_format).map_err(&bad)?;
        Ok(Header {
            version,
            cluster_bits,
            size,
            l1_offset,
            l1_entries,
            compression,
            extended,
            backing,
            notes,
        })
    }
}

fn l2_bits(cluster_bits: u32, extended: bool) -> u32 {
    cluster_bits - if extended { 4 } else { 3 }
}

enum Feature {
    Unread(String),
    Corrupt,
}

/// Every incompatible feature bit must be known (section "Header", bytes 72 to 79).
fn check_features(bits: u64, notes: &mut Vec<String>) -> Result<(), Feature> {
    let unknown = bits & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return Err(Feature::Unread(format!("unknown feature bit {}", unknown.trailing_zeros())));
    }
    if bits & CORRUPT != 0 {
        return Err(Feature::Corrupt);
    }
    if bits & DIRTY != 0 {
        // Only reference counts can be wrong then, and reading does not use them.
        notes.push("the image was not closed properly; its data is whole".to_owned());
    }
    Ok(())
}

/// The first-level table's place and the number of entries that the disk needs.
fn l1_range(
    fixed: &[u8],
    size: u64,
    cluster_bits: u32,
    extended: bool,
    file_size: u64,
) -> Result<(u64, usize), String> {
    let per_entry = 1u64 << (cluster_bits + l2_bits(cluster_bits, extended));
    let needed = size.div_ceil(per_entry);
    let entries = u64::from(be32(fixed, 36));
    let offset = be64(fixed, 40);
    if entries * 8 > MAX_L1_BYTES {
        return Err(format!("its L1 table of {entries} entries is bigger than 32 MiB"));
    }
    if needed > entries {
        return Err(format!("its L1 table of {entries} entries is too small for {size} bytes"));
    }
    if !offset.is_multiple_of(1 << cluster_bits) {
        return Err("its L1 table is not on a cluster boundary".to_owned());
    }
    if offset.checked_add(entries * 8).is_none_or(|end| end > file_size) {
        return Err(format!(
            "its L1 table at byte {offset} is outside the file of {file_size} bytes"
        ));
    }
    let needed = usize::try_from(needed).map_err(|_| "its L1 table is too big".to_owned())?;
    Ok((offset, needed))
}

#[derive(Debug, Default)]
struct Extensions {
    backing_format: Option<Vec<u8>>,
    encrypted: bool,
    data_file: Option<Vec<u8>>,
    bitmaps: u32,
}

impl Extensions {
    /// Walks the list behind the header (section "Header extensions").
    fn read(cluster: &[u8], header_length: usize) -> Result<Self, String> {
        let mut found = Extensions::default();
        let mut at = header_length;
        while let Some(head) = cluster.get(at..at + 8) {
            let (kind, length) = (be32(head, 0), be32(head, 4) as usize);
            if kind == EXTENSION_END {
                break;
            }
            let start = at + 8;
            let Some(data) = cluster.get(start..).and_then(|rest| rest.get(..length)) else {
                return Err(format!("header extension {kind:#x} does not end where the list ends"));
            };
            match kind {
                EXTENSION_BACKING_FORMAT => found.backing_format = Some(data.to_vec()),
                EXTENSION_ENCRYPTION => found.encrypted = true,
                EXTENSION_DATA_FILE => found.data_file = Some(data.to_vec()),
                EXTENSION_BITMAPS if data.len() >= 4 => found.bitmaps = be32(data, 0),
                _ => {}
            }
            at = start + length.next_multiple_of(8);
        }
        Ok(found)
    }
}

fn backing_name(
    fixed: &[u8],
    cluster: &[u8],
    format: Option<Vec<u8>>,
) -> Result<Option<BackingName>, String> {
    let (offset, length) = (be64(fixed, 8), be32(fixed, 16));
    if offset == 0 {
        return Ok(None);
    }
    if length > MAX_BACKING_NAME {
        return Err(format!("its backing file's name has {length} bytes"));
    }
    let name = usize::try_from(offset)
        .ok()
        .and_then(|at| cluster.get(at..))
        .and_then(|rest| rest.get(..length as usize))
        .ok_or("its backing file's name is outside the first cluster")?;
    if name.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(OsStr::from_bytes(name));
    Ok(Some(BackingName { path, format }))
}

impl BackingName {
    /// The format, if the image says it and it is one that is read here. It is never probed: the
    /// bytes of a raw backing file belong to the guest.
    pub(super) fn format(&self) -> Result<Format, String> {
        // `json:…`, `nbd://…`: QEMU would connect to what the image says.
        let name = self.path.as_os_str().as_bytes();
        let slash = name.iter().position(|b| *b == b'/').unwrap_or(name.len());
        if name[..slash].contains(&b':') || name.contains(&0) {
            return Err("it is not a plain path".to_owned());
        }
        match self.format.as_deref() {
            Some(b"raw") => Ok(Format::Raw),
            Some(b"qcow2") => Ok(Format::Qcow2),
            Some(other) => {
                Err(format!("its format is `{}`", String::from_utf8_lossy(other).escape_debug()))
            }
            None => Err("the image does not say its format".to_owned()),
        }
    }
}
