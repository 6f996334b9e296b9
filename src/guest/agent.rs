//! The QEMU guest agent, over its virtio-serial port.
//!
//! The port is a plain byte stream that outlives both ends: it can hold the rest of an older answer.
//! So every conversation starts with `guest-sync-delimited`, whose answer follows a byte 0xFF that
//! no JSON text contains; everything before it is dropped. Commands go one after the other.
//! (QEMU's documentation, "QEMU Guest Agent Protocol Reference".)

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qapi::qga as schema;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::error::{Error, Result};
use crate::os;

/// Bounds what a guest can make us keep: `guest-file-read` and `guest-exec` answer with up to 48 MiB
/// in base64 at most, and nothing here asks for that much.
const LINE_LIMIT: u64 = 64 << 20;
const DELIMITER: u8 = 0xff;
/// The command by which it runs programs.
pub const RUN: &str = "guest-exec";
/// Where distributions put it in an image.
pub const PROGRAMS: [&str; 3] = ["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga", "/sbin/qemu-ga"];
/// Most bytes of each output of a program that an agent keeps (QEMU's qga/commands.c, `GUEST_EXEC_MAX_OUTPUT`).
pub const OUTPUT_LIMIT: usize = 16 << 20;
/// Between two questions whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

/// A program that ran in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i64,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: Vec<u8>,
    /// Whether either lacks what was beyond [`OUTPUT_LIMIT`].
    pub cut: bool,
}

/// A conversation with the guest's agent.
#[derive(Debug)]
pub struct Agent {
    stream: BufReader<os::Stream>,
    /// Whether an answer of an earlier command may still come.
    stale: bool,
}

/// A number that no conversation of this host had: an answer to an older one, which was given up, can come in the
/// next. Below 2^53, which every reader of JSON takes.
fn sync_id() -> u64 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let count = LAST.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff;
    u64::from(std::process::id() & 0x0fff_ffff) << 24 | u64::from(count)
}

impl Agent {
    /// Connects to the agent's socket and waits for the agent to answer.
    ///
    /// # Errors
    /// Nothing listens on the socket, others talked to the agent all the time, or no agent answered within `timeout`.
    pub async fn connect(socket: &Path, timeout: Duration) -> Result<Self> {
        let what = || format!("cannot reach the guest agent at `{}`", socket.display());
        let stream = match tokio::time::timeout(timeout, os::connect(socket)).await {
            Ok(connected) => connected.map_err(|e| Error::failed(what()).cause(e))?,
            Err(_) => {
                let long = timeout.as_secs_f32();
                let why = format!("other commands talked to it for {long} s");
                return Err(Error::failed(what()).cause(why));
            }
        };
        let mut agent = Agent { stream: BufReader::new(stream), stale: true };
        agent.within(timeout, Self::sync).await.map_err(|e| e.context(what()))?;
        Ok(agent)
    }

    /// Runs one command.
    ///
    /// # Errors
    /// The agent refused it (its words are the cause), or did not answer in time; after that the
    /// next command synchronises first, so a late answer is never taken for another one.
    pub async fn execute<C: qapi::Command>(
        &mut self,
        command: C,
        timeout: Duration,
    ) -> Result<C::Ok> {
        let failed = || format!("the guest agent's command `{}` failed", C::NAME);
        let arguments =
            serde_json::to_value(&command).map_err(|e| Error::failed(failed()).cause(e))?;
        let request = json!({"execute": C::NAME, "arguments": arguments});
        let reply = self
            .within(timeout, async |agent: &mut Self| {
                if agent.stale {
                    agent.sync().await?;
                }
                agent.stale = true;
                agent.send(&request.to_string(), false).await?;
                let reply = agent.line().await?;
                agent.stale = false;
                Ok(reply)
            })
            .await
            .map_err(|e| e.context(failed()))?;
        if let Some(error) = reply.get("error") {
            let text = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
            return Err(Error::failed(failed()).cause(text));
        }
        let value = reply.get("return").cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| Error::failed(failed()).cause(e))
    }

    /// Whether the agent takes this command: distributions switch some of them off.
    ///
    /// # Errors
    /// The agent did not answer in time.
    pub async fn allows(&mut self, command: &str, timeout: Duration) -> Result<bool> {
        let info = self.execute(schema::guest_info {}, timeout).await?;
        Ok(info.supported_commands.iter().any(|c| c.name == command && c.enabled))
    }

    /// Runs a program in the guest with this standard input, as the agent's user (root), and waits
    /// until it has ended.
    ///
    /// # Errors
    /// The agent refuses, the program cannot be started, or it has not ended within `timeout`; it
    /// then goes on in the guest.
    pub async fn run(
        &mut self,
        program: &str,
        args: &[&str],
        input: &[u8],
        timeout: Duration,
    ) -> Result<Ran> {
        let end = tokio::time::Instant::now() + timeout;
        let pid = self.start(program, args, input, timeout).await?;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Err(Error::failed(format!(
                    "`{program}` in the guest has not ended within {} s",
                    timeout.as_secs()
                )));
            }
            if let Some(ran) = self.ended(pid, left).await? {
                return Ok(ran);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a program as [`Agent::run`] does; gives its process id in the guest.
    ///
    /// # Errors
    /// The agent refuses, or the program cannot be started.
    pub async fn start(
        &mut self,
        program: &str,
        args: &[&str],
        input: &[u8],
        timeout: Duration,
    ) -> Result<i64> {
        let command = schema::guest_exec {
            path: program.to_owned(),
            arg: Some(args.iter().map(|a| (*a).to_owned()).collect()),
            env: None,
            input_data: Some(input.to_vec()),
            capture_output: Some(schema::GuestExecCaptureOutput::flag(true)),
        };
        Ok(self.execute(command, timeout).await?.pid)
    }

    /// How the program that was started as `pid` ended; `None` if it runs. An agent says it once.
    ///
    /// # Errors
    /// The agent did not answer in time, or knows no such program.
    pub async fn ended(&mut self, pid: i64, timeout: Duration) -> Result<Option<Ran>> {
        let status = self.execute(schema::guest_exec_status { pid }, timeout).await?;
        if !status.exited {
            return Ok(None);
        }
        let code = status.exitcode.or(status.signal.map(|s| 128 + s)).unwrap_or(-1);
        let cut = status.out_truncated.unwrap_or(false) || status.err_truncated.unwrap_or(false);
        let (out, err) = (status.out_data, status.err_data);
        Ok(Some(Ran { code, out: out.unwrap_or_default(), err: err.unwrap_or_default(), cut }))
    }

    async fn within<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        tokio::time::timeout(timeout, work(self)).await.unwrap_or_else(|_| {
            Err(Error::failed(format!("no answer within {} s", timeout.as_secs_f32())))
        })
    }

    async fn sync(&mut self) -> Result<()> {
        let id = sync_id();
        let request = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        self.send(&request.to_string(), true).await?;
        loop {
            let mut dropped = Vec::new();
            (&mut self.stream).take(LINE_LIMIT).read_until(DELIMITER, &mut dropped).await?;
            if dropped.last() != Some(&DELIMITER) {
                return Err(Error::failed("the guest agent's port was closed"));
            }
            // The answer to an older sync can come first.
            if self.line().await?.get("return").and_then(Value::as_u64) == Some(id) {
                self.stale = false;
                return Ok(());
            }
        }
    }

    /// Sends a line. A 0xFF in front makes the agent drop a half command that it may hold.
    async fn send(&mut self, line: &str, reset: bool) -> Result<()> {
        let mut bytes = if reset { vec![DELIMITER] } else { vec![] };
        bytes.extend(line.as_bytes());
        bytes.push(b'\n');
        self.stream.get_mut().write_all(&bytes).await?;
        Ok(())
    }

    async fn line(&mut self) -> Result<Value> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Err(Error::failed("the guest agent's port was closed"));
        }
        Ok(serde_json::from_slice(&line).unwrap_or_default())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// The number of the next `guest-sync-delimited`.
    fn asked(from: &mut impl std::io::BufRead) -> u64 {
        let mut line = vec![];
        from.read_until(b'\n', &mut line).expect("a line");
        let line: Value = serde_json::from_slice(&line[1..]).expect("JSON behind the mark");
        line["arguments"]["id"].as_u64().expect("a number")
    }

    #[tokio::test]
    async fn what_answers_a_conversation_that_was_given_up_is_not_taken_for_the_next_ones() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        // QEMU's end: what the guest says late comes in the next conversation.
        let guest = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("one");
            let mut given_up = BufReader::new(stream);
            let first = asked(&mut given_up);
            let (mut stream, _) = listener.accept().expect("another");
            let mut reader = BufReader::new(stream.try_clone().expect("both ways"));
            let second = asked(&mut reader);
            let mut answer = b"{\"return\": {\"pid\": 1}}\n".to_vec();
            for id in [first, second] {
                answer.extend(b"\xff");
                answer.extend(format!("{{\"return\": {id}}}\n").as_bytes());
            }
            stream.write_all(&answer).expect("sent");
            let mut line = String::new();
            reader.read_line(&mut line).expect("a command");
            assert!(line.contains("guest-exec"), "{line}");
            stream.write_all(b"{\"return\": {\"pid\": 42}}\n").expect("sent");
        });
        let soon = Duration::from_millis(200);
        let e = Agent::connect(&socket, soon).await.expect_err("nobody answers");
        assert!(e.causes().iter().any(|cause| cause.contains("no answer within")), "{e}");
        let long = Duration::from_secs(30);
        let mut agent = Agent::connect(&socket, long).await.expect("answered");
        assert_eq!(agent.start("/bin/true", &[], b"", long).await.expect("started"), 42);
        guest.join().expect("as it should be");
    }

    #[tokio::test]
    async fn who_comes_while_others_talk_to_it_stands_in_line() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        // As QEMU listens: one may wait.
        rustix::net::listen(&listener, 0).expect("a short line");
        let other = UnixStream::connect(&socket).expect("it waits");
        let e = Agent::connect(&socket, Duration::from_millis(100)).await.expect_err("no place");
        assert!(e.causes().iter().any(|c| c == "other commands talked to it for 0.1 s"), "{e}");
        let guest = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop((listener.accept().expect("the one before"), other));
            let (mut stream, _) = listener.accept().expect("the next");
            let id = asked(&mut BufReader::new(stream.try_clone().expect("both ways")));
            let answer = format!("{{\"return\": {id}}}\n");
            stream.write_all(&[b"\xff", answer.as_bytes()].concat()).expect("sent");
            stream
        });
        Agent::connect(&socket, Duration::from_secs(30)).await.expect("its turn came");
        guest.join().expect("as it should be");
    }
}
