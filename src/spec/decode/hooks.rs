//! `[[hooks]]`.

use std::path::Path;
use std::time::Duration;

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::decode::login;
use crate::spec::decode::provision::chosen;
use crate::spec::keys::{self, GUEST_MOMENTS};
use crate::spec::reader::{Collector, Reader};
use crate::spec::types::{Hook, Machine, Script};

/// As for a step of the build.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn hooks(
    top: &Reader<'_, '_>,
    dir: &Path,
    machines: &[Machine],
    c: &mut Collector,
) -> Vec<Hook> {
    if !top.has(&keys::HOOKS) {
        return vec![];
    }
    let mut all = vec![];
    for table in top.tables(&keys::HOOKS, c) {
        let when = table.text(&keys::HOOK_WHEN, c);
        let on = table.text(&keys::HOOK_ON, c);
        let in_guest = on.as_ref().is_some_and(|at| at.value == "guest");
        if let (Some(when), Some(on)) = (&when, &on)
            && in_guest
            && !GUEST_MOMENTS.contains(&when.value.as_str())
        {
            let what = format!("`{}` is when the guest does not run", when.value);
            c.report(&on.path, on.span.clone(), what).hint =
                Some("Set `on = \"host\"`, or choose another `when`.".to_owned());
        }
        let inline = table.text(&keys::HOOK_INLINE, c).map(|at| Script::Inline(at.value));
        let script = table.text(&keys::HOOK_SCRIPT, c);
        let script = script.map(|at| Script::File(resolve(&at, dir, Expect::File, c)));
        let env = table.environment(&keys::HOOK_ENV, c).unwrap_or_default();
        let timeout = table.duration(&keys::HOOK_TIMEOUT, c).unwrap_or(TIMEOUT);
        let on_error = table.text(&keys::HOOK_ON_ERROR, c);
        let chosen = table
            .has(&keys::HOOK_MACHINES)
            .then(|| chosen(&table, &keys::HOOK_MACHINES, machines, c));
        if in_guest {
            let instead = "a hook with `on = \"host\"` can run `devbox exec`";
            let place = (&table, &keys::HOOK_MACHINES);
            login::refuse("a hook in the guest", instead, place, chosen.as_deref(), machines, c);
        }
        if let (Some(when), Some(script)) = (when, inline.or(script)) {
            all.push(Hook {
                when: when.value,
                in_guest,
                script,
                env,
                timeout,
                stops: on_error.is_none_or(|at| at.value == "stop"),
                machines: chosen,
            });
        }
    }
    all
}
