//! VMware's VMDK: one file with everything, or a descriptor and the files that it names.
//!
//! Source: VMware, Virtual Disk Format 5.0 (sections are named where they are used).

mod beside;
mod descriptor;
mod header;
mod memory;
mod sparse;
mod stream;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::descriptor::MARK;
use self::descriptor::{Descriptor, Place, Problem};
use self::header::{Header, SECTOR};
pub(super) use self::header::{MAGIC, MAGIC_ESX, MAGIC_SE};
use self::memory::Memory;
use self::sparse::Sparse;
use self::stream::Stream;
use super::joined::{Joined, Zeros};
use super::source::{OpenFile, Source};
use super::{damaged, too_large};
use crate::error::{Error, Result};
use crate::image::slice::Slice;
use crate::image::{Limits, ReadAt};

/// What [`open`] gives.
pub(super) struct Opened {
    pub(super) reader: Arc<dyn ReadAt>,
    pub(super) notes: Vec<String>,
    /// The files beside the descriptor that were opened.
    pub(super) files: Vec<Arc<OpenFile>>,
}

/// Opens a disk by its descriptor, or by the file that holds everything.
pub(super) fn open(file: Source, limits: &Limits) -> Result<Opened> {
    let head = file.read_up_to(0, SECTOR as usize)?;
    if [MAGIC, MAGIC_ESX, MAGIC_SE].iter().any(|magic| head.starts_with(magic)) {
        return whole(file, limits);
    }
    if !head.get(..MARK.len()).is_some_and(|mark| mark.eq_ignore_ascii_case(MARK)) {
        return Err(bad(&file, "it begins neither with a header nor with a descriptor"));
    }
    let descriptor = parse(&file, &descriptor_text(&file, 0, file.size())?)?;
    split(&file, &descriptor, limits)
}

/// A file with a header, a descriptor inside, and one extent: itself.
fn whole(file: Source, limits: &Limits) -> Result<Opened> {
    let header = Header::read(&file)?;
    // The extents of a disk in pieces may have room for a descriptor, and none in it.
    let text = match header.descriptor.clone() {
        Some(range) => descriptor_text(&file, range.start, range.end)?,
        None => vec![],
    };
    if text.iter().all(|b| *b == 0) {
        return Err(refused(&file, "one extent of a disk, without the disk's descriptor").hint(
            "Give the disk's descriptor file, which is the one without a number in its name.",
        ));
    }
    let descriptor = parse(&file, &text)?;
    // The name in the line is the file's own as it was when it was made; nothing is opened by it.
    match descriptor.extents.as_slice() {
        [extent] if !matches!(extent.place, Place::Sparse { .. }) => {
            return Err(refused(
                &file,
                "a descriptor in a sparse extent that names another extent",
            ));
        }
        [extent] if extent.sectors != header.capacity => {
            return Err(bad(
                &file,
                format!(
                    "its header says {} sectors, its descriptor {}",
                    header.capacity, extent.sectors
                ),
            ));
        }
        [_] => {}
        more => {
            let what = format!("a descriptor in a sparse extent that names {} extents", more.len());
            return Err(refused(&file, &what));
        }
    }
    let mut notes = vec![];
    let reader = sparse(file, header, limits.disk_size, &mut Memory::new(), &mut notes)?;
    Ok(Opened { reader, notes, files: vec![] })
}

/// The extents that a descriptor names, one behind the other.
fn split(image: &Source, descriptor: &Descriptor, limits: &Limits) -> Result<Opened> {
    let sectors = descriptor.extents.iter().try_fold(0u64, |sum, e| sum.checked_add(e.sectors));
    let size = sectors.and_then(|sum| sum.checked_mul(SECTOR)).unwrap_or(u64::MAX);
    if size > limits.disk_size {
        return Err(too_large(image, size, limits.disk_size));
    }
    let mut notes = vec![];
    let mut memory = Memory::new();
    let mut files = Files::default();
    let mut parts: Vec<Arc<dyn ReadAt>> = vec![];
    for extent in &descriptor.extents {
        let length = extent.sectors * SECTOR;
        parts.push(match &extent.place {
            Place::Zero => Arc::new(Zeros(length)),
            Place::Flat { name, sector } => {
                let file = files.open(image, name)?;
                let start = sector.checked_mul(SECTOR).unwrap_or(u64::MAX);
                if start.checked_add(length).is_none_or(|end| end > file.size()) {
                    let why = format!("`{}` is shorter than the descriptor says", file.name());
                    return Err(bad(image, why));
                }
                files.take(image, name, start, length)?;
                Arc::new(Slice::new(Arc::new(file), start, length)?)
            }
            Place::Sparse { name } => {
                let file = files.open(image, name)?;
                files.take(image, name, 0, u64::MAX)?;
                let header = Header::read(&file)?;
                if header.capacity != extent.sectors {
                    return Err(bad(
                        image,
                        format!(
                            "it says {} sectors for `{}`, which itself says {}",
                            extent.sectors,
                            file.name(),
                            header.capacity
                        ),
                    ));
                }
                sparse(file, header, limits.disk_size, &mut memory, &mut notes)?
            }
        });
    }
    if !files.list.is_empty() {
        let count = files.list.len();
        notes.push(match count {
            1 => "the disk's bytes are in one more file beside it".to_owned(),
            _ => format!("the disk's bytes are in {count} more files beside it"),
        });
    }
    Ok(Opened { reader: Arc::new(Joined::new(parts)?), notes, files: files.list })
}

/// A sparse extent of either kind.
fn sparse(
    file: Source,
    header: Header,
    most: u64,
    memory: &mut Memory,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn ReadAt>> {
    let size = header.size(&file)?;
    if size > most {
        return Err(too_large(&file, size, most));
    }
    if header.unclean {
        notes.push(format!("`{}` was not closed properly by its last user", file.name()));
    }
    let share = memory.share(&file, &header)?;
    Ok(match &share.grains {
        Some(grains) => Arc::new(Stream::open(file, header, &share, grains.clone())?),
        None => Arc::new(Sparse::open(file, header, &share)?),
    })
}

/// The files that are open for one disk.
#[derive(Default)]
struct Files {
    open: HashMap<PathBuf, Source>,
    /// Bytes of each file that belong to an extent.
    taken: HashMap<PathBuf, Vec<(u64, u64)>>,
    list: Vec<Arc<OpenFile>>,
}

impl Files {
    /// Opens a file, once.
    fn open(&mut self, image: &Source, name: &Path) -> Result<Source> {
        if let Some(known) = self.open.get(name) {
            return Ok(known.clone());
        }
        let file = beside::open(image, name)?;
        self.list.extend(file.opened());
        self.open.insert(name.to_path_buf(), file.clone());
        Ok(file)
    }

    /// Marks bytes of a file as used. No byte belongs to two extents, or a small descriptor could
    /// claim any amount of data.
    fn take(&mut self, image: &Source, name: &Path, start: u64, length: u64) -> Result<()> {
        let end = start.saturating_add(length);
        let taken = self.taken.entry(name.to_path_buf()).or_default();
        if taken.iter().any(|(from, to)| *from < end && start < *to) {
            return Err(bad(
                image,
                format!("two of its extents are the same bytes of `{}`", name.display()),
            ));
        }
        taken.push((start, end));
        Ok(())
    }
}

/// The descriptor in bytes `start..end` of `file`.
fn descriptor_text(file: &Source, start: u64, end: u64) -> Result<Vec<u8>> {
    let length = end.saturating_sub(start);
    if length > descriptor::MAX_BYTES || end > file.size() {
        let why =
            format!("its descriptor of {length} bytes at byte {start} is too big or cut short");
        return Err(bad(file, why));
    }
    file.read_up_to(start, usize::try_from(length).unwrap_or(0))
}

fn parse(file: &Source, text: &[u8]) -> Result<Descriptor> {
    Descriptor::parse(text).map_err(|problem| match problem {
        Problem::Damaged(why) => bad(file, why),
        Problem::Feature(what) => refused(file, &what),
    })
}

fn bad(file: &Source, why: impl std::fmt::Display) -> Error {
    damaged(file, why)
}

fn refused(file: &Source, feature: &str) -> Error {
    Error::undetermined(format!(
        "`{}` uses a VMDK feature that is not read: {feature}",
        file.name()
    ))
    .hint(
        "Convert it with `qemu-img convert -f vmdk -O qcow2`, if you trust it, and use the result.",
    )
}
