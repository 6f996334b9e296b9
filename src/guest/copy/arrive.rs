//! What a guest sends becomes files of the host: below one place, and nothing else.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use super::beneath::{Below, Root, set_mtime};
use super::tar::{Entry, Kind, Reader, bad};
use crate::error::{Error, Result};
use crate::host;

/// Room that is left on the host's disk, whatever a guest sends.
const RESERVE: u64 = 64 << 20;
/// Files and folders of one copy: each takes an inode of the host, whose number is bounded too.
const ENTRIES: u64 = 5_000_000;
/// How many names of what was left out are kept.
const NAMES: usize = 5;
/// Copied at once.
const PIECE: usize = 256 << 10;

/// What arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Files, links included.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// How many entries were left out: devices, pipes, and links that lead out of what was copied.
    pub left_out: u64,
    /// The first of them by name.
    pub names: Vec<String>,
}

/// Where it goes: a folder that is there, and a name in it.
#[derive(Debug)]
pub struct Place {
    root: Root,
    path: PathBuf,
    name: Option<OsString>,
    recursive: bool,
}

impl Place {
    /// Into `target` under `name` if that is a folder, else to `target` itself.
    ///
    /// # Errors
    /// The target's folder is not there, or the target is a file where a folder comes.
    pub fn find(target: &Path, name: Option<&OsStr>, recursive: bool) -> Result<Self> {
        let (path, name) = if target.is_dir() {
            (target.to_owned(), name.map(OsStr::to_owned))
        } else {
            let whole = std::path::absolute(target)?;
            let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
                return Err(Error::usage(format!("`{}` is no file name", target.display()))
                    .hint("Name a file or a folder."));
            };
            let ends_in_slash = target.as_os_str().as_encoded_bytes().ends_with(b"/");
            if ends_in_slash && !recursive || target.is_file() && recursive {
                return Err(Error::failed(format!("`{}` is no folder", target.display()))
                    .hint("Make the folder, or name another one."));
            }
            (folder.to_owned(), Some(name.to_owned()))
        };
        Ok(Place { root: Root::open(&path)?, path, name, recursive })
    }

    /// Takes an archive.
    ///
    /// # Errors
    /// It is none, it leads out of the place, or the host's disk does not take it. What came before
    /// is there.
    pub fn receive(&self, from: impl Read) -> Result<Arrived> {
        let mut reader = Reader::new(from);
        let mut arrived = Arrived::default();
        let mut entries = 0u64;
        while let Some(entry) = reader.next()? {
            entries += 1;
            if entries > ENTRIES {
                return Err(Error::failed(format!("the guest sent more than {ENTRIES} files"))
                    .hint("Copy a part of them, or make one file of them in the guest."));
            }
            if self.recursive {
                self.entry(&entry, &mut reader, &mut arrived)?;
            } else if entries == 1 && entry.kind == Kind::File {
                // The name is what was asked for, not what the guest says.
                let at = Below::default().under(self.name.as_deref());
                self.file(&at, &entry, &mut reader, &mut arrived)?;
            } else {
                return Err(bad("it holds something else than the one file that was asked for"));
            }
        }
        if entries == 0 {
            return Err(bad("it is empty"));
        }
        reader.drain();
        Ok(arrived)
    }

    fn entry<R: Read>(
        &self,
        entry: &Entry,
        reader: &mut Reader<R>,
        arrived: &mut Arrived,
    ) -> Result<()> {
        let own = Below::of_guest(&entry.path)?;
        let inside = leads_inside(&own, &entry.link);
        let at = own.under(self.name.as_deref());
        match entry.kind {
            Kind::Folder => return self.root.make_folder(&at, entry.mode),
            Kind::File => return self.file(&at, entry, reader, arrived),
            Kind::Symlink if inside => self.root.make_symlink(&at, &entry.link)?,
            Kind::HardLink => {
                let to = Below::of_guest(&entry.link)?.under(self.name.as_deref());
                if !self.root.make_link(&at, &to)? {
                    return Err(bad("a hard link leads to something that did not come before it"));
                }
            }
            Kind::Symlink | Kind::Other => {
                arrived.left_out += 1;
                if arrived.names.len() < NAMES {
                    arrived.names.push(String::from_utf8_lossy(&entry.path).into_owned());
                }
                return Ok(());
            }
        }
        arrived.files += 1;
        Ok(())
    }

    fn file<R: Read>(
        &self,
        at: &Below,
        entry: &Entry,
        reader: &mut Reader<R>,
        arrived: &mut Arrived,
    ) -> Result<()> {
        if entry.size.saturating_add(RESERVE) > host::free_bytes(&self.path)? {
            return Err(Error::failed(format!(
                "the disk of `{}` has no room for {} bytes",
                self.path.display(),
                entry.size
            ))
            .hint("Free some space on it, or copy to another disk; 64 MiB are left free."));
        }
        let mut file = self.root.make_file(at, entry.mode)?;
        let mut content = reader.content();
        let mut piece = vec![0; PIECE.min(usize::try_from(entry.size).unwrap_or(PIECE)).max(1)];
        loop {
            let n = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(bad("it ends in the middle of a file"));
                }
                Err(e) => return Err(e.into()),
            };
            file.write_all(&piece[..n])?;
        }
        set_mtime(&file, entry.mtime);
        arrived.files += 1;
        arrived.bytes += entry.size;
        Ok(())
    }
}

/// Whether a link at `at` stays inside of what is copied. `..` may stand in front only: behind a name
/// it would start wherever that name leads to, which may be a link too.
fn leads_inside(at: &Below, to: &[u8]) -> bool {
    let names = to.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut up = 0;
    let mut down = false;
    for name in names {
        match name {
            b".." if down => return false,
            b".." => up += 1,
            _ => down = true,
        }
    }
    !to.is_empty() && !to.starts_with(b"/") && up <= at.depth()
}
