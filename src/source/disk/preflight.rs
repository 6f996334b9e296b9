//! What a build from packages needs of the host, all missing things at once, before anything is
//! downloaded.

use std::path::Path;

use super::{Loader, grub};
use crate::error::{Error, Result};
use crate::exec::{Tool, tools};
use crate::spec::types::Arch;

/// What the kernel does with programs of other systems.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
/// The public keys of Debian's archives.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

const ASSEMBLY: &[Tool] = &[
    tools::MMDEBSTRAP,
    tools::TAR,
    tools::MKE2FS,
    tools::DEBUGFS,
    tools::DUMPE2FS,
    tools::MKFS_VFAT,
    tools::MMD,
    tools::MCOPY,
];
const PACKAGES: &[Tool] = &[tools::APT_GET, tools::GPGV];

/// Fails unless [`super::assemble`] has all that it needs.
pub(crate) fn assembly(arch: Arch, loader: Loader) -> Result<()> {
    check(ASSEMBLY, &[], arch, loader)
}

/// Fails unless a build from packages has all that it needs.
pub(crate) fn packages(arch: Arch, loader: Loader) -> Result<()> {
    check(&[ASSEMBLY, PACKAGES].concat(), &[(KEYRING, "debian-archive-keyring")], arch, loader)?;
    let name = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    if std::env::consts::ARCH == name || runs_programs_of(Path::new(FORMATS), name) {
        return Ok(());
    }
    let arch = arch.as_str();
    Err(Error::failed(format!("this host does not run programs of {arch}, and packages run some when they are installed"))
        .detail(format!("looked for an emulator of {name} that works in other roots (flag F) in {FORMATS}"))
        .hint("Install it with `sudo apt-get install qemu-user-static`, or build on a host of that architecture."))
}

/// Whether the kernel hands programs of this architecture to an emulator that it has opened already: a
/// tree that is being made has none (the kernel's admin-guide/binfmt-misc.rst).
fn runs_programs_of(formats: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(formats).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).any(|text| {
        let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        text.starts_with("enabled\n")
            && of("interpreter ").contains(name)
            && of("flags: ").contains('F')
    })
}

fn check(
    needed: &[Tool],
    files: &[(&'static str, &'static str)],
    arch: Arch,
    loader: Loader,
) -> Result<()> {
    let mut lines = vec![];
    let mut packages = vec![];
    let mut tools = needed.to_vec();
    if !rustix::process::getuid().is_root() {
        tools.push(tools::NEWUIDMAP);
    }
    // The boot loader for a BIOS is made here, that of UEFI not always.
    if arch == Arch::Amd64 || loader == Loader::Made {
        tools.push(tools::GRUB_MKIMAGE);
    }
    for tool in tools.iter().filter(|t| t.find().is_err()) {
        lines.push(format!("`{}` {} (package {})", tool.name, tool.why, tool.package));
        packages.push(tool.package);
    }
    for (file, package) in files.iter().filter(|(file, _)| !Path::new(file).exists()) {
        lines.push(format!("`{file}` (package {package})"));
        packages.push(package);
    }
    for (file, package) in grub::missing_modules(arch, loader) {
        lines.push(format!("GRUB's `{file}` (package {package})"));
        packages.push(package);
    }
    if packages.is_empty() {
        return Ok(());
    }
    packages.sort_unstable();
    packages.dedup();
    let mut error = Error::failed("this host lacks what a build from packages needs");
    for line in lines {
        error = error.detail(format!("missing: {line}"));
    }
    Err(error.hint(format!("Install it with `sudo apt-get install {}`.", packages.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let none = Tool { name: "no-such-tool", why: "to fly", package: "wings" };
        let files = [("/no/such/keys", "keys")];
        let e = check(&[none], &files, Arch::Amd64, Loader::Made).expect_err("missing").to_string();
        assert!(e.contains("missing: `no-such-tool` to fly (package wings)"), "{e}");
        assert!(e.contains("missing: `/no/such/keys` (package keys)"), "{e}");
        assert!(e.contains("apt-get install ") && e.contains("wings"), "{e}");
    }

    #[test]
    fn an_emulator_counts_if_it_is_switched_on_and_works_in_other_roots() {
        let dir = tempfile::tempdir().expect("dir");
        let put = |text: &str| std::fs::write(dir.path().join("qemu-aarch64"), text).expect("put");
        let program = "interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n";
        let runs = || runs_programs_of(dir.path(), "aarch64");
        assert!(!runs(), "nothing is registered");
        put(&format!("enabled\n{program}flags: POCF\noffset 0\n"));
        assert!(runs());
        assert!(!runs_programs_of(dir.path(), "x86_64"));
        put(&format!("enabled\n{program}flags: PO\n"));
        assert!(!runs(), "it is looked for in the tree");
        put(&format!("disabled\n{program}flags: POCF\n"));
        assert!(!runs());
    }
}
