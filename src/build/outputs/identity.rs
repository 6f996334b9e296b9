//! The ids that containers carry besides the disk. `qemu-img` draws them at random or takes them from
//! the clock; here they follow from the box, so that the same box gives the same bytes.
//!
//! Sources: VMware "Virtual Disk Format 5.0"; Microsoft "Virtual Hard Disk Image Format Specification"
//! 1.0, "Hard Disk Footer Format"; [MS-VHDX] 2.2.2 "Headers", 2.5 "Metadata Region".

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fs_err as fs;

use crate::digest::{BytesDigest, sha256};
use crate::error::{Error, Result};
use crate::image::container::Format;
use crate::image::crc32c::{START, crc32c_without};
use crate::image::field::{le32, le64};

/// VHD counts seconds since the year 2000.
const YEAR_2000: i64 = 946_684_800;
/// Where a VHDX has its two headers, and how long one is.
const HEADERS: ([u64; 2], usize) = ([64 << 10, 128 << 10], 4096);
/// Where a VHDX lists its regions.
const REGIONS: u64 = 192 << 10;
/// The metadata region, and in it the item that names the disk (page 83), as GUIDs in the file.
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const DISK_ID: [u8; 16] = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
/// Longest descriptor of a VMDK, in bytes; QEMU's has 10 KiB.
const DESCRIPTOR: u64 = 1 << 20;

/// What the ids are made of.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    bytes1: BytesDigest,
    epoch: i64,
}

impl Identity {
    /// Of a disk with these bytes, of this date.
    pub(super) fn new(bytes1: BytesDigest, epoch: i64) -> Self {
        Identity { bytes1, epoch }
    }

    /// 16 bytes for the purpose `what`, in the form of a random UUID (RFC 9562, version 4).
    pub(super) fn uuid(&self, what: &str) -> [u8; 16] {
        let hash = sha256(format!("devbox/{what}/1\n{}\n", self.bytes1).as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        id
    }

    /// Replaces the ids of the image at `path`.
    ///
    /// # Errors
    /// The image has another form than `qemu-img` writes.
    pub(super) fn settle(&self, path: &Path, format: Format) -> Result<()> {
        if matches!(format, Format::Raw | Format::Qcow2) {
            return Ok(());
        }
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let image = Image { file: file.file(), path };
        match format {
            Format::Vmdk => self.vmdk(&image),
            Format::Vhd => self.vhd(&image),
            _ => self.vhdx(&image),
        }
    }

    /// The content id of a VMDK, in the text of its descriptor.
    fn vmdk(&self, image: &Image<'_>) -> Result<()> {
        let head = image.read(0, 512)?;
        let (at, length) = (le64(&head, 28) * 512, le64(&head, 36) * 512);
        if !head.starts_with(b"KDMV") || length > DESCRIPTOR {
            return Err(image.unknown());
        }
        let mut text = image.read(at, usize::try_from(length).unwrap_or_default())?;
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        let id = u32::from_le_bytes([0, 1, 2, 3].map(|n| self.bytes1.as_bytes()[n]));
        // The two highest mean that there is none.
        let id = id.min(u32::MAX - 2);
        let said = String::from_utf8_lossy(&text[..end]).into_owned();
        let line =
            said.lines().find(|line| line.starts_with("CID=")).ok_or_else(|| image.unknown())?;
        let said = said.replacen(line, &format!("CID={id:08x}"), 1);
        if said.len() > text.len() {
            return Err(image.unknown());
        }
        text.fill(0);
        text[..said.len()].copy_from_slice(said.as_bytes());
        image.write(&text, at)
    }

    /// Time and id in the footer of a fixed VHD.
    fn vhd(&self, image: &Image<'_>) -> Result<()> {
        let size = image.file.metadata()?.len();
        let at = size.checked_sub(512).ok_or_else(|| image.unknown())?;
        let mut footer = image.read(at, 512)?;
        if !footer.starts_with(b"conectix") {
            return Err(image.unknown());
        }
        let time = u32::try_from(self.epoch - YEAR_2000).unwrap_or(0);
        footer[24..28].copy_from_slice(&time.to_be_bytes());
        footer[68..84].copy_from_slice(&self.uuid("vhd"));
        footer[64..68].fill(0);
        let sum = footer.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        image.write(&footer, at)
    }

    /// The ids in the headers and metadata of a VHDX. Its log, which QEMU has written to its end and
    /// leaves behind, is emptied: reading back proves that nothing in it was missing elsewhere.
    fn vhdx(&self, image: &Image<'_>) -> Result<()> {
        let (places, length) = HEADERS;
        for (number, at) in places.into_iter().enumerate() {
            let mut header = image.read(at, length)?;
            if !header.starts_with(b"head") {
                return Err(image.unknown());
            }
            let (log, log_length) = (le64(&header, 72), le32(&header, 68));
            header[8..16].copy_from_slice(&(number as u64 + 1).to_le_bytes());
            header[16..32].copy_from_slice(&self.uuid("vhdx-file"));
            header[32..48].copy_from_slice(&self.uuid("vhdx-data"));
            header[48..64].fill(0);
            let crc = !crc32c_without(START, &header, &[(4, 4)]);
            header[4..8].copy_from_slice(&crc.to_le_bytes());
            image.write(&header, at)?;
            image.write(&vec![0; log_length.min(1 << 26) as usize], log)?;
        }
        let regions = image.read(REGIONS, 64 << 10)?;
        let metadata = entry(&regions, 16, &METADATA).map(|entry| le64(entry, 16));
        let metadata = metadata.ok_or_else(|| image.unknown())?;
        let table = image.read(metadata, 64 << 10)?;
        let id = entry(&table, 32, &DISK_ID).map(|entry| le32(entry, 16));
        let id = id.ok_or_else(|| image.unknown())?;
        image.write(&self.uuid("vhdx-disk"), metadata + u64::from(id))
    }
}

/// The entry of 32 bytes with this GUID, in a table whose entries begin at `first`. Both tables have
/// their number of entries within the first 16 bytes; what follows is zeros.
fn entry<'t>(table: &'t [u8], first: usize, guid: &[u8; 16]) -> Option<&'t [u8]> {
    let entries = table.get(first..)?.chunks_exact(32);
    entries.take(64).find(|entry| entry.starts_with(guid))
}

/// An image that is open for writing.
struct Image<'a> {
    file: &'a std::fs::File,
    path: &'a Path,
}

impl Image<'_> {
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; length];
        self.file.read_exact_at(&mut buf, at).map_err(|e| self.unknown().cause(e))?;
        Ok(buf)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|e| Error::from(e).context(format!("cannot write `{}`", self.path.display())))
    }

    fn unknown(&self) -> Error {
        Error::failed(format!(
            "`{}` is not in the form that `qemu-img` writes",
            self.path.display()
        ))
        .hint("Report it with the version of `qemu-img` (`qemu-img --version`).")
    }
}
