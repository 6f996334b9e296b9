//! The EFI system partition: FAT32 with the boot loader in the place where firmware looks without an entry in
//! its variables (UEFI 2.10, section 3.5.1.1), so that a fresh machine boots it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use super::loader::EspFile;
use super::scratch::Scratch;
use crate::error::Result;
use crate::exec::{self, tools};

/// Makes the filesystem in a file of the scratch folder and returns the file's path.
pub(super) async fn make(
    layout: &Layout,
    files: &[EspFile],
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let image = scratch.dir().join("esp.vfat");
    fs::File::create(&image)?.set_len(layout.esp().size)?;
    // FAT has no times before 1980.
    let epoch = u64::try_from(layout.epoch).unwrap_or(0).max(315_532_800);
    let time = UNIX_EPOCH + Duration::from_secs(epoch);
    for file in files {
        let content = fs::OpenOptions::new().write(true).open(&file.content)?;
        content.into_file().set_modified(time)?;
    }
    let mut mkfs = tools::MKFS_VFAT.command()?;
    mkfs.args(["--invariant", "-F", "32", "-s", "1", "-n", "ESP", "-i"])
        .arg(format!("{:08x}", layout.ids().esp))
        .arg(&image);
    let mut commands = vec![mkfs];
    // Each folder behind the one that it lies in.
    let folders: BTreeSet<&str> = files
        .iter()
        .flat_map(|file| file.path.match_indices('/').map(|(end, _)| &file.path[..end]))
        .collect();
    let mut make = tools::MMD.command()?;
    make.arg("-i").arg(&image).args(folders.iter().map(|folder| format!("::/{folder}")));
    commands.push(make);
    for file in files {
        let mut copy = tools::MCOPY.command()?;
        copy.args(["-m", "-i"]).arg(&image).arg(&file.content).arg(format!("::/{}", file.path));
        commands.push(copy);
    }
    for mut command in commands {
        // mtools stamps local time on folders; SOURCE_DATE_EPOCH fixes it (mtools 4.0.25 and later).
        command
            .stdin(scratch.stdin()?)
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .env("SOURCE_DATE_EPOCH", epoch.to_string());
        exec::group::run(command, |_| {}, cancel).await?;
    }
    Ok(image)
}
