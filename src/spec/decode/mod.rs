//! Spanned TOML to [`Spec`]: defaults filled in, every value possible, all problems at once.

mod files;
mod hooks;
mod login;
mod machine;
mod machines;
mod mounts;
mod network;
mod parity;
mod personal;
mod provision;
mod source;
mod steps;
mod trust;

use std::path::Path;

use toml::de::DeTable;

use crate::spec::keys::{self, LARGEST_VHD};
use crate::spec::quantity::{GIB, size_text};
use crate::spec::reader::{Collector, Reader};
pub(crate) use personal::{own_trust, personal};

use crate::spec::types::{Arch, Deploy, OutputFormat, Seal, Source, Spec};

/// Decodes a whole file. `None` if something needed is missing or wrong; then `c` says what.
pub(crate) fn spec(table: &DeTable<'_>, dir: &Path, c: &mut Collector) -> Option<Spec> {
    let top = Reader::top(table, &keys::SPEC, c);
    let name = top.text(&keys::NAME, c).map(|at| at.value);
    let version = top.text(&keys::VERSION, c).map(|at| at.value);
    let arch = arch(&top, c);
    let tested = top.boolean(&keys::TESTED, c).unwrap_or(true);
    let registry = top.text(&keys::REGISTRY, c).map(|at| place(&at.value, dir));
    let source = source::source(&top, dir, c);
    let steps = steps::steps(&top, dir, arch, c);
    let seal = seal(&top, name.as_deref(), c);
    let outputs = outputs(&top, source.as_ref(), c);
    let deploy = deploy(&top, dir, c);
    let machine = machine::machine(&top, name.as_deref(), arch, source.as_ref(), c);
    let machines = machine.as_ref().map(|m| machines::machines(&top, m, source.as_ref(), c));
    let named = machines.as_deref().unwrap_or_default();
    let network = network::network(&top, named, c);
    let mounts = mounts::mounts(&top, dir, named, false, c);
    let provision = provision::provision(&top, dir, named, c);
    let hooks = hooks::hooks(&top, dir, named, c);
    let parity = parity::parity(&top, dir, c);
    let trust = trust::trust(&top, dir, c);
    Some(Spec {
        dir: dir.to_owned(),
        name: name?,
        version: version?,
        arch: arch?,
        tested,
        registry,
        updates: true,
        source: source?,
        steps,
        seal: seal?,
        outputs,
        deploy,
        machine: machine?,
        machines: machines?,
        network,
        mounts,
        provision,
        hooks,
        parity,
        trust,
    })
}

/// `arch`, or the host's if it is one that guests can have.
fn arch(top: &Reader<'_, '_>, c: &mut Collector) -> Option<Arch> {
    if top.has(&keys::ARCH) {
        let named = top.text(&keys::ARCH, c);
        if named.is_none()
            && let Some(problem) = c.problems.last_mut()
        {
            problem.hint =
                Some("These are Debian's names: `amd64` is x86-64, `arm64` is AArch64.".to_owned());
        }
        return Some(if named?.value == "arm64" { Arch::Arm64 } else { Arch::Amd64 });
    }
    if let Some(arch) = Arch::of_host() {
        return Some(arch);
    }
    let what = format!(
        "`arch` is missing, and guests of this host's architecture (`{}`) cannot be built yet",
        std::env::consts::ARCH
    );
    c.report("arch", 0..0, what).hint =
        Some("Add `arch = \"amd64\"` or `\"arm64\"`; the guest is then emulated.".to_owned());
    None
}

/// A place of boxes; a folder against the spec's own.
fn place(text: &str, dir: &Path) -> String {
    match text.strip_prefix("dir:") {
        Some(folder) => format!("dir:{}", dir.join(folder).display()),
        None => text.trim_end_matches('/').to_owned(),
    }
}

fn seal(top: &Reader<'_, '_>, name: Option<&str>, c: &mut Collector) -> Option<Seal> {
    let Some(table) = top.table(&keys::SEAL, c) else {
        return name.map(|name| Seal { hostname: name.to_owned(), epoch: None });
    };
    let epoch = table.integer(&keys::SEAL_EPOCH, c).map(|at| at.value);
    let hostname = table.text(&keys::SEAL_HOSTNAME, c).map(|at| at.value);
    Some(Seal { hostname: hostname.or_else(|| name.map(str::to_owned))?, epoch })
}

fn outputs(top: &Reader<'_, '_>, source: Option<&Source>, c: &mut Collector) -> Vec<OutputFormat> {
    let mut outputs = vec![];
    for at in top.set(&keys::OUTPUTS, c).unwrap_or_default() {
        let Some(format) = OutputFormat::named(&at.value) else { continue };
        if let (OutputFormat::Vhd, Some(size)) = (format, source.and_then(Source::disk_size))
            && size > LARGEST_VHD
        {
            let what = format!("a fixed VHD cannot hold a disk of {}", size_text(size));
            c.report(&at.path, at.span, what).hint = Some(format!(
                "Set `source.disk` to at most \"{}GiB\", or remove `vhd` from the outputs.",
                LARGEST_VHD / GIB
            ));
        }
        outputs.push(format);
    }
    outputs
}

fn deploy(top: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Deploy> {
    let table = top.has(&keys::DEPLOY).then(|| top.table(&keys::DEPLOY, c)).flatten()?;
    let folder = table.text(&keys::DEPLOY_TERRAFORM, c);
    let terraform = folder.map(|at| files::resolve(&at, dir, files::Expect::Folder, c));
    Some(Deploy { terraform })
}
