//! `[source]` with `type = "iso"`.

use std::path::Path;
use std::time::Duration;

use super::located;
use crate::spec::boot_command::variables::Variables;
use crate::spec::boot_command::{self, Fault};
use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::quantity::GIB;
use crate::spec::reader::{At, Collector, Reader};
use crate::spec::types::{Answer, Boot, End, IsoSource, Place};

/// Room for a Debian with a desktop's worth of packages; the file takes what is written.
const DISK: u64 = 8 * GIB;
/// Until nothing is typed any more by a boot loader that came up.
const BOOT_WAIT: Duration = Duration::from_secs(10);
/// Installers reboot once, those with a second stage twice.
const REBOOTS: u32 = 3;
/// An emulated installer takes ten minutes to the first write.
const START: Duration = Duration::from_secs(20 * 60);
/// An emulated installation of a small system.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);

pub(super) fn iso(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<IsoSource> {
    let located = located(
        table,
        dir,
        [&keys::ISO_PATH, &keys::ISO_URL, &keys::ISO_SHA256, &keys::ISO_CHECKSUMS],
        c,
    );
    let disk_size = table.size(&keys::ISO_DISK, c).map_or(DISK, |at| at.value);
    let answers = answers(table, dir, c);
    let serves = answers.iter().any(|answer| answer.place == Place::Http);
    let boot = if table.has(&keys::BOOT) { boot(table, serves, c) } else { Some(Boot::Cd) };
    let needs_initrd = answers.iter().any(|answer| answer.place == Place::Initrd);
    if needs_initrd && !matches!(&boot, None | Some(Boot::Kernel { initrd: Some(_), .. })) {
        let at = table.place_of(&keys::ANSWERS);
        let what = "nothing can be appended to the initial RAM disk, which the boot loader loads";
        c.report(&at.path, at.span, what).hint =
            Some("Add `[source.boot]` with `type = \"kernel\"` and an `initrd`.".to_owned());
    }
    let end = table.text(&keys::ISO_END, c).map(|at| match at.value.as_str() {
        "reboot" => End::Reboot,
        _ => End::PowerOff,
    });
    let reboots = table.integer(&keys::ISO_REBOOTS, c);
    let (location, checksum, signing) = located?;
    Some(IsoSource {
        location,
        checksum,
        signing,
        disk_size,
        answers,
        boot: boot?,
        end: end.unwrap_or(End::PowerOff),
        reboots: reboots.and_then(|at| u32::try_from(at.value).ok()).unwrap_or(REBOOTS),
        start_timeout: table.duration(&keys::ISO_START_TIMEOUT, c).unwrap_or(START),
        timeout: table.duration(&keys::ISO_TIMEOUT, c).unwrap_or(TIMEOUT),
    })
}

fn answers(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Vec<Answer> {
    let mut all: Vec<Answer> = vec![];
    if !table.has(&keys::ANSWERS) {
        return all;
    }
    for (_, kind, table) in table.variants(&keys::ANSWERS, c) {
        let source = table.text(&keys::ANSWER_SOURCE, c);
        let name = match kind {
            "floppy" => table.text(&keys::FLOPPY_NAME, c),
            "fw-cfg" => table.text(&keys::FW_CFG_NAME, c),
            _ => table.text(&keys::ANSWER_NAME, c),
        };
        let place = match kind {
            "cd" => match table.text(&keys::ANSWER_LABEL, c) {
                Some(label) => Place::Cd(label.value),
                None => continue,
            },
            "http" => Place::Http,
            "floppy" => Place::Floppy,
            "fw-cfg" => Place::FwCfg,
            _ => Place::Initrd,
        };
        let Some(source) = source else { continue };
        let source_path = resolve(&source, dir, Expect::File, c);
        let own = || source_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (name, at) = match name {
            Some(at) => (at.value.clone(), at),
            None => (own(), At { value: own(), ..source }),
        };
        if all.iter().any(|other| other.place == place && other.name.eq_ignore_ascii_case(&name)) {
            let what = format!("there are two answers with the name `{name}` in the same place");
            c.report(&at.path, at.span, what).hint =
                Some("Give one of them another `name`, or remove it.".to_owned());
        }
        all.push(Answer { place, source: source_path, name });
    }
    all
}

fn boot(table: &Reader<'_, '_>, serves: bool, c: &mut Collector) -> Option<Boot> {
    // Stand-ins of the form that the real values have.
    let variables = Variables {
        hostname: "box".to_owned(),
        server: serves.then(|| ("10.0.2.2".to_owned(), 65_535)),
    };
    match table.variant(&keys::BOOT, c)? {
        ("kernel", table) => {
            let kernel = table.text(&keys::BOOT_KERNEL, c).map(|at| at.value);
            let initrd = table.text(&keys::BOOT_INITRD, c).map(|at| at.value);
            let cmdline = table.text(&keys::BOOT_CMDLINE, c).map(|at| {
                unknown_variables(&at, &variables, c);
                at.value
            });
            Some(Boot::Kernel { kernel: kernel?, initrd, cmdline: cmdline.unwrap_or_default() })
        }
        (_, table) => {
            let wait = table.duration(&keys::BOOT_WAIT, c).unwrap_or(BOOT_WAIT);
            let command = table.text(&keys::BOOT_COMMAND, c)?;
            unknown_variables(&command, &variables, c);
            // Replaced by themselves, so that places stay right.
            if let Err(faults) = boot_command::parse(&command.value) {
                for Fault { at, what, hint } in faults {
                    let what = format!("{what}, at character {at}");
                    c.report(&command.path, command.span.clone(), what).hint = Some(hint);
                }
            }
            Some(Boot::Command { wait, command: command.value })
        }
    }
}

fn unknown_variables(at: &At<String>, variables: &Variables, c: &mut Collector) {
    for (place, name) in variables.replace(&at.value).1 {
        let http = matches!(name.as_str(), "http" | ".HTTPIP" | ".HTTPPort");
        let name = crate::spec::problem::shown(&name);
        let what = format!("there is no variable `{name}`, at character {place}");
        c.report(&at.path, at.span.clone(), what).hint = Some(if http {
            "Add an entry to `answers` with `type = \"http\"`: without one, nothing is served."
                .to_owned()
        } else {
            "Known are `{{ http }}` and `{{ hostname }}`.".to_owned()
        });
    }
}
