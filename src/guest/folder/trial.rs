//! What a mounted folder can do, found by doing it in a new folder in it that is removed again.

use std::ffi::OsStr;
use std::fmt;

use super::{Folder, Ids, Mount, run};
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::exec::quote;
use crate::guest::ssh::Remote;
use crate::guest::work::as_root;

/// What was tried in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// The owner of a new file as the guest sees it; of the folder itself if nothing can be made.
    pub owner: Option<Ids>,
    /// Each thing that was tried, and whether it works.
    pub found: Vec<Found>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In one word: `create`, `chmod`.
    pub what: String,
    /// Whether it works.
    pub works: bool,
}

impl Trial {
    fn of_lines(lines: &[String]) -> Self {
        let mut trial = Trial::default();
        for line in lines {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(can @ ("can" | "not")), Some(what), None) => {
                    trial.found.push(Found { what: what.to_owned(), works: can == "can" });
                }
                (Some("owner"), Some(uid), Some(gid)) => {
                    if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
                        trial.owner = Some(Ids { uid, gid });
                    }
                }
                _ => {}
            }
        }
        trial
    }

    fn works(&self, what: &str) -> bool {
        self.found.iter().any(|found| found.what == what && found.works)
    }
}

/// `create, chmod, symlink; not chown`.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |works: bool| -> Vec<&str> {
            let some = self.found.iter().filter(|found| found.works == works);
            some.map(|found| found.what.as_str()).collect()
        };
        let (can, not) = (named(true), named(false));
        f.write_str(&can.join(", "))?;
        if !not.is_empty() {
            write!(f, "{}not {}", if can.is_empty() { "" } else { "; " }, not.join(", "))?;
        }
        Ok(())
    }
}

impl Mount<'_> {
    /// Tries the folder, which is mounted: as the account where it may be written, as root that it may not.
    ///
    /// # Errors
    /// A folder that is to be read-only took a write, or the guest cannot be reached.
    pub async fn try_out(&self) -> Result<Trial> {
        let folder = self.folder;
        let name = format!(".devbox-{}", hex(&crate::host::random::<8>()?));
        let place = format!("{}/{name}", folder.target);
        let d = quote(OsStr::new(&place));
        if !folder.writable {
            let script = format!("d={d}\n{READ_ONLY}");
            let said = run(self.client, Remote::new(as_root(&script)), self.cancel, |_| {}).await?;
            let trial = Trial::of_lines(&said.out);
            if trial.works("write") {
                return Err(Error::failed(format!(
                    "`{}` is to be read-only, and took a write",
                    folder.target
                ))
                .hint("Report this; do not use the folder with this machine."));
            }
            return Ok(trial);
        }
        let as_root = as_root(&format!("d={d}\n{CHOWN}"));
        let script = format!("d={d}\nas_root() {{ {as_root}; }}\n{WRITABLE}");
        let notice = |line: &str| {
            if line == "watching" {
                // The guest can only lose what it was to be shown.
                let _ = touch(folder, &name);
            }
        };
        let said = run(self.client, Remote::new(script), self.cancel, notice).await?;
        Ok(Trial::of_lines(&said.out))
    }
}

/// Makes a file in the trial's folder from the host's side. The guest may have put a link in its place.
#[cfg(unix)]
fn touch(folder: &Folder, name: &str) -> Result<()> {
    use rustix::fs::{Mode, OFlags, open, openat};
    let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = open(&folder.source, dir, Mode::empty()).map_err(std::io::Error::from)?;
    let made = openat(&shown, name, dir | OFlags::NOFOLLOW, Mode::empty());
    let made = made.map_err(std::io::Error::from)?;
    let file = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&made, "host", file, Mode::from_raw_mode(0o644)).map_err(std::io::Error::from)?;
    Ok(())
}

/// Makes nothing: no safe call follows no link here.
#[cfg(not(unix))]
fn touch(folder: &Folder, _name: &str) -> Result<()> {
    Err(Error::failed(format!("cannot work in `{}` beside a guest", folder.source.display())))
}

const READ_ONLY: &str = r#"
if (: > "$d") 2> /dev/null; then rm -f "$d"; echo can write; else echo not write; fi
echo "owner $(stat -c '%u %g' "${d%/*}")"
"#;

const CHOWN: &str = r#"chown 12345:12345 "$d/f" && [ "$(stat -c %u:%g "$d/f")" = 12345:12345 ]"#;

/// Changes of the host are seen by programs that watch only if the filesystem tells: tried where the guest
/// has a program for it.
const WRITABLE: &str = r#"
umask 022
try() { if "$2" > /dev/null 2>&1; then echo "can $1"; else echo "not $1"; fi; }
if ! { mkdir "$d" && echo a > "$d/f"; } 2> /dev/null; then
    echo not create
    echo "owner $(stat -c '%u %g' "${d%/*}")"
    exit 0
fi
echo can create
echo "owner $(stat -c '%u %g' "$d/f")"
modes() { chmod 0751 "$d/f" && [ "$(stat -c %a "$d/f")" = 751 ]; }
symlinks() { ln -s f "$d/s" && [ "$(readlink "$d/s")" = f ]; }
renames() { echo b > "$d/g" && mv -f "$d/g" "$d/f" && [ "$(cat "$d/f")" = b ] && [ ! -e "$d/g" ]; }
links() { ln "$d/f" "$d/h" && [ "$(stat -c %h "$d/f")" = 2 ]; }
try chmod modes
try symlink symlinks
try rename renames
try hardlink links
try chown as_root
watch=
if command -v inotifywait > /dev/null; then
    watch='inotifywait -q -e create'
elif command -v inotifyd > /dev/null; then
    watch='inotifyd -'
fi
if [ -n "$watch" ] && command -v timeout > /dev/null; then
    (sleep 0.4; echo watching) &
    notified() { [ -n "$(timeout 2 $watch "$d" 2> /dev/null | grep -w host)" ]; }
    try inotify notified
    wait
fi
rm -rf "$d"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_becomes_one_line() {
        let lines: Vec<String> =
            ["can create", "owner 1000 100", "not chown", "can chmod", "noise", "can", "owner x 1"]
                .map(str::to_owned)
                .to_vec();
        let trial = Trial::of_lines(&lines);
        assert_eq!(trial.to_string(), "create, chmod; not chown");
        assert_eq!(trial.owner, Some(Ids { uid: 1000, gid: 100 }));
    }
}
