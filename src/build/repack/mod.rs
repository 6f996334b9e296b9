//! Writes the sealed disk anew, in the way in which its source was made: the same tree gives the same bytes then, whatever
//! blocks the guest's kernel chose.

mod tar;

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::image::container::{self, Format};
use crate::image::disk::Disk;
use crate::parity::compare;
use crate::parity::content::Content;
use crate::parity::difference::Differences;
use crate::source::disk::scratch::{self, Scratch};
use crate::source::disk::{self, Layout};

/// Most differences that an error shows.
const SHOWN: usize = 5;

/// Writes the disk `sealed`, which lies on files in `folders`, anew as the raw disk `out`.
///
/// # Errors
/// The root filesystem holds what a tree of a tar cannot, a step changed what stands outside of it (partitions, boot
/// code, the EFI system partition), the host has no space, or `cancel` was cancelled. There is no file at `out` then.
pub(super) async fn repack(
    sealed: &Path,
    folders: Vec<PathBuf>,
    layout: &Layout,
    out: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    let scratch = Scratch::new()?;
    scratch::prove(&scratch, cancel).await?;
    let tar = scratch.dir().join("root.tar");
    let (from, to) = (sealed.to_owned(), tar.clone());
    let before = blocking("writing the disk anew", move || export(&from, folders, &to)).await?;
    disk::assemble_in(&scratch, &tar, out, layout, cancel).await?;
    let path = out.to_owned();
    let after = blocking("writing the disk anew", move || {
        Content::read(&open(&path, Format::Raw, vec![])?)
    })
    .await;
    let same = after.and_then(|after| same(&before, &after));
    if same.is_err() {
        let _ = fs::remove_file(out);
    }
    same
}

fn open(path: &Path, format: Format, folders: Vec<PathBuf>) -> Result<Disk> {
    let backing = match folders.is_empty() {
        true => container::Backing::Refuse,
        false => container::Backing::Within(folders),
    };
    let options = container::Options { format: Some(format), backing, ..Default::default() };
    Disk::open(path, &options)
}

/// Writes the tree of the root filesystem as a tar; what the whole disk holds.
fn export(sealed: &Path, folders: Vec<PathBuf>, to: &Path) -> Result<Content> {
    let disk = open(sealed, Format::Qcow2, folders)?;
    let content = Content::read(&disk)?;
    for at in disk.filesystems() {
        let tree = at.filesystem.tree()?;
        if tree.lookup(b"/etc/passwd").is_some() {
            let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(to)?);
            tar::write(&**at.filesystem, &tree, &mut out)?;
            out.flush()?;
            return Ok(content);
        }
    }
    Err(Error::failed("no filesystem has an /etc/passwd"))
}

fn same(before: &Content, after: &Content) -> Result<()> {
    if before.digest() == after.digest() {
        return Ok(());
    }
    let mut differences = Differences::default();
    compare::contents(before, after, &mut differences);
    let mut error = Error::failed("a step changed what no tree of files holds");
    for difference in differences.sorted().iter().take(SHOWN) {
        error = error.detail(difference.to_string());
    }
    Err(error)
}

#[cfg(test)]
mod tests;
