//! The contents of a file in pieces, its checksums verified; an extent is unpacked about once.

use std::collections::VecDeque;

use super::extent::{Extent, Packed, Place};
use super::fault::damaged;
use super::inode::{self, Inode};
use super::key::{Key, kind};
use super::sums;
use super::superblock::Root;
use super::unpack::unpack;
use super::volume::Volume;
use super::walk::Cursor;
use crate::error::Result;
use crate::image::tree::Stretch;

/// Largest piece in bytes, as [`crate::image::tree::Filesystem::read_file`] promises; a multiple of
/// every sector.
const PIECE: u64 = 1 << 20;
/// How many unpacked extents are kept: a file that was written over in places goes back to the old
/// extent behind each place.
const KEPT: usize = 4;

/// A file to read.
pub(super) struct File<'a> {
    pub(super) volume: &'a Volume,
    /// The subvolume's tree.
    pub(super) root: Root,
    /// The tree of checksums.
    pub(super) sums: Root,
    pub(super) number: u64,
}

type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl File<'_> {
    /// The inode.
    ///
    /// # Errors
    /// Damage: among others that it is not there.
    pub(super) fn inode(&self) -> Result<Inode> {
        let key = Key::new(self.number, kind::INODE, 0);
        let cursor = Cursor::seek(self.volume, self.root, key)?;
        match cursor.item()? {
            Some((found, item)) if found == key => Inode::parse(self.number, item),
            _ => Err(damaged(inode::name(self.number), "it is not there")),
        }
    }

    /// Where all contents stand; `None` if some of them stand in the tree, are packed or have a
    /// second copy.
    ///
    /// # Errors
    /// Damage.
    pub(super) fn stretches(&self, inode: &Inode) -> Result<Option<Vec<Stretch>>> {
        let first = Key::new(self.number, kind::EXTENT_DATA, 0);
        let mut cursor = Cursor::seek(self.volume, self.root, first)?;
        let mut stretches = vec![];
        while let Some((key, item)) = cursor.item()? {
            if (key.object, key.kind) != (self.number, kind::EXTENT_DATA) {
                break;
            }
            let extent = Extent::parse(key, item, self.volume.sb.sector)?;
            match extent.place {
                Place::Zeros => {}
                Place::Plain(address) if extent.start < inode.size => {
                    let Some(places) = self.volume.places(address, extent.length)? else {
                        return Ok(None);
                    };
                    let mut start = extent.start;
                    for place in places {
                        let length = place.end - place.start;
                        stretches.push(Stretch { start, place });
                        start += length;
                    }
                }
                Place::Plain(_) => {}
                Place::Inline { .. } | Place::Packed(_) => return Ok(None),
            }
            cursor.advance()?;
        }
        Ok(Some(stretches))
    }

    /// Passes all contents to `sink`.
    ///
    /// # Errors
    /// Damage, or the sink's.
    pub(super) fn stream(&self, inode: &Inode, sink: Sink<'_>) -> Result<()> {
        let mut out = Out {
            file: self,
            has_sums: inode.has_sums(),
            size: inode.size,
            done: 0,
            buffer: Vec::new(),
            kept: VecDeque::new(),
            sink,
        };
        let sector = self.volume.sb.sector;
        let first = Key::new(self.number, kind::EXTENT_DATA, 0);
        let mut cursor = Cursor::seek(self.volume, self.root, first)?;
        let mut end = 0;
        while let Some((key, item)) = cursor.item()? {
            if (key.object, key.kind) != (self.number, kind::EXTENT_DATA) || out.is_done() {
                break;
            }
            let extent = Extent::parse(key, item, sector)?;
            if extent.start < end {
                return Err(damaged(
                    format_args!("the extent {key}"),
                    "it overlaps the one before",
                ));
            }
            // Inline contents are zeros up to the end of their sector.
            end = (extent.start + extent.length).next_multiple_of(u64::from(sector));
            out.zeros(extent.start)?;
            out.extent(&extent)?;
            cursor.advance()?;
        }
        out.zeros(inode.size)
    }
}

/// What has been passed on, and what is needed to go on.
struct Out<'a> {
    file: &'a File<'a>,
    has_sums: bool,
    /// Length of the file.
    size: u64,
    /// How much of it was passed on.
    done: u64,
    buffer: Vec<u8>,
    /// Unpacked extents, the last one used last.
    kept: VecDeque<(Packed, Vec<u8>)>,
    sink: Sink<'a>,
}

impl Out<'_> {
    fn is_done(&self) -> bool {
        self.done >= self.size
    }

    /// Passes `bytes` on, up to the end of the file.
    fn pass(&mut self, bytes: &[u8]) -> Result<()> {
        let rest = usize::try_from(self.size - self.done).unwrap_or(usize::MAX);
        let bytes = bytes.get(..rest).unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        self.done += bytes.len() as u64;
        (self.sink)(bytes)
    }

    /// Zeros up to byte `end` of the file.
    fn zeros(&mut self, end: u64) -> Result<()> {
        let end = end.min(self.size);
        if self.done >= end {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // At most 1 MiB.
        buffer.resize((end - self.done).min(PIECE) as usize, 0);
        while self.done < end {
            let length = usize::try_from(end - self.done).unwrap_or(usize::MAX).min(buffer.len());
            self.pass(&buffer[..length])?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn extent(&mut self, extent: &Extent<'_>) -> Result<()> {
        match extent.place {
            Place::Zeros => self.zeros(extent.start + extent.length),
            Place::Plain(address) => self.plain(address, extent.length),
            Place::Inline { bytes, compression: None } => self.pass(bytes),
            Place::Inline { bytes, compression: Some(kind) } => {
                let mut out = Vec::new();
                // At most 128 KiB, see `Extent::parse`.
                unpack(kind, bytes, self.file.volume.sb.sector, &mut out, extent.length as usize)
                    .ok_or_else(|| damaged(inode::name(self.file.number), "it cannot be unpacked"))?;
                self.pass(&out)
            }
            Place::Packed(packed) => self.packed(&packed, extent.length),
        }
    }

    fn plain(&mut self, address: u64, length: u64) -> Result<()> {
        let sector = u64::from(self.file.volume.sb.sector);
        let wanted = length.min((self.size - self.done).next_multiple_of(sector));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        while at < wanted {
            let piece = (wanted - at).min(PIECE);
            // At most 1 MiB.
            buffer.resize(piece as usize, 0);
            self.read(&mut buffer, address + at)?;
            self.pass(&buffer)?;
            at += piece;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], address: u64) -> Result<()> {
        let File { volume, sums: root, .. } = *self.file;
        let sums = match self.has_sums {
            true => Some(sums::read(volume, root, address, buffer.len() as u64)?),
            false => None,
        };
        let named = |e: crate::error::Error| {
            e.detail(format!("they belong to {}", inode::name(self.file.number)))
        };
        volume.contents(buffer, address, sums.as_deref()).map_err(named)
    }

    fn packed(&mut self, packed: &Packed, length: u64) -> Result<()> {
        let whole = Packed { offset: 0, ..*packed };
        let at = self.kept.iter().position(|(kept, _)| *kept == whole);
        let mut found = match at.and_then(|at| self.kept.remove(at)) {
            Some(kept) => kept,
            None => {
                let oldest = if self.kept.len() < KEPT { None } else { self.kept.pop_front() };
                let mut out = oldest.map(|(_, out)| out).unwrap_or_default();
                self.unpack(&whole, &mut out)?;
                (whole, out)
            }
        };
        let contents = std::mem::take(&mut found.1);
        // Both are at most 128 KiB, see `Extent::parse`.
        let (from, to) = (packed.offset as usize, (packed.offset + length) as usize);
        self.pass(contents.get(from..to).unwrap_or_default())?;
        self.kept.push_back((whole, contents));
        Ok(())
    }

    fn unpack(&mut self, whole: &Packed, out: &mut Vec<u8>) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        // At most 128 KiB both.
        buffer.resize(whole.packed as usize, 0);
        self.read(&mut buffer, whole.address)?;
        let sector = self.file.volume.sb.sector;
        unpack(whole.compression, &buffer, sector, out, whole.unpacked as usize).ok_or_else(
            || {
                damaged(
                    format_args!("the packed extent at address {}", whole.address),
                    "it cannot be unpacked",
                )
                .detail(format!("it belongs to {}", inode::name(self.file.number)))
            },
        )?;
        self.buffer = buffer;
        Ok(())
    }
}
