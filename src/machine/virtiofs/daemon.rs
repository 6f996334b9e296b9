//! Which virtiofsd this host has, and its words.
//!
//! There are two programs of that name: QEMU's own, in C, up to QEMU 7.2 (Debian 12, Ubuntu 22.04), and
//! the one in Rust that took its place. They are told apart by what `--help` says of their options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::words;
use crate::error::{Error, Result};
use crate::guest::folder::Ids;

/// Names another one than is found.
const CHOSEN: &str = "DEVBOX_VIRTIOFSD";
/// Its name, where `PATH` leads to it.
const NAME: &str = "virtiofsd";
/// Where distributions put it: it is not for people, so seldom in `PATH`.
const PLACES: [&str; 3] =
    ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// The options that its help names.
const OF_C: &str = "-o source=";
/// What the one in C says to a plain user, before it reads its options.
const OF_C_UNHEARD: &str = "setgroups() failed";
const OF_RUST: &str = "--shared-dir";
const TRANSLATION: &str = "--translate-uid";
const MAPPING: &str = "--allow-mmap";

/// A program that serves folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) path: PathBuf,
    make: Make,
    /// Whether it gives the host user's files to a guest's account by itself (Rust, from 1.13 on).
    pub(super) translates: bool,
    /// Whether it lets programs map files that it keeps nothing of (newer ones in Rust).
    maps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    /// QEMU's, in C.
    C,
    /// Its successor, in Rust.
    Rust,
}

impl Daemon {
    /// The one of this host.
    ///
    /// # Errors
    /// There is none, or its help names neither program's options.
    pub(super) fn find() -> Result<Self> {
        let found = match std::env::var_os(CHOSEN) {
            Some(chosen) => Some(PathBuf::from(chosen)).filter(|path| path.is_file()),
            None => which::which(NAME)
                .ok()
                .or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.is_file())),
        };
        let Some(path) = found else {
            return Err(Error::failed(
                "`virtiofsd` is not installed; it is needed to show folders of `type = \"virtiofs\"`",
            )
            .hint("Install it with `sudo apt-get install virtiofsd` (on Debian 12 and Ubuntu 22.04 it is in `qemu-system-common`), or your system's package that has it.")
            .hint("Or set `type = \"9p\"` in `[[mounts]]`, which QEMU serves by itself."));
        };
        let help = Command::new(&path).arg("--help").stdin(Stdio::null()).output();
        let help =
            help.map_err(|e| Error::failed(format!("cannot start `{}`", path.display())).cause(e))?;
        let help = [help.stdout, help.stderr].concat();
        Self::of_help(path.clone(), &String::from_utf8_lossy(&help)).ok_or_else(|| {
            Error::failed(format!(
                "`{}` is no virtiofsd that devbox knows: its help names neither `{OF_C}` nor `{OF_RUST}`",
                path.display()
            ))
            .hint("Set `type = \"9p\"` in `[[mounts]]`, which QEMU serves by itself.")
        })
    }

    fn of_help(path: PathBuf, help: &str) -> Option<Self> {
        let make = if help.contains(OF_RUST) {
            Make::Rust
        } else if help.contains(OF_C) || help.contains(OF_C_UNHEARD) {
            Make::C
        } else {
            return None;
        };
        let says = |option| help.contains(option);
        Some(Daemon { path, make, translates: says(TRANSLATION), maps: says(MAPPING) })
    }

    /// Fails if it cannot give the host user's files to `owner`.
    ///
    /// # Errors
    /// It is an early one in Rust, which has to be root in its namespace, and `owner` is not root.
    pub(super) fn serves(&self, owner: Ids) -> Result<()> {
        if self.make == Make::C || self.translates || (owner.uid, owner.gid) == (0, 0) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "`{}` is too old: it cannot give your files to the guest's account {}:{}",
            self.path.display(),
            owner.uid,
            owner.gid
        ))
        .hint("Take virtiofsd 1.13 or newer, or set `type = \"9p\"` in `[[mounts]]`."))
    }

    /// Its words to serve `source` to the connection that waits in its standard input.
    ///
    /// What the host changes is to be seen: the C one is told to ask for attributes and names each time,
    /// and to keep no pages that are older than they. The Rust one has no such option, so it keeps nothing.
    pub(super) fn words(&self, source: &Path, owner: Ids) -> Vec<OsString> {
        // Limits are raised before it starts, as far as this user may.
        let mut all = words(["--fd=0", "--rlimit-nofile=0"]);
        match self.make {
            Make::C => {
                all.extend(words([
                    "-f",
                    "-o",
                    "cache=auto,timeout=0,sandbox=namespace,log_level=warn",
                    "-o",
                ]));
                all.push(with_path("source=", &escaped(source)));
            }
            Make::Rust => {
                all.extend(words(["--sandbox=namespace", "--cache=never", "--log-level=warn"]));
                if self.maps {
                    all.extend(words([MAPPING]));
                }
                if self.translates {
                    // Whoever makes a file in the guest: on the host it is the user's.
                    for (option, id) in
                        [("--translate-uid", owner.uid), ("--translate-gid", owner.gid)]
                    {
                        all.push(format!("{option}=squash-guest:0:0:{}", u32::MAX).into());
                        all.push(format!("{option}=host:0:{id}:1").into());
                    }
                }
                all.push(with_path("--shared-dir=", source.as_os_str()));
            }
        }
        all
    }
}

fn with_path(before: &str, path: &OsStr) -> OsString {
    let mut word = OsString::from(before);
    word.push(path);
    word
}

/// In a list of options, a comma of a path stands behind a backslash, and a backslash too (libfuse, `fuse_opt.c`).
fn escaped(path: &Path) -> OsString {
    let mut bytes = vec![];
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: Ids = Ids { uid: 1000, gid: 100 };

    fn told(help: &str) -> Option<Daemon> {
        Daemon::of_help("/v".into(), help)
    }

    fn line(daemon: &Daemon, source: &str) -> String {
        let words = daemon.words(Path::new(source), ACCOUNT);
        words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_two_programs_are_told_apart_and_each_gets_its_own_words() {
        let c = told("    -o source=PATH             shared directory tree").expect("known");
        assert_eq!(
            line(&c, r"/a,b\c"),
            r"--fd=0 --rlimit-nofile=0 -f -o cache=auto,timeout=0,sandbox=namespace,log_level=warn -o source=/a\,b\\c"
        );
        c.serves(ACCOUNT).expect("by its namespace");
        let unheard = "setgroups() failed with error=1:Operation not permitted";
        assert_eq!(told(unheard).as_ref(), Some(&c));
        let rust = "--shared-dir <SHARED_DIR>\n --allow-mmap\n --translate-uid <TRANSLATE_UID>\n -o <COMPAT_OPTIONS>";
        let rust = told(rust).expect("known");
        assert_eq!(
            line(&rust, "/a,b"),
            "--fd=0 --rlimit-nofile=0 --sandbox=namespace --cache=never --log-level=warn --allow-mmap \
             --translate-uid=squash-guest:0:0:4294967295 --translate-uid=host:0:1000:1 \
             --translate-gid=squash-guest:0:0:4294967295 --translate-gid=host:0:100:1 --shared-dir=/a,b"
        );
        rust.serves(ACCOUNT).expect("by its own translation");
        let early = told("--shared-dir <SHARED_DIR>").expect("known");
        early.serves(Ids { uid: 0, gid: 0 }).expect("as root");
        assert!(early.serves(ACCOUNT).is_err());
        assert_eq!(told("usage: something else"), None);
    }
}
