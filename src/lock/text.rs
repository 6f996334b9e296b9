//! The lock as text: one line an entry, sorted, so that a change in git shows what changed and nothing else.

use std::fmt::Write as _;

use serde::Deserialize;

use super::{Host, Lock, LockedBox, Package, SOURCE, VERSION};
use crate::digest::FileDigest;

/// What a lock of any version has.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The first lines, for who finds the file.
const HEAD: &str = "# Made by `devbox lock`; keep it in git beside devbox.toml. What it means: docs/lock.md of devbox.\n";

impl Lock {
    /// The file's text. The same lock gives the same bytes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = HEAD.to_owned();
        let mut put = |line: String| {
            out.push_str(&line);
            out.push('\n');
        };
        put(format!("version = {}", self.version));
        put(format!("spec = {}", quoted(&self.spec)));
        if let Some(snapshot) = &self.snapshot {
            put(format!("snapshot = {}", quoted(snapshot)));
        }
        if let Some(LockedBox { wanted, version, manifest }) = &self.source_box {
            let (wanted, version) = (quoted(wanted), quoted(version));
            put(format!(
                "box = {{ wanted = {wanted}, version = {version}, manifest = \"{manifest}\" }}"
            ));
        }
        let inputs = self.inputs.iter();
        let inputs =
            inputs.map(|i| format!("name = {}, digest = {}", quoted(&i.name), quoted(&i.digest)));
        put(list("inputs", inputs));
        put(list("hosts", self.hosts.iter().map(host)));
        put(list("packages", self.packages.iter().map(package)));
        if !self.replaced.is_empty() {
            put(list("replaced", self.replaced.iter().map(package)));
        }
        let tools = &self.tools;
        put(format!("\n[tools]\ndevbox = {}", quoted(&tools.devbox)));
        put(format!("firmware = {}", quoted(&tools.firmware)));
        if let Some(version) = &tools.mmdebstrap {
            put(format!("mmdebstrap = {}", quoted(version)));
        }
        put(format!("qemu = {}", quoted(&tools.qemu)));
        out
    }

    /// Reads it; keys that are not known are refused.
    ///
    /// # Errors
    /// Why, with the number of the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let conflict = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
        if let Some(at) = text.lines().position(conflict) {
            return Err(format!("line {}: a conflict of a merge is not resolved", at + 1));
        }
        // Another version has other keys, so this is known before they are.
        if let Ok(Form { version }) = toml::from_str(text)
            && version != VERSION
        {
            let newer = if version > VERSION { ": a newer one wrote it" } else { "" };
            return Err(format!(
                "its version is {version}, and this devbox reads {VERSION}{newer}"
            ));
        }
        let mut lock: Lock = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            format!("line {line}: {}", e.message().replace('\n', ", "))
        })?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        for package in lock.packages.iter().chain(&lock.replaced) {
            // They become lines of other programs' files.
            if !plain(&package.name) || !plain(&package.version) {
                return Err(format!("`{}` {} is no package", package.name, package.version));
            }
        }
        if let Some(host) = lock.hosts.iter().find(|host| host.step.is_empty() != host.installer) {
            return Err(format!("the host `{host}` needs either `step` or `installer = true`"));
        }
        lock.inputs.sort();
        if let Some(pair) = lock.inputs.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("the input `{}` is there twice", pair[0].name));
        }
        if let Some(digest) = lock.input(SOURCE)
            && digest.parse::<FileDigest>().is_err()
        {
            return Err(format!("the digest of `{SOURCE}` is none: `{digest}`"));
        }
        if let Some(snapshot) = &lock.snapshot
            && snapshot.parse::<jiff::Timestamp>().is_err()
        {
            return Err(format!("its `snapshot` is no time: `{snapshot}`"));
        }
        lock.hosts.sort();
        lock.packages.sort();
        lock.replaced.sort();
        Ok(lock)
    }
}

fn list(name: &str, entries: impl Iterator<Item = String>) -> String {
    let mut out = format!("{name} = [");
    for entry in entries {
        let _ = write!(out, "\n  {{ {entry} }},");
    }
    if !out.ends_with('[') {
        out.push('\n');
    }
    out + "]"
}

fn host(host: &Host) -> String {
    let Host { step, installer, host, port, udp } = host;
    let by =
        if *installer { "installer = true".to_owned() } else { format!("step = {}", quoted(step)) };
    let mut out = format!("{by}, host = {}", quoted(host));
    if let Some(port) = port {
        let _ = write!(out, ", port = {port}");
    }
    if *udp {
        out.push_str(", udp = true");
    }
    out
}

fn package(package: &Package) -> String {
    let Package { name, arch, version, kind, sha256, step } = package;
    let mut out =
        format!("name = {}, arch = {}, version = {}", quoted(name), quoted(arch), quoted(version));
    for (key, value) in [("kind", kind), ("sha256", sha256)] {
        if let Some(value) = value {
            let _ = write!(out, ", {key} = {}", quoted(value));
        }
    }
    if *step {
        out.push_str(", step = true");
    }
    out
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
