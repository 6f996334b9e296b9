//! Files and folders between the host and a guest, as tar over ssh.
//!
//! Not `scp`: it needs a program of its own in the guest (`sftp-server` or `scp`), and what arrives
//! would be written by a program that trusts the names that the guest sends. `tar` is in every guest,
//! and [`arrive`] takes its stream apart here: names, links and sizes are the guest's claims.

pub mod arrive;
mod beneath;
mod tar;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::exec::{self, shell_word, tools};
use crate::guest::ssh::Client;
pub use arrive::Arrived;

/// Exit codes of the scripts below, which no program in them uses.
const NOT_THERE: i32 = 40;
const IS_FOLDER: i32 = 41;
const NO_FOLDER: i32 = 42;
/// What a guest says on standard error is kept up to here.
const WORDS: u64 = 64 << 10;
/// How long ssh may take to end when its output is read no more; the other end may be hostile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// A path in a guest, as a person types it: from the account's home where it is not absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPath(OsString);

impl GuestPath {
    /// Takes what was typed; `~/` is the home, as an empty path is.
    #[must_use]
    pub fn new(typed: &OsStr) -> Self {
        let bytes = typed.as_bytes();
        let rest = match bytes {
            b"~" => b"",
            _ => bytes.strip_prefix(b"~/").unwrap_or(bytes),
        };
        // No program takes it for an option then.
        let path = if rest.starts_with(b"/") { rest.to_vec() } else { [b"./", rest].concat() };
        GuestPath(OsString::from_vec(path))
    }

    /// The last name in it; `None` for `/`, `.`, `..` and the home.
    #[must_use]
    pub fn name(&self) -> Option<&OsStr> {
        Path::new(&self.0).file_name()
    }

    fn word(&self) -> OsString {
        shell_word(&self.0)
    }
}

/// Copies one file or, where `recursive`, a folder of the guest into `target`: into it if that is a
/// folder, else under its name. The target's own folders may be links; below them no link is followed.
///
/// # Errors
/// It is not there, it is a folder and not `recursive`, what arrives leads out of the target or is
/// no archive, or the host's disk does not take it.
pub fn to_host(
    client: &Client,
    source: &GuestPath,
    target: &Path,
    recursive: bool,
) -> Result<Arrived> {
    let place = arrive::Place::find(target, source.name(), recursive)?;
    let path = source.word();
    let folder = if recursive { "cd -- $p && exec tar -cf - ." } else { "exit 41" };
    let mut script = OsString::from("p=");
    script.push(&path);
    // One file is sent with its contents where it is a link, as `cp` does.
    script.push(format!(
        "; [ -e \"$p\" ] || exit {NOT_THERE}; if [ -d \"$p\" ]; then {}; fi; \
         cd -- \"$(dirname \"$p\")\" && exec tar -chf - \"./$(basename \"$p\")\"",
        folder.replace("$p", "\"$p\"")
    ));
    let mut command = remote(client, &script)?;
    let mut ssh = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let Some(mut stream) = ssh.child.stdout.take() else {
        return Err(Error::failed("cannot read from `ssh`"));
    };
    let arrived = place.receive(&mut stream);
    drop(stream);
    if let Err(e) = arrived {
        // What went wrong in the guest explains why nothing whole arrived; a guest that goes on
        // sending is not listened to.
        let ended_itself = ssh.ended_within(PATIENCE)?;
        let ended = ssh.end(client, source);
        return Err(match ended {
            Err(why) if ended_itself && e.kind() == Kind::Undetermined => why,
            _ => e,
        });
    }
    ssh.end(client, source)?;
    arrived
}

/// Copies a file or, where `recursive`, a folder of the host to `target` in the guest: into it if that
/// is a folder there, else under its name. `into` insists that it is one.
///
/// # Errors
/// It is not there, it is a folder and not `recursive`, or the guest does not take it.
pub fn to_guest(
    client: &Client,
    source: &Path,
    target: &GuestPath,
    recursive: bool,
    into: bool,
) -> Result<()> {
    let meta = fs_err::metadata(source)?;
    let name = std::path::absolute(source)?.file_name().map(OsStr::to_owned);
    let mut script = OsString::from("t=");
    script.push(target.word());
    if into {
        script.push(format!("; [ -d \"$t\" ] || exit {NO_FOLDER}"));
    }
    // Into a folder under its own name; `.` and `/` have none, and give their contents.
    if let Some(name) = name.filter(|_| source.file_name().is_some()) {
        script.push("; n=");
        script.push(shell_word(&name));
        script.push("; [ ! -d \"$t\" ] || t=\"$t/$n\"");
    }
    if meta.is_dir() {
        if !recursive {
            return Err(is_folder(&source.display().to_string()));
        }
        script.push("; mkdir -p \"$t\" && exec tar -C \"$t\" -xof -");
        let mut tar = tools::TAR.command()?;
        tar.arg("-C").arg(source).args(["-cf", "-", "."]).stdout(Stdio::piped());
        let mut tar = Running::start(&mut tar)?;
        let Some(stream) = tar.child.stdout.take() else {
            return Err(Error::failed("cannot read from `tar`"));
        };
        let ssh = Running::start(remote(client, &script)?.stdin(stream).stdout(Stdio::null()))?;
        // The guest's failure first: it is what ends the host's tar early.
        ssh.end(client, target)?;
        return tar.end_here("tar", source);
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = meta.permissions().mode() & 0o777;
    script.push(format!("; cat > \"$t\" && chmod {mode:o} \"$t\""));
    let file: std::fs::File = fs_err::File::open(source)?.into();
    Running::start(remote(client, &script)?.stdin(file).stdout(Stdio::null()))?.end(client, target)
}

/// ssh with this script for the guest.
fn remote(client: &Client, script: &OsStr) -> Result<Command> {
    let mut command = client.base(true)?;
    // Whatever the account's shell is, the script is for `sh`.
    let mut line = OsString::from("exec sh -c ");
    line.push(shell_word(script));
    command.arg(&client.target().name).arg("--").arg(line);
    Ok(command)
}

fn is_folder(what: &str) -> Error {
    Error::usage(format!("`{what}` is a folder")).hint("Copy it with `devbox cp -r`.")
}

/// A program whose standard error is kept.
struct Running {
    child: Child,
    words: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|e| {
            Error::failed(format!("cannot start `{}`", exec::line(command))).cause(e)
        })?;
        let words = child.stderr.take().map(|mut from| {
            std::thread::spawn(move || {
                let mut words = vec![];
                let _ = (&mut from).take(WORDS).read_to_end(&mut words);
                // The rest is read and dropped, so that nobody waits for a reader.
                let _ = std::io::copy(&mut from, &mut std::io::sink());
                words
            })
        });
        Ok(Running { child, words })
    }

    /// Whether it ends within this time; else it is killed.
    fn ended_within(&mut self, time: Duration) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < time {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        self.child.kill()?;
        Ok(false)
    }

    /// Waits for ssh, and says what its end means for this path of the guest.
    fn end(self, client: &Client, path: &GuestPath) -> Result<()> {
        let name = &client.target().name;
        let shown = format!("{name}:{}", path.0.to_string_lossy().trim_start_matches("./"));
        let (status, words) = self.wait()?;
        let error = match status.code() {
            Some(0) => return Ok(()),
            Some(NOT_THERE) => {
                return Err(Error::failed(format!("there is no `{shown}`"))
                    .hint("Look with `devbox ssh`; a path starts at the account's home."));
            }
            Some(IS_FOLDER) => return Err(is_folder(&shown)),
            Some(NO_FOLDER) => {
                return Err(Error::failed(format!("`{shown}` is no folder")).hint(
                    "Make it with `devbox exec -- mkdir -p PATH`: several things go into a folder.",
                ));
            }
            Some(255) => Error::failed(format!("the ssh connection to `{name}` broke"))
                .hint("See `devbox status`."),
            Some(_) => Error::failed(format!("copying `{shown}` failed in the guest")).hint(
                "Look at the rights of that path and at the guest's free space with `devbox ssh`.",
            ),
            None => {
                Error::failed("`ssh` was ended by a signal").hint("Run the same command again.")
            }
        };
        Err(exec::last_lines(&words, 5).into_iter().fold(error, Error::detail))
    }

    /// Waits for a program of the host.
    fn end_here(self, program: &str, path: &Path) -> Result<()> {
        let (status, words) = self.wait()?;
        if status.success() {
            return Ok(());
        }
        let error =
            Error::failed(format!("`{program}` could not read all of `{}`", path.display()))
                .cause(status)
                .hint("Make these files readable, or copy what is needed alone.");
        Err(exec::last_lines(&words, 5).into_iter().fold(error, Error::detail))
    }

    fn wait(mut self) -> Result<(std::process::ExitStatus, Vec<u8>)> {
        let status = self.child.wait()?;
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        Ok((status, words))
    }
}
