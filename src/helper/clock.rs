//! The clocks of the guests: each is looked at now and then, and all at once when the host has slept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

use super::log::Log;
use crate::error::Result;
use crate::guest::clock;
use crate::machine::instance::Instance;
use crate::machine::lock::Lock;
use crate::machine::pause::is_paused;
use crate::machine::record::Ready;

/// Between two looks at one clock; a look costs the guest a few milliseconds.
const EVERY: Duration = Duration::from_secs(30);
/// Where a look fails again and again: most guests that have no agent will not get one.
const RARELY: Duration = Duration::from_secs(300);
/// So many failures in a row are no accident of a loaded host.
const FAILURES: u32 = 3;
/// What a clock may be off by: below it programs do not notice, and setting it would disturb more.
const TOLERANCE: Duration = Duration::from_secs(2);
/// The host's clocks differ by less while it does not sleep.
const SLEPT: Duration = Duration::from_secs(1);

/// Notices that the host slept: one of its clocks counts that time, the other does not.
#[derive(Debug)]
pub(super) struct Sleep {
    asleep: Duration,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Sleep { asleep: asleep() }
    }

    /// How long the host slept since the last call, if it did.
    pub(super) fn since_last(&mut self) -> Option<Duration> {
        let now = asleep();
        let slept = now.saturating_sub(self.asleep);
        self.asleep = now;
        (slept > SLEPT).then_some(slept)
    }
}

/// The time that the host has slept since it started (clock_gettime(2)). Neither clock is ever set.
fn asleep() -> Duration {
    let of = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
    of(ClockId::Boottime).saturating_sub(of(ClockId::Monotonic))
}

/// When which clock is looked at.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    process: Ready,
    due: Instant,
    look: Option<JoinHandle<Look>>,
    /// In a row.
    failures: u32,
}

/// What a look at a clock gave.
#[derive(Debug)]
enum Look {
    /// A command works on the machine, or it stands still: later.
    NotNow,
    /// It was right, or off by this many seconds and set.
    Done(Result<Option<f64>>),
}

impl Clocks {
    pub(super) fn new() -> Self {
        Clocks::default()
    }

    /// All clocks are looked at now.
    pub(super) fn all_due(&mut self) {
        let now = Instant::now();
        self.known.values_mut().for_each(|known| known.due = now);
    }

    /// Looks at the clocks that are due among those of `machines`, each in a task of its own, and says
    /// what came of the looks before.
    pub(super) fn look(&mut self, machines: &BTreeMap<&str, (&Instance, Ready)>, log: &Log) {
        let now = Instant::now();
        self.known.retain(|name, known| {
            machines.get(name.as_str()).is_some_and(|(_, process)| *process == known.process)
        });
        for (name, (instance, process)) in machines {
            let known = self.known.entry((*name).to_owned()).or_insert_with(|| Known {
                process: *process,
                due: now,
                look: None,
                failures: 0,
            });
            known.collect(name, now, log);
            if known.look.is_none() && known.due <= now {
                known.look = Some(tokio::spawn(look((*instance).clone())));
            }
        }
    }
}

impl Known {
    /// Takes what a look gave that has ended.
    fn collect(&mut self, name: &str, now: Instant, log: &Log) {
        if !self.look.as_ref().is_some_and(JoinHandle::is_finished) {
            return;
        }
        // The task has ended, so that this takes its result and waits for nothing.
        let result = self.look.take().and_then(futures_util::FutureExt::now_or_never);
        let Some(Ok(result)) = result else { return };
        match result {
            Look::NotNow => {}
            Look::Done(Ok(off)) => {
                self.due = now + EVERY;
                self.failures = 0;
                if let Some(off) = off {
                    log.line(format_args!(
                        "the clock of `{name}` was off by {off:.1} s; it is set"
                    ));
                }
            }
            Look::Done(Err(e)) => {
                self.failures += 1;
                self.due = now + if self.failures < FAILURES { EVERY } else { RARELY };
                if self.failures == FAILURES {
                    let why = e.causes().last().map_or(e.what(), |cause| cause);
                    log.line(format_args!("the clock of `{name}` cannot be looked at: {why}"));
                }
            }
        }
    }
}

/// Looks at one clock. A command that holds the machine's lock may use the agent, which serves one at a
/// time; one that begins now waits for the moment that this takes.
async fn look(instance: Instance) -> Look {
    let files = instance.files().clone();
    let free = tokio::task::spawn_blocking(move || {
        Lock::holder(&files.lock()).is_none() && !is_paused(&files.watch_socket())
    });
    if !free.await.unwrap_or(false) {
        return Look::NotNow;
    }
    Look::Done(clock::correct(&instance.files().agent_socket(), TOLERANCE).await)
}
