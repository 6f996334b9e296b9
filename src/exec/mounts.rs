//! What is mounted in a folder.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;
#[cfg(feature = "images")]
use rustix::{io::Errno, mount::UnmountFlags, mount::unmount};

#[cfg(feature = "images")]
use crate::error::{Error, Result};

/// The mounts at and below `source`, as this process sees them, in the order in which they were made, with those flags
/// that a namespace must not take from them.
///
/// # Errors
/// The kernel's table cannot be read.
pub(crate) fn beneath(source: &Path) -> io::Result<Vec<(PathBuf, MountFlags)>> {
    Ok(listed(&std::fs::read("/proc/self/mountinfo")?, source))
}

/// Unmounts all that is mounted at and below `dir`, also what is in use: whoever uses it keeps it.
///
/// # Errors
/// Something stays, named.
#[cfg(feature = "images")]
pub(crate) fn clear(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize()?;
    // What was mounted later may lie on what was mounted before.
    for (place, _) in beneath(&dir)?.into_iter().rev() {
        match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => {
                let what = format!("cannot unmount `{}`", place.display());
                return Err(Error::failed(what).cause(std::io::Error::from(e)));
            }
        }
    }
    match beneath(&dir)?.first() {
        None => Ok(()),
        Some((place, _)) => Err(Error::failed(format!("`{}` stays mounted", place.display()))),
    }
}

/// The same in a text as /proc/self/mountinfo has it (proc(5)).
fn listed(mounts: &[u8], source: &Path) -> Vec<(PathBuf, MountFlags)> {
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
        let found = listed(text, Path::new("/a b"));
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
