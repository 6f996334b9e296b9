//! The file that holds a disk: finds its format by content, never by its name, and reads the bytes
//! that a guest would see.

pub(crate) mod cache;
mod joined;
mod mapped;
mod packed;
pub mod qcow2;
pub mod raw;
mod sniff;
pub mod source;
mod vhd;
mod vhdx;
mod vmdk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::source::{OpenFile, Source};
use super::limits::Limit;
use super::{Limits, ReadAt};
use crate::error::{Error, Result};

/// A container format that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The plain bytes of the disk.
    Raw,
    /// QEMU's qcow2, version 2 or 3.
    Qcow2,
    /// Microsoft VHD, fixed or dynamic.
    Vhd,
    /// Microsoft VHDX, fixed or dynamic.
    Vhdx,
    /// VMware's VMDK: flat, sparse or stream-optimised.
    Vmdk,
}

impl Format {
    /// The name that devbox shows and that specs use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Vmdk => "vmdk",
        }
    }

    /// QEMU's name of the driver (`-blockdev driver=…`, `qemu-img -f`).
    #[must_use]
    pub fn qemu_driver(self) -> &'static str {
        match self {
            Format::Vhd => "vpc",
            other => other.as_str(),
        }
    }
}

/// Whether a qcow2 overlay may name other files to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Backing {
    /// An image with a backing file is an error; the file that it names is not touched.
    #[default]
    Refuse,
    /// Backing files inside these folders (after resolving links) are opened.
    Within(Vec<PathBuf>),
}

/// How to open a container.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bounds for hostile input.
    pub limits: Limits,
    /// The format; found by content if absent.
    pub format: Option<Format>,
    /// What to do with backing files.
    pub backing: Backing,
    /// Where compressed images are unpacked, into files without a name; the system's folder for
    /// temporary files if absent.
    pub scratch: Option<PathBuf>,
}

/// An open disk image.
pub struct Container {
    /// The file.
    pub path: PathBuf,
    /// The format of what is in it.
    pub format: Format,
    /// What the image is wrapped in, such as a compressed archive; none if the file is the image.
    pub wrapping: Option<String>,
    /// The bytes that the guest sees; its size is the disk's size.
    pub reader: Arc<dyn ReadAt>,
    /// What a person should know about the file, in sentences without a full stop.
    pub notes: Vec<String>,
    /// The files whose bytes are the disk's: the image itself, then backing files of a qcow2, nearest
    /// first, with links resolved, or extents of a VMDK, in the order of its descriptor.
    pub files: Vec<Arc<OpenFile>>,
}

impl Container {
    /// The files besides the image itself.
    pub fn others(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().skip(1).map(|file| &*file.path)
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("size", &self.reader.size())
            .field("notes", &self.notes)
            .field("others", &self.others().collect::<Vec<_>>())
            .finish()
    }
}

/// Opens the disk image at `path`, read-only.
///
/// # Errors
/// Of kind `Undetermined`, and naming the file and what is wrong with it: the format is not one of
/// [`Format`], the file is damaged or cut short, it uses a feature that is not read, it names a
/// backing file that [`Options::backing`] does not allow, or it is beyond a limit. Of kind `Failed`
/// if the file cannot be opened.
pub fn open(path: &Path, options: &Options) -> Result<Container> {
    open_source(Source::open(path)?, options)
}

/// What the file at `path` is wrapped in, as in "a gzip-compressed file"; none if it is no archive
/// and not compressed. Nothing is unpacked.
///
/// # Errors
/// The file cannot be opened or read.
pub fn wrapping(path: &Path) -> Result<Option<String>> {
    packed::outermost(&Source::open(path)?)
}

/// As [`open`], of what is already open.
pub(crate) fn open_source(mut file: Source, options: &Options) -> Result<Container> {
    let opened = file.opened();
    let mut wrapping = None;
    let mut notes = vec![];
    // Who gives a format wants it read as that format, whatever it looks like.
    if options.format.is_none() {
        let unpacked = packed::unpack(file, options)?;
        notes.extend(unpacked.wrapping.iter().map(|what| format!("read from {what}")));
        notes.extend(unpacked.notes);
        (file, wrapping) = (unpacked.source, unpacked.wrapping);
    }
    let found = match options.format {
        Some(format) => sniff::Found { format, notes: sniff::notes_for(&file, format)? },
        None => sniff::format_of(&file)?,
    };
    let mut container = open_as(file.clone(), found.format, options)?;
    notes.extend(found.notes);
    container.notes.splice(0..0, notes);
    container.wrapping = wrapping;
    container.files.splice(0..0, opened);
    let size = container.reader.size();
    if size > options.limits.disk_size {
        return Err(too_large(&file, size, options.limits.disk_size));
    }
    container.reader = options.limits.timed(container.reader);
    Ok(container)
}

fn open_as(file: Source, format: Format, options: &Options) -> Result<Container> {
    let path = file.path().to_path_buf();
    let plain = |reader: Arc<dyn ReadAt>, notes| Container {
        path: path.clone(),
        format,
        wrapping: None,
        reader,
        notes,
        files: vec![],
    };
    match format {
        Format::Raw => Ok(plain(Arc::new(file), vec![])),
        Format::Vhd => {
            let opened = vhd::open(file, &options.limits)?;
            Ok(plain(opened.reader, opened.notes))
        }
        Format::Vhdx => {
            let opened = vhdx::open(file, &options.limits)?;
            Ok(plain(opened.reader, opened.notes))
        }
        Format::Vmdk => {
            let opened = vmdk::open(file, &options.limits)?;
            let vmdk::Opened { reader, notes, files } = opened;
            Ok(Container { path, format, wrapping: None, reader, notes, files })
        }
        Format::Qcow2 => {
            let opened = qcow2::open(file, options)?;
            Ok(Container {
                path,
                format,
                wrapping: None,
                reader: Arc::new(opened.reader),
                notes: opened.notes,
                files: opened.backing,
            })
        }
    }
}

/// A container whose structures contradict each other, or end before what they name.
fn damaged(file: &Source, why: impl std::fmt::Display) -> Error {
    Error::undetermined(format!("`{}` is truncated or damaged", file.name()))
        .cause(why)
        .hint("Fetch or build the image again, and check it against its published digest.")
}

/// A claimed size beyond the limit: believing it would cost hours, and a hostile file nothing.
fn too_large(file: &Source, size: u64, most: u64) -> Error {
    let what = format!("`{}` claims a disk of {size} bytes", file.name());
    Limit::DiskSize.exceeded(what, format!("{most} bytes"))
}

#[cfg(test)]
mod tests;
