//! The root tree: `mmdebstrap` in a user namespace, into a tar.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::archive::Suite;
use super::{Wanted, recipe};
use crate::error::{Kind, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::source::disk::Layout;
use crate::source::disk::preflight::KEYRING;
use crate::source::disk::scratch::Scratch;
use crate::spec::types::{Arch, Packages};

/// What a host's proxy settings are called; the build fetches with them, the image has none of them.
const PROXY: &[&str] = &["http_proxy", "https_proxy", "no_proxy"];

/// Makes the tree and returns the tar's path in the scratch folder.
pub(super) async fn make(
    wanted: &Wanted<'_>,
    layout: &Layout,
    suites: &[Suite],
    scratch: &Scratch,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let Wanted { spec, arch, locked, .. } = *wanted;
    let tar = scratch.dir().join("root.tar");
    let mut command = mmdebstrap()?;
    let early = recipe::write_script(&recipe::early_files(arch));
    let late = recipe::write_script(&recipe::files(spec, arch, &layout.ids())) + recipe::FINISH;
    if let Some(locked) = locked {
        command.arg(hook("setup", &locked.pin_script(), scratch)?);
    }
    command.args(argv(spec, arch)).arg(hook("essential", &early, scratch)?).arg(hook(
        "customize",
        &late,
        scratch,
    )?);
    command.arg(&spec.suite).arg(&tar);
    command.args(suites.iter().map(|s| source_line(s, spec, locked.is_some())));
    command.stdin(scratch.stdin()?);
    surroundings(&mut command, layout.epoch, scratch);
    let hidden = hosts(suites, spec);
    let show = |line: &str| events.program("mmdebstrap", scrub(line, &hidden));
    exec::group::run(command, show, cancel).await.map_err(|e| {
        if e.kind() == Kind::Interrupted {
            return e;
        }
        explain(&e, &hidden)
    })?;
    Ok(tar)
}

/// As root it mounts what a package's scripts want to see: where nobody else sees it, so that nothing stays mounted
/// when it is killed. What the host unmounts meanwhile is unmounted there too. A plain user's has a user namespace of
/// its own.
fn mmdebstrap() -> Result<Command> {
    if !rustix::process::getuid().is_root() {
        return tools::MMDEBSTRAP.command();
    }
    let mut command = tools::UNSHARE.command()?;
    command.args(["--mount", "--propagation", "slave", "--"]).arg(tools::MMDEBSTRAP.find()?);
    Ok(command)
}

/// The options, in a fixed order.
fn argv(spec: &Packages, arch: Arch) -> Vec<String> {
    // As root no ids are mapped; the trees are the same.
    let mode = if rustix::process::getuid().is_root() { "root" } else { "unshare" };
    vec![
        format!("--mode={mode}"),
        "--format=tar".to_owned(),
        "--variant=minbase".to_owned(),
        format!("--architectures={}", arch.as_str()),
        format!("--include={}", recipe::packages(spec, arch).join(",")),
        // Device nodes cannot be made in a user namespace, and the kernel makes them at boot.
        "--skip=output/dev".to_owned(),
        // The tree is thrown away when the host fails, so nothing in it has to survive that.
        "--dpkgopt=force-unsafe-io".to_owned(),
    ]
}

/// The option for a script that runs at `moment`. A file, since mmdebstrap prints a script that it
/// gets as a word, all of it.
fn hook(moment: &str, script: &str, scratch: &Scratch) -> Result<OsString> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = scratch.dir().join(moment);
    fs::write(&path, script)?;
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let mut option = OsString::from(format!("--{moment}-hook="));
    option.push(path);
    Ok(option)
}

/// What is locked by its digest may come from a mirror of an earlier day, whose index has run out.
fn source_line(suite: &Suite, spec: &Packages, locked: bool) -> String {
    let components = spec.components.join(" ");
    let old = if locked { " check-valid-until=no" } else { "" };
    format!("deb [signed-by={KEYRING}{old}] {} {} {components}", suite.mirror, suite.name)
}

/// The same surroundings on every host: what a maintainer script sees ends up in the image.
fn surroundings(command: &mut Command, epoch: i64, scratch: &Scratch) {
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", scratch.dir())
        .env("TMPDIR", scratch.work())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    for name in PROXY {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Host names of the build's mirrors that the spec does not name.
fn hosts(suites: &[Suite], spec: &Packages) -> Vec<String> {
    let named = [host(&spec.mirror), host(&spec.security_mirror)];
    let mut hosts: Vec<String> = suites
        .iter()
        .map(|s| host(&s.mirror))
        .filter(|h| !h.is_empty() && !named.contains(h))
        .map(str::to_owned)
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The host's mirror is nobody's business but the host's.
fn scrub(line: &str, hidden: &[String]) -> String {
    hidden.iter().fold(line.to_owned(), |line, host| line.replace(host, "the-hosts-mirror"))
}

/// What went wrong in the user's words, from apt's lines; not the command line, which holds scripts.
fn explain(e: &crate::error::Error, hidden: &[String]) -> crate::error::Error {
    let text = e.to_string();
    let mut error = crate::error::Error::failed("cannot install the packages of the image")
        .cause(scrub(e.what(), hidden));
    for line in e.details().iter().filter(|l| !l.starts_with("command: ")) {
        error = error.detail(scrub(line, hidden));
    }
    if text.contains("No space left on device") {
        return error.hint("Free some space in `/var/tmp`, or set `TMPDIR` to a folder with more, then run the same command again.");
    }
    if text.contains("Unable to locate package") || text.contains("has no installation candidate") {
        return error.hint("Check `packages`, `suite` and `components` in `[source]`.");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirror_is_hidden_unless_the_spec_names_it() {
        let suite = |mirror: &str| Suite {
            name: "bookworm".to_owned(),
            mirror: mirror.to_owned(),
            date: 0,
            packages: String::new(),
            lists: vec![],
        };
        let spec = Packages {
            suite: "bookworm".to_owned(),
            packages: vec![],
            mirror: "http://deb.debian.org/debian".to_owned(),
            security_mirror: "http://deb.debian.org/debian-security".to_owned(),
            components: vec!["main".to_owned()],
            disk_size: 0,
        };
        let suites = [suite("http://inside.example:3142/debian"), suite(&spec.mirror)];
        let hidden = hosts(&suites, &spec);
        assert_eq!(hidden, ["inside.example:3142"]);
        let line = scrub("Err:1 http://inside.example:3142/debian bookworm", &hidden);
        assert_eq!(line, "Err:1 http://the-hosts-mirror/debian bookworm");
    }
}
