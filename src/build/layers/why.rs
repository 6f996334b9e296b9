//! Why a step has no layer: what is not as it was the last time.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::plan::Planned;
use super::record::Record;

/// Most changed inputs that are named.
const NAMED: usize = 3;

/// The reason that no record has the key of the step number `n`, from 0. `all` are the records, the latest used first.
pub(super) fn missing(planned: &Planned, n: usize, all: &[(Record, SystemTime)]) -> String {
    let steps = || all.iter().map(|(record, _)| record).filter(|record| !record.is_boot());
    let same_name = || steps().filter(|record| record.title == planned.title);
    if let Some(old) = same_name().find(|record| record.below == planned.below) {
        let changed = changed(&old.inputs, planned);
        return match changed.len() {
            0 => "it is another step now".to_owned(),
            n if n > NAMED => {
                format!("{} and {} more changed", changed[..NAMED].join(", "), n - NAMED)
            }
            _ => format!("{} changed", changed.join(", ")),
        };
    }
    if same_name().any(|record| record.inputs == planned.inputs) {
        let what = if n == 0 { "what it starts from" } else { "a step before it" };
        return format!("{what} changed");
    }
    "it was not run before".to_owned()
}

/// What differs of the inputs, in words.
fn changed(old: &Value, planned: &Planned) -> Vec<String> {
    let empty = Map::new();
    let (old, new) =
        (old.as_object().unwrap_or(&empty), planned.inputs.as_object().unwrap_or(&empty));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut words = vec![];
    for key in keys {
        let (before, now) = (old.get(key), new.get(key));
        if before == now {
            continue;
        }
        let name = planned.names.iter().find(|(input, _)| input == key).map(|(_, name)| name);
        match (before.and_then(Value::as_array), now.and_then(Value::as_array)) {
            (Some(before), Some(now)) if key == "entries" => {
                let folder = name.map_or(String::new(), |name| format!("{name}/"));
                words.extend(entries(before, now).map(|path| format!("`{folder}{path}`")));
            }
            _ => {
                words.push(name.map_or_else(|| format!("its `{key}`"), |name| format!("`{name}`")))
            }
        }
    }
    words
}

/// The paths in a folder that differ, as the preimage of `spec1` lists them: `[kind, path, …]`.
fn entries<'a>(before: &'a [Value], now: &'a [Value]) -> impl Iterator<Item = &'a str> {
    let differ = |all: &'a [Value], others: &'a [Value]| {
        all.iter()
            .filter(move |entry| !others.contains(entry))
            .filter_map(|entry| entry[1].as_str())
    };
    let paths: BTreeSet<&str> = differ(before, now).chain(differ(now, before)).collect();
    paths.into_iter()
}
