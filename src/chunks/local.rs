//! The chunks of boxes that are here already.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use rayon::prelude::*;

use super::copy::{Target, Woven};
use super::index::{Entry, Index, encode_table, parse_table};
use super::pack::{Packed, Whole};
use super::plan::{Numbered, numbered};
use super::varint::{Bytes, put};
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};

/// Largest description of a disk that is read, in bytes: an index, its tables, its packs.
const MAX: u64 = 256 << 20;

/// Chunks by their digests, each in one of some disks.
#[derive(Debug, Default)]
pub struct Local {
    disks: Vec<Woven>,
    chunks: HashMap<FileDigest, (usize, Numbered)>,
    tables: HashMap<FileDigest, Vec<Entry>>,
}

impl Local {
    /// Adds the disk in the file at `path`, which is described by `whole`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn add(&mut self, path: &Path, whole: &Whole) -> Result<()> {
        let file: File = fs_err::File::open(path)?.into_parts().0;
        let number = self.disks.len();
        self.disks.push(Woven::new(file, &whole.index.weave));
        for chunk in numbered(&whole.index, &whole.tables) {
            self.chunks.entry(chunk.entry.id).or_insert((number, chunk));
        }
        for ((head, table), _) in whole.index.packs.iter().zip(&whole.tables).zip(&whole.packs) {
            self.tables.entry(head.table).or_insert_with(|| table.clone());
        }
        Ok(())
    }

    /// The table with this digest, if the pack of one of the disks has it.
    #[must_use]
    pub fn table(&self, digest: FileDigest) -> Option<&[Entry]> {
        self.tables.get(&digest).map(|table| &**table)
    }

    /// Copies what is here of `chunks` into `target`; those that are not here. Whether a copy is right shows when the whole is hashed.
    ///
    /// # Errors
    /// `target` cannot be written.
    pub fn copy(&self, chunks: &[Numbered], target: &Target) -> Result<Vec<Numbered>> {
        let copy = |wanted: &Numbered| {
            let Some((disk, here)) = self.chunks.get(&wanted.entry.id) else {
                return Ok(Some(*wanted));
            };
            let Some(disk) = self.disks.get(*disk) else { return Ok(Some(*wanted)) };
            if target.copy(wanted, disk, here) {
                return Ok(None);
            }
            // A disk that cannot be read is as good as one that is not here.
            match disk.read(here.strand, here.blocks()) {
                Ok(bytes) => target.write(wanted, &bytes).map(|()| None),
                Err(_) => Ok(Some(*wanted)),
            }
        };
        let left: Vec<_> = chunks.par_iter().map(copy).collect::<Result<_>>()?;
        Ok(left.into_iter().flatten().collect())
    }
}

/// A description as a file, to be kept beside the disk: it can be made again from it.
///
/// # Errors
/// zstd has no memory.
pub fn encode(whole: &Whole) -> Result<Vec<u8>> {
    let index = whole.index.encode()?;
    let mut out = vec![];
    put(&mut out, index.len() as u64);
    out.extend_from_slice(&index);
    for table in &whole.tables {
        out.extend_from_slice(&encode_table(table));
    }
    put(&mut out, whole.packs.len() as u64);
    for pack in &whole.packs {
        out.extend_from_slice(pack.digest.as_bytes());
        put(&mut out, pack.size);
    }
    Ok(out)
}

/// What [`encode`] wrote to the file at `path`, if it describes the disk with this digest.
///
/// # Errors
/// There is none, or it is damaged or that of another disk.
pub fn read(path: &Path, disk: FileDigest) -> Result<Whole> {
    let size = fs_err::metadata(path)?.len();
    if size > MAX {
        return Err(Error::undetermined(format!("`{}` has {size} bytes", path.display())));
    }
    parse(&fs_err::read(path)?)
        .and_then(|whole| match whole.index.digest == disk {
            true => Ok(whole),
            false => Err(Error::undetermined("it describes another disk")),
        })
        .context(|| format!("`{}` cannot be read", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Whole> {
    let mut bytes = Bytes(bytes);
    let length = usize::try_from(bytes.at_most(MAX, "the size of the index")?).unwrap_or(0);
    let index = Index::parse(bytes.take(length)?)?;
    let mut tables = vec![];
    for pack in &index.packs {
        let table = bytes.take(usize::try_from(pack.table_size).unwrap_or(usize::MAX))?;
        if FileDigest::of(table) != pack.table {
            return Err(Error::undetermined("a table is damaged"));
        }
        tables.push(parse_table(table, pack.chunks, None)?);
    }
    index.check(&tables)?;
    let count = bytes.number()?;
    let mut packs = vec![];
    for _ in 0..count {
        packs.push(Packed { digest: bytes.digest()?, size: bytes.number()? });
    }
    bytes.end()?;
    if !packs.is_empty() && packs.len() != index.packs.len() {
        return Err(Error::undetermined("it has too few packs"));
    }
    Ok(Whole { index, tables, packs })
}
