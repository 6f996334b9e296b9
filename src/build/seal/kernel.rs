//! What the default boot entry of a disk starts: looked for before the build begins, so that what
//! cannot be sealed is refused in the first second; and again before the seal, since a step may
//! have installed another kernel.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Context as _, Error, Result};
use crate::image::boot::{self, Entry, Files};
use crate::image::container::{self, Backing};
use crate::image::disk::Disk;
use crate::image::tree::{Filesystem, Node, NodeKind, Tree};

/// Largest kernel that is read, in bytes; Debian's has 14 MB.
const MAX_KERNEL: u64 = 256 << 20;
/// Largest initial RAM disk that is read, in bytes; a machine of the seal could not unpack more.
const MAX_INITRD: u64 = 512 << 20;

/// A kernel with all that it needs.
#[derive(Debug, Clone)]
pub struct Bootable {
    /// The kernel image.
    pub kernel: Vec<u8>,
    /// The initial RAM disks, one after the other; empty if there is none.
    pub initrd: Vec<u8>,
    /// The entry's command line.
    pub cmdline: String,
    /// The entry's title.
    pub title: String,
}

impl Bootable {
    /// Reads the default boot entry of the disk at `path`, whose backing files lie below `within`.
    ///
    /// # Errors
    /// The disk cannot be read; it has no boot entry, or the entry's files are not there; its
    /// initrd is of a kind that a seal cannot start.
    pub fn find(path: &Path, format: container::Format, within: &[PathBuf]) -> Result<Self> {
        Self::find_in(path, format, within)
            .context(|| format!("cannot build on the disk `{}`", path.display()))
    }

    fn find_in(path: &Path, format: container::Format, within: &[PathBuf]) -> Result<Self> {
        let options = container::Options {
            format: Some(format),
            backing: Backing::Within(within.to_vec()),
            ..container::Options::default()
        };
        let disk = Disk::open(path, &options)?;
        let volumes: Vec<Volume> =
            disk.filesystems().map(|at| Volume::read(at.filesystem)).collect::<Result<_>>()?;
        let unsealable = || Error::failed("the image cannot be sealed");
        refuse_dracut(&volumes)?;
        for (n, volume) in volumes.iter().enumerate() {
            let entries = boot::entries(volume)?;
            let Some(entry) = boot::default_entry(&entries) else { continue };
            // A menu on one filesystem can start a kernel on another: the first that has it.
            let rest = volumes.iter().take(n).chain(volumes.iter().skip(n + 1));
            for candidate in std::iter::once(volume).chain(rest) {
                if let Some(found) = candidate.load(entry)? {
                    return Ok(found);
                }
            }
            return Err(unsealable().cause(format!(
                "the kernel `{}` of its default boot entry `{}` is not there",
                lossy(&entry.kernel),
                lossy(&entry.title)
            )));
        }
        Err(unsealable()
            .cause("no boot entry was found in it: no grub.cfg and no loader/entries with a Linux kernel")
            .hint("The seal boots the image's own kernel; use an image with GRUB or Boot Loader Specification entries."))
    }
}

/// dracut's and systemd's initrds drop the words after `--`, so the seal's shell would wait for
/// somebody to type.
fn refuse_dracut(volumes: &[Volume]) -> Result<()> {
    for path in ["/usr/lib/dracut/dracut-init.sh", "/usr/bin/dracut", "/usr/sbin/dracut"] {
        if volumes.iter().any(|v| v.tree.resolve(path.as_bytes()).is_some()) {
            return Err(Error::failed("the image cannot be sealed")
                .cause(format!("its initrd is made by dracut (`{path}` is there), which does not pass on the words after `--`"))
                .hint("Use an image whose initrd is made by initramfs-tools; dracut is not supported yet."));
        }
    }
    Ok(())
}

struct Volume {
    fs: Arc<dyn Filesystem>,
    tree: Tree,
}

impl Volume {
    fn read(fs: &Arc<dyn Filesystem>) -> Result<Self> {
        Ok(Volume { tree: fs.tree()?, fs: fs.clone() })
    }

    fn node(&self, path: &[u8]) -> Option<&Node> {
        self.tree.nodes.get(self.tree.resolve(path)? as usize)
    }

    fn load(&self, entry: &Entry) -> Result<Option<Bootable>> {
        let Some(kernel) = self.read(&entry.kernel, MAX_KERNEL)? else { return Ok(None) };
        let mut initrd = vec![];
        for path in &entry.initrd {
            let left = MAX_INITRD.saturating_sub(initrd.len() as u64);
            let Some(more) = self.read(path, left)? else {
                return Err(Error::failed("the image cannot be sealed").cause(format!(
                    "the initrd `{}` of its default boot entry is not there",
                    lossy(path)
                )));
            };
            initrd.extend(more);
        }
        let cmdline = String::from_utf8(entry.cmdline.clone()).map_err(|_| {
            Error::failed("the image cannot be sealed")
                .cause("the kernel command line of its default boot entry is no UTF-8")
        })?;
        Ok(Some(Bootable { kernel, initrd, cmdline, title: lossy(&entry.title) }))
    }
}

impl Files for Volume {
    fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(node) = self.node(path) else { return Ok(None) };
        let NodeKind::File { size, .. } = node.kind else { return Ok(None) };
        if size > limit {
            return Err(Error::undetermined(format!(
                "`{}` in the image has {size} bytes; the limit is {limit} bytes",
                lossy(path)
            )));
        }
        let mut bytes = vec![];
        self.fs.read_file(node, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    fn size(&self, path: &[u8]) -> Result<Option<u64>> {
        Ok(self.node(path).and_then(|node| match node.kind {
            NodeKind::File { size, .. } => Some(size),
            _ => None,
        }))
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(NodeKind::Directory { children }) = self.node(path).map(|n| &n.kind) else {
            return Ok(vec![]);
        };
        Ok(children
            .iter()
            .filter_map(|id| self.tree.nodes.get(*id as usize))
            .map(|n| n.name.clone())
            .collect())
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
