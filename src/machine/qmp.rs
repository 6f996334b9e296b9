//! QEMU's monitor protocol over a Unix socket, with the types of `qapi` and a transport of our own.
//!
//! The transport keeps working through whatever the other side sends: an unknown event stays raw
//! JSON, a reply that nobody waits for any more is dropped, a line that is no JSON is skipped. Each
//! command has its own id, so a command that timed out never answers for another one. Only the end
//! of the stream ends the connection.
//! (QEMU's documentation, "QEMU Machine Protocol Specification".)

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::os;

/// The longest line that is taken: far above any reply, and bounds what a broken peer can make us keep.
const LINE_LIMIT: u64 = 16 << 20;
/// Events kept for a slow reader; older ones are dropped.
const EVENTS_KEPT: usize = 256;
/// Lines of the conversation kept for the evidence of a failure.
const TRACE_KEPT: usize = 400;
/// Of each such line, so many characters.
const TRACE_WIDTH: usize = 500;
/// A command's default deadline: QEMU answers in milliseconds, an overloaded host in seconds.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do next when QEMU has ended.
const WHEN_ENDED: &str = "QEMU ended; `devbox logs --qemu` shows its last words, and `devbox up` starts the machine again.";
/// What to do next when QEMU does not answer.
const WHEN_SILENT: &str = "Try again when the host has less to do; `devbox halt -f` switches a machine off that answers no more.";

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// QEMU refused it, in its own words.
    Rejected {
        /// QEMU's error class (`GenericError`, `DeviceNotFound`, …).
        class: String,
        /// QEMU's message.
        text: String,
    },
    /// No answer in time; the connection goes on.
    TimedOut(Duration),
    /// The connection ended.
    Disconnected,
    /// The answer has another shape than the command's schema says.
    Unexpected(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Rejected { class, text } => write!(f, "{text} ({class})"),
            Failure::TimedOut(after) => write!(f, "no answer within {} s", after.as_secs_f32()),
            Failure::Disconnected => f.write_str("the connection to QEMU ended"),
            Failure::Unexpected(text) => write!(f, "unexpected answer: {text}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The error of something that QEMU was to do and did not; `what` says what, on which machine.
    #[must_use]
    pub fn of(&self, what: impl Into<String>) -> Error {
        let error = Error::failed(what).cause(self);
        match self {
            Failure::Disconnected => error.hint(WHEN_ENDED),
            Failure::TimedOut(_) => error.hint(WHEN_SILENT),
            Failure::Rejected { .. } | Failure::Unexpected(_) => error,
        }
    }
}

/// An event as it came, known to `qapi` or not.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent {
    /// The event's name (`SHUTDOWN`).
    pub name: String,
    /// Its data; `Null` if it has none.
    pub data: Value,
}

impl RawEvent {
    /// The event's data by its schema.
    ///
    /// # Errors
    /// The data has another shape.
    pub fn typed<E: DeserializeOwned>(&self) -> Result<E> {
        let data = if self.data.is_null() { json!({}) } else { self.data.clone() };
        serde_json::from_value(data).map_err(|e| {
            Error::failed(format!("cannot read QEMU's event `{}`", self.name)).cause(e)
        })
    }
}

/// A connection to QEMU's monitor. Cheap to clone; ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
    out: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    next_id: AtomicU64,
    pending: Mutex<Pending>,
    events: broadcast::Sender<RawEvent>,
    closed: watch::Sender<bool>,
    began: Instant,
    trace: Mutex<VecDeque<String>>,
}

/// Commands that wait; `None` once the connection has ended, so that none is added after.
type Pending = Option<HashMap<u64, oneshot::Sender<Value>>>;

impl Shared {
    /// Keeps one line of the conversation; `direction` is `>` for what was sent.
    fn note(&self, direction: char, line: &str) {
        let at = self.began.elapsed().as_secs_f32();
        let line: String = line.trim_end().chars().take(TRACE_WIDTH).collect();
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        if trace.len() == TRACE_KEPT {
            trace.pop_front();
        }
        trace.push_back(format!("{at:9.3} {direction} {line}"));
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a command when its caller stops waiting, by timeout or by being dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.shared.pending().as_mut() {
            pending.remove(&self.id);
        }
    }
}

impl Qmp {
    /// Connects, reads the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// Nothing listens on `socket`, or what answers within `timeout` is no monitor.
    pub async fn connect(socket: &Path, timeout: Duration) -> Result<Self> {
        let name = || format!("cannot talk to QEMU's monitor `{}`", socket.display());
        let work = async {
            let stream = os::connect(socket).await;
            let stream = stream.map_err(|e| Error::failed(name()).cause(e).hint(WHEN_ENDED))?;
            Self::handshake(stream).await.map_err(|e| e.of(name()))
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::TimedOut(timeout).of(name())),
        }
    }

    async fn handshake(stream: os::Stream) -> Result<Self, Failure> {
        let (read, mut write) = tokio::io::split(stream);
        let mut read = BufReader::new(read);
        loop {
            match next_line(&mut read).await {
                Some(Line::Json(value)) if value.get("QMP").is_some() => break,
                Some(_) => {}
                None => return Err(Failure::Disconnected),
            }
        }
        let (out, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
        // A task of its own writes, so that a caller that goes away never leaves half a command.
        tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                if write.write_all(&frame).await.is_err() {
                    break;
                }
            }
            // QEMU hangs up then, which ends the reader too.
            let _ = write.shutdown().await;
        });
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(1),
            pending: Mutex::new(Some(HashMap::new())),
            events: broadcast::channel(EVENTS_KEPT).0,
            closed: watch::channel(false).0,
            began: Instant::now(),
            trace: Mutex::new(VecDeque::new()),
        });
        tokio::spawn(receive(read, Arc::clone(&shared)));
        let qmp = Qmp { shared, out };
        qmp.raw("qmp_capabilities", json!({}), COMMAND_TIMEOUT).await?;
        Ok(qmp)
    }

    /// Runs a command with the default deadline.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn execute<C: qapi::Command>(&self, command: C) -> Result<C::Ok, Failure> {
        self.execute_within(command, COMMAND_TIMEOUT).await
    }

    /// Runs a command with a deadline. A late answer is dropped and disturbs nothing.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn execute_within<C: qapi::Command>(
        &self,
        command: C,
        timeout: Duration,
    ) -> Result<C::Ok, Failure> {
        let arguments =
            serde_json::to_value(&command).map_err(|e| Failure::Unexpected(e.to_string()))?;
        let value = self.raw(C::NAME, arguments, timeout).await?;
        serde_json::from_value(value).map_err(|e| Failure::Unexpected(e.to_string()))
    }

    /// Runs a command that `qapi` may not know.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn raw(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.shared.pending().as_mut().ok_or(Failure::Disconnected)?.insert(id, answer);
        let _waiting = Waiting { shared: &self.shared, id };
        let mut frame =
            json!({"execute": command, "arguments": arguments, "id": id}).to_string().into_bytes();
        self.shared.note('>', &String::from_utf8_lossy(&frame));
        frame.push(b'\n');
        self.out.send(frame).map_err(|_| Failure::Disconnected)?;
        let reply = tokio::time::timeout(timeout, answered)
            .await
            .map_err(|_| Failure::TimedOut(timeout))?
            .map_err(|_| Failure::Disconnected)?;
        take_result(reply)
    }

    /// Runs a command of the human monitor and returns its text.
    ///
    /// # Errors
    /// See [`Failure`]; what the command itself refuses stands in the text.
    pub async fn human(&self, line: &str) -> Result<String, Failure> {
        let arguments = json!({"command-line": line});
        let value = self.raw("human-monitor-command", arguments, COMMAND_TIMEOUT).await?;
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::Unexpected(format!("no text but {value}")))
    }

    /// The last lines of the conversation, with the seconds since it began.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        let trace = self.shared.trace.lock().unwrap_or_else(PoisonError::into_inner);
        trace.iter().cloned().collect()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RawEvent> {
        self.shared.events.subscribe()
    }

    /// Returns when the connection has ended.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

fn take_result(mut reply: Value) -> Result<Value, Failure> {
    if let Some(error) = reply.get("error") {
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        return Err(Failure::Rejected { class: text("class"), text: text("desc") });
    }
    match reply.get_mut("return") {
        Some(value) => Ok(value.take()),
        None => Err(Failure::Unexpected(reply.to_string())),
    }
}

async fn receive(mut read: impl AsyncBufRead + Unpin, shared: Arc<Shared>) {
    while let Some(line) = next_line(&mut read).await {
        let Line::Json(value) = line else { continue };
        shared.note('<', &value.to_string());
        if let Some(name) = value.get("event").and_then(Value::as_str) {
            let data = value.get("data").cloned().unwrap_or_default();
            // No receiver is no fault.
            let _ = shared.events.send(RawEvent { name: name.to_owned(), data });
        } else if let Some(id) = value.get("id").and_then(Value::as_u64)
            && let Some(waiting) = shared.pending().as_mut().and_then(|p| p.remove(&id))
        {
            let _ = waiting.send(value);
        }
    }
    shared.pending().take();
    shared.closed.send_replace(true);
}

enum Line {
    Json(Value),
    Garbage,
}

/// The next line; `None` at the end of the stream, on a read error, or on a line that never ends.
async fn next_line(read: &mut (impl AsyncBufRead + Unpin)) -> Option<Line> {
    let mut line = Vec::new();
    let n = read.take(LINE_LIMIT).read_until(b'\n', &mut line).await.ok()?;
    if n == 0 || line.last() != Some(&b'\n') {
        return None;
    }
    Some(serde_json::from_slice(&line).map_or(Line::Garbage, Line::Json))
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
