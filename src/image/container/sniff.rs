//! Finds the format of a disk image by its content.

use super::source::Source;
use super::{Format, qcow2, vhd, vhdx, vmdk};
use crate::error::{Error, Result};
use crate::image::ReadAt as _;

pub(super) struct Found {
    pub(super) format: Format,
    pub(super) notes: Vec<String>,
}

/// Formats that are known and not read, so that a person learns what the file is: where the mark
/// stands, the mark, and the name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (64, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"QED\0", "a QED disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"LUKS\xba\xbe", "a LUKS-encrypted disk"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"PK\x03\x04", "a zip file"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file"),
    (0, b"LZIP\x01", "an lzip file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip file"),
    (0, b"Rar!\x1a\x07", "a RAR file"),
    // Older than xz, and without a mark: the usual properties, and a size that is not known.
    (0, b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff", "an lzma file"),
];

/// The format that the first bytes show.
fn by_head(head: &[u8]) -> Option<Format> {
    let vmdk = [vmdk::MAGIC, vmdk::MAGIC_ESX, vmdk::MAGIC_SE];
    let mark = head.get(..vmdk::MARK.len());
    if head.starts_with(&qcow2::MAGIC) {
        Some(Format::Qcow2)
    } else if head.starts_with(vhdx::MAGIC) {
        Some(Format::Vhdx)
    } else if vmdk.iter().any(|magic| head.starts_with(magic))
        || mark.is_some_and(|mark| mark.eq_ignore_ascii_case(vmdk::MARK))
    {
        Some(Format::Vmdk)
    } else {
        None
    }
}

pub(super) fn format_of(file: &Source) -> Result<Found> {
    let head = file.read_up_to(0, 512)?;
    if let Some(format) = by_head(&head) {
        // Whoever reads the end first sees another disk.
        if vhd::ends_as_fixed(file)? {
            let (name, first) = (file.name(), format.as_str());
            return Err(Error::undetermined(format!(
                "`{name}` begins as {first} and ends as a VHD"
            ))
            .hint("Give the format that it has."));
        }
        return Ok(Found { format, notes: vec![] });
    }
    if let Some(notes) = vhd::probe(file)? {
        return Ok(Found { format: Format::Vhd, notes });
    }
    let other = OTHERS
        .iter()
        .find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
    if let Some((_, _, name)) = other {
        return Err(Error::undetermined(format!("`{}` is {name}", file.name()))
            .cause("disks are read as raw, qcow2, vhd, vhdx and vmdk")
            .hint(
                "Unpack it, or convert it with `qemu-img convert -O qcow2`, and use the result.",
            ));
    }
    if file.size() == 0 {
        return Err(Error::undetermined(format!("`{}` is empty", file.name()))
            .hint("Fetch or build the image again."));
    }
    Ok(Found { format: Format::Raw, notes: vec![] })
}

/// Whether a file has the mark of a container, one that is read or one that is not.
pub(super) fn has_mark(file: &Source) -> Result<bool> {
    if file.size() == 0 {
        return Ok(false);
    }
    Ok(format_of(file).map_or_else(|_| true, |found| found.format != Format::Raw))
}

/// What to say when the format was given and the content looks like another one.
pub(super) fn notes_for(file: &Source, asked: Format) -> Result<Vec<String>> {
    if asked != Format::Raw {
        return Ok(vec![]);
    }
    let looks_like = match format_of(file) {
        Ok(found) if found.format == Format::Raw => return Ok(vec![]),
        Ok(found) => found.format.as_str().to_owned(),
        Err(e) => e.what().to_owned(),
    };
    Ok(vec![format!(
        "read as raw, as asked, though its content looks like another format ({looks_like})"
    )])
}
