//! Where two systems differ above their files: firmware, boot entries, partition tables.

use std::collections::BTreeSet;

use super::canonical::{BootEntry, Disk, Group, Partition, System};
use super::difference::{Change, Differences, Kind, Place, note};
use super::spelling::spell;

/// Architecture, firmware and boot entries.
pub(super) fn compare(a: &System, b: &System, out: &mut Differences) {
    let mut changes = vec![];
    let word = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    note(&mut changes, Kind::Arch, word(&a.arch), word(&b.arch));
    let kinds = |system: &System| word(&system.firmware.join(","));
    note(&mut changes, Kind::Firmware, kinds(a), kinds(b));
    out.push(Place::System, changes);
    if a.boot != b.boot {
        boot(&a.boot, &b.boot, out);
    }
}

/// Boot entries by title; entries of one title in their order.
fn boot(a: &[BootEntry], b: &[BootEntry], out: &mut Differences) {
    let titles: BTreeSet<_> = a.iter().chain(b).map(|entry| &entry.title).collect();
    let before = out.0.len();
    for title in titles {
        fn of<'e>(list: &'e [BootEntry], title: &[u8]) -> Vec<&'e BootEntry> {
            list.iter().filter(|entry| entry.title == title).collect()
        }
        let (old, new) = (of(a, title), of(b, title));
        for i in 0..old.len().max(new.len()) {
            let mut changes = vec![];
            match (old.get(i), new.get(i)) {
                (Some(old), Some(new)) => {
                    note(&mut changes, Kind::Kernel, text(&old.kernel), text(&new.kernel));
                    let (from, to) = (text(&old.command_line), text(&new.command_line));
                    note(&mut changes, Kind::CommandLine, from, to);
                }
                (Some(_), None) => changes.push(Change::of(Kind::Removed)),
                _ => changes.push(Change::of(Kind::Added)),
            }
            out.push(Place::BootEntry(title.clone()), changes);
        }
    }
    if out.0.len() == before {
        out.push(Place::System, vec![Change::of(Kind::Order)]);
    }
}

/// In quotes, with control characters and quotes escaped.
fn text(bytes: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(bytes).escape_debug())
}

/// Partition tables and boot code.
pub(super) fn disks(a: &Disk, b: &Disk, out: &mut Differences) {
    let mut changes = vec![];
    note(&mut changes, Kind::Type, a.table, b.table);
    note(&mut changes, Kind::Id, &a.id, &b.id);
    if a.boot440 != b.boot440 {
        changes.push(Change::of(Kind::BootCode));
    }
    if a.gap != b.gap {
        changes.push(Change::of(Kind::Gap));
    }
    let numbers = |disk: &Disk| -> Vec<u32> { disk.partitions.iter().map(|p| p.number).collect() };
    let (old, new) = (numbers(a), numbers(b));
    let same: BTreeSet<_> = old.iter().collect();
    if old != new && same == new.iter().collect() {
        changes.push(Change::of(Kind::Order));
    }
    out.push(Place::Disk, changes);
    let numbers: BTreeSet<_> = old.into_iter().chain(new).collect();
    for number in numbers {
        let of = |disk: &'_ Disk| disk.partitions.iter().find(|p| p.number == number).cloned();
        let mut changes = vec![];
        match (of(a), of(b)) {
            (Some(old), Some(new)) => partition(&old, &new, &mut changes),
            (Some(_), None) => changes.push(Change::of(Kind::Removed)),
            _ => changes.push(Change::of(Kind::Added)),
        }
        out.push(Place::Partition(number), changes);
    }
}

fn partition(a: &Partition, b: &Partition, changes: &mut Vec<Change>) {
    note(changes, Kind::Type, &a.type_id, &b.type_id);
    note(changes, Kind::Id, &a.id, &b.id);
    note(changes, Kind::Name, spell(&a.name), spell(&b.name));
    let attributes = |part: &Partition| format!("{:016x}", part.attributes);
    note(changes, Kind::Attributes, attributes(a), attributes(b));
}

/// Two volume groups, without what their volumes hold.
pub(super) fn groups(a: &Group, b: &Group, out: &mut Differences) {
    let mut changes = vec![];
    note(&mut changes, Kind::Name, spell(a.name.as_bytes()), spell(b.name.as_bytes()));
    note(&mut changes, Kind::Id, &a.uuid, &b.uuid);
    note(&mut changes, Kind::PhysicalVolumes, a.physical.join(","), b.physical.join(","));
    let names = |group: &Group| -> Vec<String> {
        group.volumes.iter().map(|volume| volume.name.clone()).collect()
    };
    let (old, new) = (names(a), names(b));
    let same: BTreeSet<_> = old.iter().collect();
    if old != new && same == new.iter().collect() {
        changes.push(Change::of(Kind::Order));
    }
    out.push(Place::Group(a.name.clone()), changes);
    let names: BTreeSet<_> = old.into_iter().chain(new).collect();
    for name in names {
        let of = |group: &'_ Group| group.volumes.iter().find(|v| v.name == name).cloned();
        let mut changes = vec![];
        match (of(a), of(b)) {
            (Some(old), Some(new)) => note(&mut changes, Kind::Id, old.uuid, new.uuid),
            (Some(_), None) => changes.push(Change::of(Kind::Removed)),
            _ => changes.push(Change::of(Kind::Added)),
        }
        out.push(Place::Volume(a.name.clone(), name), changes);
    }
}
