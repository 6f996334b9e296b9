//! In what a machine differs from its spec.

use bytesize::ByteSize;
use semver::Version;

use crate::build::base;
use crate::guest::folder::Folder;
use crate::host::Paths;
use crate::lock;
use crate::machine::record::{Record, Shape};
use crate::project::{boxes, folders, hardware};
use crate::spec::{self, BoxSource, Spec};
use crate::store::Store;

/// The box, in words: another one than the spec's, or an older build of it.
pub(super) fn other_box(spec: &Spec, record: &Record, paths: &Paths) -> Option<String> {
    if let Some(source) = spec.is_box() {
        return other_source(spec, source, record, paths);
    }
    let wanted = format!("{}:{}", spec.name, spec.version);
    let stored = || {
        let found = Store::open(&paths.store).ok()?.find(&spec.name, &spec.version).ok()??;
        Some(found.manifest_digest().to_string())
    };
    let name = &record.name;
    if record.base.reference != wanted {
        Some(format!("`{name}` runs on {}, and the spec is {wanted}", record.base.reference))
    } else if stored().is_some_and(|manifest| manifest != record.base.manifest) {
        Some(format!("`{name}` runs on an older build of {wanted}"))
    } else {
        None
    }
}

/// The same where the spec is nothing but its source's box. Nobody is asked: a lock says which one it is, and without
/// one, any that fits will do.
fn other_source(spec: &Spec, source: &BoxSource, record: &Record, paths: &Paths) -> Option<String> {
    let (name, runs) = (&record.name, &record.base.reference);
    let source = boxes::pinned(spec, source).ok()?;
    let version = runs.rsplit_once(':').map_or(&**runs, |(_, version)| version);
    if let Some(pinned) = &source.pinned {
        let found = Store::open(&paths.store).and_then(|store| base::find(&store, pinned)).ok()?;
        let same = match found {
            Some(image) => image.manifest_digest().to_string() == record.base.manifest,
            None => version == pinned.version,
        };
        return (!same).then(|| {
            format!("`{name}` runs on {runs}, and `{}` has {}", lock::FILE_NAME, pinned.version)
        });
    }
    let fits = Version::parse(version).is_ok_and(|version| source.wish.fits(&version));
    (!fits).then(|| format!("`{name}` runs on {runs}, and the spec asks for {}", source.wish))
}

/// How it is entered, which a machine is made with.
pub(super) fn other_login(machine: &spec::Machine, record: &Record) -> Option<String> {
    let (has, wants) = (record.login, hardware::login(machine));
    (has != wants).then(|| {
        format!(
            "`{}` was made with `login = \"{}\"`, and the spec says `{}`",
            record.name,
            has.as_str(),
            wants.as_str()
        )
    })
}

/// The hardware, in words: what only a restart can change. `None` too for a machine that never ran.
pub(super) fn other_shape(machine: &spec::Machine, record: &Record) -> Option<String> {
    let runs = record.shape?;
    let wanted = Shape::from(&hardware::shape(machine, runs.accelerator));
    let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
    let mut changed = vec![];
    if runs.cpus != wanted.cpus {
        changed.push(format!("{} instead of {} processors", wanted.cpus, runs.cpus));
    }
    if runs.memory != wanted.memory {
        changed.push(format!("{} instead of {} of memory", size(wanted.memory), size(runs.memory)));
    }
    if runs.firmware != wanted.firmware {
        changed.push(format!("the firmware {}", wanted.firmware.as_str()));
    }
    if runs.tpm != wanted.tpm {
        changed.push(if wanted.tpm { "a TPM" } else { "no TPM" }.to_owned());
    }
    let names = |all: Vec<&str>| all.join(", ");
    let (has, wants) = (
        names(record.disks.iter().map(|disk| disk.name.as_str()).collect()),
        names(machine.disks.iter().map(|disk| disk.name.as_str()).collect()),
    );
    if has != wants {
        changed.push(match wants.is_empty() {
            true => "no data disks".to_owned(),
            false => format!("the data disks {wants}"),
        });
    }
    let changed = changed.join(" and ");
    (!changed.is_empty()).then(|| format!("the spec gives `{}` {changed}", record.name))
}

/// The folders that are mounted, in words: what only a restart can change. Copies are made anew each time.
pub(super) fn other_folders(spec: &Spec, record: &Record) -> Option<String> {
    let wanted = folders::devices(&folders::of_spec(spec, &record.name));
    if wanted == folders::devices(&record.folders) {
        return None;
    }
    let name = &record.name;
    let words: Vec<String> = wanted.iter().map(Folder::to_string).collect();
    Some(match words.is_empty() {
        true => format!("the spec mounts nothing in `{name}` any more"),
        false => format!("the spec mounts other folders in `{name}`: {}", words.join(", ")),
    })
}
