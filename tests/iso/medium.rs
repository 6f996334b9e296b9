//! An installation medium: the tiny guest's kernel, a script as the installer, and the tiny disk as what it installs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devbox::digest::{hex, sha256};

use crate::tiny;

/// The one with all drivers: that for virtual machines knows no disk controller of a PC, where the CDs are.
const KERNEL: &str = "amd64";

/// What isolinux says in VGA text. Without `serial`, so that nobody finds the prompt on the serial console.
const ISOLINUX: &str = "prompt 1\ntimeout 0\ndefault none\nlabel install\n  kernel /vmlinuz\n  append initrd=/initrd console=ttyS0,115200 no_timer_check quiet\n";

fn sh(script: &str, dir: &Path) {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(dir).stdin(Stdio::null());
    let out = command.output().expect("sh runs");
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The medium, made on first use.
pub(crate) async fn medium() -> PathBuf {
    let raw = tiny::raw(KERNEL).await;
    let init =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/installer/init"));
    let init = init.expect("the fixture can be read");
    let name = raw.file_stem().expect("a name").to_string_lossy().into_owned();
    let version = hex(&sha256(&[&init, name.as_bytes(), ISOLINUX.as_bytes(), b"2"].concat()));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("iso");
    std::fs::create_dir_all(&dir).expect("target/ can be written");
    let iso = dir.join(format!("{}.iso", &version[..16]));
    let lock = std::fs::File::create(dir.join("lock")).expect("target/ can be written");
    lock.lock().expect("the lock can be taken");
    if iso.exists() {
        return iso;
    }
    let work = tempfile::tempdir_in(&dir).expect("a folder");
    let tree = work.path().join("tree");
    std::fs::create_dir_all(tree.join("isolinux")).expect("made");
    std::fs::create_dir_all(work.path().join("more")).expect("made");
    std::fs::write(work.path().join("more/init"), init).expect("written");
    std::fs::write(tree.join("isolinux/isolinux.cfg"), ISOLINUX).expect("written");
    let raw_text = raw.display();
    // The system's own files, as they are on the disk.
    let root = raw.with_file_name(format!("root-{KERNEL}.tar"));
    sh(
        &format!(
            "tar -xf {} ./boot ./usr/lib/modules/installer\n\
             cp boot/vmlinuz-* tree/vmlinuz\n\
             cp -R usr/lib/modules/installer more/installer\n\
             chmod 0755 more/init\n\
             (cat boot/initrd.img-*; cd more; find . | cpio -o -H newc --quiet | gzip -n) > tree/initrd\n\
             gzip -1 < {raw_text} > tree/disk.gz\n\
             cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 tree/isolinux/\n\
             xorriso -as mkisofs -quiet -R -V TINYINST -o out.iso -b isolinux/isolinux.bin -c isolinux/boot.cat \
             -no-emul-boot -boot-load-size 4 -boot-info-table tree\n",
            root.display()
        ),
        work.path(),
    );
    std::fs::rename(work.path().join("out.iso"), &iso).expect("the same folder");
    iso
}
