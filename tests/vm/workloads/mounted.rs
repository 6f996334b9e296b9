//! Two disks as the kernel shows their roots, compared by rsync: neither knows anything of devbox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use devbox::parity::spelling::spell;

use crate::people::run;

/// A root filesystem that is mounted as long as the value lives.
struct Mounted(PathBuf);

impl Mounted {
    /// The last partition of a raw disk; its journal is replayed.
    fn new(disk: &Path, at: PathBuf) -> Mounted {
        let parts = run(Command::new("sfdisk").arg("--json").arg(disk));
        let table: serde_json::Value = serde_json::from_slice(&parts.stdout).expect("JSON");
        let parts = table["partitiontable"]["partitions"].as_array().expect("partitions");
        let start = parts.iter().filter_map(|part| part["start"].as_u64()).max().expect("one");
        fs::create_dir_all(&at).expect("a mount point");
        let options = format!("loop,offset={}", start * 512);
        run(Command::new("mount").args(["-o", &options]).args([disk, &at]));
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Paths below the root that differ in contents, rights, owners, attributes or lists of rights, or are on one
/// side only, spelled as in a report; with what rsync says of each.
/// `disk` is raw and is written to.
pub(super) fn different(image: &Path, disk: &Path, desk: &Path) -> BTreeMap<String, String> {
    let before = desk.join("before");
    if !before.exists() {
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([image, &before]));
    }
    let (old, new) =
        (Mounted::new(&before, desk.join("old")), Mounted::new(disk, desk.join("new")));
    let slash = |mounted: &Mounted| format!("{}/", mounted.0.display());
    let said = run(Command::new("rsync")
        .args(["-nrlpogDHAXc8", "--numeric-ids", "--delete", "--out-format=%i %n"])
        .args([slash(&new), slash(&old)]));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let both = said.lines().filter_map(|line| line.split_once(' '));
    let both = both.map(|(how, path)| (path.trim_start().trim_end_matches('/'), how));
    // A socket is no part of an image.
    let kept = |(path, _): &(&str, &str)| {
        let meta = fs::symlink_metadata(new.0.join(path));
        !meta.is_ok_and(|meta| meta.file_type().is_socket())
    };
    both.filter(kept)
        .map(|(path, how)| match path {
            // The root has no name to spell.
            "." => (String::new(), how.to_owned()),
            path => (spell(path.as_bytes()), how.to_owned()),
        })
        .collect()
}
