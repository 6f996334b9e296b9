//! `devbox port`.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use crate::cli::{Context, completions::machines, machine as shared};
use crate::error::{Error, Result, exit};
use crate::machine::config::Protocol;
use crate::machine::instance::Instance;
use crate::machine::ports::{self, BoundForward};
use crate::machine::record::{Record, SSH_PORT};
use crate::machine::{Machine, qmp::Qmp};
use crate::ui;
use clap_complete::engine::ArgValueCandidates;

/// Show, add and remove ports of the host that lead into the dev box.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The machine, where the project has several
    #[arg(value_name = "MACHINE", add = ArgValueCandidates::new(machines))]
    machine: Option<String>,
    /// Print only the host's port that leads to this TCP port of the guest
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    guest: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forward one more port, now and at each further start.
    Add(Forwarding),
    /// Remove a forward.
    Remove(Forwarding),
}

#[derive(Debug, clap::Args)]
struct Forwarding {
    /// The machine where the project has several, then `[HOST_IP:]HOST:GUEST[/udp]`; ranges such as
    /// `8000-8010:8000-8010`
    #[arg(required = true, num_args = 1..=2, value_names = ["MACHINE", "FORWARD"])]
    words: Vec<String>,
}

impl Forwarding {
    fn read(&self) -> Result<(Option<&str>, Forwards)> {
        let (machine, forward) = match &self.words[..] {
            [machine, forward] => (Some(machine.as_str()), forward),
            [forward, ..] => (None, forward),
            [] => return Err(Error::usage("no forward is named").hint("Write `8080:80`.")),
        };
        Ok((machine, forward.parse()?))
    }
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    match &args.verb {
        Some(Verb::Add(words)) => add(words, ctx)?,
        Some(Verb::Remove(words)) => remove(words, ctx)?,
        None => show(&args, ctx)?,
    }
    Ok(exit::OK)
}

fn show(args: &Args, ctx: &Context) -> Result<()> {
    let (instance, record) = shared::running(ctx, args.machine.as_deref())?;
    let chosen: Vec<&BoundForward> = match args.guest {
        None => record.forwards.iter().collect(),
        Some(guest) => {
            let leads = |f: &&BoundForward| f.guest == guest && f.protocol == Protocol::Tcp;
            let Some(found) = record.forwards.iter().find(leads) else {
                let what = format!("no port leads to port {guest} of `{}`", instance.name());
                return Err(Error::failed(what)
                    .hint(format!("Add one with `devbox port add HOST:{guest}`.")));
            };
            vec![found]
        }
    };
    if args.json {
        let document = json!({ "schema": 1, "machine": instance.name(), "forwards": chosen });
        return ui::line(&format!("{document:#}"));
    }
    for forward in chosen {
        ui::line(&match args.guest {
            Some(_) => forward.host.to_string(),
            None => words(forward),
        })?;
    }
    Ok(())
}

/// `127.0.0.1:8080 leads to tcp port 80`.
fn words(forward: &BoundForward) -> String {
    let (protocol, guest) = (forward.protocol.as_str(), forward.guest);
    format!("{}:{} leads to {protocol} port {guest}", forward.host_ip, forward.host)
}

fn add(words_given: &Forwarding, ctx: &Context) -> Result<()> {
    let (machine, wanted) = words_given.read()?;
    change(machine, "devbox port add", ctx, async |qmp, instance, record| {
        for forward in wanted.bound() {
            if record.forwards.iter().any(|f| same(f, &forward) && f.guest == forward.guest) {
                ctx.events.note(format!("{} already", words(&forward)));
                continue;
            }
            ports::add(qmp, &forward).await?;
            record.forwards.push(forward.clone());
            record.added.retain(|f| !same(f, &forward));
            record.added.push(forward.clone());
            instance.save(record)?;
            ctx.events.note(words(&forward));
        }
        Ok(())
    })
}

fn remove(words_given: &Forwarding, ctx: &Context) -> Result<()> {
    let (machine, wanted) = words_given.read()?;
    change(machine, "devbox port remove", ctx, async |qmp, instance, record| {
        for wish in wanted.bound() {
            remove_one(qmp, instance, record, &wish, ctx).await?;
        }
        Ok(())
    })
}

async fn remove_one(
    qmp: &Qmp,
    instance: &Instance,
    record: &mut Record,
    wish: &BoundForward,
    ctx: &Context,
) -> Result<()> {
    let leads = |f: &&BoundForward| same(f, wish) && f.guest == wish.guest;
    let Some(forward) = record.forwards.iter().find(leads).cloned() else {
        return Err(Error::failed(format!(
            "`{}` has no forward from {}:{} to {} port {}",
            instance.name(),
            wish.host_ip,
            wish.host,
            wish.protocol.as_str(),
            wish.guest
        ))
        .hint("See those that it has with `devbox port`."));
    };
    if forward.guest == SSH_PORT && record.ssh_port() == Some(forward.host) {
        let what = format!("port {} is the one that `devbox ssh` uses", forward.host);
        return Err(Error::failed(what).hint("Leave it; it listens on this host alone."));
    }
    ports::remove(qmp, &forward).await?;
    // At the last start it may have moved to another port than it was added with.
    let came_from = |added: &BoundForward| {
        let wished =
            BoundForward { host: forward.wished.unwrap_or(forward.host), ..forward.clone() };
        same(added, &forward) || same(added, &wished)
    };
    let by_hand = record.added.iter().any(came_from);
    record.forwards.retain(|f| !same(f, &forward));
    record.added.retain(|f| !came_from(f));
    instance.save(record)?;
    let back = if by_hand { "" } else { "; the spec has it, so the next start makes it again" };
    ctx.events.note(format!("{}:{} leads nowhere any more{back}", forward.host_ip, forward.host));
    Ok(())
}

/// Whether both are the same listener on the host.
fn same(a: &BoundForward, b: &BoundForward) -> bool {
    (a.host, a.host_ip, a.protocol) == (b.host, b.host_ip, b.protocol)
}

/// Holds the machine's lock and its monitor for one change.
fn change(
    machine: Option<&str>,
    command: &str,
    ctx: &Context,
    work: impl AsyncFnOnce(&Qmp, &Instance, &mut Record) -> Result<()>,
) -> Result<()> {
    let (instance, _) = shared::running(ctx, machine)?;
    let _lock = instance.lock(command)?;
    // Read again: it may have changed before the lock was ours.
    let (instance, mut record) = shared::running(ctx, Some(instance.name()))?;
    ctx.block_on(async |_| {
        let files = instance.files();
        let name = instance.name();
        let attached =
            Machine::attach(name, &record.uuid, files.dir(), files.runtime(), &ctx.events).await?;
        let Some(machine) = attached else {
            return Err(Error::failed(format!("`{name}` has just stopped"))
                .hint("Start it with `devbox up`."));
        };
        work(machine.qmp(), &instance, &mut record).await
    })
}

/// Forwards on the command line: one, or as many as both ranges have ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forwards {
    host_ip: Ipv4Addr,
    host: RangeInclusive<u16>,
    guest: RangeInclusive<u16>,
    protocol: Protocol,
}

impl Forwards {
    fn bound(&self) -> impl Iterator<Item = BoundForward> {
        self.host.clone().zip(self.guest.clone()).map(|(host, guest)| BoundForward {
            guest,
            host,
            wished: Some(host),
            host_ip: self.host_ip,
            protocol: self.protocol,
        })
    }
}

/// `8080`, or `8000-8010`.
fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let port = |word: &str| {
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        word.parse::<u16>().ok().filter(|port| *port > 0 && digits)
    };
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let range = port(first)?..=port(last)?;
    (!range.is_empty()).then_some(range)
}

impl FromStr for Forwards {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` is no forward", crate::spec::problem::shown(text)))
                .hint("Write `HOST:GUEST`, `HOST_IP:HOST:GUEST`, and `/udp` behind it for UDP.")
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some(_) => return Err(bad()),
            None => (text, Protocol::Tcp),
        };
        let words: Vec<&str> = ports.split(':').collect();
        let (ip, host, guest) = match words[..] {
            [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
            [ip, host, guest] => (ip.parse().map_err(|_| bad())?, host, guest),
            _ => return Err(bad()),
        };
        let (Some(host), Some(guest)) = (range(host), range(guest)) else { return Err(bad()) };
        if host.len() != guest.len() {
            let what = format!("{} ports cannot lead to {}", host.len(), guest.len());
            return Err(Error::usage(what).hint("Name as many on both sides: `8000-8009:80-89`."));
        }
        Ok(Forwards { host_ip: ip, host, guest, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_two_ports_with_an_address_and_a_protocol() {
        let of = |text: &str| text.parse::<Forwards>();
        let plain = of("8080:80").expect("read");
        assert_eq!(
            (plain.host_ip, plain.host, plain.guest),
            (Ipv4Addr::LOCALHOST, 8080..=8080, 80..=80)
        );
        let many = of("8000-8002:80-82").expect("read");
        let pairs: Vec<_> = many.bound().map(|f| (f.host, f.guest)).collect();
        assert_eq!(pairs, [(8000, 80), (8001, 81), (8002, 82)]);
        assert_eq!(plain.protocol, Protocol::Tcp);
        let full = of("0.0.0.0:53:5353/udp").expect("read");
        assert_eq!((full.host_ip, full.protocol), (Ipv4Addr::UNSPECIFIED, Protocol::Udp));
        assert_eq!(of("1:2/tcp").expect("read").guest, 2..=2);
        for bad in [
            "",
            "80",
            "80:",
            "0:80",
            "80:0",
            "+1:2",
            "65536:1",
            "1:2:3",
            "a:1:2",
            "1:2/sctp",
            "::1:1:2",
            "8000-8001:80",
            "9-8:9-8",
            "1-:1-",
        ] {
            assert_eq!(of(bad).expect_err(bad).kind(), crate::error::Kind::Usage);
        }
    }
}
