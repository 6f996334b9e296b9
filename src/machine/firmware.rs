//! Finds UEFI firmware by QEMU's firmware descriptors.
//! (QEMU's `docs/interop/firmware.json`: files in name order, the first match wins; a file in `/etc`
//! hides one of the same name in `/usr/share`.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Where distributions put descriptors; later folders hide files of the same name in earlier ones.
const FOLDERS: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Debug, Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// A UEFI firmware of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    /// The code.
    pub code: PathBuf,
    /// An empty variable store, to be copied for each machine.
    pub vars_template: PathBuf,
}

/// The host's UEFI firmware for q35 without Secure Boot.
///
/// # Errors
/// None is installed.
pub fn find() -> Result<Uefi> {
    find_in(&FOLDERS.map(Path::new)).ok_or_else(|| {
        Error::failed("no UEFI firmware for virtual machines is installed")
            .detail(format!("looked for descriptors in {}", FOLDERS.join(" and ")))
            .hint("Install it with `sudo apt-get install ovmf`, or set `firmware = \"bios\"` in `[machine]`.")
    })
}

fn find_in(folders: &[&Path]) -> Option<Uefi> {
    let mut files = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "json") {
                files.insert(entry.file_name(), entry.path());
            }
        }
    }
    // A descriptor that cannot be read describes nothing that we could use.
    files.values().find_map(|path| {
        let d: Descriptor = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let fits = d.interface_types.iter().any(|t| t == "uefi")
            && d.mapping.device == "flash"
            && d.targets.iter().any(|t| {
                t.architecture == "x86_64" && t.machines.iter().any(|m| m.starts_with("pc-q35-"))
            })
            && !d.features.iter().any(|f| f == "requires-smm" || f == "enrolled-keys");
        let (code, vars) = (d.mapping.executable?, d.mapping.nvram_template?);
        let usable = |f: &FlashFile| f.format == "raw" && f.filename.is_file();
        (fits && usable(&code) && usable(&vars))
            .then_some(Uefi { code: code.filename, vars_template: vars.filename })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(dir: &Path, name: &str, features: &str) {
        let text = format!(
            r#"{{"interface-types": ["uefi"], "targets": [{{"architecture": "x86_64", "machines": ["pc-q35-*"]}}],
            "mapping": {{"device": "flash", "executable": {{"filename": "{0}/{name}.code", "format": "raw"}},
            "nvram-template": {{"filename": "{0}/{name}.vars", "format": "raw"}}}}, "features": [{features}]}}"#,
            dir.display()
        );
        fs::write(dir.join(name), text).expect("descriptor");
        for part in ["code", "vars"] {
            fs::write(dir.join(format!("{name}.{part}")), "x").expect("image");
        }
    }

    #[test]
    fn secure_boot_and_broken_descriptors_are_passed_over_and_the_override_wins() {
        let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        descriptor(a.path(), "40-secure.json", r#""requires-smm""#);
        descriptor(a.path(), "60-plain.json", "");
        descriptor(b.path(), "60-plain.json", "");
        fs::write(a.path().join("10-broken.json"), "{").expect("write");
        let only_a = find_in(&[a.path()]).expect("found");
        assert_eq!(only_a.code, a.path().join("60-plain.json.code"));
        let both = find_in(&[a.path(), b.path()]).expect("found");
        assert_eq!(both.code, b.path().join("60-plain.json.code"));
        fs::remove_file(b.path().join("60-plain.json.vars")).expect("remove");
        assert_eq!(find_in(&[a.path(), b.path()]), None);
    }
}
