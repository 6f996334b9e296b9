//! Watches one run of QEMU until the guest powers itself off or reboots, and says why it does neither.

use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::typing;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::machine::installer::cd_node;
use crate::machine::qmp::RawEvent;
use crate::machine::{Machine, serial};
use crate::spec::boot_command::Action;
use crate::spec::quantity::duration_text;

/// Between two looks at what the installer does.
const LOOK: Duration = Duration::from_secs(1);
/// For QEMU to write its disks and end, after the guest is down.
const LAST: Duration = Duration::from_secs(60);

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    PoweredOff,
    Rebooted,
}

/// The limits of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until the installer shows that it works; `None` once it has.
    pub(super) start: Option<Duration>,
    /// The end of the whole installation.
    pub(super) end: Instant,
    /// How long that is from its beginning, for messages.
    pub(super) whole: Duration,
}

/// What is watched besides the machine.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub(super) limits: Limits,
    pub(super) server: Option<&'a Server>,
    /// The labels of the CDs behind the first one, in this run.
    pub(super) labels: &'a [String],
    pub(super) events: &'a Events,
    pub(super) cancel: &'a CancellationToken,
}

impl Watched<'_> {
    /// Waits for the guest's end, while this is typed after a pause.
    ///
    /// # Errors
    /// Nothing shows that the installer works, the time is over, the typing failed, QEMU died: each with the evidence.
    pub(super) async fn until_end(
        &self,
        machine: &mut Machine,
        typed: Option<(Duration, &[Action])>,
    ) -> Result<Ending> {
        let typing = async {
            match typed {
                Some((wait, actions)) => {
                    typing::type_all(actions, wait, machine, self.events).await
                }
                None => Ok(()),
            }
        };
        let mut disks = machine.disk_errors();
        let ended = disks.beside(self.race(machine, typing)).await;
        match ended {
            Ok(ending) => {
                // The event comes before QEMU has written what it holds.
                machine.wait_exit(LAST, self.cancel).await?;
                Ok(ending)
            }
            Err(e) if e.kind() == Kind::Interrupted => Err(e),
            Err(e) => Err(machine.evidence(self.unasked(e, machine).await).await),
        }
    }

    async fn race(
        &self,
        machine: &Machine,
        typing: impl Future<Output = Result<()>>,
    ) -> Result<Ending> {
        let mut heard = machine.qmp().events();
        let (start, mut works) = (Instant::now(), self.limits.start.is_none());
        let mut look = tokio::time::interval(LOOK);
        let mut typing = std::pin::pin!(typing);
        let mut typed = false;
        loop {
            tokio::select! {
                // What the guest said before it ended counts before that it ended.
                biased;
                () = self.cancel.cancelled() => {
                    return Err(Error::interrupted("interrupted while the installer ran"));
                }
                event = heard.recv() => match event {
                    Ok(event) => if let Some(ending) = ending(&event) { return ending; },
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(died()),
                },
                result = &mut typing, if !typed => {
                    result?;
                    typed = true;
                }
                () = machine.qmp().closed() => {
                    // The last events may still be in the queue.
                    while let Ok(event) = heard.try_recv() {
                        if let Some(ending) = ending(&event) { return ending; }
                    }
                    return Err(died());
                }
                _ = look.tick() => {
                    if !works && self.works(machine).await {
                        works = true;
                    }
                    let over = self.over(machine, start.elapsed(), works).await;
                    if let Some(error) = over { return Err(error); }
                }
            }
        }
    }

    /// Whether the installer has written to the disk or fetched an answer file. A QEMU that just ended has its say
    /// elsewhere.
    async fn works(&self, machine: &Machine) -> bool {
        if self.server.is_some_and(Server::was_asked) {
            return true;
        }
        let written = machine.transferred("disk0").await.is_ok_and(|(_, written)| written > 0);
        if written {
            self.events.note("the installer writes to the disk");
        }
        written
    }

    async fn over(&self, machine: &Machine, elapsed: Duration, works: bool) -> Option<Error> {
        let error = match self.limits.start.filter(|start| !works && elapsed >= *start) {
            Some(start) => Error::failed(format!(
                "the installer did not start within {}: it wrote nothing to the disk and fetched no answer file",
                duration_text(start.as_secs())
            ))
            .hint("Look at the screenshot and the serial log: a menu may wait for a key (`[source.boot]`), or a slow host needs a longer `start_timeout`."),
            None if Instant::now() >= self.limits.end => Error::failed(format!(
                "the installation was not over within {}",
                duration_text(self.limits.whole.as_secs())
            ))
            .hint("See what it waits for: a question that no answer file answers, or a guest that neither powers itself off nor reboots. A slow host needs a longer `timeout`."),
            None => match serial::kernel_panic(machine.serial_log()) {
                Some(panic) => Error::failed("the guest's kernel died").cause(panic),
                None => return None,
            },
        };
        let screen = machine.screen_text().await.unwrap_or_default();
        Some(typing::on_screen(error, &screen))
    }

    /// Adds which answer files the installer never asked for, as far as that is known.
    async fn unasked(&self, mut error: Error, machine: &Machine) -> Error {
        if let Some(server) = self.server {
            error = never_asked(error, server);
        }
        for (n, label) in self.labels.iter().enumerate() {
            if let Ok((read, _)) = machine.transferred(&cd_node(n + 1)).await {
                error = error.detail(format!("read from the CD `{label}`: {read} bytes"));
            }
        }
        error
    }
}

/// What stands in messages about files that are served and that nobody wanted.
pub(super) fn never_asked(mut error: Error, server: &Server) -> Error {
    let (never, others) = server.ignored();
    for name in never {
        error = error.cause(format!("the installer never asked for the answer file `{name}`"));
    }
    for name in others.iter().take(10) {
        error =
            error.detail(format!("it asked for `{}`, which is not served", name.escape_debug()));
    }
    error
}

/// The end that QEMU's `SHUTDOWN` tells (QEMU's qapi/run-state.json, `ShutdownCause`).
fn ending(event: &RawEvent) -> Option<Result<Ending>> {
    if event.name != "SHUTDOWN" {
        return None;
    }
    let reason = event.data["reason"].as_str().unwrap_or("");
    Some(match reason {
        "guest-shutdown" => Ok(Ending::PoweredOff),
        "guest-reset" => Ok(Ending::Rebooted),
        "guest-panic" => Err(Error::failed("the kernel of the installer's guest died")),
        other => Err(Error::failed("QEMU ended while the installer ran").cause(other)),
    })
}

fn died() -> Error {
    Error::failed("QEMU ended while the installer ran")
        .hint("Run the same command again; if QEMU ends again, read its log.")
}
