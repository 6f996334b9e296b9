//! Whether an image brings a guest agent that is started: the only way into a machine with `login = "agent"`.

use super::volume::{UNITS, Volume};
use crate::error::Result;
use crate::guest::agent::PROGRAMS;
use crate::image::tree::NodeKind;

/// Its unit, by the name that distributions give it.
const UNIT: &str = "qemu-guest-agent.service";
/// Where udev's rules stand; a name in the first hides the same one in the others (udev(7)).
const RULES: [&str; 3] = ["/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];
/// What starts the system where systemd does not.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// Where OpenRC and System V keep what they start.
const STARTED: [(&str, &str); 6] = [
    ("/etc/runlevels/boot", ""),
    ("/etc/runlevels/default", ""),
    ("/etc/rc2.d", "S"),
    ("/etc/rc3.d", "S"),
    ("/etc/rc4.d", "S"),
    ("/etc/rc5.d", "S"),
];

/// Why a machine of the image could not be entered, if it could not.
pub(super) fn missing(root: &Volume<'_>) -> Result<Option<String>> {
    if !PROGRAMS.iter().any(|path| root.there(path)) {
        return Ok(Some("there is no guest agent, the only way into a machine with `login = \"agent\"`: install `qemu-guest-agent`".to_owned()));
    }
    let started = match SYSTEMD.iter().any(|path| root.there(path)) {
        true => by_systemd(root)?,
        false => by_another(root)?,
    };
    Ok((!started).then(|| {
        format!("nothing starts the guest agent, the only way into a machine with `login = \"agent\"`: enable `{UNIT}`")
    }))
}

/// A unit that is not masked, and that something wants: udev for the port's sake, or a target.
fn by_systemd(root: &Volume<'_>) -> Result<bool> {
    let unit = |folder: &str| root.node(&format!("{folder}/{UNIT}")).map(|node| &node.kind);
    if !UNITS.iter().any(|folder| unit(folder).is_some()) {
        return Ok(false);
    }
    if UNITS.iter().any(|folder| is_null(unit(folder))) {
        return Ok(false);
    }
    for folder in UNITS {
        for wants in root.children(folder) {
            let name = String::from_utf8_lossy(&wants.name);
            let wanted = name.ends_with(".wants") || name.ends_with(".requires");
            if wanted && root.node(&format!("{folder}/{name}/{UNIT}")).is_some() {
                return Ok(true);
            }
        }
    }
    let mut hidden = vec![];
    for folder in RULES {
        for rule in root.children(folder) {
            let name = String::from_utf8_lossy(&rule.name).into_owned();
            if !name.ends_with(".rules") || hidden.contains(&name) {
                continue;
            }
            let text = root.text(&format!("{folder}/{name}"))?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replace("\\\n", "");
            if text.lines().any(wants_unit) {
                return Ok(true);
            }
            hidden.push(name);
        }
    }
    Ok(false)
}

/// Whether a rule lets systemd start the agent when the machine has the port for it.
fn wants_unit(rule: &str) -> bool {
    let rule = rule.trim_start();
    !rule.starts_with('#') && rule.contains("SYSTEMD_WANTS") && rule.contains(UNIT)
}

/// OpenRC, System V, or the list of a small init.
fn by_another(root: &Volume<'_>) -> Result<bool> {
    for (folder, first) in STARTED {
        let named = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            name.starts_with(first) && name.ends_with("qemu-guest-agent")
        };
        if root.children(folder).any(|node| named(&node.name)) {
            return Ok(true);
        }
    }
    let inittab = root.text("/etc/inittab")?.unwrap_or_default();
    let inittab = String::from_utf8_lossy(&inittab).into_owned();
    Ok(inittab.lines().any(|line| !line.starts_with('#') && line.contains("qemu-ga")))
}

/// A link to `/dev/null`, by which systemd knows what is masked (systemctl(1)).
fn is_null(kind: Option<&NodeKind>) -> bool {
    matches!(kind, Some(NodeKind::Symlink { target }) if target == b"/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_no_rule_starts_nothing() {
        let rule = "SUBSYSTEM==\"virtio-ports\", ENV{SYSTEMD_WANTS}=\"qemu-guest-agent.service\"";
        assert!(wants_unit(rule));
        assert!(!wants_unit(&format!("# {rule}")));
        assert!(!wants_unit("ENV{SYSTEMD_WANTS}=\"other.service\""));
    }
}
