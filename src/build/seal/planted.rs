//! Looks for the steps' secrets on the disk itself: what no file shows (names, attributes, targets of
//! links, what was deleted and not trimmed) is there to read all the same.

use std::path::{Path, PathBuf};

use super::check::Findings;
use super::search::Search;
use crate::build::steps::secrets::Trace;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::{self, Backing, Format};
use crate::image::disk::Disk;
use crate::image::tree::{NodeId, NodeKind};

/// One read of this size keeps the search busy; more does not make it faster.
const PIECE: usize = 1 << 20;

/// Searches every byte of the disk that is there; a secret that a file holds was said already.
pub(super) fn search(disk: &dyn ReadAt, secrets: &[Trace], found: &mut Findings) -> Result<()> {
    let hidden: Vec<&Trace> =
        secrets.iter().filter(|trace| !found.secrets.contains(&trace.name)).collect();
    if hidden.is_empty() {
        return Ok(());
    }
    let needles: Vec<&[u8]> = hidden.iter().map(|trace| trace.text.as_bytes()).collect();
    let mut search = Search::new(&needles);
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while let Some(range) = disk.next_data(at)? {
        at = range.start;
        while at < range.end {
            let n = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
            disk.read_at(&mut buffer[..n], at)?;
            search.feed(&buffer[..n]);
            at += n as u64;
        }
    }
    let told: Vec<Vec<u8>> = search.found().map(<[u8]>::to_vec).collect();
    for trace in hidden {
        if told.iter().any(|text| text == trace.text.as_bytes())
            && !found.secrets.contains(&trace.name)
        {
            found.secret(&trace.name, "the disk holds, in the contents of no file,");
        }
    }
    Ok(())
}

/// The files that hold one of the secrets, each as it is told, of the disk that is the qcow2 file `layer` on others
/// in the folders `within`.
pub(in crate::build) fn files(
    layer: &Path,
    within: &[PathBuf],
    secrets: &[Trace],
) -> Result<Vec<String>> {
    let options = container::Options {
        format: Some(Format::Qcow2),
        backing: Backing::Within(within.to_vec()),
        ..container::Options::default()
    };
    let disk = Disk::open(layer, &options)?;
    let needles: Vec<&[u8]> = secrets.iter().map(|trace| trace.text.as_bytes()).collect();
    let mut holders = vec![];
    for at in disk.filesystems() {
        let tree = at.filesystem.tree()?;
        let mut todo: Vec<(NodeId, Vec<u8>)> = vec![(0, vec![])];
        while let Some((id, path)) = todo.pop() {
            let Some(node) = tree.nodes.get(id as usize) else { continue };
            match &node.kind {
                NodeKind::Directory { children } => {
                    for child in children {
                        let name = tree.nodes.get(*child as usize).map(|n| &n.name[..]);
                        todo.push((*child, [&path, &b"/"[..], name.unwrap_or_default()].concat()));
                    }
                }
                NodeKind::File { size, .. } if *size > 0 => {
                    let mut search = Search::new(&needles);
                    at.filesystem.read_file(node, &mut |piece| {
                        search.feed(piece);
                        Ok(())
                    })?;
                    let found = search.found().next();
                    let secret = secrets.iter().find(|t| Some(t.text.as_bytes()) == found);
                    if let Some(secret) = secret {
                        let path = String::from_utf8_lossy(&path).into_owned();
                        holders.push(format!("{path} holds the secret `{}`", secret.name));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            buf.copy_from_slice(&self.0[at..at + buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn a_secret_over_the_seam_of_two_reads_is_found() {
        let mut bytes = vec![0; PIECE * 2];
        let trace = |name: &str, text: &str| Trace { name: name.to_owned(), text: text.to_owned() };
        let secrets = [trace("A", "hunter2hunter2"), trace("B", "not there at all")];
        bytes[PIECE - 5..PIECE + 9].copy_from_slice(b"hunter2hunter2");
        let mut found = Findings::default();
        search(&Bytes(bytes), &secrets, &mut found).expect("searched");
        assert_eq!(found.secrets.into_iter().collect::<Vec<_>>(), ["A"]);
    }
}
