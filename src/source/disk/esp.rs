//! The EFI system partition: FAT32 with GRUB in the place where firmware looks without an entry in
//! its variables (UEFI 2.10, section 3.5.1.1), so that a fresh machine boots it.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use super::scratch::Scratch;
use crate::error::Result;
use crate::exec::{self, tools};

/// Makes the filesystem in a file of the scratch folder and returns the file's path.
pub(super) async fn make(
    layout: &Layout,
    boot_efi: &Path,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let image = scratch.dir().join("esp.vfat");
    fs::File::create(&image)?.set_len(layout.esp().size)?;
    // FAT has no times before 1980.
    let epoch = u64::try_from(layout.epoch).unwrap_or(0).max(315_532_800);
    let time = UNIX_EPOCH + Duration::from_secs(epoch);
    fs::OpenOptions::new().write(true).open(boot_efi)?.into_file().set_modified(time)?;

    let mut mkfs = tools::MKFS_VFAT.command()?;
    mkfs.args(["--invariant", "-F", "32", "-s", "1", "-n", "ESP", "-i"])
        .arg(format!("{:08x}", layout.ids().esp))
        .arg(&image);
    let mut folders = tools::MMD.command()?;
    folders.arg("-i").arg(&image).args(["::/EFI", "::/EFI/BOOT"]);
    let mut copy = tools::MCOPY.command()?;
    copy.args(["-m", "-i"]).arg(&image).arg(boot_efi).arg("::/EFI/BOOT/BOOTX64.EFI");
    for mut command in [mkfs, folders, copy] {
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
