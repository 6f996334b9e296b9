//! Personal settings: what one person's machines have otherwise than the spec says.

use std::path::Path;

use toml::de::DeTable;

use crate::spec::decode::machine::personal_keys_of;
use crate::spec::decode::{mounts, trust};
use crate::spec::keys;
use crate::spec::problem::{nearest, one_of, shown};
use crate::spec::reader::{Collector, Reader};
use crate::spec::types::{Machine, Mount, Source, Spec, Trust};

/// `[trust]` of the user's own file; what else stands there is about a spec.
pub(crate) fn own_trust(table: &DeTable<'_>, dir: &Path, c: &mut Collector) -> Option<Trust> {
    trust::trust(&Reader::top(table, &keys::PERSONAL, c), dir, c)
}

/// Machines, mounts and `updates` as the settings have them: `[machine]` for each, then `[machines.NAME]` for one.
/// Relative paths in them start at `dir`. With `user`, they are those of the user's own file.
pub(crate) fn personal(
    table: &DeTable<'_>,
    spec: &Spec,
    dir: &Path,
    user: bool,
    c: &mut Collector,
) -> (Vec<Machine>, Vec<Mount>, bool) {
    let top = Reader::top(table, &keys::PERSONAL, c);
    let updates = top.boolean(&keys::PERSONAL_UPDATES, c).unwrap_or(spec.updates);
    if user {
        trust::trust(&top, dir, c);
    } else if top.has(&keys::TRUST) {
        let at = top.place_of(&keys::TRUST);
        c.report(&at.path, at.span, "`trust` has no meaning here").hint = Some(
            "Write it into the spec, or into your own `config.toml`, which holds for all projects."
                .to_owned(),
        );
    }
    let (mut machines, source) = (spec.machines.clone(), &spec.source);
    let own = mounts::mounts(&top, dir, &machines, true, c);
    let place = top.place_of(&keys::MOUNTS);
    let mounts = match own.is_empty() {
        true => spec.mounts.clone(),
        false => mounts::with_own(&spec.mounts, own, &machines, &place, c),
    };
    if top.has(&keys::PERSONAL_MACHINE)
        && let Some(table) = top.table(&keys::PERSONAL_MACHINE, c)
    {
        for (i, machine) in machines.iter_mut().enumerate() {
            // What is wrong in the table is wrong once, however many machines it is for.
            let mut again = Collector::default();
            let c = if i == 0 { &mut *c } else { &mut again };
            *machine = with(&table, machine, source, c);
        }
    }
    if top.has(&keys::PERSONAL_MACHINES) {
        for (name, table) in top.named(&keys::PERSONAL_MACHINES, c) {
            let names: Vec<String> = machines.iter().map(|m| m.name.clone()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match machines.iter_mut().find(|machine| machine.name == name.value) {
                Some(machine) => *machine = with(&table, machine, source, c),
                None => {
                    let what = format!("the spec has no machine `{}`", shown(&name.value));
                    c.report(&name.path, name.span, what).hint =
                        Some(match nearest(&name.value, names.iter().copied()) {
                            Some(meant) => format!("Did you mean `{meant}`?"),
                            None => format!("Name {}.", one_of(&names)),
                        });
                }
            }
        }
    }
    (machines, mounts, updates)
}

/// One machine with what the table says. Ports are added; one of the same port in the guest stands in
/// place of the spec's.
fn with(table: &Reader<'_, '_>, machine: &Machine, source: &Source, c: &mut Collector) -> Machine {
    let mut new = personal_keys_of(table, machine.clone(), Some(source), c);
    if table.has(&keys::PORTS) {
        let own = std::mem::replace(&mut new.ports, machine.ports.clone());
        for port in own {
            new.ports.retain(|p| (p.guest, p.protocol) != (port.guest, port.protocol));
            new.ports.push(port);
        }
    }
    new
}
