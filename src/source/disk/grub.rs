//! GRUB, written without `grub-install`: a core for a BIOS and an EFI program, both from the host's
//! modules, both looking for the root filesystem by its UUID, so that the disk need not be the first.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::Loader;
use super::layout::{Extent, SECTOR};
use super::scratch::Scratch;
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::source::seed::Uuid;
use crate::spec::types::Arch;

const MODULES: &str = "/usr/lib/grub";
/// What both need: the partition table, the root filesystem, and the commands that a `grub.cfg` uses.
const COMMON: &[&str] = &[
    "part_gpt",
    "ext2",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "minicmd",
    "test",
    "echo",
    "ls",
    "cat",
    "halt",
    "reboot",
    "serial",
    "terminal",
    "sleep",
    "true",
];
const BIOS: &[&str] = &["biosdisk"];
const EFI: &[&str] = &["fat", "efi_gop", "efi_uga", "video"];

/// Boot code before the partition table of the MBR.
const BOOT_CODE: usize = 440;
/// `boot.img`: where the core's first sector is written, 64 bits (GRUB, `GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;
/// `boot.img`: a jump that keeps a wrong drive number from a BIOS; two NOPs correct it (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;
/// Core: the block list of what follows its first sector: start, 64 bits, then length, 16 bits.
const LIST_START: usize = 0x1f4;
const LIST_LENGTH: usize = 0x1fc;

/// What goes where: 440 bytes into the MBR, the core into the BIOS-boot partition.
#[derive(Debug)]
pub(super) struct BiosBoot {
    pub(super) code: [u8; BOOT_CODE],
    pub(super) core: Vec<u8>,
}

/// What this loader needs of GRUB's modules and the host does not have, with its package.
pub(crate) fn missing_modules(arch: Arch, loader: Loader) -> Vec<(&'static str, &'static str)> {
    let (bios, efi) =
        (("i386-pc/boot.img", "grub-pc-bin"), ("x86_64-efi/normal.mod", "grub-efi-amd64-bin"));
    let bios = (arch == Arch::Amd64).then_some(bios);
    let efi = (loader == Loader::Made).then_some(efi);
    bios.into_iter()
        .chain(efi)
        .filter(|(file, _)| !Path::new(MODULES).join(file).exists())
        .collect()
}

/// The boot code for a BIOS, with the core at `place`.
pub(super) async fn bios(
    root: Uuid,
    place: Extent,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<BiosBoot> {
    let core = fs::read(mkimage("i386-pc", BIOS, root, "core.img", scratch, cancel).await?)?;
    let boot = fs::read(Path::new(MODULES).join("i386-pc/boot.img"))?;
    place_core(&boot, core, place).ok_or_else(|| {
        Error::failed(format!("GRUB in `{MODULES}/i386-pc` is not of a form that devbox knows"))
            .hint("Install GRUB 2 (`sudo apt-get install grub-pc-bin grub-common`).")
    })
}

/// Makes the EFI program and returns its path in the scratch folder.
pub(super) async fn efi(
    root: Uuid,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    mkimage("x86_64-efi", EFI, root, "BOOTX64.EFI", scratch, cancel).await
}

async fn mkimage(
    platform: &str,
    own: &[&str],
    root: Uuid,
    name: &str,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let config = scratch.dir().join(format!("{platform}.cfg"));
    fs::write(&config, embedded_config(root))?;
    let out = scratch.dir().join(name);
    let mut command = tools::GRUB_MKIMAGE.command()?;
    command.args(["-O", platform, "-p", "/boot/grub", "-c"]).arg(&config).arg("-o").arg(&out);
    command.args(COMMON).args(own).stdin(scratch.stdin()?);
    exec::group::run(command, |_| {}, cancel).await?;
    Ok(out)
}

/// Runs before `grub.cfg` is known: finds the filesystem that has it.
fn embedded_config(root: Uuid) -> String {
    format!("search --no-floppy --fs-uuid --set=root {root}\nset prefix=($root)/boot/grub\n")
}

/// Tells the boot code where the core is, and the core's first sector where the rest of it is.
/// `None` if they do not have the expected form or the core does not fit.
fn place_core(boot: &[u8], mut core: Vec<u8>, place: Extent) -> Option<BiosBoot> {
    let sector = place.offset / SECTOR;
    let mut code: [u8; BOOT_CODE] = boot.get(..BOOT_CODE)?.try_into().ok()?;
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&sector.to_le_bytes());
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);

    let sectors = (core.len() as u64).div_ceil(SECTOR);
    if core.len() < 2 * SECTOR as usize || sectors * SECTOR > place.size {
        return None;
    }
    let rest = u16::try_from(sectors - 1).ok()?;
    core[LIST_START..LIST_START + 8].copy_from_slice(&(sector + 1).to_le_bytes());
    core[LIST_LENGTH..LIST_LENGTH + 2].copy_from_slice(&rest.to_le_bytes());
    Some(BiosBoot { code, core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_code_and_core_name_the_sectors_of_the_place() {
        let place = Extent { offset: 1 << 20, size: 1 << 20 };
        let boot = place_core(&[7; 512], vec![1; 5 * 512 + 1], place).expect("placed");
        assert_eq!(boot.code[0x5c..0x64], 2048u64.to_le_bytes());
        assert_eq!(boot.code[0x66..0x68], [0x90, 0x90]);
        assert_eq!(boot.core[0x1f4..0x1fc], 2049u64.to_le_bytes());
        assert_eq!(boot.core[0x1fc..0x1fe], 5u16.to_le_bytes());
    }

    #[test]
    fn a_core_that_does_not_fit_is_refused() {
        let place = Extent { offset: 1 << 20, size: 4096 };
        assert!(place_core(&[0; 512], vec![0; 4097], place).is_none());
        assert!(place_core(&[0; 512], vec![0; 512], place).is_none());
        assert!(place_core(&[0; 100], vec![0; 4096], place).is_none());
    }
}
