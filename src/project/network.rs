//! The private network between the machines of a project: who is on it, and how a machine gets there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::crash;
use crate::error::{Kind, Result};
use crate::event::Events;
use crate::guest::agent::Agent;
use crate::guest::network::{AGENT_WAIT, Host, TIMEOUT, configure, script};
use crate::helper;
use crate::helper::place::Place;
use crate::host::Paths;
use crate::machine::Machine;
use crate::machine::card::{mac, mac_text};
use crate::machine::config::Card;
use crate::machine::instance::Instance;
use crate::machine::record::{Address, Login, Record};
use crate::project::Run;
use crate::project::addresses::{addresses, free, host_routes};
use crate::project::provision::GuestScript;
use crate::spec::Spec;
use crate::spec::subnet::Subnet;

/// The addresses of all machines of a spec: known before any of them is made, so that the first one that
/// comes up knows the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    subnet: Subnet,
    hosts: Vec<Host>,
}

impl Plan {
    /// That of `spec` in the folder of `project`; `None` where there is no private network.
    ///
    /// # Errors
    /// The project's folder cannot be read.
    pub(super) fn new(spec: &Spec, project: &Path, paths: &Paths) -> Result<Option<Self>> {
        if !spec.network.private || spec.machines.len() < 2 {
            return Ok(None);
        }
        let mut had = BTreeMap::new();
        let mut aliases = vec![];
        let mut seed = vec![];
        for machine in &spec.machines {
            let instance = Instance::of_project(paths, &machine.name, project)?;
            // A damaged record is found by what works on that machine.
            let record = instance.record().ok().flatten();
            if let Some(address) = record.and_then(|record| record.address) {
                had.insert(machine.name.as_str(), address);
            }
            seed = instance.project().as_os_str().as_encoded_bytes().to_vec();
            aliases.push(instance.alias());
        }
        let before = had.values().map(|a| Subnet::around(a.ip, a.prefix)).next();
        let subnet = spec.network.subnet.or(before).unwrap_or_else(|| free(&seed, &host_routes()));
        let names: Vec<&str> = spec.machines.iter().map(|m| m.name.as_str()).collect();
        let addresses = addresses(subnet, &names, &had);
        let hosts = names
            .iter()
            .zip(aliases)
            .filter_map(|(name, alias)| {
                let ip = *addresses.get(name)?;
                Some(Host { name: (*name).to_owned(), alias, ip })
            })
            .collect();
        Ok(Some(Plan { subnet, hosts }))
    }

    /// The address of the machine `name`.
    pub(super) fn address(&self, name: &str) -> Option<Address> {
        let host = self.hosts.iter().find(|host| host.name == name)?;
        Some(Address { ip: host.ip, prefix: self.subnet.prefix() })
    }

    /// The names and addresses of all machines, as `no_proxy` lists them.
    pub(super) fn near(&self) -> String {
        let names = self.hosts.iter().flat_map(|host| [host.name.clone(), host.alias.clone()]);
        let all = names.filter(|name| !name.is_empty()).chain([self.subnet.to_string()]);
        all.collect::<Vec<_>>().join(",")
    }

    /// What the guest of the machine `instance` does to be on the network.
    pub(super) fn script(&self, instance: &Instance) -> Option<String> {
        let address = self.address(instance.name())?;
        let mac = mac_text(mac(instance.project(), instance.name()));
        Some(script(&mac, address.ip, address.prefix, &self.hosts))
    }
}

/// The machine's card; it depends on nothing but the machine's name and project.
pub(super) fn card(instance: &Instance, paths: &Paths) -> Card {
    Card {
        mac: mac_text(mac(instance.project(), instance.name())),
        switch: Place::of(paths, instance.project()).port(instance.name()),
    }
}

/// Puts a machine that runs on the private network, or takes notice that it has none: gives it a card if
/// it has none, and has its guest know itself and the others. A failure is said, and the machine runs on.
pub(super) async fn join(
    plan: Option<&Plan>,
    machine: &Machine,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let Some(plan) = plan else { return Ok(()) };
    let joined = async {
        plug(plan, machine, instance, record, run).await?;
        let Some(script) = plan.script(instance) else { return Ok(()) };
        match Agent::connect(&instance.files().agent_socket(), AGENT_WAIT).await {
            Ok(mut agent) => configure(&mut agent, &script).await,
            Err(e) if record.login == Login::Agent => Err(e),
            // A guest without an agent, or one that may not run programs.
            Err(_) => by_ssh(&script, instance, record, run, events).await,
        }
    };
    said(joined.await, instance.name(), events)
}

/// Gives the machine its card. What is recorded comes first: memory that is saved with a card needs one
/// when it is restored, and one that is not there does no harm.
pub(super) async fn plug(
    plan: &Plan,
    machine: &Machine,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
) -> Result<()> {
    let before = (record.address, record.shape);
    record.address = plan.address(instance.name());
    if let Some(shape) = &mut record.shape {
        shape.card = true;
    }
    if before != (record.address, record.shape) {
        instance.save(record)?;
        helper::wake(run.paths, instance.project());
    }
    crash::point("network.recorded");
    if let Err(e) = machine.plug_card(&card(instance, run.paths)).await {
        (record.address, record.shape) = before;
        instance.save(record)?;
        return Err(e);
    }
    Ok(())
}

/// A failure is no reason to have no machine.
pub(super) fn said(joined: Result<()>, name: &str, events: &Events) -> Result<()> {
    match joined {
        Err(e) if e.kind() != Kind::Interrupted => {
            let why = e.causes().last().map_or(e.what(), |cause| cause);
            events.warn(format!("`{name}` is not on the private network: {}: {why}", e.what()));
            Ok(())
        }
        other => other,
    }
}

async fn by_ssh(
    script: &str,
    instance: &Instance,
    record: &Record,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let client = instance.client(record)?;
    let script = GuestScript {
        title: "the private network",
        text: script.as_bytes().to_vec(),
        env: &BTreeMap::new(),
        privileged: true,
        timeout: TIMEOUT,
    };
    script.run(&client, run, events).await
}
