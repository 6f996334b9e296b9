//! One entry of a tree: a line becomes a node.

use super::lines::Fields;
use crate::image::tree::{Node, NodeKind};
use crate::parity::attributes;
use crate::parity::canonical::{self, Leaf};
use crate::parity::spelling;

/// An entry under its whole path; a directory without children yet, a file with the inode number
/// that the caller gives.
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) node: Node,
    pub(super) leaf: Leaf,
}

/// Reads one line; `None` for any text that is not written for some entry.
pub(super) fn parse(line: &[u8], inode: u64) -> Option<Entry> {
    let mut fields = Fields::of(line);
    let letter = fields.raw()?;
    let path = fields.bytes()?;
    let mode = if letter == b"l" { 0o777 } else { octal(fields.raw()?)? };
    let (uid, gid) = (fields.parsed()?, fields.parsed()?);
    let mut leaf = Leaf::Nothing;
    let kind = match letter {
        b"f" => {
            let size = fields.parsed()?;
            leaf = Leaf::File(fields.parsed()?);
            NodeKind::File { size, inode, shared: false }
        }
        b"d" => {
            leaf = Leaf::Directory(fields.parsed()?);
            NodeKind::Directory { children: vec![] }
        }
        b"l" => NodeKind::Symlink { target: fields.bytes()? },
        b"c" => {
            let (major, minor) = device(fields.raw()?)?;
            NodeKind::CharDevice { major, minor }
        }
        b"b" => {
            let (major, minor) = device(fields.raw()?)?;
            NodeKind::BlockDevice { major, minor }
        }
        b"p" => NodeKind::Fifo,
        _ => return None,
    };
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    let mut node = Node {
        name,
        mode,
        uid,
        gid,
        mtime: 0,
        xattrs: vec![],
        immutable: false,
        append_only: false,
        kind,
    };
    let time = tail(&mut fields, &mut node)?.strip_prefix(b"@")?;
    node.mtime = std::str::from_utf8(time).ok()?.parse().ok()?;
    fields.end()?;
    let mut again = Vec::with_capacity(line.len());
    canonical::line(&path, &node, leaf, &mut again)?;
    again.extend_from_slice(format!(" @{}", node.mtime).as_bytes());
    (again == line).then_some(Entry { path, node, leaf })
}

/// Reads attributes and flags; returns the first field that is neither, or nothing at the end.
pub(super) fn tail<'a>(fields: &mut Fields<'a>, node: &mut Node) -> Option<&'a [u8]> {
    let mut field = fields.raw().unwrap_or_default();
    while let Some(text) = field.strip_prefix(b"x:") {
        let at = text.iter().position(|b| *b == b'=')?;
        node.xattrs.push((spelling::read(&text[..at])?, unhex(&text[at + 1..])?));
        field = fields.raw().unwrap_or_default();
    }
    if let Some(letters) = field.strip_prefix(b"i:") {
        node.append_only = letters.contains(&b'a');
        node.immutable = letters.contains(&b'i');
        field = fields.raw().unwrap_or_default();
    }
    // Order, keys and values as an image would give them.
    let same = attributes::canonical(node.xattrs.clone()).is_ok_and(|again| again == node.xattrs);
    same.then_some(field)
}

/// A mode.
pub(super) fn octal(text: &[u8]) -> Option<u16> {
    let mode = u16::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()?;
    (mode <= 0o7777).then_some(mode)
}

fn device(text: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(',')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The bytes of hex digits of either case.
pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len() / 2);
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    for pair in pairs {
        let [high, low] = *pair else { return None };
        out.push(digit(high)? << 4 | digit(low)?);
    }
    Some(out)
}
