//! QEMU's qcow2, versions 2 and 3.
//!
//! Source: QEMU, docs/interop/qcow2.txt (sections are named where they are used).

mod capture;
mod cluster;
mod header;
mod layers;
mod placed;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::capture::Capture;
use self::cluster::{Entry, Unpacker, decode_entry, decode_subcluster};
pub(super) use self::header::MAGIC;
use self::header::{BackingName, Header};
pub use self::layers::Layers;
pub use self::placed::placed;
use super::cache::Cache;
use super::source::{OpenFile, Source};
use super::{Backing, Format, Options, damaged};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::field::be64;
use crate::image::limits::Limits;
use crate::image::slice::check_range;

/// Memory for second-level tables, in bytes. 16 MiB of them map 128 GiB at the usual cluster size.
const TABLE_CACHE: u64 = 16 << 20;
/// Memory for decompressed clusters, in bytes: some threads, each at its own place.
const CLUSTER_CACHE: u64 = 8 << 20;
/// How far one answer about data looks, in bytes: who reads a disk in pieces asks at each of them.
const LOOK_AHEAD: u64 = 16 << 20;
/// Longest chain of backing files: a build's has a layer for each of its steps, up to a hundred.
const MAX_CHAIN: usize = 128;

/// An open qcow2 image.
pub struct Qcow2 {
    file: Source,
    header: Header,
    /// Offsets of second-level tables; 0: none. Checked when opened.
    l1: Vec<u64>,
    backing: Option<Arc<dyn ReadAt>>,
    /// The same, where it is a layer of this kind.
    lower: Option<Arc<Qcow2>>,
    tables: Cache<u64, [u64]>,
    clusters: Cache<u64, [u8]>,
    /// Decompressors that nobody uses now; at most as many as threads ever read at once.
    unpackers: Mutex<Vec<Unpacker>>,
}

impl std::fmt::Debug for Qcow2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Qcow2({})", self.file.path().display())
    }
}

/// What [`open`] gives.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) reader: Qcow2,
    pub(super) notes: Vec<String>,
    pub(super) backing: Vec<Arc<OpenFile>>,
}

/// Opens an image and the backing files that `options` allow.
pub(super) fn open(file: Source, options: &Options) -> Result<Opened> {
    open_in_chain(file, options, &mut vec![])
}

/// Opens one layer as if it had none below.
fn open_alone(file: Source, limits: &Limits) -> Result<Qcow2> {
    let mut header = Header::read(&file, limits.disk_size)?;
    header.backing = None;
    let l1 = read_l1(&file, &header)?;
    Ok(Qcow2::new(file, header, l1, None, None))
}

fn open_in_chain(file: Source, options: &Options, chain: &mut Vec<PathBuf>) -> Result<Opened> {
    let mut header = Header::read(&file, options.limits.disk_size)?;
    let l1 = read_l1(&file, &header)?;
    let mut notes = std::mem::take(&mut header.notes);
    let mut files = vec![];
    let (mut backing, mut below) = (None, None);
    if let Some(named) = header.backing.take() {
        if !file.is_file() {
            return Err(not_beside(&file, &named));
        }
        let (path, format) = allowed(file.path(), &named, &options.backing)?;
        if chain.len() >= MAX_CHAIN || chain.contains(&path) {
            return Err(Error::undetermined(format!(
                "`{}` has a chain of backing files that does not end",
                file.path().display()
            ))
            .cause(format!(
                "`{}` comes again, or the chain has more than {MAX_CHAIN}",
                path.display()
            )));
        }
        chain.push(path.clone());
        let lower = Source::open(&path)?;
        files.extend(lower.opened());
        let opened = open_backing(lower, format, options, chain, &mut notes)?;
        files.extend(opened.files);
        (backing, below) = (Some(opened.reader), opened.layer);
    }
    Ok(Opened { reader: Qcow2::new(file, header, l1, backing, below), notes, backing: files })
}

/// An image inside of an archive or a compressed file has no other files beside it.
fn not_beside(file: &Source, named: &BackingName) -> Error {
    Error::undetermined(format!(
        "`{}` names a backing file `{}`, which was not opened",
        file.name(),
        named.path.display()
    ))
    .cause("an image that is packed must be whole in itself")
    .hint("Unpack both files, join them with `qemu-img convert -O qcow2`, and use the result.")
}

/// An open backing file.
struct Lower {
    reader: Arc<dyn ReadAt>,
    /// The same, if it is of this kind.
    layer: Option<Arc<Qcow2>>,
    files: Vec<Arc<OpenFile>>,
}

fn open_backing(
    file: Source,
    format: Format,
    options: &Options,
    chain: &mut Vec<PathBuf>,
    notes: &mut Vec<String>,
) -> Result<Lower> {
    if format == Format::Raw {
        return Ok(Lower { reader: Arc::new(file), layer: None, files: vec![] });
    }
    let opened = open_in_chain(file, options, chain)?;
    notes.extend(opened.notes);
    let layer = Arc::new(opened.reader);
    Ok(Lower { reader: layer.clone(), layer: Some(layer), files: opened.backing })
}

/// The backing file's path with links resolved and its format, if it may be opened. Does not open it.
fn allowed(image: &Path, named: &BackingName, allowed: &Backing) -> Result<(PathBuf, Format)> {
    let refused = |why: String| {
        Error::undetermined(format!(
            "`{}` names a backing file `{}`, which was not opened",
            image.display(),
            named.path.display()
        ))
        .cause(why)
    };
    let folders = match allowed {
        Backing::Refuse => {
            return Err(refused("an image from outside must be whole in itself".to_owned()).hint(
                "If you trust both files, join them with `qemu-img convert -O qcow2` and use the result.",
            ));
        }
        Backing::Within(folders) => folders,
    };
    let format = named.format().map_err(&refused)?;
    let beside = image.parent().unwrap_or(Path::new(".")).join(&named.path);
    let path = beside.canonicalize().map_err(|e| refused(format!("it cannot be found: {e}")))?;
    let inside = folders
        .iter()
        .filter_map(|folder| folder.canonicalize().ok())
        .any(|folder| path.starts_with(folder));
    if !inside {
        return Err(refused(format!("`{}` is outside the folders of this box", path.display())));
    }
    Ok((path, format))
}

/// Reads the first-level table and checks each entry (section "L1 table entry").
fn read_l1(file: &Source, header: &Header) -> Result<Vec<u64>> {
    let mut bytes = vec![0; header.l1_entries * 8];
    file.read_at(&mut bytes, header.l1_offset)?;
    let cluster = 1u64 << header.cluster_bits;
    let bad = |at: usize, why: &str| damaged(file, format!("entry {at} of its L1 table {why}"));
    let mut l1 = Vec::with_capacity(header.l1_entries);
    for at in 0..header.l1_entries {
        let entry = be64(&bytes, at * 8);
        let offset = entry & cluster::OFFSET_MASK;
        if entry & !(cluster::OFFSET_MASK | cluster::COPIED) != 0 {
            return Err(bad(at, "has reserved bits set"));
        }
        if !offset.is_multiple_of(cluster) {
            return Err(bad(at, "names an L2 table that is not on a cluster boundary"));
        }
        if offset != 0 && offset.checked_add(cluster).is_none_or(|end| end > file.size()) {
            return Err(bad(at, "names an L2 table outside the file"));
        }
        l1.push(offset);
    }
    // One table used for many ranges would let a small file claim any amount of data.
    let mut used: Vec<u64> = l1.iter().copied().filter(|offset| *offset != 0).collect();
    used.sort_unstable();
    if used.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(damaged(file, "two entries of its L1 table name the same L2 table"));
    }
    Ok(l1)
}

/// What stands at a guest byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the backing file, or zeros.
    Unallocated,
    Zero,
    /// At this byte of the file.
    Data(u64),
    /// In a compressed cluster.
    Compressed {
        host: u64,
        len: usize,
    },
}

impl Place {
    /// Whether `next` goes on where `length` bytes at `self` end.
    fn goes_on(self, length: u64, next: Place) -> bool {
        match (self, next) {
            (Place::Data(here), Place::Data(there)) => here.checked_add(length) == Some(there),
            (Place::Compressed { .. }, _) => false,
            _ => self == next,
        }
    }

    fn is_data(self) -> bool {
        matches!(self, Place::Data(_) | Place::Compressed { .. })
    }
}

impl Qcow2 {
    fn new(
        file: Source,
        header: Header,
        l1: Vec<u64>,
        backing: Option<Arc<dyn ReadAt>>,
        lower: Option<Arc<Qcow2>>,
    ) -> Self {
        let cluster = 1u64 << header.cluster_bits;
        let capacity = |bytes: u64| usize::try_from(bytes / cluster).unwrap_or(1);
        Qcow2 {
            tables: Cache::new(capacity(TABLE_CACHE)),
            clusters: Cache::new(capacity(CLUSTER_CACHE)),
            unpackers: Mutex::new(vec![]),
            file,
            header,
            l1,
            backing,
            lower,
        }
    }

    fn cluster_size(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        damaged(&self.file, why)
    }

    /// The second-level table of guest cluster `index`; none if it is not allocated.
    fn table(&self, index: u64) -> Result<Option<Arc<[u64]>>> {
        let at = usize::try_from(index >> self.header.l2_bits()).ok();
        let Some(&offset) = at.and_then(|at| self.l1.get(at)) else {
            return Err(self.damaged("its L1 table is too short for the disk"));
        };
        if offset == 0 {
            return Ok(None);
        }
        let read = || {
            let mut bytes = vec![0; 1 << self.header.cluster_bits];
            self.file.read_at(&mut bytes, offset)?;
            Ok(bytes.chunks_exact(8).map(|entry| be64(entry, 0)).collect())
        };
        self.tables.get(offset, read).map(Some)
    }

    /// What stands at guest byte `offset`, whose cluster's entry is in `table`, and where its cluster
    /// or subcluster ends.
    fn place(&self, offset: u64, table: &[u64]) -> Result<(Place, u64)> {
        let header = &self.header;
        let index = offset >> header.cluster_bits;
        let at = index & ((1 << header.l2_bits()) - 1);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let word = |at: usize| table.get(at).copied().unwrap_or(0);
        let within = offset & (self.cluster_size() - 1);
        let entry = if header.extended {
            let n = u32::try_from(within >> header.unit_bits()).unwrap_or(0);
            decode_entry(word(2 * at), header)
                .and_then(|entry| decode_subcluster(entry, word(2 * at + 1), n))
        } else {
            decode_entry(word(at), header)
        };
        let bad = |why| self.damaged(format!("the L2 entry of cluster {index} {why}"));
        let place = match entry.map_err(bad)? {
            Entry::Unallocated => Place::Unallocated,
            Entry::Zero => Place::Zero,
            Entry::Data(host) => Place::Data(host + within),
            Entry::Compressed { host, len } => Place::Compressed { host, len },
        };
        let bits = match place {
            Place::Compressed { .. } => header.cluster_bits,
            _ => header.unit_bits(),
        };
        Ok((place, ((offset >> bits) + 1) << bits))
    }

    /// What stands at `offset`, and where that ends: at most at `limit`, and never beyond what one
    /// second-level table maps. Clusters whose bytes follow each other in the file are one run.
    fn run(&self, offset: u64, limit: u64) -> Result<(Place, u64)> {
        let per_table = self.header.cluster_bits + self.header.l2_bits();
        let limit = limit.min(((offset >> per_table) + 1) << per_table);
        let Some(table) = self.table(offset >> self.header.cluster_bits)? else {
            return Ok((Place::Unallocated, limit));
        };
        let (place, mut end) = self.place(offset, &table)?;
        while end < limit {
            let (next, next_end) = self.place(end, &table)?;
            if !place.goes_on(end - offset, next) {
                break;
            }
            end = next_end;
        }
        Ok((place, end.min(limit)))
    }

    /// Fills `buf` from the run of clusters at `host`.
    fn read_data(&self, buf: &mut [u8], host: u64, offset: u64) -> Result<()> {
        // The last cluster of a disk need not be whole in the file, so only what is read has to be
        // there.
        let end = host.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.file.size()) {
            return Err(self.damaged(format!(
                "cluster {} is outside the file of {} bytes",
                offset >> self.header.cluster_bits,
                self.file.size()
            )));
        }
        self.file.read_at(buf, host)
    }

    /// Fills `buf` from inside one compressed cluster.
    fn read_packed(&self, buf: &mut [u8], host: u64, len: usize, offset: u64) -> Result<()> {
        if let Some(whole) = self.clusters.peek(host) {
            return self.copy_from(&whole, buf, offset);
        }
        // Who reads a whole cluster does not come back for it: no copy, and the cache is left to
        // the clusters that hold several small files.
        if buf.len() as u64 == self.cluster_size() {
            return self.unpack(host, len, offset, buf);
        }
        let unpack = || {
            let mut whole = vec![0; 1 << self.header.cluster_bits];
            self.unpack(host, len, offset, &mut whole)?;
            Ok::<_, Error>(Arc::from(whole))
        };
        let whole = self.clusters.get(host, unpack)?;
        self.copy_from(&whole, buf, offset)
    }

    fn copy_from(&self, cluster: &[u8], buf: &mut [u8], offset: u64) -> Result<()> {
        let within = offset & (self.cluster_size() - 1);
        let from = usize::try_from(within).unwrap_or(usize::MAX);
        match cluster.get(from..).and_then(|rest| rest.get(..buf.len())) {
            Some(part) => buf.copy_from_slice(part),
            None => return Err(self.damaged("a compressed cluster is too short")),
        }
        Ok(())
    }

    /// Unpacks a whole cluster. No lock is held meanwhile.
    fn unpack(&self, host: u64, len: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let index = offset >> self.header.cluster_bits;
        if host >= self.file.size() {
            return Err(self.damaged(format!("compressed cluster {index} is outside the file")));
        }
        let packed = self.file.read_up_to(host, len)?;
        let pool = || self.unpackers.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacker = pool().pop();
        let mut unpacker = unpacker.unwrap_or_else(Unpacker::new);
        let done = unpacker.unpack(&packed, self.header.compression, out);
        pool().push(unpacker);
        done.map_err(|why| {
            self.damaged(format!("compressed cluster {index} cannot be unpacked: {why}"))
        })
    }

    /// Fills `buf` from the backing file; zeros beyond its end and without one.
    fn read_backing(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let there = backing.size().saturating_sub(offset);
        let there = usize::try_from(there).map_or(buf.len(), |there| there.min(buf.len()));
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { backing.read_at(inside, offset) }
    }

    /// The first data of the backing file in `range`.
    fn backing_data(&self, range: Range<u64>) -> Result<Option<Range<u64>>> {
        let Some(backing) = &self.backing else { return Ok(None) };
        if range.start >= backing.size() {
            return Ok(None);
        }
        let found = match &self.lower {
            Some(lower) => lower.data_in(range.clone())?,
            None => backing.next_data(range.start)?,
        };
        Ok(found.filter(|f| f.start < range.end).map(|f| f.start..f.end.min(range.end)))
    }

    /// The first data in `range`, as far as the disk goes. Nothing behind it is looked at: a layer asks the one below about
    /// each of its holes, and those of a free disk are many.
    fn data_in(&self, range: Range<u64>) -> Result<Option<Range<u64>>> {
        let (mut at, limit) = (range.start, range.end.min(self.size()));
        while at < limit {
            let (place, end) = self.run(at, limit)?;
            if place.is_data() {
                return Ok(Some(at..self.data_end(at)?));
            }
            if place == Place::Unallocated
                && let Some(found) = self.backing_data(at..end)?
            {
                return Ok(Some(found));
            }
            at = end;
        }
        Ok(None)
    }

    /// Where the data that begins at `start` ends, at most [`LOOK_AHEAD`] later and as far as one
    /// second-level table tells.
    fn data_end(&self, start: u64) -> Result<u64> {
        let per_table = self.header.cluster_bits + self.header.l2_bits();
        let limit = self.size().min(((start >> per_table) + 1) << per_table);
        let limit = limit.min(start.saturating_add(LOOK_AHEAD));
        let mut end = start;
        while end < limit {
            let (place, next) = self.run(end, limit)?;
            if !place.is_data() {
                break;
            }
            end = next;
        }
        Ok(end)
    }
}

impl ReadAt for Qcow2 {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size())?;
        let limit = offset + buf.len() as u64;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (place, end) = self.run(at, limit)?;
            let len = usize::try_from(end - at).map_or(rest.len(), |len| len.min(rest.len()));
            let (now, later) = rest.split_at_mut(len);
            match place {
                Place::Zero => now.fill(0),
                Place::Unallocated => self.read_backing(now, at)?,
                Place::Data(host) => self.read_data(now, host, at)?,
                Place::Compressed { host, len } => self.read_packed(now, host, len, at)?,
            }
            (at, rest) = (end, later);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.data_in(offset..self.size())
    }
}
