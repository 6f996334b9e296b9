//! `devbox status`.

use serde_json::{Value, json};

use crate::cli::{Context, machine as shared};
use crate::error::{Result, exit};
use crate::machine::instance::{Instance, Record, State};
use crate::machine::lock::Lock;
use crate::ui;

/// Say what the dev box of this project is doing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything here is looked up now; nothing is remembered.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let Some((instance, record)) = shared::existing(ctx)? else {
        if args.json {
            ui::line(&format!("{:#}", json!({"state": "absent"})))?;
        } else {
            ui::line("this project has no machine; make and start it with `devbox up`")?;
        }
        return Ok(exit::OK);
    };
    let found = Found::look(&instance, &record);
    if args.json {
        ui::line(&format!("{:#}", found.json(&instance, &record)))?;
    } else {
        for line in found.lines(&instance, &record) {
            ui::line(&line)?;
        }
    }
    Ok(exit::OK)
}

/// What was found.
struct Found {
    /// One word for programs.
    state: &'static str,
    /// The same for people, with the reason.
    text: String,
    pid: Option<i32>,
}

impl Found {
    fn look(instance: &Instance, record: &Record) -> Self {
        let holder = Lock::holder(&instance.files().lock());
        let found = |state, text: &str| Found { state, text: text.to_owned(), pid: None };
        match (instance.state(record), holder) {
            (State::Running(process), holder) => {
                let (state, text) = match holder {
                    Some(holder) => ("busy", format!("running; {holder}")),
                    None if record.was_ready(&process) => ("running", "running".to_owned()),
                    None => (
                        "unready",
                        "running, but was not seen ready; wait for it with `devbox up`".to_owned(),
                    ),
                };
                Found { state, text, pid: Some(process.pid()) }
            }
            (_, Some(holder)) => found("busy", &holder),
            (State::Died, None) => found("died", "stopped (QEMU ended unexpectedly)"),
            (State::Stopped, None) => found("stopped", "stopped"),
        }
    }

    fn lines(&self, instance: &Instance, record: &Record) -> Vec<String> {
        let mut lines = vec![
            format!("machine  {}", instance.name()),
            format!("state    {}", self.text),
            format!("box      {} ({})", record.base.reference, record.base.manifest),
        ];
        if let Some(pid) = self.pid {
            lines.push(format!("pid      {pid}"));
            for forward in &record.forwards {
                let (ip, host) = (forward.host_ip, forward.host);
                let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
                lines.push(format!("port     {ip}:{host} leads to {protocol} port {guest}"));
            }
        }
        if self.state == "died" {
            lines.push(format!("QEMU log {}", instance.files().qemu_log().display()));
        }
        lines.push(format!("serial   {}", instance.files().serial_log().display()));
        lines
    }

    fn json(&self, instance: &Instance, record: &Record) -> Value {
        let running = self.pid.is_some();
        json!({
            "name": instance.name(),
            "state": self.state,
            "text": self.text,
            "project": record.project,
            "box": record.base.reference,
            "manifest": record.base.manifest,
            "uuid": record.uuid,
            "user": record.user,
            "pid": self.pid,
            "ssh_port": record.ssh_port().filter(|_| running),
            "forwards": if running { json!(record.forwards) } else { json!([]) },
            "serial_log": instance.files().serial_log(),
            "qemu_log": instance.files().qemu_log(),
        })
    }
}
