//! Finds UEFI firmware by QEMU's firmware descriptors.
//! (QEMU's `docs/interop/firmware.json`: files in name order, the first match wins; a file in `/etc`
//! hides one of the same name in `/usr/share`.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use super::board::Board;
use crate::error::{Error, Result};
use crate::host::Arch;

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
    mode: Option<String>,
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
    /// It needs System Management Mode, so that only it can change its variables.
    pub smm: bool,
}

/// The host's UEFI firmware for guests of this architecture. With `secure_boot`, one that starts only what
/// is signed by the keys in its variables; else one that asks for no signatures.
///
/// # Errors
/// None is installed.
pub fn find(arch: Arch, secure_boot: bool) -> Result<Uefi> {
    find_in(&FOLDERS.map(Path::new), arch, secure_boot).ok_or_else(|| {
        let which = if secure_boot { "UEFI firmware with Secure Boot" } else { "UEFI firmware" };
        let (what, package) = match arch {
            Arch::X86_64 => ("virtual machines", "ovmf"),
            Arch::Aarch64 => ("arm64 virtual machines", "qemu-efi-aarch64"),
        };
        let instead = match (arch, secure_boot) {
            (_, true) => ", or remove `secure_boot` from `[machine]`",
            (Arch::X86_64, false) => ", or set `firmware = \"bios\"` in `[machine]`",
            (Arch::Aarch64, false) => "",
        };
        Error::failed(format!("no {which} for {what} is installed"))
            .detail(format!("looked for descriptors in {}", FOLDERS.join(" and ")))
            .hint(format!("Install it with `sudo apt-get install {package}`{instead}."))
    })
}

fn find_in(folders: &[&Path], arch: Arch, secure_boot: bool) -> Option<Uefi> {
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
        let has = |feature: &str| d.features.iter().any(|f| f == feature);
        let family = Board::of(arch).family;
        let fits = d.interface_types.iter().any(|t| t == "uefi")
            && d.mapping.device == "flash"
            // Code and variables in one file would be written to.
            && d.mapping.mode.as_deref().is_none_or(|mode| mode == "split")
            && d.targets.iter().any(|t| {
                t.architecture == arch.as_str() && t.machines.iter().any(|m| m.starts_with(family))
            })
            // Without keys every signature is as good as none.
            && match secure_boot {
                true => has("secure-boot") && has("enrolled-keys"),
                false => !has("secure-boot") && !has("enrolled-keys") && !has("requires-smm"),
            };
        let smm = has("requires-smm");
        let (code, vars) = (d.mapping.executable?, d.mapping.nvram_template?);
        let usable = |f: &FlashFile| f.format == "raw" && f.filename.is_file();
        (fits && usable(&code) && usable(&vars)).then_some(Uefi {
            code: code.filename,
            vars_template: vars.filename,
            smm,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(dir: &Path, name: &str, target: &str, mode: &str, features: &str) {
        let text = format!(
            r#"{{"interface-types": ["uefi"], "targets": [{target}], "mapping": {{"device": "flash", {mode}
            "executable": {{"filename": "{0}/{name}.code", "format": "raw"}},
            "nvram-template": {{"filename": "{0}/{name}.vars", "format": "raw"}}}}, "features": [{features}]}}"#,
            dir.display()
        );
        fs::write(dir.join(name), text).expect("descriptor");
        for part in ["code", "vars"] {
            fs::write(dir.join(format!("{name}.{part}")), "x").expect("image");
        }
    }

    const Q35: &str = r#"{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}"#;
    const VIRT: &str = r#"{"architecture": "aarch64", "machines": ["virt-*"]}"#;
    const KEYS: &str = r#""secure-boot", "enrolled-keys", "requires-smm""#;

    #[test]
    fn broken_descriptors_are_passed_over_and_the_override_wins() {
        let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        descriptor(a.path(), "60-plain.json", Q35, "", "");
        descriptor(b.path(), "60-plain.json", Q35, r#""mode": "split","#, "");
        fs::write(a.path().join("10-broken.json"), "{").expect("write");
        let find = |folders: &[&Path]| find_in(folders, Arch::X86_64, false);
        let only_a = find(&[a.path()]).expect("found");
        assert_eq!(only_a.code, a.path().join("60-plain.json.code"));
        let both = find(&[a.path(), b.path()]).expect("found");
        assert_eq!(both.code, b.path().join("60-plain.json.code"));
        fs::remove_file(b.path().join("60-plain.json.vars")).expect("remove");
        assert_eq!(find(&[a.path(), b.path()]), None);
    }

    #[test]
    fn the_firmware_fits_the_architecture_and_the_wish_for_signatures() {
        let dir = tempfile::tempdir().expect("dir");
        let name = |arch, secure| {
            let found = find_in(&[dir.path()], arch, secure)?;
            let code = found.code.file_stem()?.to_str()?.to_owned();
            Some((code, found.smm))
        };
        // Nothing is enrolled: it would start anything, and must not pass for Secure Boot.
        descriptor(dir.path(), "30-no-keys.json", Q35, "", r#""secure-boot", "requires-smm""#);
        descriptor(dir.path(), "35-one-file.json", Q35, r#""mode": "combined","#, "");
        assert_eq!(name(Arch::X86_64, true), None);
        assert_eq!(name(Arch::X86_64, false), None);
        descriptor(dir.path(), "40-keys.json", Q35, "", KEYS);
        descriptor(dir.path(), "50-arm.json", VIRT, "", "");
        descriptor(dir.path(), "60-plain.json", Q35, "", "");
        assert_eq!(name(Arch::X86_64, true), Some(("40-keys.json".to_owned(), true)));
        assert_eq!(name(Arch::X86_64, false), Some(("60-plain.json".to_owned(), false)));
        assert_eq!(name(Arch::Aarch64, false), Some(("50-arm.json".to_owned(), false)));
        assert_eq!(name(Arch::Aarch64, true), None);
    }
}
