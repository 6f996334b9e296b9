//! The root filesystem: an ext4 made from a tar without mounting, the same bytes each time.
//!
//! `mke2fs -d` in a user namespace keeps owners, modes, capabilities and ACLs. Features, sizes and
//! ids are all given, since the defaults of the host's `/etc/mke2fs.conf` differ. What `mke2fs`
//! 1.47.0 copies from the host's inodes (change and access times) is set afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::layout::{Layout, MIB};
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::exec::{self, tools};

/// What every kernel since 4.x and GRUB 2.06 read: no `orphan_file`, no `metadata_csum_seed`.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
const BLOCK: u64 = 4096;
const INODE: u64 = 256;
/// One inode for so many bytes, as in Debian's `mke2fs.conf`.
const BYTES_PER_INODE: u64 = 16384;
const JOURNAL_MIB: u64 = 32;
/// Kept for root, in percent, so that a full disk can still be logged into.
const RESERVED_PERCENT: u64 = 1;

/// Makes the filesystem in a file of the scratch's work folder and returns the file's path.
pub(super) async fn make(
    layout: &Layout,
    root_tar: &Path,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let image = scratch.shared_file("root.ext4")?;
    fs::write(scratch.work().join("mke2fs.conf"), "[defaults]\n[fs_types]\n")?;
    let extent = layout.root();
    fs::OpenOptions::new().write(true).open(&image)?.set_len(extent.size)?;

    let mut unpack = scratch.namespace(&unpack_script(layout.epoch))?;
    unpack.stdin(std::fs::File::from(fs::File::open(root_tar)?));
    let usage = exec::group::run(fixed(unpack, layout.epoch), |_| {}, cancel)
        .await
        .map_err(|e| explain_full(e, &scratch.work()))?;

    let make = scratch.namespace(&mke2fs_script(layout))?;
    if let Err(e) = exec::group::run(fixed(make, layout.epoch), |_| {}, cancel).await {
        if e.kind() == Kind::Interrupted {
            return Err(e);
        }
        let text = e.to_string();
        if text.contains("No space left on device") {
            return Err(explain_full(e, &scratch.work()));
        }
        return Err(match Usage::parse(&usage).filter(|u| u.root_size() > extent.size) {
            Some(usage) => too_small(layout, &usage),
            None => e.context("cannot make the root filesystem"),
        });
    }
    exec::group::run(scratch.namespace("rm -rf root")?, |_| {}, cancel).await?;
    fix_times(&image, layout.epoch, scratch, cancel).await?;
    Ok(image)
}

/// Unpacks standard input into `root` but for device nodes, which only the host's root can make and
/// the kernel makes at boot (the folder has to be there), clamps times, and prints what it takes: KiB in blocks of the
/// filesystem, and the number of inodes.
fn unpack_script(epoch: i64) -> String {
    format!(
        "mkdir root\n\
         tar -C root --anchored --exclude='./dev/*' --exclude='dev/*' --xattrs --xattrs-include='*' --numeric-owner -xpf -\n\
         exec </dev/null\n\
         mkdir -p root/dev\n\
         find root -newermt @{epoch} -exec touch -h -d @{epoch} {{}} +\n\
         find root -printf '%s %y\\n' | awk '{{ n++; k += int(($1 + 4095) / 4096) * 4 }} END {{ print k, n }}'\n"
    )
}

fn mke2fs_script(layout: &Layout) -> String {
    let ids = layout.ids();
    let blocks = layout.root().size / BLOCK;
    let inodes = layout.root().size / BYTES_PER_INODE;
    format!(
        "export MKE2FS_CONFIG=./mke2fs.conf\n\
         {mke2fs} -q -F -t ext4 -d root -L {label} -U {uuid} \
         -E hash_seed={hash_seed},lazy_itable_init=0,lazy_journal_init=0,nodiscard \
         -O {FEATURES} -b {BLOCK} -I {INODE} -N {inodes} -G 16 -J size={JOURNAL_MIB} -m {RESERVED_PERCENT} \
         -e continue root.ext4 {blocks}\n",
        mke2fs = "PATH=\"$PATH:/usr/sbin:/sbin\" mke2fs",
        label = layout.label,
        uuid = ids.root,
        hash_seed = ids.hash_seed,
    )
}

/// The same surroundings each time. e2fsprogs 1.47.0 obeys its own variable, later ones both.
fn fixed(mut command: Command, epoch: i64) -> Command {
    command
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("E2FSPROGS_FAKE_TIME", epoch.to_string())
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    command
}

/// What a tree takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    kib: u64,
    inodes: u64,
}

impl Usage {
    fn parse(out: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(out).ok()?;
        let (kib, inodes) = text.trim().split_once(' ')?;
        Some(Usage { kib: kib.parse().ok()?, inodes: inodes.parse().ok()? })
    }

    /// Bytes of a filesystem that holds the tree: its blocks, extent blocks of large files, inode
    /// tables, journal, group descriptors with room to grow, the reserve.
    fn root_size(&self) -> u64 {
        let data = self.kib * 1024 + self.kib * 1024 / 64;
        let fixed = (JOURNAL_MIB + 8) * MIB;
        let net = data + fixed;
        let by_blocks = net + net * INODE / (BYTES_PER_INODE - INODE) + net * RESERVED_PERCENT / 99;
        by_blocks.max((self.inodes + 16) * BYTES_PER_INODE)
    }
}

fn too_small(layout: &Layout, usage: &Usage) -> Error {
    let needed = Layout::disk_for_root(usage.root_size()) / MIB;
    Error::failed(format!(
        "the packages do not fit on a disk of {} MiB: {} MiB in {} files",
        layout.size / MIB,
        usage.kib / 1024,
        usage.inodes
    ))
    .hint(format!("Set `disk` in `[source]` to `{needed}MiB` or more."))
}

fn explain_full(e: Error, dir: &Path) -> Error {
    if !e.to_string().contains("No space left on device") {
        return e.context("cannot make the root filesystem");
    }
    e.context(format!("the disk that holds `{}` is full", dir.display())).hint(
        "Free some space there, or set `TMPDIR` to a folder with more, then run the same command again.",
    )
}

/// Sets what depends on the host's copy of the tree: change, access and birth time of each inode,
/// and the count of bytes written.
async fn fix_times(
    image: &Path,
    epoch: i64,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut dump = tools::DUMPE2FS.command()?;
    dump.arg(image).stdin(scratch.stdin()?).env("LC_ALL", "C.UTF-8");
    let groups = exec::group::run(dump, |_| {}, cancel).await?;
    let groups = String::from_utf8_lossy(&groups);
    let used = used_inodes(&groups).ok_or_else(|| {
        Error::failed("cannot read the list of inodes that `dumpe2fs` printed")
            .hint("Report this together with the version of e2fsprogs.")
    })?;
    let mut script = String::from("set_super_value kbytes_written 0\n");
    for inode in used {
        for field in ["atime", "ctime", "crtime"] {
            script.push_str(&format!("sif <{inode}> {field} @{epoch}\n"));
            script.push_str(&format!("sif <{inode}> {field}_extra 0\n"));
        }
        script.push_str(&format!("sif <{inode}> mtime_extra 0\n"));
    }
    let file = scratch.dir().join("times");
    fs::write(&file, script)?;
    let mut debugfs = tools::DEBUGFS.command()?;
    debugfs.arg("-w").arg("-f").arg(&file).arg(image).stdin(scratch.stdin()?);
    let mut complaint = None;
    let check = |line: &str| {
        // The first line is the version; anything else is about a command that failed.
        if !line.is_empty() && !line.starts_with("debugfs ") && complaint.is_none() {
            complaint = Some(line.to_owned());
        }
    };
    exec::group::run(fixed(debugfs, epoch), check, cancel).await?;
    match complaint {
        Some(line) => {
            Err(Error::failed("cannot set the times in the root filesystem").detail(line))
        }
        None => Ok(()),
    }
}

/// The inodes in use, from the lines `Free inodes: 12-8192, …` that `dumpe2fs` prints for each group.
fn used_inodes(dump: &str) -> Option<Vec<u64>> {
    let per_group: u64 =
        dump.lines().find_map(|l| l.strip_prefix("Inodes per group:"))?.trim().parse().ok()?;
    let mut used = vec![];
    let mut next = 1;
    for line in dump.lines() {
        let Some(free) = line.strip_prefix("  Free inodes:") else { continue };
        let end = next + per_group;
        for range in free.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
            used.extend(next..from);
            next = to + 1;
        }
        used.extend(next..end);
        next = end;
    }
    // 1 is the list of bad blocks; 3 to 10 but the journal (8) and the resize inode (7) are unused.
    Some(used.into_iter().filter(|&i| i == 2 || i == 7 || i == 8 || i > 10).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_inodes_are_the_gaps_between_the_free_ones() {
        let dump = "Inodes per group:         16\n\
                    Group 0: (Blocks 0-31)\n  Free inodes: 13-14, 16\n\
                    Group 1: (Blocks 32-63)\n  Free inodes: 17-32\n\
                    Group 2: (Blocks 64-95)\n  Free inodes: \n";
        let used = used_inodes(dump).expect("parsed");
        let mut want = vec![2, 7, 8, 11, 12, 15];
        want.extend(33..=48);
        assert_eq!(used, want);
    }

    #[test]
    fn a_listing_of_another_form_is_an_error_not_an_empty_list() {
        assert_eq!(used_inodes("nothing here"), None);
        assert_eq!(used_inodes("Inodes per group: 16\n  Free inodes: x-y\n"), None);
    }
}
