//! What goes through SSH cannot be for a machine that is entered by its guest agent alone.

use crate::spec::reader::{Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Login, Machine};

/// Reports that `what` (`a script of `[[provision]]``) is for such a machine: one of `chosen`, which the
/// key `machines` names, or any where that is absent. `instead` says in a sentence what does it without SSH.
pub(super) fn refuse(
    what: &str,
    instead: &str,
    (table, key): (&Reader<'_, '_>, &Key),
    chosen: Option<&[String]>,
    machines: &[Machine],
    c: &mut Collector,
) {
    let here = |machine: &&Machine| chosen.is_none_or(|names| names.contains(&machine.name));
    let (closed, open): (Vec<&Machine>, Vec<&Machine>) =
        machines.iter().filter(here).partition(|machine| machine.login == Login::Agent);
    let Some(first) = closed.first() else { return };
    let at = if table.has(key) { table.place_of(key) } else { table.at() };
    let said = format!("{what} goes through SSH, and `{}` has `login = \"agent\"`", first.name);
    let others: Vec<String> = open.iter().map(|machine| format!("\"{}\"", machine.name)).collect();
    c.report(&at.path, at.span, said).hint = Some(match others.is_empty() {
        true => format!("Remove it: {instead}."),
        false => format!("Set `machines = [{}]`: {instead}.", others.join(", ")),
    });
}

/// The names of the other machines, where there are such machines; else all are meant.
pub(super) fn open(machines: &[Machine]) -> Option<Vec<String>> {
    if machines.iter().all(|machine| machine.login == Login::Ssh) {
        return None;
    }
    let open = machines.iter().filter(|machine| machine.login == Login::Ssh);
    Some(open.map(|machine| machine.name.clone()).collect())
}
