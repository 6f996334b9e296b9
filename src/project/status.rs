//! What one machine is doing, for people and for programs. Everything is looked up now; nothing is
//! remembered.

use serde_json::{Value, json};

use crate::helper::arriving::BoxServer;
use crate::machine::history::History;
use crate::machine::instance::{Instance, State};
use crate::machine::lock::Lock;
use crate::machine::pause::is_paused;
use crate::machine::record::Record;

/// What was found.
#[derive(Debug, Clone)]
pub struct Status {
    /// One word for programs: `absent`, `stopped`, `died`, `busy`, `unready`, `running`, `suspended`,
    /// `damaged`.
    pub state: &'static str,
    /// The same for people, with the reason.
    pub text: String,
    /// QEMU's process id, if it runs.
    pub pid: Option<i32>,
    /// What the machine is made of; `None` if it is not made, or its record is damaged.
    pub record: Option<Record>,
    /// On which boxes it ran; `None` if that is damaged.
    pub history: Option<History>,
}

impl Status {
    /// Looks at all of these at once: a QEMU that works takes its time to answer, and so they do it
    /// side by side. In their order.
    #[must_use]
    pub fn look_at<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Vec<Self> {
        std::thread::scope(|scope| {
            let looks: Vec<_> = instances
                .into_iter()
                .map(|instance| (instance, scope.spawn(move || Self::look(instance))))
                .collect();
            // A thread that panicked has said so; here it is looked at once more.
            looks
                .into_iter()
                .map(|(instance, look)| look.join().unwrap_or_else(|_| Self::look(instance)))
                .collect()
        })
    }

    /// Looks at one machine.
    #[must_use]
    pub fn look(instance: &Instance) -> Self {
        let holder = Lock::holder(&instance.files().lock());
        let history = instance.history().ok();
        let found = |state, text: String| Status {
            state,
            text,
            pid: None,
            record: None,
            history: history.clone(),
        };
        let record = match (instance.record(), &holder) {
            (Ok(Some(record)), _) => record,
            (Ok(None), Some(holder)) => return found("busy", holder.clone()),
            (Ok(None), None) => return found("absent", "not made yet".to_owned()),
            (Err(e), _) => {
                let why = e.causes().first().map_or(e.what(), String::as_str);
                return found("damaged", format!("its record is damaged: {why}"));
            }
        };
        let (state, text, pid) = match (instance.state(&record), holder) {
            (State::Running(process), Some(holder)) => {
                ("busy", format!("running; {holder}"), Some(process.pid()))
            }
            (State::Running(process), None) if is_paused(&instance.files().watch_socket()) => {
                ("suspended", "suspended, in memory".to_owned(), Some(process.pid()))
            }
            (State::Running(process), None) if record.was_ready(&process) => {
                ("running", "running".to_owned(), Some(process.pid()))
            }
            (State::Running(process), None) => (
                "unready",
                "running, but was not seen ready; wait for it with `devbox up`".to_owned(),
                Some(process.pid()),
            ),
            (_, Some(holder)) => ("busy", holder, None),
            (_, None) if record.suspended.is_some() => {
                ("suspended", "suspended, on its disk".to_owned(), None)
            }
            (State::Died, None) => ("died", "stopped (QEMU ended unexpectedly)".to_owned(), None),
            (State::Stopped, None) => ("stopped", "stopped".to_owned(), None),
        };
        let text = match how_far(instance, &record, pid.is_some()) {
            Some(far) => format!("{text}; {far}"),
            None => text,
        };
        Status { state, text, pid, record: Some(record), history }
    }

    /// The host's port of ssh, while the machine runs.
    #[must_use]
    pub fn ssh_port(&self) -> Option<u16> {
        self.record.as_ref().filter(|_| self.pid.is_some())?.ssh_port()
    }

    /// The machine as one object; what is not known is null.
    #[must_use]
    pub fn json(&self, instance: &Instance, in_spec: Option<bool>) -> Value {
        let record = self.record.as_ref();
        let forwards = record.filter(|_| self.pid.is_some()).map_or(&[][..], |r| &r.forwards);
        json!({
            "name": instance.name(),
            "state": self.state,
            "text": self.text,
            "in_spec": in_spec,
            "project": instance.project(),
            "box": record.map(|r| &r.base.reference),
            "manifest": record.map(|r| &r.base.manifest),
            "history": self.history.as_ref().map(|history| &history.ran),
            "held": self.history.as_ref().and_then(|history| history.held.as_ref()),
            "uuid": record.map(|r| &r.uuid),
            "user": record.map(|r| &r.user),
            "login": record.map(|r| r.login.as_str()),
            "pid": self.pid,
            "ssh_port": self.ssh_port(),
            "forwards": forwards,
            "arriving": record.and_then(|record| arriving(instance, record)),
            "address": record.and_then(|r| r.address).map(|address| address.ip),
            "mounts": record.map_or(&[][..], |r| &r.folders),
            "overrides": record.map_or(&[][..], |r| &r.overrides),
            "serial_log": record.map(|_| instance.files().serial_log()),
            "qemu_log": record.map(|_| instance.files().qemu_log()),
        })
    }
}

/// How far the box of a machine is that was started before it was here; none once it is.
fn how_far(instance: &Instance, record: &Record, runs: bool) -> Option<String> {
    record.awaited()?;
    let server = BoxServer::of_machine(instance.files(), record)?;
    Some(match (server.progress(), runs) {
        (Some(progress), _) => {
            let here = format!("{} % of its box is here", progress.percent());
            match (progress.waits, progress.trouble) {
                (true, Some(why)) => format!("stands still until more arrives, {here}: {why}"),
                (true, None) => format!("stands still until more arrives, {here}"),
                (false, Some(why)) => format!("{here}, and nothing arrives at the moment: {why}"),
                (false, None) => here,
            }
        }
        (None, true) => "its box is not whole, and nothing fetches it; run `devbox up`".to_owned(),
        (None, false) => "its box is not whole; the rest arrives when it runs".to_owned(),
    })
}

fn arriving(instance: &Instance, record: &Record) -> Option<Value> {
    let from = record.awaited()?;
    let progress = BoxServer::of_machine(instance.files(), record)?.progress();
    Some(json!({ "from": from.address, "progress": progress }))
}
