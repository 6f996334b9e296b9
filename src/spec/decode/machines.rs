//! `[machines]`: several machines, what each of them waits for, and what they cannot both have.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::decode::machine::{collide, keys_of};
use crate::spec::keys;
use crate::spec::problem::{nearest, one_of, shown};
use crate::spec::reader::{At, Collector, Reader};
use crate::spec::types::{Machine, PortForward, Source};

/// A machine with the places that problems between machines point to.
struct Placed {
    name: At<String>,
    depends_on: Vec<At<String>>,
    machine: Machine,
}

/// The machines of the spec. Without `[machines]` that is `defaults` itself.
pub(super) fn machines(
    top: &Reader<'_, '_>,
    defaults: &Machine,
    source: Option<&Source>,
    c: &mut Collector,
) -> Vec<Machine> {
    if !top.has(&keys::MACHINES) {
        return vec![defaults.clone()];
    }
    let mut all = vec![];
    for (name, table) in top.named(&keys::MACHINES, c) {
        let mut machine = keys_of(&table, defaults.clone(), source, c);
        let depends_on = table.set(&keys::DEPENDS_ON, c).unwrap_or_default();
        name.value.clone_into(&mut machine.name);
        machine.depends_on = depends_on.iter().map(|at| at.value.clone()).collect();
        all.push(Placed { name, depends_on, machine });
    }
    known_dependencies(&all, c);
    cycles(&all, c);
    ports(&all, c);
    all.into_iter().map(|placed| placed.machine).collect()
}

fn known_dependencies(all: &[Placed], c: &mut Collector) {
    let names: Vec<&str> = all.iter().map(|placed| placed.name.value.as_str()).collect();
    for placed in all {
        for at in &placed.depends_on {
            if at.value == placed.name.value {
                let what = format!("`{}` depends on itself", at.value);
                c.report(&at.path, at.span.clone(), what).hint = Some("Remove it.".to_owned());
            } else if !names.contains(&at.value.as_str()) {
                let what = format!("there is no machine `{}`", shown(&at.value));
                let others: Vec<&str> =
                    names.iter().copied().filter(|name| *name != placed.name.value).collect();
                c.report(&at.path, at.span.clone(), what).hint =
                    Some(match nearest(&at.value, others.iter().copied()) {
                        Some(meant) => format!("Did you mean `{meant}`?"),
                        None if others.is_empty() => {
                            format!("Add `[machines.{}]`, or remove it.", at.value)
                        }
                        None => format!("Name {}.", one_of(&others)),
                    });
            }
        }
    }
}

/// Reports each cycle once, at the dependency that closes it. What depends on itself or on nothing
/// known was reported before.
fn cycles(all: &[Placed], c: &mut Collector) {
    let by_name: BTreeMap<&str, &Placed> =
        all.iter().map(|placed| (placed.name.value.as_str(), placed)).collect();
    let mut clear: BTreeSet<&str> = BTreeSet::new();
    for placed in all {
        // Where the walk stands: a machine on the way, and the next of its dependencies.
        let mut way: Vec<(&Placed, usize)> = vec![(placed, 0)];
        while let Some(&(here, next)) = way.last() {
            let name = here.name.value.as_str();
            let Some(at) = here.depends_on.get(next).filter(|_| !clear.contains(name)) else {
                clear.insert(name);
                way.pop();
                continue;
            };
            if let Some(top) = way.last_mut() {
                top.1 += 1;
            }
            let wanted = at.value.as_str();
            let Some(found) = by_name.get(wanted).copied().filter(|_| wanted != name) else {
                continue;
            };
            match way.iter().position(|(on_way, _)| on_way.name.value == wanted) {
                Some(from) => {
                    let mut circle: Vec<String> =
                        way[from..].iter().map(|(p, _)| format!("`{}`", p.name.value)).collect();
                    circle.push(format!("`{wanted}`"));
                    let what = format!("a cycle: {}", circle.join(" needs "));
                    c.report(&at.path, at.span.clone(), what).hint =
                        Some("Remove one of these dependencies.".to_owned());
                }
                None => way.push((found, 0)),
            }
        }
    }
}

/// Two machines that insist on the same port of the host: one of them could never start.
fn ports(all: &[Placed], c: &mut Collector) {
    for (i, placed) in all.iter().enumerate() {
        let clash = placed.machine.ports.iter().find_map(|port| {
            let insists = |other: &PortForward| {
                collide(port, other) && !(port.auto_correct && other.auto_correct)
            };
            let other = all[..i].iter().find(|before| before.machine.ports.iter().any(insists))?;
            Some((port.host?, &other.name.path))
        });
        if let Some((port, other)) = clash {
            let what = format!("port {port} of the host is taken by {other}");
            c.report(&placed.name.path, placed.name.span.clone(), what).hint = Some(
                "Give each machine a port of its own, or set `auto_correct = true`.".to_owned(),
            );
        }
    }
}
