//! Personal settings, from the weakest to the strongest: the user's own file, `devbox.local.toml` beside
//! the spec (not shared, not in git), and `--set` on the command line.
//!
//! They change what `up` gives a machine and nothing else: no image, no digest.

use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::load::{parse_as, text_of};
use crate::spec::quantity::size_text;
use crate::spec::types::{Machine, Mount, PortForward, Protocol, Spec, Trust};
use crate::spec::{Problems, decode};

/// The file beside the spec.
pub const LOCAL_FILE: &str = "devbox.local.toml";
/// The name of the command line's settings in messages.
const COMMAND_LINE: &str = "--set";

/// Something that a machine has otherwise than the spec says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The machine.
    pub machine: String,
    /// The key of `[machine]`.
    pub key: String,
    /// What holds now, for people.
    pub value: String,
    /// Where it comes from: a file's path, or `--set`.
    pub from: String,
}

/// `memory 4GiB (devbox.local.toml)`.
impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.key, self.value, self.from)
    }
}

/// Changes the machines of `spec` by the user's file, the file beside the spec, and `set` (each
/// `machine.memory=4GiB`). Returns what is otherwise than in the spec.
///
/// # Errors
/// A file cannot be read, or something in it is wrong: every problem with its place (kind `Usage`).
pub fn apply(spec: &mut Spec, user: &Path, set: &[String]) -> Result<Vec<Override>> {
    let mut overrides = vec![];
    for (file, user) in [(user.to_owned(), true), (spec.dir.join(LOCAL_FILE), false)] {
        if file.exists() {
            let text = text_of(&file)??;
            layer(spec, &text, &file, user, &mut overrides)?;
        }
    }
    if !set.is_empty() {
        let lines: Vec<String> = set.iter().map(|one| line(one)).collect::<Result<_>>()?;
        let (text, from) = (lines.join("\n"), Path::new(COMMAND_LINE));
        let layered = layer(spec, &text, from, false, &mut overrides);
        layered.map_err(|problems| {
            Error::usage(problems.summary())
                .detail(problems.render(false))
                .hint("Correct it, or write it into `devbox.local.toml`.")
        })?;
    }
    Ok(overrides)
}

/// What the user's own file demands of boxes that are pulled; none if there is no such file, or nothing of it there.
///
/// # Errors
/// The file cannot be read, or something in it is wrong; kind `Usage`.
pub fn trust(user: &Path) -> Result<Option<Trust>> {
    // One that is there and cannot be read demands something that nobody knows: no reason to demand nothing.
    if let Err(e) = std::fs::symlink_metadata(user)
        && e.kind() == std::io::ErrorKind::NotFound
    {
        return Ok(None);
    }
    let dir = std::path::absolute(user)?.parent().map(Path::to_owned).unwrap_or_default();
    let text = text_of(user)??;
    Ok(parse_as(&text, user, |table, c| Some(decode::own_trust(table, &dir, c)))?)
}

fn layer(
    spec: &mut Spec,
    text: &str,
    file: &Path,
    user: bool,
    overrides: &mut Vec<Override>,
) -> Result<(), Problems> {
    // What is relative starts beside the file; on the command line, beside the spec.
    let dir = match file.parent().filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.to_owned(),
        None => spec.dir.clone(),
    };
    let (machines, mounts, updates) =
        parse_as(text, file, |table, c| Some(decode::personal(table, spec, &dir, user, c)))?;
    for machine in &machines {
        let shown = |mounts: &[Mount]| -> Vec<String> {
            let here = mounts.iter().filter(|mount| mount.is_for(&machine.name));
            here.map(|m| format!("{} on {}", m.source.display(), m.target)).collect()
        };
        let (old, new) = (shown(&spec.mounts), shown(&mounts));
        if old != new {
            overrides.retain(|o| o.machine != machine.name || o.key != "mounts");
            overrides.push(Override {
                machine: machine.name.clone(),
                key: "mounts".to_owned(),
                value: new.join(", "),
                from: file.display().to_string(),
            });
        }
    }
    (spec.mounts, spec.updates) = (mounts, updates);
    for (old, new) in spec.machines.iter().zip(&machines) {
        for (key, value) in differences(old, new) {
            overrides.retain(|o| (o.machine.as_str(), o.key.as_str()) != (new.name.as_str(), key));
            overrides.push(Override {
                machine: new.name.clone(),
                key: key.to_owned(),
                value,
                from: file.display().to_string(),
            });
        }
    }
    spec.machines = machines;
    Ok(())
}

/// `machine.memory=4GiB` as a line of TOML: what is no value of TOML is a text.
fn line(set: &str) -> Result<String> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(Error::usage(format!("`--set {set}` has no value"))
            .hint("Write a key and its value, as in `--set machine.memory=4GiB`."));
    };
    let as_it_is = format!("{key} = {value}");
    // A line end would begin another key.
    if !set.contains(['\n', '\r']) && as_it_is.parse::<toml::Table>().is_ok() {
        return Ok(as_it_is);
    }
    Ok(format!("{key} = {}", toml::Value::from(value)))
}

fn differences(old: &Machine, new: &Machine) -> Vec<(&'static str, String)> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "the image's".to_owned(), size_text);
    let mut all = vec![];
    let mut add = |key, changed: bool, value: String| {
        if changed {
            all.push((key, value));
        }
    };
    add("cpus", old.cpus != new.cpus, new.cpus.to_string());
    add("memory", old.memory != new.memory, size_text(new.memory));
    add("disk", old.disk != new.disk, size(new.disk));
    add("timeout", old.timeout != new.timeout, format!("{}s", new.timeout.as_secs()));
    add("proxy", old.proxy != new.proxy, new.proxy.to_string());
    let certificates = new.certificates.to_string();
    add("certificates", old.certificates != new.certificates, certificates);
    let ports: Vec<String> = new.ports.iter().map(shown).collect();
    add("ports", old.ports != new.ports, ports.join(", "));
    all
}

/// `8080:80`, as `devbox port add` takes it.
fn shown(port: &PortForward) -> String {
    let host = port.host.map_or_else(|| "any".to_owned(), |host| host.to_string());
    let address =
        if port.host_ip.is_loopback() { String::new() } else { format!("{}:", port.host_ip) };
    let protocol = if port.protocol == Protocol::Udp { "/udp" } else { "" };
    format!("{address}{host}:{}{protocol}", port.guest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    const SPEC: &str = "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\n\
        suite = \"bookworm\"\n[machine]\nmemory = \"2GiB\"\n[[machine.ports]]\nguest = 80\nhost = 8080\n";
    const SEVERAL: &str = "[machines.web]\n[machines.db]\nmemory = \"3GiB\"\n";

    fn spec(more: &str, dir: &Path) -> Spec {
        parse(&format!("{SPEC}{more}"), Path::new("devbox.toml"), dir).expect("a spec")
    }

    fn told(overrides: &[Override]) -> Vec<String> {
        overrides
            .iter()
            .map(|o| {
                let from = Path::new(&o.from).file_name().unwrap_or_default().to_string_lossy();
                format!("{} {} {} {from}", o.machine, o.key, o.value)
            })
            .collect()
    }

    #[test]
    fn the_command_line_is_stronger_than_the_project_and_that_than_the_user() {
        let dir = tempfile::tempdir().expect("dir");
        let user = dir.path().join("config.toml");
        std::fs::write(&user, "[machine]\ncpus = 4\nmemory = \"4GiB\"\n").expect("written");
        let local = "[machine]\nmemory = \"5GiB\"\n[[machine.ports]]\nguest = 443\n[machines.web]\ncpus = 8\n";
        std::fs::write(dir.path().join(LOCAL_FILE), local).expect("written");
        let mut spec = spec(SEVERAL, dir.path());
        let set = ["machines.db.memory=6GiB".to_owned()];
        let overrides = apply(&mut spec, &user, &set).expect("applied");
        let [web, db] = &spec.machines[..] else { panic!("two machines") };
        assert_eq!((web.cpus, web.memory >> 30), (8, 5));
        assert_eq!((db.cpus, db.memory >> 30), (4, 6));
        assert_eq!(web.ports.iter().map(|p| p.guest).collect::<Vec<_>>(), [80, 443]);
        assert_eq!(
            told(&overrides),
            [
                "db cpus 4 config.toml",
                "web cpus 8 devbox.local.toml",
                "web memory 5GiB devbox.local.toml",
                "web ports 8080:80, any:443 devbox.local.toml",
                "db ports 8080:80, any:443 devbox.local.toml",
                "db memory 6GiB --set",
            ]
        );
    }

    #[test]
    fn what_no_person_may_change_and_unknown_machines_are_refused_with_their_place() {
        let dir = tempfile::tempdir().expect("dir");
        let none = dir.path().join("none");
        for (set, word) in [
            ("name=b", "unknown key `name`"),
            ("machine.firmware=uefi", "unknown key `firmware`"),
            ("machines.wbe.cpus=2", "the spec has no machine `wbe`"),
            ("machines.wev.cpus=2", "Did you mean `web`?"),
            ("trust.required=false", "`trust` has no meaning here"),
            ("machine.memory=lots", "machine.memory"),
            ("machine.cpus", "has no value"),
            ("machine.memory=1GiB\nname=2", "machine.memory"),
        ] {
            let mut spec = spec(SEVERAL, dir.path());
            let e = apply(&mut spec, &none, &[set.to_owned()]).expect_err(set);
            assert_eq!(e.kind(), crate::error::Kind::Usage);
            assert!(e.to_string().contains(word), "{set}: {e}");
        }
    }

    #[test]
    fn own_mounts_are_added_and_stand_in_place_of_those_of_the_same_target() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
        }
        let more = format!("{SEVERAL}[[mounts]]\nsource = \"a\"\ntarget = \"/work\"\n");
        let mut spec = spec(&more, dir.path());
        let own = "[[mounts]]\nsource = \"b\"\ntarget = \"/work\"\nmachines = [\"db\"]\nwritable = true\n\
            [[mounts]]\nsource = \"b\"\ntarget = \"/more\"\nmachines = [\"db\"]\n";
        std::fs::write(dir.path().join(LOCAL_FILE), own).expect("written");
        let overrides = apply(&mut spec, &dir.path().join("none"), &[]).expect("valid");
        let of = |machine: &str| -> Vec<(String, bool)> {
            let here = spec.mounts.iter().filter(|mount| mount.is_for(machine));
            here.map(|m| (format!("{}{}", m.source.display(), m.target), m.writable)).collect()
        };
        let at =
            |name: &str| dir.path().canonicalize().expect("there").join(name).display().to_string();
        assert_eq!(of("web"), [(format!("{}/work", at("a")), false)]);
        assert_eq!(
            of("db"),
            [(format!("{}/work", at("b")), true), (format!("{}/more", at("b")), false)]
        );
        assert_eq!(overrides.len(), 1, "{overrides:?}");
        assert_eq!((overrides[0].machine.as_str(), overrides[0].key.as_str()), ("db", "mounts"));
    }

    #[test]
    fn own_mounts_without_names_are_for_machines_that_can_have_them() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("a")).expect("made");
        let local = dir.path().join(LOCAL_FILE);
        let own = "[[mounts]]\nsource = \"a\"\ntarget = \"/work\"\n";
        std::fs::write(&local, own).expect("written");
        let closed = format!("{SEVERAL}login = \"agent\"\n");
        let mut mixed = spec(&closed, dir.path());
        apply(&mut mixed, &dir.path().join("none"), &[]).expect("valid");
        let of = |name: &str| mixed.mounts.iter().filter(|mount| mount.is_for(name)).count();
        assert_eq!((of("web"), of("db")), (1, 0));
        std::fs::write(&local, format!("{own}machines = [\"db\"]\n")).expect("written");
        let e = apply(&mut spec(&closed, dir.path()), &dir.path().join("none"), &[]);
        assert!(e.expect_err("by name").to_string().contains("`db` has `login"), "by name");
    }
}
