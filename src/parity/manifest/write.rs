//! Writes the text, a line at a time.

use std::io::Write;

use super::{Held, MAGIC, Manifest, VERSION};
use crate::digest::{DiskDigest, FileDigest, GroupDigest, Sha256, hex};
use crate::error::{Error, Result};
use crate::image::tree::NodeId;
use crate::parity::canonical::{self, Content as Leaf};
use crate::parity::content;
use crate::parity::hashed::Hashed;
use crate::parity::spelling::spell;

/// Passes everything on and hashes it.
struct Sum<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Sum<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(unwritten)
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.put(text.as_bytes())?;
        self.put(b"\n")
    }

    /// The lines of a preimage after its tag line.
    fn block(&mut self, preimage: &[u8]) -> Result<()> {
        let tag = preimage.iter().position(|b| *b == b'\n').map_or(preimage.len(), |end| end + 1);
        self.lines(&preimage[tag..])
    }

    /// Whole lines of a preimage.
    fn lines(&mut self, text: &[u8]) -> Result<()> {
        for line in text.split_inclusive(|b| *b == b'\n') {
            self.put(b"  ")?;
            self.put(line)?;
        }
        Ok(())
    }
}

fn unwritten(e: std::io::Error) -> Error {
    Error::from(e).context("cannot write the manifest")
}

/// A sentence as fields.
pub(super) fn words(sentence: &str) -> String {
    let words: Vec<_> = sentence.split(' ').map(|word| spell(word.as_bytes())).collect();
    words.join(" ")
}

impl Manifest {
    /// Writes the text. The caller buffers and flushes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let mut out = Sum { out, hash: Sha256::new() };
        out.put(&[MAGIC, VERSION, b"\n"].concat())?;
        for note in &self.notes {
            out.line(&format!("note {}", words(note)))?;
        }
        if let Some(chunks) = &self.bytes {
            out.line(&chunks.digest().to_string())?;
            let mut tag = true;
            chunks.write(&mut |lines| {
                if std::mem::take(&mut tag) { Ok(()) } else { out.lines(lines) }
            })?;
            if let Some(padded) = chunks.padded {
                out.line(&format!("  padded {}", hex(&padded)))?;
            }
        }
        match &self.held {
            Held::Tree(tree) => files(tree, &mut out)?,
            Held::System(content) => {
                out.line(&content.digest().to_string())?;
                out.block(&canonical::system(&content.system))?;
                let disk = canonical::disk(&content.disk);
                out.line(&DiskDigest::of(&disk).to_string())?;
                out.block(&disk)?;
                let mut groups = 0;
                for (part, held) in content.disk.partitions.iter().zip(&content.held) {
                    match held {
                        // A group stands where the first of its partitions does.
                        content::Held::Group(index) if *index == groups => {
                            groups += 1;
                            if let Some(group) = content.groups.get(*index) {
                                volumes(group, &mut out)?;
                            }
                        }
                        _ => filesystem(part.content, held, &part.number.to_string(), &mut out)?,
                    }
                }
            }
        }
        match &self.packages {
            Ok(packages) => {
                out.line(&packages.digest().to_string())?;
                out.block(&packages.preimage())?;
            }
            Err(why) => out.line(&format!("without pkgs1 {}", words(why)))?,
        }
        let sum = FileDigest::from_bytes(out.hash.clone().finish());
        out.line(&format!("end {sum}"))
    }
}

/// The block of a volume group, and those of the filesystems in its volumes.
fn volumes(group: &content::Volumes, out: &mut Sum<'_>) -> Result<()> {
    let preimage = canonical::group(&group.line);
    out.line(&GroupDigest::of(&preimage).to_string())?;
    out.block(&preimage)?;
    for (volume, held) in group.line.volumes.iter().zip(&group.held) {
        filesystem(volume.content, held, &volume_place(&group.line.name, &volume.name), out)?;
    }
    Ok(())
}

/// How the header of a filesystem's block names a logical volume.
pub(super) fn volume_place(group: &str, volume: &str) -> String {
    format!("{}/{}", spell(group.as_bytes()), spell(volume.as_bytes()))
}

/// The blocks of one filesystem; none for anything else.
fn filesystem(leaf: Leaf, held: &content::Held, place: &str, out: &mut Sum<'_>) -> Result<()> {
    let (Leaf::Filesystem(digest), content::Held::Filesystem { tree, boot }) = (leaf, held) else {
        return Ok(());
    };
    out.line(&format!("{digest} {place}"))?;
    out.block(&tree.fs1_preimage(*boot))?;
    files(tree, out)
}

/// The blocks of one tree.
fn files(tree: &Hashed, out: &mut Sum<'_>) -> Result<()> {
    out.line(&format!("{} {}", tree.tree1(), tree.tree1t()))?;
    let mut line = vec![];
    let mut failed = Ok(());
    walk(tree, |id, path| {
        line.clear();
        line.extend_from_slice(b"  ");
        // Every node of a hashed tree has its line.
        let _ = entry(tree, id, path, &mut line);
        line.push(b'\n');
        failed = out.put(&line);
        failed.is_ok()
    });
    failed?;
    out.line(&tree.links1().to_string())?;
    out.block(&canonical::links(&tree.links))
}

/// One entry's line without indentation and end.
pub(super) fn entry(tree: &Hashed, id: NodeId, path: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let node = tree.node(id);
    canonical::line(path, node, tree.leaf(id), out)?;
    out.extend_from_slice(format!(" @{}", node.mtime).as_bytes());
    Some(())
}

/// Calls `each` with every node but the root and its path, a directory before what is in it, until
/// it says no.
pub(super) fn walk(tree: &Hashed, mut each: impl FnMut(NodeId, &[u8]) -> bool) {
    let mut path: Vec<u8> = vec![];
    // What is still to come, the next one last, with the length of its directory's path.
    let below = |id: NodeId, len: usize, todo: &mut Vec<(NodeId, usize)>| {
        todo.extend(tree.children(id).iter().rev().map(|child| (*child, len)));
    };
    let mut todo = vec![];
    below(0, 0, &mut todo);
    while let Some((id, len)) = todo.pop() {
        path.truncate(len);
        if len > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&tree.node(id).name);
        if !each(id, &path) {
            return;
        }
        below(id, path.len(), &mut todo);
    }
}
