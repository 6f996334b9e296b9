//! The tiny guest as a bootable disk, made once per version of its recipe and kept in `target/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devbox::digest::{FileDigest, hex, sha256};
use devbox::source::disk::{Layout, Loader, assemble};
use devbox::source::seed::Seed;
use devbox::spec::Arch;
use tokio_util::sync::CancellationToken;

/// Guest-visible bytes of the disk.
pub(crate) const SIZE: u64 = 192 << 20;
/// Source date of the disk.
pub(crate) const EPOCH: i64 = 1_700_000_000;

/// Where the fixture's script and its files are.
fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny")
}

/// A digest over the recipe: another one makes another disk.
fn version() -> String {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(recipe())
        .into_iter()
        .map(|e| e.expect("the fixture can be listed").into_path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    let mut text = format!("size {SIZE} epoch {EPOCH}\n");
    for file in files {
        let bytes = std::fs::read(&file).expect("the fixture can be read");
        text.push_str(&format!("{} {}\n", file.display(), FileDigest::of(&bytes)));
    }
    hex(&sha256(text.as_bytes()))[..16].to_owned()
}

/// The kernel that most tests boot: Debian's for virtual machines, which has no 9p.
pub(crate) const KERNEL: &str = "cloud-amd64";

/// The disk with one of Debian's kernels ([`KERNEL`]; `amd64` has all drivers, `cloud-arm64` is of another
/// architecture, `cloud-amd64-signed` starts with Secure Boot), raw and read-only: put an
/// overlay on it. Made on first use, from Debian's packages over
/// the network (`DEVBOX_TEST_MIRROR` names another mirror than Debian's); takes some ten seconds.
pub(crate) async fn raw(kernel: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny");
    std::fs::create_dir_all(&dir).expect("target/ can be written");
    let disk = dir.join(format!("{}-{kernel}.raw", version()));
    // One test program makes it, the others wait.
    let lock = std::fs::File::create(dir.join("lock")).expect("target/ can be written");
    lock.lock().expect("the lock can be taken");
    if disk.exists() {
        return disk;
    }
    let tar = dir.join(format!("root-{kernel}.tar"));
    let mut make = Command::new("sh");
    make.arg(recipe().join("make")).arg(&tar).stdin(Stdio::null());
    let mirror = std::env::var("DEVBOX_TEST_MIRROR");
    make.arg(mirror.as_deref().unwrap_or("http://deb.debian.org/debian"));
    make.args(["bookworm", kernel]);
    let out = make.output().expect("sh runs");
    assert!(out.status.success(), "tiny/make failed: {}", String::from_utf8_lossy(&out.stderr));
    let arch = if kernel.ends_with("arm64") { Arch::Arm64 } else { Arch::Amd64 };
    let layout = Layout {
        size: SIZE,
        epoch: EPOCH,
        seed: Seed::from_text("tiny"),
        label: "tiny".to_owned(),
        arch,
        loader: Loader::of(arch, kernel.ends_with("-signed")),
    };
    let partial = dir.join("partial.raw");
    let _ = std::fs::remove_file(&partial);
    let made = assemble(&tar, &partial, &layout, &CancellationToken::new()).await;
    made.unwrap_or_else(|e| panic!("{e}"));
    let mut mode = std::fs::metadata(&partial).expect("just made").permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&partial, mode).expect("my own file");
    std::fs::rename(&partial, &disk).expect("the same folder");
    disk
}

/// The same disk as qcow2, for tests of what reads one.
pub(crate) async fn qcow2(kernel: &str) -> PathBuf {
    let raw = raw(kernel).await;
    let qcow2 = raw.with_extension("qcow2");
    if !qcow2.exists() {
        let partial = raw.with_extension(format!("qcow2-{}", std::process::id()));
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&partial);
        let out = convert.stdin(Stdio::null()).output().expect("qemu-img runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::rename(&partial, &qcow2).expect("the same folder");
    }
    qcow2
}
