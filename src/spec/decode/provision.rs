//! `[[provision]]`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::decode::login;
use crate::spec::keys;
use crate::spec::problem::{nearest, one_of, shown};
use crate::spec::reader::{Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Machine, Provision, RunRule, Script};

/// As for a step of the build.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn provision(
    top: &Reader<'_, '_>,
    dir: &Path,
    machines: &[Machine],
    c: &mut Collector,
) -> Vec<Provision> {
    if !top.has(&keys::PROVISION) {
        return vec![];
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut all = vec![];
    for (i, table) in top.tables(&keys::PROVISION, c).into_iter().enumerate() {
        let name = table.text(&keys::PROVISION_NAME, c);
        if let Some(at) = &name
            && let Some(before) = names.insert(at.value.clone(), i)
        {
            let what = format!("provision[{before}] is named `{}` too", shown(&at.value));
            c.report(&at.path, at.span.clone(), what).hint = Some(
                "Give each its own name: what has run in a machine is known by it.".to_owned(),
            );
        }
        let run = match table.text(&keys::PROVISION_RUN, c).as_ref().map(|at| at.value.as_str()) {
            Some("on-change") => RunRule::OnChange,
            Some("always") => RunRule::Always,
            _ => RunRule::Once,
        };
        let inline = table.text(&keys::PROVISION_INLINE, c).map(|at| Script::Inline(at.value));
        let script = table.text(&keys::PROVISION_SCRIPT, c);
        let script = script.map(|at| Script::File(resolve(&at, dir, Expect::File, c)));
        let env = table.environment(&keys::PROVISION_ENV, c).unwrap_or_default();
        let privileged = table.boolean(&keys::PROVISION_PRIVILEGED, c).unwrap_or(true);
        let timeout = table.duration(&keys::PROVISION_TIMEOUT, c).unwrap_or(TIMEOUT);
        let chosen = table
            .has(&keys::PROVISION_MACHINES)
            .then(|| chosen(&table, &keys::PROVISION_MACHINES, machines, c));
        let instead = "what such a machine needs is done by `[[steps]]`, which make its image";
        let place = (&table, &keys::PROVISION_MACHINES);
        login::refuse("a script", instead, place, chosen.as_deref(), machines, c);
        if let (Some(name), Some(script)) = (name, inline.or(script)) {
            all.push(Provision {
                name: name.value,
                run,
                script,
                env,
                privileged,
                timeout,
                machines: chosen,
            });
        }
    }
    all
}

/// Names of machines that there are.
pub(super) fn chosen(
    table: &Reader<'_, '_>,
    key: &Key,
    machines: &[Machine],
    c: &mut Collector,
) -> Vec<String> {
    let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
    let mut found = vec![];
    for at in table.set(key, c).unwrap_or_default() {
        if names.contains(&at.value.as_str()) {
            found.push(at.value);
            continue;
        }
        let what = format!("there is no machine `{}`", shown(&at.value));
        c.report(&at.path, at.span, what).hint =
            Some(match nearest(&at.value, names.iter().copied()) {
                Some(meant) => format!("Did you mean `{meant}`?"),
                None => format!("Name {}.", one_of(&names)),
            });
    }
    found
}
