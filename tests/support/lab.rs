//! A disk image made by `mke2fs`, `mkfs.vfat`, `sfdisk` and `qemu-img`, and changed by `debugfs`: tools
//! that know nothing of devbox.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// First sector of the root partition and its size in sectors.
pub(crate) const ROOT: (u64, u64) = (8192, 49_152);

/// Runs a program that must succeed; looks in `sbin` too.
pub(crate) fn tool(program: &str, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let out = Command::new(program).args(args).env("PATH", path).env("TZ", "UTC").output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A folder with a system's disk in it: GPT, BIOS-boot partition, ESP, ext4 root.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Lab::with(&[])
    }

    /// With these options of `mke2fs` for the root filesystem.
    pub(crate) fn with(options: &[&str]) -> Self {
        let lab = Lab { dir: tempfile::tempdir().expect("tempdir") };
        let root = lab.path("root");
        for dir in ["", "etc", "bin", "boot", "boot/grub", "dev"] {
            std::fs::create_dir(root.join(dir)).expect("mkdir");
        }
        std::fs::write(root.join("etc/os-release"), "ID=lab\n").expect("write");
        std::fs::write(root.join("etc/motd"), "hello\n").expect("write");
        std::fs::write(root.join("etc/shadow"), "root:*:\n").expect("write");
        std::fs::write(root.join("bin/busybox"), elf()).expect("write");
        symlink("busybox", root.join("bin/sh")).expect("symlink");
        std::fs::hard_link(root.join("etc/motd"), root.join("etc/motd.d")).expect("link");
        let grub = "menuentry 'Lab' {\n linux /vmlinuz root=/dev/vda3 ro\n initrd /initrd\n}\n";
        std::fs::write(root.join("boot/grub/grub.cfg"), grub).expect("write");
        for (name, mode) in [("etc/shadow", 0o640), ("bin/busybox", 0o4755)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(root.join(name), mode).expect("chmod");
        }
        let fs = lab.path("root.ext4");
        make_file(&fs, ROOT.1 * 512);
        let usual = ["-q", "-t", "ext4", "-L", "root", "-d", text(&root), text(&fs)];
        tool("mke2fs", &[options, &usual].concat());
        lab.debugfs(
            &fs,
            &[
                "ea_set /bin/busybox user.note 1",
                "cd /dev",
                "mknod null c 1 3",
                "set_inode_field /etc/motd uid 1000",
            ],
        );
        let esp = lab.path("esp.fat");
        make_file(&esp, 2 << 20);
        tool("mkfs.vfat", &["--invariant", "-i", "12345678", text(&esp)]);
        for dir in ["::EFI", "::EFI/BOOT"] {
            tool("mmd", &["-i", text(&esp), dir]);
        }
        let loader = text(&root.join("etc/motd")).to_owned();
        tool("mcopy", &["-i", text(&esp), &loader, "::EFI/BOOT/BOOTX64.EFI"]);
        let disk = lab.path("a.raw");
        make_file(&disk, 32 << 20);
        let script = lab.path("table");
        let table = "label: gpt\nlabel-id: 6D8E2A3C-1111-4222-8333-444455556666\n\
            start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios, uuid=6D8E2A3C-0000-4222-8333-000000000001\n\
            start=4096, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp, uuid=6D8E2A3C-0000-4222-8333-000000000002\n\
            start=8192, size=49152, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=6D8E2A3C-0000-4222-8333-000000000003\n";
        std::fs::write(&script, table).expect("write");
        let command = format!("sfdisk -q {} < {}", text(&disk), text(&script));
        tool("sh", &["-c", &command]);
        put(&disk, 0, b"\xeb\x63\x90");
        put(&disk, 2048 * 512, b"core image");
        put(&disk, 4096 * 512, &std::fs::read(esp).expect("read"));
        put(&disk, ROOT.0 * 512, &std::fs::read(fs).expect("read"));
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of the disk in which `change` was made to the root filesystem with `debugfs`.
    pub(crate) fn changed(&self, requests: &[&str]) -> PathBuf {
        let disk = self.copy("b.raw");
        let fs = self.path("changed.ext4");
        std::fs::copy(self.path("root.ext4"), &fs).expect("copy");
        self.debugfs(&fs, requests);
        put(&disk, ROOT.0 * 512, &std::fs::read(fs).expect("read"));
        disk
    }

    /// Runs requests of `debugfs`; names that it makes must be without slashes.
    pub(crate) fn debugfs(&self, fs: &Path, requests: &[&str]) {
        let script = self.path("requests");
        std::fs::write(&script, requests.join("\n")).expect("write");
        tool("debugfs", &["-w", "-f", text(&script), text(fs)]);
    }

    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        std::fs::copy(self.path("a.raw"), &to).expect("copy");
        to
    }

    pub(crate) fn convert(&self, name: &str, format: &[&str]) -> PathBuf {
        let to = self.path(name);
        let from = self.path("a.raw");
        let args = [&["convert", "-f", "raw", "-O"], format, &[text(&from), text(&to)]].concat();
        tool("qemu-img", &args);
        to
    }

    /// Exit code and standard output of `devbox`.
    pub(crate) fn devbox(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(args)
            .env("DEVBOX_HOME", self.path("home"))
            .current_dir(self.dir.path())
            .output()
            .expect("devbox runs");
        let stdout = String::from_utf8(out.stdout).expect("UTF-8");
        let stderr = String::from_utf8_lossy(&out.stderr);
        let text = if out.status.code() > Some(1) { stderr.into_owned() } else { stdout };
        (out.status.code().unwrap_or(-1), text)
    }
}

/// The header of an ELF file for x86-64, which is all that is looked at.
fn elf() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    elf
}

fn make_file(path: &Path, size: u64) {
    std::fs::File::create(path).and_then(|file| file.set_len(size)).expect("a sparse file");
}

pub(crate) fn put(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(bytes, at).expect("write");
}
