//! What lies on the EFI system partition.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::scratch::Scratch;
use super::{Layout, grub};
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::spec::types::Arch;

/// Where the boot loader of UEFI comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// Made of the host's modules of GRUB; for amd64.
    Made,
    /// GRUB in one piece, from a package of the tree.
    Packaged,
    /// The vendor's signed loaders, from packages of the tree: shim, which the keys of most firmware
    /// vouch for, and behind it GRUB, which shim vouches for.
    Signed,
}

impl Loader {
    /// The loader of a disk with these wishes.
    #[must_use]
    pub fn of(arch: Arch, signed: bool) -> Self {
        match (arch, signed) {
            (_, true) => Loader::Signed,
            (Arch::Amd64, false) => Loader::Made,
            // A host has modules for its own architecture alone.
            (Arch::Arm64, false) => Loader::Packaged,
        }
    }
}

/// A file of the EFI system partition.
#[derive(Debug)]
pub(super) struct EspFile {
    /// Where its content lies on the host.
    pub(super) content: PathBuf,
    /// `EFI/BOOT/BOOTX64.EFI`; two folders at most, in capitals or not (FAT does not care).
    pub(super) path: String,
}

/// The files of the layout's boot loader, which end up in the scratch folder.
pub(super) async fn files(
    layout: &Layout,
    root_tar: &Path,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<Vec<EspFile>> {
    // UEFI 2.10, section 3.5.1.1: what firmware starts from a disk that it does not know.
    let (start, short, platform) = match layout.arch {
        Arch::Amd64 => ("EFI/BOOT/BOOTX64.EFI", "x64", "x86_64-efi"),
        Arch::Arm64 => ("EFI/BOOT/BOOTAA64.EFI", "aa64", "arm64-efi"),
    };
    let root = layout.ids().root;
    let from_tree: Vec<(String, String)> = match layout.loader {
        Loader::Made => {
            let content = grub::efi(root, scratch, cancel).await?;
            return Ok(vec![EspFile { content, path: start.to_owned() }]);
        }
        Loader::Packaged => {
            vec![(format!("usr/lib/grub/{platform}/monolithic/grub{short}.efi"), start.to_owned())]
        }
        Loader::Signed => vec![
            (format!("usr/lib/shim/shim{short}.efi.signed"), start.to_owned()),
            (
                format!("usr/lib/grub/{platform}-signed/grub{short}.efi.signed"),
                format!("EFI/BOOT/grub{short}.efi"),
            ),
        ],
    };
    let dir = scratch.dir().join("loaders");
    fs::create_dir(&dir)?;
    let mut all = vec![];
    for (n, (member, path)) in from_tree.into_iter().enumerate() {
        let content = dir.join(n.to_string());
        let mut tar = tools::TAR.command()?;
        tar.arg("-xOf").arg(root_tar).arg(format!("./{member}"));
        let bytes = exec::group::run(tar, |_| {}, cancel).await.map_err(|e| {
            e.context(format!("the packages of the image bring no boot loader `/{member}`"))
                .hint("Check `packages` and `suite` in `[source]`.")
        })?;
        if bytes.is_empty() {
            return Err(Error::failed(format!("the boot loader `/{member}` is empty")));
        }
        fs::write(&content, bytes)?;
        all.push(EspFile { content, path });
    }
    // Where Debian's own GRUB looks for what to do (its package grub2, `debian/build-efi-images`).
    let content = dir.join("grub.cfg");
    fs::write(
        &content,
        format!(
            "search.fs_uuid {root} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        ),
    )?;
    all.push(EspFile { content, path: "EFI/debian/grub.cfg".to_owned() });
    Ok(all)
}
