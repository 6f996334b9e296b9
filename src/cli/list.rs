//! `devbox list`.

use std::path::Path;

use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::{Result, exit};
use crate::exec::quote;
use crate::host;
use crate::machine::config::Protocol;
use crate::machine::instance::Instance;
use crate::machine::ports::BoundForward;
use crate::project::status::Status;
use crate::ui;

/// List all machines of this user, of every project.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything is looked up now, from files and processes; each QEMU is asked whether it stands still, and no
/// guest anything.
pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let mut rows = vec![];
    let instances = Instance::all(&ctx.paths)?;
    let found = Status::look_at(&instances);
    for (instance, status) in instances.into_iter().zip(found) {
        // The rest of an interrupted making is no machine.
        if status.state != "absent" {
            rows.push(Row {
                disk_bytes: host::stored_bytes(instance.files().dir()),
                instance,
                status,
            });
        }
    }
    if args.json {
        let machines: Vec<Value> = rows.iter().map(Row::json).collect();
        ui::line(&format!("{:#}", json!({ "schema": 1, "machines": machines })))?;
        return Ok(exit::OK);
    }
    if rows.is_empty() {
        ctx.events.note("there is no machine; `devbox up` makes one for the project it is run in");
        return Ok(exit::OK);
    }
    table(&rows)?;
    for row in &rows {
        if let Some(dir) = row.project().filter(|dir| !dir.is_dir()) {
            ctx.events.note(format!(
                "the project of `{0}` is gone; remove the machine with `devbox destroy --project {1} {0}`",
                row.instance.name(),
                quote(dir.as_os_str())
            ));
        }
    }
    Ok(exit::OK)
}

/// One machine.
struct Row {
    instance: Instance,
    status: Status,
    disk_bytes: u64,
}

impl Row {
    /// The project's folder, which may be gone; not known where the record is damaged.
    fn project(&self) -> Option<&Path> {
        self.status.record.as_ref().map(|record| record.project.as_path())
    }

    /// What leads into it, while it runs.
    fn forwards(&self) -> &[BoundForward] {
        let record = self.status.record.as_ref().filter(|_| self.status.pid.is_some());
        record.map_or(&[], |record| &record.forwards)
    }

    fn json(&self) -> Value {
        let record = self.status.record.as_ref();
        json!({
            "name": self.instance.name(),
            "state": self.status.state,
            "text": self.status.text,
            "project": self.project(),
            "project_exists": self.project().map(Path::is_dir),
            "box": record.map(|r| &r.base.reference),
            "pid": self.status.pid,
            "ssh_port": self.status.ssh_port(),
            "forwards": self.forwards(),
            "disk_bytes": self.disk_bytes,
            "folder": self.instance.files().dir(),
        })
    }

    fn cells(&self) -> [String; 6] {
        let record = self.status.record.as_ref();
        let project = match self.project() {
            Some(dir) if dir.is_dir() => dir.display().to_string(),
            Some(dir) => format!("{} (gone)", dir.display()),
            // The folder tells at least which machine it is.
            None => format!("? ({})", self.instance.files().dir().display()),
        };
        [
            self.instance.name().to_owned(),
            self.status.state.to_owned(),
            record.map_or("-".to_owned(), |r| r.base.reference.clone()),
            ByteSize(self.disk_bytes).display().iec().to_string(),
            ports(self.forwards()),
            project,
        ]
    }
}

fn table(rows: &[Row]) -> Result<()> {
    let titles = ["MACHINE", "STATE", "BOX", "DISK", "PORTS", "PROJECT"].map(str::to_owned);
    let cells: Vec<[String; 6]> =
        std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect();
    let width = |i: usize| cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for [name, state, reference, disk, ports, project] in &cells {
        let [a, b, c, d, e] = widths;
        ui::line(&format!(
            "{name:a$}  {state:b$}  {reference:c$}  {disk:>d$}  {ports:e$}  {project}"
        ))?;
    }
    Ok(())
}

/// `40123:22 8080:80`: the host's ports and where they lead.
fn ports(forwards: &[BoundForward]) -> String {
    let word = |f: &BoundForward| match f.protocol {
        Protocol::Tcp => format!("{}:{}", f.host, f.guest),
        Protocol::Udp => format!("{}:{}/udp", f.host, f.guest),
    };
    match forwards {
        [] => "-".to_owned(),
        all => all.iter().map(word).collect::<Vec<_>>().join(" "),
    }
}
