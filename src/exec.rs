//! Starts helper programs and turns their failures into messages.
//!
//! Each program is named together with the reason it is needed, so that a missing one can be
//! explained in the first second.

pub mod group;
#[cfg(target_os = "linux")]
pub(crate) mod mounts;
pub mod sandbox;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// A program of the host that devbox drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The executable's name.
    pub name: &'static str,
    /// What devbox needs it for (`to run virtual machines`).
    pub why: &'static str,
    /// The Debian and Ubuntu package that has it.
    pub package: &'static str,
}

/// The programs that devbox drives.
pub mod tools {
    use super::Tool;
    use crate::host::Arch;

    /// Runs guests of amd64.
    pub const QEMU_X86: Tool = Tool {
        name: "qemu-system-x86_64",
        why: "to run virtual machines",
        package: "qemu-system-x86",
    };
    /// Runs guests of arm64.
    pub const QEMU_ARM64: Tool = Tool {
        name: "qemu-system-aarch64",
        why: "to run virtual machines of arm64",
        package: "qemu-system-arm",
    };

    /// Runs guests of this architecture.
    #[must_use]
    pub const fn qemu(arch: Arch) -> Tool {
        match arch {
            Arch::X86_64 => QEMU_X86,
            Arch::Aarch64 => QEMU_ARM64,
        }
    }

    /// Emulates a TPM.
    pub const SWTPM: Tool =
        Tool { name: "swtpm", why: "to give a virtual machine a TPM", package: "swtpm" };
    /// Creates overlays and converts images.
    pub const QEMU_IMG: Tool =
        Tool { name: "qemu-img", why: "to create and convert disk images", package: "qemu-utils" };
    /// Takes the network from a helper program.
    pub const UNSHARE: Tool = Tool {
        name: "unshare",
        why: "to isolate programs that read images",
        package: "util-linux",
    };
    /// Bounds what a helper program takes.
    pub const PRLIMIT: Tool = Tool {
        name: "prlimit",
        why: "to isolate programs that read images",
        package: "util-linux",
    };
    /// The client behind `devbox ssh` and the build's steps.
    pub const SSH: Tool =
        Tool { name: "ssh", why: "to run commands in a guest", package: "openssh-client" };
    /// Runs playbooks of `ansible` steps.
    pub const ANSIBLE: Tool = Tool {
        name: "ansible-playbook",
        why: "to run a step of `type = \"ansible\"`",
        package: "ansible-core",
    };
    /// Fetches what those steps require.
    pub const ANSIBLE_GALAXY: Tool = Tool {
        name: "ansible-galaxy",
        why: "to fetch the `requirements` of a step",
        package: "ansible-core",
    };
    /// Copies folders into guests.
    pub const RSYNC: Tool =
        Tool { name: "rsync", why: "to copy folders into a machine", package: "rsync" };
    /// Unpacks Debian packages into a root tree without root.
    pub const MMDEBSTRAP: Tool =
        Tool { name: "mmdebstrap", why: "to build an image from packages", package: "mmdebstrap" };
    /// Makes the ext4 root filesystem.
    pub const MKE2FS: Tool =
        Tool { name: "mke2fs", why: "to make the image's root filesystem", package: "e2fsprogs" };
    /// Sets times of inodes that `mke2fs` copies from the host.
    pub const DEBUGFS: Tool = Tool {
        name: "debugfs",
        why: "to fix the times in the image's root filesystem",
        package: "e2fsprogs",
    };
    /// Lists which inodes are in use.
    pub const DUMPE2FS: Tool = Tool {
        name: "dumpe2fs",
        why: "to fix the times in the image's root filesystem",
        package: "e2fsprogs",
    };
    /// Maps the user's range of ids into a user namespace.
    pub const NEWUIDMAP: Tool =
        Tool { name: "newuidmap", why: "to build an image without root", package: "uidmap" };
    /// The same for groups.
    pub const NEWGIDMAP: Tool =
        Tool { name: "newgidmap", why: "to serve folders without root", package: "uidmap" };
    /// Checks the signature of an archive's index.
    pub const GPGV: Tool =
        Tool { name: "gpgv", why: "to check the signature of the packages", package: "gpgv" };
    /// Asked for the host's mirror; `mmdebstrap` needs it too.
    pub const APT_GET: Tool =
        Tool { name: "apt-get", why: "to build an image from packages", package: "apt" };
    /// Unpacks the root tree.
    pub const TAR: Tool = Tool { name: "tar", why: "to unpack the root tree", package: "tar" };
    /// Makes the EFI system partition.
    pub const MKFS_VFAT: Tool =
        Tool { name: "mkfs.vfat", why: "to make the EFI system partition", package: "dosfstools" };
    /// Fills the EFI system partition.
    pub const MCOPY: Tool =
        Tool { name: "mcopy", why: "to fill the EFI system partition", package: "mtools" };
    /// Makes folders on the EFI system partition.
    pub const MMD: Tool =
        Tool { name: "mmd", why: "to fill the EFI system partition", package: "mtools" };
    /// Makes the boot loader's images.
    pub const GRUB_MKIMAGE: Tool =
        Tool { name: "grub-mkimage", why: "to make the boot loader", package: "grub-common" };
}

impl Tool {
    /// The program's path on this host. Looks in `sbin` too, which a plain user's `PATH` lacks on Debian.
    ///
    /// # Errors
    /// The program is not there: names it, its use and its package.
    pub fn find(&self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        let dirs = std::env::join_paths(dirs).unwrap_or(path);
        which::which_in(self.name, Some(dirs), "/").map_err(|_| {
            Error::failed(format!("`{}` is not installed; it is needed {}", self.name, self.why))
                .hint(format!("Install it with `sudo apt-get install {}`, or your system's package that has it.", self.package))
        })
    }

    /// A command of this program, with nothing on standard input.
    ///
    /// # Errors
    /// As [`Tool::find`].
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.find()?);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// The program could not be started, or ended with a code other than 0: the message holds the
/// command line and the last lines of standard error.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let out = command
        .output()
        .map_err(|e| Error::failed(format!("cannot start `{}`", line(command))).cause(e))?;
    check(command, &out)?;
    Ok(out.stdout)
}

/// Runs to the end with `question` on standard input; whatever it answers.
///
/// # Errors
/// The program could not be started.
pub fn answer(command: &mut Command, question: &[u8]) -> std::io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not want to hear it may still answer.
        let _ = stdin.write_all(question);
    }
    child.wait_with_output()
}

/// Fails unless the program ended with code 0.
///
/// # Errors
/// As [`output`].
pub fn check(command: &Command, out: &Output) -> Result<()> {
    if out.status.success() {
        return Ok(());
    }
    let mut error = Error::failed(format!("`{}` failed: {}", name(command), out.status))
        .detail(format!("command: {}", line(command)));
    for l in last_lines(&out.stderr, 10) {
        error = error.detail(l);
    }
    Err(error)
}

/// The last `n` lines of a program's output, lossily decoded.
#[must_use]
pub fn last_lines(bytes: &[u8], n: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect()
}

/// Words of `unshare` for a user namespace in which this user and group have other ids.
#[must_use]
pub fn as_owner(uid: u32, gid: u32) -> [String; 3] {
    ["--user".to_owned(), format!("--map-user={uid}"), format!("--map-group={gid}")]
}

/// The command as a line that a shell would take.
#[must_use]
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect::<Vec<_>>()
        .join(" ")
}

fn name(command: &Command) -> String {
    let words: Vec<&OsStr> =
        std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let file_name = |word: &&OsStr| Path::new(word).file_name().map(OsStr::to_owned);
    // In the sandbox, the program stands behind those that isolate it.
    let isolated = file_name(&command.get_program()).is_some_and(|n| n == tools::UNSHARE.name);
    let last = words.iter().rposition(|word| *word == "--").filter(|_| isolated);
    let program = last.and_then(|at| words.get(at + 1)).copied();
    let program = program.unwrap_or(command.get_program());
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

/// One word, quoted for a POSIX shell where it has to be, for people: bytes that are no text are shown.
#[must_use]
pub fn quote(word: &OsStr) -> String {
    shell_word(word).to_string_lossy().into_owned()
}

/// One word, quoted for a POSIX shell where it has to be, byte for byte.
#[must_use]
pub fn shell_word(word: &OsStr) -> OsString {
    let bytes = word.as_encoded_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=+,./:@%".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return word.to_owned();
    }
    let parts: Vec<&[u8]> = bytes.split(|b| *b == b'\'').collect();
    crate::os::os_string([b"'", &parts.join(&br"'\''"[..])[..], b"'"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        let word = OsStr::new("a b'c$d");
        let out = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word))).output();
        assert_eq!(out.expect("sh runs").stdout, b"a b'c$d");
    }

    #[test]
    fn a_failing_program_is_quoted_with_its_last_words() {
        let mut c = Command::new("sh");
        c.args(["-c", "echo broken >&2; exit 7"]);
        let e = output(&mut c).expect_err("it fails");
        assert!(e.what().contains("`sh` failed"), "{e}");
        assert!(e.details().iter().any(|d| d == "broken"), "{e}");
    }

    #[test]
    fn a_failure_in_the_sandbox_names_the_program() {
        let bounds = sandbox::Bounds::for_disk(0);
        let mut inner = Command::new("/bin/sh");
        inner.args(["-c", "exit 7"]);
        let mut c = sandbox::command(inner, &bounds, sandbox::Policy::Isolated).expect("isolated");
        assert!(output(&mut c).expect_err("it fails").what().contains("`sh` failed"));
    }

    #[test]
    fn a_missing_tool_is_named_with_its_use_and_package() {
        let tool = Tool { name: "no-such-program", why: "to fly", package: "wings" };
        let e = tool.find().expect_err("not there");
        assert!(e.to_string().contains("`no-such-program` is not installed; it is needed to fly"));
        assert!(e.to_string().contains("apt-get install wings"));
    }
}
