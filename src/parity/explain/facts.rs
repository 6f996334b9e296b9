//! What hints depend on: what both sides have, and what one of them has lost.

use super::attribute::Attribution;
use super::cause::Cause;
use super::evidence::Inside;
use super::side::Side;
use super::{Of, Question, text};
use crate::image::tree::NodeKind;
use crate::parity::difference::{Difference, Kind, Place};

/// What hints depend on. A side is 0 or 1.
#[derive(Debug, Default)]
pub(super) struct Facts {
    names: [String; 2],
    pub(super) of: Of,
    /// The side whose package sources name a security pocket, if the other's do not.
    pub(super) security_pocket: Option<usize>,
    /// The side that has capabilities while the other has none.
    pub(super) lost_capabilities: Option<usize>,
    /// The side that has access lists while the other has none.
    pub(super) lost_acls: Option<usize>,
    /// The side that was booted while the other one was not.
    pub(super) booted: Option<usize>,
    pub(super) same_initramfs: bool,
    pub(super) compiled_python: bool,
    /// The content of disks that differ as bytes is equal.
    pub(super) same_content: bool,
    fstab: bool,
    causes: Vec<Cause>,
}

impl Facts {
    pub(super) fn name(&self, side: usize) -> &str {
        self.names.get(side).map_or("one side", String::as_str)
    }

    /// fstab and the boot loader's settings were edited, and something new runs.
    pub(super) fn looks_imported(&self) -> bool {
        let has = |cause: Cause| self.causes.contains(&cause);
        self.fstab
            && (has(Cause::CommandLine) || has(Cause::BootLoader) || has(Cause::Initramfs))
            && (has(Cause::Packages)
                || has(Cause::ServicesEnabled)
                || has(Cause::ServiceUnits)
                || has(Cause::Programs))
    }
}

impl Facts {
    /// Looks at both sides and at what differs.
    pub(super) fn of(
        question: &Question<'_>,
        attributions: &[Attribution],
        sides: [&Side<'_>; 2],
        inside: Option<&Inside>,
    ) -> Self {
        let mut causes: Vec<_> = attributions.iter().map(|attribution| attribution.cause).collect();
        causes.sort_unstable();
        causes.dedup();
        let pocket = sides.map(names_security_pocket);
        let is_path = |difference: &Difference, wanted: &[u8]| matches!(&difference.place, Place::Path(_, path) if path.ends_with(wanted));
        let booted = sides.map(was_booted);
        let lost = |key: &str| {
            // Every file that has one on this side has lost it on the other.
            let (mut removed, mut other) = (0, 0);
            for change in question.differences.iter().flat_map(|difference| &difference.changes) {
                if change.kind == Kind::Xattr
                    && change.key.as_deref().is_some_and(|k| k.starts_with(key))
                {
                    match change.new.as_deref() {
                        Some("removed") => removed += 1,
                        _ => other += 1,
                    }
                }
            }
            (removed > 0 && other == 0).then_some(0)
        };
        let only = |pair: [bool; 2]| match pair {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        };
        Facts {
            names: question.names.map(str::to_owned),
            of: question.of,
            security_pocket: only(pocket),
            lost_capabilities: lost("security.capability"),
            lost_acls: lost("system.posix_acl_"),
            booted: only(booted),
            same_initramfs: inside.is_some_and(Inside::is_same),
            compiled_python: question
                .differences
                .iter()
                .zip(attributions)
                .any(|(difference, a)| a.cause == Cause::Derived && is_path(difference, b".pyc")),
            same_content: question.same_content,
            fstab: question.differences.iter().any(|difference| is_path(difference, b"etc/fstab")),
            causes,
        }
    }
}

/// Whether apt gets updates for security.
fn names_security_pocket(side: &Side<'_>) -> bool {
    let mut paths = vec![b"/etc/apt/sources.list".to_vec()];
    for name in side.list(b"/etc/apt/sources.list.d") {
        paths.push([b"/etc/apt/sources.list.d/", &name[..]].concat());
    }
    paths.iter().any(|path| {
        let text =
            side.in_root(path).and_then(|found| side.contents(found, text::MAX_TEXT).ok()?);
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("-security"))
    })
}

/// Whether the system ran: it has a machine id, or a journal.
fn was_booted(side: &Side<'_>) -> bool {
    let size = |path: &[u8]| match side.in_root(path).map(|found| &found.node.kind) {
        Some(NodeKind::File { size, .. }) => *size,
        _ => 0,
    };
    // 32 digits; a sealed image has nothing or the word `uninitialized` (machine-id(5)).
    size(b"/etc/machine-id") >= 32
        || size(b"/var/lib/systemd/random-seed") > 0
        || !side.list(b"/var/log/journal").is_empty()
}
