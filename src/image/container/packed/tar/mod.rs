//! tar archives: finds the members, extracts nothing.
//!
//! Sources: POSIX.1-2017 pax (ustar and the pax format), GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files".

mod header;
mod pax;
mod sparse;

use std::collections::HashSet;
use std::sync::Arc;

pub(super) use self::header::BLOCK;
use self::header::{Header, Type};
use self::pax::Records;
use self::sparse::Sparse;
use crate::error::{Error, Result};
use crate::image::container::source::Source;
use crate::image::limits;
use crate::image::slice::Slice;
use crate::image::{Limits, ReadAt};

/// Most members; a disk comes with a handful of files, a root filesystem with tens of thousands.
const MEMBERS: usize = 1000;
/// Characters that are shown of the name of a member that is not read.
const NAME: usize = 200;
/// Longest pax header or long name in bytes.
const EXTENDED: u64 = 1 << 20;

/// Sizes below fit the header itself (eleven octal digits). Where the extended header has another one
/// all the same, programs disagree about where the next member begins.
const OCTAL: u64 = 1 << 33;

/// A regular file in an archive.
pub(super) struct Member {
    /// Its path in the archive, as people see it; never used as a path of this host.
    pub(super) name: String,
    /// Its contents.
    pub(super) bytes: Arc<dyn ReadAt>,
}

/// What an archive holds.
#[derive(Default)]
pub(super) struct Members {
    /// The regular files.
    pub(super) files: Vec<Member>,
    /// Links, devices and pipes: what each is, and its path in the archive.
    pub(super) special: Vec<(&'static str, String)>,
}

/// Whether a file begins with a tar header: a name, and a checksum that holds. The oldest form
/// (`tar --format=v7`) has no mark.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.first().is_some_and(|first| *first != 0) && Header::parse(head).is_ok()
}

/// The members of an archive.
///
/// # Errors
/// Kind `Undetermined`: the archive is damaged, cut short or followed by something else, has too
/// many members, two of one name, or a member of a kind that is not read.
pub(super) fn members(archive: &Source, limits: &Limits) -> Result<Members> {
    let bad = |why: String| {
        Error::undetermined(format!("the tar archive `{}` cannot be read", archive.name()))
            .cause(why)
            .hint("Fetch or make the archive again, or unpack it and use the disk image inside.")
    };
    let (members, names) = (Members::default(), HashSet::new());
    let mut walk = Walk { archive, limits, at: 0, members, names, pieces: sparse::PIECES };
    walk.run().map_err(|fault| match fault {
        Fault::Archive(why) => bad(why),
        Fault::Other(e) => e,
    })?;
    Ok(walk.members)
}

/// What ends reading an archive.
enum Fault {
    /// The archive is not sound.
    Archive(String),
    /// The file cannot be read, or a limit.
    Other(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Other(e)
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Archive(why)
    }
}

/// What the entries before a member say about it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    records: Records,
}

struct Walk<'a> {
    archive: &'a Source,
    limits: &'a Limits,
    at: u64,
    members: Members,
    names: HashSet<String>,
    /// How many pieces sparse members may still have.
    pieces: usize,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut ahead = Ahead::default();
        let mut entries = 0;
        while let Some(block) = self.block()? {
            let header = Header::parse(&block)
                .map_err(|why| format!("the header at byte {} {why}", self.at - BLOCK as u64))?;
            entries += 1;
            // Each member can have three entries ahead of it.
            if entries > 4 * MEMBERS {
                return Err(format!(
                    "it has more than {MEMBERS} members; disk images come with few"
                )
                .into());
            }
            match header.kind {
                Type::LongName => ahead.name = Some(self.text(header.size)?),
                Type::LongLink => drop(self.text(header.size)?),
                Type::Pax => {
                    let records = Records::parse(&self.text(header.size)?)?;
                    if ahead.records != Records::default() {
                        return Err("two extended headers describe one member".to_owned().into());
                    }
                    ahead.records = records;
                }
                Type::PaxGlobal => {
                    if Records::parse(&self.text(header.size)?)? != Records::default() {
                        return Err("a global header changes all members".to_owned().into());
                    }
                }
                Type::Regular | Type::GnuSparse => {
                    let ahead = std::mem::take(&mut ahead);
                    self.member(&block, &header, ahead)?;
                }
                Type::Folder | Type::Special(_) => {
                    let Ahead { name, records } = std::mem::take(&mut ahead);
                    let name = records.path.clone().or(name).unwrap_or(header.name);
                    let name = String::from_utf8_lossy(&name).into_owned();
                    if header.size != 0 || records.size.unwrap_or(0) != 0 || records.is_sparse() {
                        return Err(format!(
                            "`{}` is no regular file, but has contents",
                            name.escape_debug()
                        )
                        .into());
                    }
                    if let Type::Special(what) = header.kind {
                        let name = name.escape_debug().to_string();
                        self.members.special.push((what, name.chars().take(NAME).collect()));
                    }
                }
            }
        }
        self.check_rest()
    }

    /// The next header; none at the end mark, which is a block of zeros.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        self.read(&mut block)?;
        Ok(block.iter().any(|b| *b != 0).then_some(block))
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<(), Fault> {
        let end = self.at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.archive.size()) {
            return Err("it ends before its end mark".to_owned().into());
        }
        self.archive.read_at(buf, self.at)?;
        self.at += buf.len() as u64;
        Ok(())
    }

    /// The contents of an entry that describes another one, without NULs at its end.
    fn text(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > EXTENDED {
            return Err(
                format!("an extended header has {size} bytes; the limit is {EXTENDED}").into()
            );
        }
        let len = usize::try_from(size).unwrap_or(0);
        let mut text = vec![0; len.next_multiple_of(BLOCK)];
        self.read(&mut text)?;
        text.truncate(len);
        let end = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        text.truncate(end);
        Ok(text)
    }

    fn member(&mut self, block: &[u8; BLOCK], header: &Header, ahead: Ahead) -> Result<(), Fault> {
        let Ahead { name, records } = ahead;
        if let Some(size) = records.size.filter(|size| *size != header.size && *size < OCTAL) {
            return Err(format!(
                "a header says {} bytes, and the extended header before it {size}",
                header.size
            )
            .into());
        }
        let stored = records.size.unwrap_or(header.size);
        let name = records.sparse_name.clone().or(records.path.clone()).or(name);
        let name = shown(&name.unwrap_or_else(|| header.name.clone()))?;
        let known = |why: String| format!("the member `{name}` {why}");
        if self.members.files.len() >= MEMBERS {
            return Err(
                format!("it has more than {MEMBERS} members; disk images come with few").into()
            );
        }
        // What GNU tar adds behind the header of a sparse member is not part of its size.
        let left = self.pieces;
        let map = match header.kind {
            Type::GnuSparse => {
                let mut more = || {
                    let mut block = [0; BLOCK];
                    self.read(&mut block).map(|()| block)
                };
                Some(sparse::old_gnu(block, left, &mut more)?)
            }
            _ => None,
        };
        let start = self.at;
        let end = stored
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|padded| start.checked_add(padded))
            .filter(|end| *end <= self.archive.size());
        let Some(end) = end else {
            return Err(
                known(format!("has {stored} bytes, which are not all in the archive")).into()
            );
        };
        let inner: Arc<dyn ReadAt> = Arc::new(self.archive.clone());
        let data = Slice::new(inner, start, stored)?;
        let bytes: Arc<dyn ReadAt> = match map {
            Some(map) => {
                self.pieces -= map.len();
                Arc::new(Sparse::new(Arc::new(data), map, 0).map_err(known)?)
            }
            None if records.is_sparse() => {
                let (map, skip) = sparse::pax(&data, &records, left)?;
                self.pieces -= map.len();
                Arc::new(Sparse::new(Arc::new(data), map, skip).map_err(known)?)
            }
            None => Arc::new(data),
        };
        if bytes.size() > self.limits.disk_size {
            let what = format!(
                "`{}` has a member `{name}` of {} bytes",
                self.archive.name(),
                bytes.size()
            );
            let most = format!("{} bytes", self.limits.disk_size);
            return Err(Fault::Other(limits::Limit::DiskSize.exceeded(what, most)));
        }
        if !self.names.insert(name.clone()) {
            return Err(format!("it has two members `{name}`").into());
        }
        self.at = end;
        self.members.files.push(Member { name, bytes });
        Ok(())
    }

    /// Behind the end mark there is padding, and nothing else.
    fn check_rest(&self) -> Result<(), Fault> {
        let mut at = self.at;
        let mut buf = vec![0; 1 << 20];
        while let Some(data) = self.archive.next_data(at)? {
            at = data.start;
            while at < data.end {
                self.limits.check_time()?;
                let len = usize::try_from(data.end - at).unwrap_or(buf.len()).min(buf.len());
                self.archive.read_at(&mut buf[..len], at)?;
                if buf[..len].iter().any(|b| *b != 0) {
                    return Err("something else follows its end mark".to_owned().into());
                }
                at += len as u64;
            }
        }
        Ok(())
    }
}

/// A member's name for people. One that leads out of the archive is refused, though nothing is
/// ever written by name: an archive that tries is not what it claims to be.
fn shown(name: &[u8]) -> Result<String, String> {
    let name = String::from_utf8_lossy(name).escape_debug().to_string();
    let inside = name.strip_prefix("./").unwrap_or(&name);
    if inside.is_empty() {
        return Err("a member has no name".to_owned());
    }
    if inside.starts_with('/') || inside.split('/').any(|part| part == "..") {
        return Err(format!("the member `{name}` leads out of the archive"));
    }
    if inside.len() > limits::TARGET {
        return Err(format!("a member's name has {} bytes", inside.len()));
    }
    Ok(inside.to_owned())
}
