//! What happens in a server's namespaces before it: this program once more, as `devbox folder-server`.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind_recursive, mount_remount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

use crate::error::{Error, Result};

/// The verb of the command line.
pub(super) const VERB: &str = "folder-server";
/// Its option.
pub(super) const READ_ONLY: &str = "--read-only";
/// What comes through the gate when the namespace has its ids.
pub(super) const GO: &[u8] = b"go";

/// Waits for its ids, makes the folder `read_only` so for all that follows, and becomes `program`. Standard
/// input is the server's socket, standard output the gate.
///
/// # Errors
/// The folder cannot be made read-only, or `program` cannot be started. Nothing is served then.
pub fn serve(read_only: Option<&Path>, program: &[OsString]) -> Result<()> {
    let mut gate = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut word = [0; GO.len()];
    if gate.read_exact(&mut word).is_err() || word != GO {
        return Err(Error::failed("nobody waits for this server"));
    }
    if let Some(source) = read_only {
        seal(source).map_err(|e| {
            Error::failed(format!("`{}` cannot be made read-only", source.display())).cause(e)
        })?;
    }
    keep_rights()?;
    more_files();
    let Some((program, words)) = program.split_first() else {
        return Err(Error::usage("no program is named"));
    };
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    // Returns only if it fails.
    let e = Command::new(program).args(words).stdout(Stdio::from(log)).exec();
    Err(Error::failed(format!("cannot start `{}`", program.display())).cause(e))
}

/// A server makes each file as its owner in the guest. Whoever goes to root and back to another user loses
/// his capabilities, if nothing is done about it (capabilities(7), `SECBIT_NO_SETUID_FIXUP`).
fn keep_rights() -> io::Result<()> {
    let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    Ok(set_capabilities_secure_bits(bits)?)
}

/// Each name that a guest knows is an open file of its server.
fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    // With fewer the server works, too.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Makes the folder and all that is mounted in it read-only in this mount namespace.
fn seal(source: &Path) -> io::Result<()> {
    mount_bind_recursive(source, source)?;
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    for (place, flags) in beneath(&mounts, source) {
        let sealed = mount_remount(&place, flags | MountFlags::BIND | MountFlags::RDONLY, "");
        // What counts is what a write would find there. A mount below another one has no name any more.
        match statvfs(&place) {
            Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => {}
            Err(Errno::NOENT) => {}
            Ok(_) => sealed.and(Err(Errno::ROFS))?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The mounts at and below `source` in a text as /proc/self/mountinfo has it (proc(5)), with those flags
/// that a namespace must not take from them.
fn beneath(mounts: &[u8], source: &Path) -> Vec<(PathBuf, MountFlags)> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let all = lines.filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ').skip(4);
        let (place, options) = (unescaped(words.next()?), words.next()?);
        let mut flags = MountFlags::empty();
        for option in options.split(|byte| *byte == b',') {
            flags |= match option {
                b"ro" => MountFlags::RDONLY,
                b"nosuid" => MountFlags::NOSUID,
                b"nodev" => MountFlags::NODEV,
                b"noexec" => MountFlags::NOEXEC,
                _ => MountFlags::empty(),
            };
        }
        place.starts_with(source).then_some((place, flags))
    });
    all.collect()
}

/// Space, tab, newline and backslash stand there as three octal digits.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = vec![];
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if *first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn all_that_is_mounted_in_a_folder_is_found_with_what_must_stay() {
        let text = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 21 0:5 / /a\\040b rw,nosuid,nodev,relatime - tmpfs t rw\n\
            31 30 0:6 / /a\\040b/c ro,noexec - tmpfs t rw\n\
            32 21 0:7 / /a\\040bc rw - tmpfs t rw\n\nbroken\n";
        let found = beneath(text, Path::new("/a b"));
        assert_eq!(
            found,
            [
                ("/a b".into(), MountFlags::NOSUID | MountFlags::NODEV),
                ("/a b/c".into(), MountFlags::RDONLY | MountFlags::NOEXEC),
            ]
        );
        assert_eq!(unescaped(b"\\134\\04").as_os_str().as_bytes(), b"\\\\04");
    }
}
