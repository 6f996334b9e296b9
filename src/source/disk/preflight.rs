//! What a build from packages needs of the host, all missing things at once, before anything is
//! downloaded.

use std::path::Path;

use super::grub;
use crate::error::{Error, Result};
use crate::exec::{Tool, tools};

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
    tools::GRUB_MKIMAGE,
];
const PACKAGES: &[Tool] = &[tools::APT_GET, tools::GPGV];

/// Fails unless [`super::assemble`] has all that it needs.
pub(crate) fn assembly() -> Result<()> {
    check(ASSEMBLY, &[])
}

/// Fails unless a build from packages has all that it needs.
pub(crate) fn packages() -> Result<()> {
    check(&[ASSEMBLY, PACKAGES].concat(), &[(KEYRING, "debian-archive-keyring")])
}

fn check(needed: &[Tool], files: &[(&'static str, &'static str)]) -> Result<()> {
    let mut lines = vec![];
    let mut packages = vec![];
    let mut tools = needed.to_vec();
    if !rustix::process::getuid().is_root() {
        tools.push(tools::NEWUIDMAP);
    }
    for tool in tools.iter().filter(|t| t.find().is_err()) {
        lines.push(format!("`{}` {} (package {})", tool.name, tool.why, tool.package));
        packages.push(tool.package);
    }
    for (file, package) in files.iter().filter(|(file, _)| !Path::new(file).exists()) {
        lines.push(format!("`{file}` (package {package})"));
        packages.push(package);
    }
    for (file, package) in grub::missing_modules() {
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
        let e = check(&[none], &files).expect_err("missing").to_string();
        assert!(e.contains("missing: `no-such-tool` to fly (package wings)"), "{e}");
        assert!(e.contains("missing: `/no/such/keys` (package keys)"), "{e}");
        assert!(e.contains("apt-get install ") && e.contains("wings"), "{e}");
    }
}
