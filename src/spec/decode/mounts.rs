//! `[[mounts]]`.

use std::path::{Path, PathBuf};

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::decode::login;
use crate::spec::decode::provision::chosen;
use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::reader::{At, Collector, Reader};
use crate::spec::types::{Machine, Mount, MountKind};

/// A machine has so many slots for devices that come while it runs; one more is its network's.
const MOST_DEVICES: usize = 7;
/// What a guest cannot do without: a mount there would hide it.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];
/// What the kernel shows: nothing below it can be a mount of a person.
const KERNEL: &[&str] = &["/dev/", "/proc/", "/sys/"];

/// With `own`, those of a person's settings.
pub(super) fn mounts(
    top: &Reader<'_, '_>,
    dir: &Path,
    machines: &[Machine],
    own: bool,
    c: &mut Collector,
) -> Vec<Mount> {
    if !top.has(&keys::MOUNTS) {
        return vec![];
    }
    let mut all: Vec<Mount> = vec![];
    for table in top.tables(&keys::MOUNTS, c) {
        let kind = match table.text(&keys::MOUNT_TYPE, c).as_ref().map(|at| at.value.as_str()) {
            Some("rsync") => MountKind::Rsync,
            Some("virtiofs") => MountKind::Virtiofs,
            _ => MountKind::NineP,
        };
        let source = table.text(&keys::MOUNT_SOURCE, c).map(|at| folder(at, dir, c));
        let target = table.text(&keys::MOUNT_TARGET, c);
        let writable = table.boolean(&keys::MOUNT_WRITABLE, c);
        let exclude = table.set(&keys::MOUNT_EXCLUDE, c);
        belongs(&table, kind, c);
        let chosen = table
            .has(&keys::MOUNT_MACHINES)
            .then(|| chosen(&table, &keys::MOUNT_MACHINES, machines, c));
        let chosen = match chosen {
            // Of all projects of a person: those machines that can have it.
            None if own => login::open(machines),
            chosen => {
                let instead = "files for such a machine belong into `[[steps]]`, or on a data disk";
                let at = (&table, &keys::MOUNT_MACHINES);
                login::refuse("a folder", instead, at, chosen.as_deref(), machines, c);
                chosen
            }
        };
        let (Some(source), Some(target)) = (source, target) else { continue };
        let mount = Mount {
            kind,
            source,
            target: target.value.clone(),
            writable: writable.unwrap_or(false),
            exclude: exclude.unwrap_or_default().into_iter().map(|at| at.value).collect(),
            machines: chosen,
        };
        if place(&mount, &target, machines, c) && alone(&all, &mount, &target, machines, c) {
            all.push(mount);
        }
    }
    few_enough(&all, machines, &top.place_of(&keys::MOUNTS), c);
    all
}

/// The mounts of the spec with a person's own: one of the same target stands in place of the spec's.
pub(super) fn with_own(
    spec: &[Mount],
    own: Vec<Mount>,
    machines: &[Machine],
    at: &At<()>,
    c: &mut Collector,
) -> Vec<Mount> {
    let mut all = vec![];
    for mount in spec {
        let replaced =
            |name: &str| own.iter().any(|own| own.target == mount.target && own.is_for(name));
        let names = machines.iter().map(|machine| &machine.name);
        let left: Vec<String> =
            names.filter(|name| mount.is_for(name) && !replaced(name)).cloned().collect();
        if !left.is_empty() {
            all.push(Mount { machines: Some(left), ..mount.clone() });
        }
    }
    all.extend(own);
    few_enough(&all, machines, at, c);
    all
}

/// A device needs a slot.
fn few_enough(all: &[Mount], machines: &[Machine], at: &At<()>, c: &mut Collector) {
    for machine in machines {
        let devices = all.iter().filter(|m| m.kind != MountKind::Rsync && m.is_for(&machine.name));
        let (count, disks) = (devices.count(), machine.disks.len());
        let room = MOST_DEVICES.saturating_sub(disks);
        if count > room {
            let beside = if disks == 0 { String::new() } else { format!(" beside {disks} disks") };
            let what = format!(
                "`{}` has {count} mounts of type `9p` or `virtiofs`, and room for {room}{beside}",
                machine.name
            );
            c.report(&at.path, at.span.clone(), what).hint =
                Some("Mount a folder above several of them, or copy some by `rsync`.".to_owned());
            return;
        }
    }
}

/// The folder itself: absolute, and without links on the way to it.
fn folder(mut at: At<String>, dir: &Path, c: &mut Collector) -> PathBuf {
    if let (Some(rest), Ok(home)) = (at.value.strip_prefix('~'), std::env::var("HOME"))
        && (rest.is_empty() || rest.starts_with('/'))
    {
        at.value = format!("{home}{rest}");
    }
    let path = resolve(&at, dir, Expect::Folder, c);
    std::fs::canonicalize(&path).unwrap_or(path)
}

/// Keys that only mean something for another type.
fn belongs(table: &Reader<'_, '_>, kind: MountKind, c: &mut Collector) {
    if kind == MountKind::Rsync && table.has(&keys::MOUNT_WRITABLE) {
        let at = table.place_of(&keys::MOUNT_WRITABLE);
        c.report(&at.path, at.span, "`writable` means nothing for `type = \"rsync\"`").hint = Some(
            "Remove it: the copy is the guest's own, and nothing of it comes back.".to_owned(),
        );
    }
    if kind != MountKind::Rsync && table.has(&keys::MOUNT_EXCLUDE) {
        let at = table.place_of(&keys::MOUNT_EXCLUDE);
        c.report(&at.path, at.span, "`exclude` is for `type = \"rsync\"` alone").hint =
            Some("Remove it, or copy the folder by `type = \"rsync\"`.".to_owned());
    }
}

/// Whether the guest can do with a mount there.
fn place(mount: &Mount, at: &At<String>, machines: &[Machine], c: &mut Collector) -> bool {
    let target = at.value.as_str();
    // Its keys for ssh are there.
    let home =
        machines.iter().find(|m| mount.is_for(&m.name) && target == format!("/home/{}", m.user));
    let why = if is_system(target) {
        "the guest's system is there"
    } else if home.is_some() {
        "the account's keys are there"
    } else {
        return true;
    };
    let what = format!("nothing can be mounted on `{}`: {why}", shown(target));
    c.report(&at.path, at.span.clone(), what).hint =
        Some("Choose another folder, such as `/work` or one in the account's home.".to_owned());
    false
}

/// Whether what stands there makes the guest what it is: hidden, it does not start or does not run.
pub(super) fn is_system(target: &str) -> bool {
    SYSTEM.contains(&target) || KERNEL.iter().any(|dir| target.starts_with(dir))
}

/// Whether no machine has another mount there.
fn alone(
    all: &[Mount],
    mount: &Mount,
    at: &At<String>,
    machines: &[Machine],
    c: &mut Collector,
) -> bool {
    let both = |other: &&Mount| {
        other.target == mount.target
            && machines.iter().any(|m| other.is_for(&m.name) && mount.is_for(&m.name))
    };
    let Some(other) = all.iter().find(both) else { return true };
    let what = format!(
        "`{}` is the target of another mount too, of `{}`",
        shown(&at.value),
        other.source.display()
    );
    c.report(&at.path, at.span.clone(), what).hint =
        Some("Give each mount of a machine its own target.".to_owned());
    false
}
