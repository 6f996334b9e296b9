//! `devbox status`.

use serde_json::{Value, json};

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Result, exit};
use crate::helper;
use crate::machine::record::Login;
use crate::project::status::Status;
use crate::project::{Member, select};
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Say what the dev box of this project is doing, or all of its machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these machines; names and patterns such as `web-*`
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machines: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let project = shared::project(ctx)?;
    if project.spec().is_none() {
        ctx.events.warn(
            "the spec has problems, see `devbox validate`; machines are known from their folders",
        );
    }
    let chosen = select::members(&project.members().iter().collect::<Vec<_>>(), &args.machines)?;
    let looked = Status::look_at(chosen.iter().map(|member| &member.instance));
    let found: Vec<(&Member, Status)> = chosen
        .into_iter()
        .zip(looked)
        // The rest of an interrupted making that the spec does not name either is no machine.
        .filter(|(member, status)| member.in_spec == Some(true) || status.state != "absent")
        .collect();
    let folder = project.members().first().map(|member| member.instance.project());
    let helper = folder.is_some_and(|folder| helper::runs(&ctx.paths, folder));
    if args.json {
        let machines: Vec<Value> =
            found.iter().map(|(m, status)| status.json(&m.instance, m.in_spec)).collect();
        ui::line(&format!("{:#}", json!({ "schema": 1, "machines": machines, "helper": helper })))?;
        return Ok(exit::OK);
    }
    if !helper && found.iter().any(|(_, status)| status.pid.is_some()) {
        ctx.events.warn(
            "the helper of this project does not run: no private network, and clocks are not kept; start it with `devbox up`",
        );
    }
    match &found[..] {
        [] => ui::line("this project has no machine; make and start it with `devbox up`")?,
        [(_, status)] if status.state == "absent" => {
            ui::line("this project has no machine; make and start it with `devbox up`")?;
        }
        [(member, status)] => {
            for line in lines(member, status) {
                ui::line(&line)?;
            }
        }
        _ => table(&found)?,
    }
    Ok(exit::OK)
}

/// One machine, whole.
fn lines(member: &Member, status: &Status) -> Vec<String> {
    let mut lines =
        vec![format!("machine  {}", member.name()), format!("state    {}", text(member, status))];
    let files = member.instance.files();
    if let Some(address) = address(status) {
        lines.push(format!("address  {address} in the private network"));
    }
    if let Some(record) = &status.record {
        lines.push(format!("box      {} ({})", record.base.reference, record.base.manifest));
        if let Some(history) = &status.history {
            let held = history.held.as_ref();
            if held.is_some_and(|held| held.manifest == record.base.manifest) {
                lines.push(format!(
                    "held     since it was rolled back; `devbox up --forward {}` follows the spec again",
                    member.name()
                ));
            }
            if let Some(before) = history.before(&record.base.manifest) {
                let until = before.until.and_then(|at| jiff::Timestamp::from_second(at).ok());
                let until = until.map_or(String::new(), |at| format!(" until {at}"));
                lines.push(format!("before   {}{until}", before.reference));
            }
        }
        if record.login == Login::Agent {
            let name = member.name();
            lines.push(format!(
                "login    by its guest agent alone: `devbox exec {name} -- PROGRAM`"
            ));
        }
        lines.extend(record.overrides.iter().map(|own| format!("changed  {own}")));
    }
    if let (Some(pid), Some(record)) = (status.pid, &status.record) {
        lines.push(format!("pid      {pid}"));
        for forward in &record.forwards {
            let (ip, host) = (forward.host_ip, forward.host);
            let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
            lines.push(format!("port     {ip}:{host} leads to {protocol} port {guest}"));
        }
        lines.extend(record.folders.iter().map(|folder| format!("mount    {folder}")));
    }
    if status.state == "died" {
        lines.push(format!("QEMU log {}", files.qemu_log().display()));
    }
    lines.push(format!("serial   {}", files.serial_log().display()));
    lines
}

/// Several machines, a line each.
fn table(found: &[(&Member, Status)]) -> Result<()> {
    let reference = |status: &Status| match &status.record {
        Some(record) => record.base.reference.clone(),
        None => "-".to_owned(),
    };
    let width = |lengths: &mut dyn Iterator<Item = usize>, title: &str| {
        lengths.max().unwrap_or(0).max(title.len())
    };
    let names = width(&mut found.iter().map(|(m, _)| m.name().len()), "MACHINE");
    let boxes = width(&mut found.iter().map(|(_, s)| reference(s).len()), "BOX");
    // Only where there is a private network.
    let any = found.iter().any(|(_, status)| address(status).is_some());
    let private = |text: String| if any { format!("{text:15}  ") } else { String::new() };
    let title = private("ADDRESS".to_owned());
    ui::line(&format!("{:names$}  {:boxes$}  {:>5}  {title}STATE", "MACHINE", "BOX", "SSH"))?;
    for (member, status) in found {
        let address = private(address(status).unwrap_or_else(|| "-".to_owned()));
        let by_agent = status.record.as_ref().is_some_and(|record| record.login == Login::Agent);
        let port = match status.ssh_port() {
            _ if by_agent => "agent".to_owned(),
            port => port.map_or("-".to_owned(), |port| port.to_string()),
        };
        ui::line(&format!(
            "{:names$}  {:boxes$}  {port:>5}  {address}{}",
            member.name(),
            reference(status),
            text(member, status)
        ))?;
    }
    Ok(())
}

/// The address in the private network.
fn address(status: &Status) -> Option<String> {
    status.record.as_ref()?.address.map(|address| address.ip.to_string())
}

/// The state, and what is odd about the machine.
fn text(member: &Member, status: &Status) -> String {
    let name = member.name();
    let mut text = status.text.clone();
    if status.state == "damaged" {
        text.push_str(&format!("; remove it with `devbox destroy -f {name}`"));
    }
    if member.in_spec == Some(false) {
        text.push_str(" (not in the spec any more)");
    }
    text
}
