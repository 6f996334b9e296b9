//! A file tree as a tar that GNU tar unpacks with all that a tree has: owners, modes, times, links, attributes.
//!
//! Sorted by name, so that the same tree gives the same bytes. Sources: POSIX.1-2017, pax, "ustar Interchange Format"
//! and "pax Extended Header"; GNU tar manual, "Extensions" (long names), `SCHILY.xattr.` for attributes.

use std::collections::HashMap;
use std::io::Write;

use tar::{EntryType, Header};

use crate::error::{Error, Result};
use crate::image::tree::{Filesystem, Node, NodeId, NodeKind, Tree};

const BLOCK: u64 = 512;
/// The longest name in a header.
const SHORT: usize = 100;

/// Writes all of `tree`, whose files' contents `fs` gives, to `out`.
///
/// # Errors
/// The tree has what no tar holds (a socket), a file cannot be read, or `out` not written.
pub(super) fn write(fs: &dyn Filesystem, tree: &Tree, out: &mut impl Write) -> Result<()> {
    let mut archive = Archive { fs, out, first: HashMap::new() };
    let mut todo: Vec<(NodeId, Vec<u8>)> = vec![(0, b".".to_vec())];
    while let Some((id, path)) = todo.pop() {
        let Some(node) = tree.nodes.get(id as usize) else { continue };
        archive.node(node, &path)?;
        if let NodeKind::Directory { children } = &node.kind {
            let named = children.iter().filter_map(|id| Some((*id, tree.nodes.get(*id as usize)?)));
            let mut named: Vec<_> = named.collect();
            // The last one is taken first.
            named.sort_unstable_by(|(_, a), (_, b)| b.name.cmp(&a.name));
            todo.extend(
                named.into_iter().map(|(id, n)| (id, [&path, &b"/"[..], &n.name].concat())),
            );
        }
    }
    // The end of an archive: two blocks of zeros.
    Ok(archive.out.write_all(&[0; 2 * BLOCK as usize])?)
}

struct Archive<'a, W> {
    fs: &'a dyn Filesystem,
    out: &'a mut W,
    /// The first name of each file that has several, by inode.
    first: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Archive<'_, W> {
    fn node(&mut self, node: &Node, path: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(u32::from(node.mode));
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        // Below zero no tar has a form that all read; the unpacked tree is compared afterwards.
        header.set_mtime(u64::try_from(node.mtime).unwrap_or(0));
        header.set_size(0);
        let mut link = None;
        match &node.kind {
            NodeKind::File { size, inode, shared } => {
                let first = shared.then(|| self.first.get(inode).cloned()).flatten();
                if first.is_some() {
                    header.set_entry_type(EntryType::Link);
                    link = first;
                } else {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(*size);
                    self.first.insert(*inode, path.to_owned());
                }
            }
            NodeKind::Directory { .. } => header.set_entry_type(EntryType::Directory),
            NodeKind::Symlink { target } => {
                header.set_entry_type(EntryType::Symlink);
                link = Some(target.clone());
            }
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                header.set_entry_type(match node.kind {
                    NodeKind::CharDevice { .. } => EntryType::Char,
                    _ => EntryType::Block,
                });
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
            }
            NodeKind::Fifo => header.set_entry_type(EntryType::Fifo),
            NodeKind::Socket => {
                let path = String::from_utf8_lossy(path);
                return Err(Error::failed(format!("no tar holds the socket `{path}`")));
            }
        }
        if header.entry_type() != EntryType::Link && !node.xattrs.is_empty() {
            self.attributes(&node.xattrs)?;
        }
        if let Some(link) = &link {
            self.name(
                link,
                EntryType::GNULongLink,
                |header, name| header.linkname = name,
                &mut header,
            )?;
        }
        self.name(path, EntryType::GNULongName, |header, name| header.name = name, &mut header)?;
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        if header.entry_type() != EntryType::Regular {
            return Ok(());
        }
        let NodeKind::File { size, .. } = node.kind else { return Ok(()) };
        let (fs, out, mut written) = (self.fs, &mut *self.out, 0);
        fs.read_file(node, &mut |piece| {
            written += piece.len() as u64;
            Ok(out.write_all(piece)?)
        })?;
        if written != size {
            let path = String::from_utf8_lossy(path);
            return Err(Error::failed(format!("`{path}` has {written} bytes instead of {size}")));
        }
        self.pad(size)
    }

    /// Sets a name in the header, cut where it is long; then an entry in front has all of it.
    fn name(
        &mut self,
        name: &[u8],
        long: EntryType,
        set: impl Fn(&mut tar::GnuHeader, [u8; SHORT]),
        header: &mut Header,
    ) -> Result<()> {
        let mut short = [0; SHORT];
        let fits = name.len().min(SHORT);
        short[..fits].copy_from_slice(&name[..fits]);
        if name.len() > SHORT {
            let mut text = name.to_vec();
            text.push(0);
            self.extra(b"././@LongLink", long, &text)?;
        }
        let Some(header) = header.as_gnu_mut() else {
            return Err(Error::failed("a tar header has another form than it was made with"));
        };
        set(header, short);
        Ok(())
    }

    fn attributes(&mut self, all: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut text = vec![];
        for (key, value) in all {
            let key = [b" SCHILY.xattr.", &key[..], b"="].concat();
            // A record's length counts its own digits.
            let rest = key.len() + value.len() + 1;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            text.extend_from_slice(length.to_string().as_bytes());
            text.extend_from_slice(&key);
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.extra(b"./PaxHeaders/x", EntryType::XHeader, &text)
    }

    /// An entry that says something about the one behind it.
    fn extra(&mut self, name: &[u8], kind: EntryType, text: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        if let Some(header) = header.as_gnu_mut() {
            header.name[..name.len()].copy_from_slice(name);
        }
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(text)?;
        self.pad(text.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(BLOCK) - size;
        let zeros = [0; BLOCK as usize];
        Ok(self.out.write_all(&zeros[..usize::try_from(padding).unwrap_or(0)])?)
    }
}
