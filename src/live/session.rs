//! One `ssh` with `remote.sh` at its other end.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use super::address::Address;
use super::binary::Binary;
use super::{Options, databases};
use crate::error::{Error, Result};
use crate::exec::{last_lines, tools};
use crate::parity::packages::Packages;

/// What runs over there. It arrives by standard input, since the user's shell may be any.
const SCRIPT: &str = include_str!("remote.sh");
/// What it says first, with its version.
const HELLO: &str = "devbox-live/1";
/// Most lines before that one, which a shell's start-up files print.
const GREETINGS: usize = 200;
/// The longest line of the script.
const LINE: u64 = 4096;
/// The largest answer. A manifest has some 200 bytes a file.
const MAX: u64 = 2 << 30;
/// How much of what ssh and the host say is kept.
const WORDS: u64 = 64 << 10;
/// Without a hash of the text before it, the last line of a manifest.
const END: &[u8] = b"\nend sha256:";
const END_LEN: usize = END.len() + 64 + 1;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// `uname -s`
    pub(super) kernel: String,
    /// `uname -m`
    pub(super) machine: String,
    /// Whether all can be read there: as root, or by sudo.
    pub(super) privileged: bool,
}

/// A connection. Dropped, it ends what runs over there.
#[derive(Debug)]
pub(super) struct Session {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    said: Option<JoinHandle<Vec<u8>>>,
    host: Host,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Session {
    /// Logs in and starts the script.
    ///
    /// # Errors
    /// Kind `Undetermined`, with ssh's own words.
    pub(super) fn open(address: &Address, options: &Options) -> Result<Self> {
        let mut command = tools::SSH.command()?;
        // What would be in the way of a program's streams; an existing connection is used, none is left.
        for option in [
            "RequestTTY=no",
            "RemoteCommand=none",
            "PermitLocalCommand=no",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ControlMaster=no",
        ] {
            command.args(["-o", option]);
        }
        for option in &options.ssh {
            command.arg("-o").arg(option);
        }
        // Host keys, users and everything else are as the user has them.
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        if !std::io::stdin().is_terminal() {
            command.args(["-o", "BatchMode=yes"]);
        }
        if let Some(port) = address.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &address.user {
            command.args(["-l", user]);
        }
        command.args(["--", &address.host]);
        // dd takes no byte more, and every shell takes this line.
        let length = SCRIPT.len();
        command
            .arg(format!("exec /bin/sh -c 'eval \"$(dd bs=1 count={length} 2>/dev/null)\"'"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|e| Error::undetermined("cannot start `ssh`").cause(e))?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(mut stderr)) = streams else {
            return Err(Error::undetermined("cannot talk to `ssh`"));
        };
        let said = std::thread::spawn(move || {
            let mut words = vec![];
            // What it says is for people; without it the code still tells that it failed.
            let _ = stderr.by_ref().take(WORDS).read_to_end(&mut words);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            words
        });
        let host = Host { kernel: String::new(), machine: String::new(), privileged: false };
        let (stdin, stdout) = (Some(stdin), BufReader::with_capacity(1 << 16, stdout));
        let name = address.to_string();
        let mut session = Session { name, child, stdin, stdout, said: Some(said), host };
        session.write(SCRIPT.as_bytes());
        session.hello()?;
        let words = options.words.join(" ");
        session.write(format!("root {}\nwords {words}\n", address.root).as_bytes());
        Ok(session)
    }

    /// What the host says of itself.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a program; returns why there is no place for it.
    ///
    /// # Errors
    /// The connection ends.
    pub(super) fn send(&mut self, binary: &Binary) -> Result<Result<(), String>> {
        let (size, sha256) = (binary.bytes.len(), binary.sha256());
        self.write(format!("binary {size} {sha256}\n").as_bytes());
        let answer = self.line()?;
        if let Some(why) = answer.strip_prefix("refused ") {
            return Ok(Err(why.to_owned()));
        }
        if answer != "ready" {
            return Err(self.strange());
        }
        self.write(&binary.bytes);
        Ok(Ok(()))
    }

    /// The manifest that the program over there writes; still to be verified.
    ///
    /// # Errors
    /// It fails, or the connection ends.
    pub(super) fn manifest(&mut self) -> Result<Vec<u8>> {
        self.answer(|text| {
            let last = text.len().checked_sub(END_LEN).map(|at| &text[at..]);
            last.is_some_and(|last| last.starts_with(END) && last.ends_with(b"\n"))
        })
    }

    /// The packages, by the databases that the script shows.
    ///
    /// # Errors
    /// There is none, or one that is not read; the connection ends.
    pub(super) fn packages(&mut self) -> Result<Packages> {
        self.write(b"packages\n");
        let text = self.answer(|text| text == b"end\n" || text.ends_with(b"\nend\n"))?;
        databases::packages(&text)
            .map_err(|e| e.context(format!("cannot tell the packages of `{}`", self.name)))
    }

    /// The first line of the script, behind what start-up files print.
    fn hello(&mut self) -> Result<()> {
        for _ in 0..GREETINGS {
            let line = self.line()?;
            let mut words = line.split(' ');
            if words.next() != Some(HELLO) {
                continue;
            }
            if let [Some(kernel), Some(machine), Some(rights)] = [(); 3].map(|()| words.next()) {
                let privileged = rights != "none";
                let (kernel, machine) = (kernel.to_owned(), machine.to_owned());
                self.host = Host { kernel, machine, privileged };
                return Ok(());
            }
        }
        Err(self.strange())
    }

    /// One line of the script.
    fn line(&mut self) -> Result<String> {
        let mut line = vec![];
        let read = self.stdout.by_ref().take(LINE).read_until(b'\n', &mut line);
        if read.is_err() || line.pop() != Some(b'\n') {
            return Err(self.failed());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Everything until the other side ends. Its standard input stays open until the answer is complete, since
    /// that is how it knows that somebody waits.
    fn answer(&mut self, complete: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut text = vec![];
        loop {
            let piece = match self.stdout.fill_buf() {
                Ok(piece) => piece,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(self.failed()),
            };
            let len = piece.len();
            if len == 0 {
                self.stdin = None;
                // A program that has said all may be ended by that nobody waits before it ends by itself.
                return match self.child.wait() {
                    Ok(status) if status.success() || complete(&text) => Ok(text),
                    _ => Err(self.failed()),
                };
            }
            text.extend_from_slice(piece);
            self.stdout.consume(len);
            if text.len() as u64 > MAX {
                return Err(Error::undetermined(format!(
                    "`{}` answers with more than {MAX} bytes",
                    self.name
                )));
            }
            if complete(&text) {
                self.stdin = None;
            }
        }
    }

    /// Writes; that nobody reads any more shows in what is read next.
    fn write(&mut self, bytes: &[u8]) {
        let written = self.stdin.as_mut().map(|to| to.write_all(bytes).and_then(|()| to.flush()));
        if !matches!(written, Some(Ok(()))) {
            self.stdin = None;
        }
    }

    /// The other side is no host that devbox knows how to ask.
    fn strange(&mut self) -> Error {
        let _ = self.child.kill();
        self.failed()
            .cause("what it answers is not what devbox's script says")
            .hint("Check that the account has a shell that runs commands, and no forced one.")
    }

    /// Why the other side ended, in its own words and ssh's.
    fn failed(&mut self) -> Error {
        self.stdin = None;
        let code = self.child.wait().ok().and_then(|status| status.code());
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        let words = String::from_utf8_lossy(&said).into_owned();
        let told = !self.host.kernel.is_empty();
        let mut error = Error::undetermined(match (code, told) {
            (Some(255) | None, true) => format!("the connection to `{}` broke", self.name),
            (Some(_), true) => format!("`{}` could not tell what it holds", self.name),
            (_, false) => format!("cannot log in to `{}`", self.name),
        });
        for line in last_lines(&said, 20) {
            error = error.detail(line);
        }
        if told {
            return match self.host.privileged {
                false => error.hint("Log in as root, or let the account use `sudo -n` there."),
                true => error,
            };
        }
        let hints = [
            (
                "Host key verification failed",
                "Log in once with `ssh`, and compare the fingerprint of the host's key with one that you trust.",
            ),
            (
                "Permission denied",
                "Check that `ssh` logs in without a question, or run devbox in a terminal, where ssh can ask.",
            ),
            ("Could not resolve", "Check the name of the host."),
            ("Connection refused", "Check the port, and that an SSH server runs there."),
            ("timed out", "Check that the host is up, and that a firewall lets ssh through."),
        ];
        let hint = hints.into_iter().find(|(what, _)| words.contains(what));
        error.hint(hint.map_or("Try the same address with `ssh` alone.", |(_, hint)| hint))
    }
}
