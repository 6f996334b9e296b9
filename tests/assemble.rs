//! A disk from a small root tree: verified by the system's own tools, and the same bytes twice.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devbox::source::disk::{Layout, Loader, assemble};
use devbox::source::seed::Seed;
use devbox::spec::Arch;
use tokio_util::sync::CancellationToken;

fn layout(mib: u64) -> Layout {
    Layout {
        size: mib << 20,
        epoch: 1_700_000_000,
        seed: Seed::from_text("assemble"),
        label: "root".to_owned(),
        arch: Arch::Amd64,
        loader: Loader::Made,
    }
}

fn run(program: &str, args: &[&str]) -> (bool, String) {
    let out = Command::new(program)
        .args(args)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A tree with what a copy loses easily: owner, setuid, hard and symbolic links, a fifo, an ACL-free
/// attribute, a large sparse file, an odd name, a folder that only its files name.
fn tree(dir: &Path) -> PathBuf {
    let tar = dir.join("root.tar");
    let script = r#"
        set -eu
        mkdir -p t/etc t/bin t/deep/er && cd t
        echo hi > etc/a && ln etc/a etc/b && ln -s ../etc/a bin/l && mkfifo etc/p
        printf 'x' > "etc/odd name=é" && printf '#!' > bin/su && chmod 4755 bin/su
        truncate -s 3M deep/er/sparse && printf end >> deep/er/sparse
        tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@1600000000 -cf "$1" etc bin deep/er/sparse
    "#;
    let out = Command::new("sh").args(["-c", script, "sh"]).arg(&tar).current_dir(dir).output();
    let out = out.expect("sh runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    tar
}

async fn disk(dir: &Path, tar: &Path, name: &str, layout: &Layout) -> PathBuf {
    let out = dir.join(name);
    assemble(tar, &out, layout, &CancellationToken::new()).await.unwrap_or_else(|e| panic!("{e}"));
    out
}

#[tokio::test]
async fn the_same_tree_gives_the_same_bytes_and_clean_filesystems() {
    let dir = tempfile::tempdir().expect("a folder");
    let tar = tree(dir.path());
    let layout = layout(160);
    let one = disk(dir.path(), &tar, "one.raw", &layout).await;
    // Change times of files have whole seconds in ext4: another second is another copy.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let two = disk(dir.path(), &tar, "two.raw", &layout).await;
    let (same, text) = run("cmp", &[&one.to_string_lossy(), &two.to_string_lossy()]);
    assert!(same, "{text}");

    let one = one.to_string_lossy().into_owned();
    let (ok, text) = run("sfdisk", &["--verify", &one]);
    assert!(ok && text.contains("No errors detected"), "{text}");
    let (_, dump) = run("sfdisk", &["--dump", &one]);
    assert!(dump.contains("label: gpt") && dump.contains("name=\"root\""), "{dump}");
    let part = |at: u64, mib: u64, name: &str| {
        let file = dir.path().join(name);
        let (ok, text) = run(
            "dd",
            &[
                &format!("if={one}"),
                &format!("of={}", file.display()),
                "bs=1M",
                &format!("skip={at}"),
                &format!("count={mib}"),
            ],
        );
        assert!(ok, "{text}");
        file.to_string_lossy().into_owned()
    };
    let (ok, text) = run("fsck.vfat", &["-n", &part(2, 48, "esp")]);
    assert!(ok, "{text}");
    let root = part(50, 109, "root");
    let (ok, text) = run("e2fsck", &["-fn", &root]);
    assert!(ok, "{text}");
    let (_, features) = run("dumpe2fs", &["-h", &root]);
    assert!(features.contains(&layout.ids().root.to_string()), "{features}");
    assert!(!features.contains("orphan_file"), "{features}");
    let (_, stat) = run("debugfs", &["-R", "stat /bin/su", &root]);
    assert!(stat.contains("Mode:  04755") && stat.contains("User:     0"), "{stat}");
    assert!(stat.contains(" ctime: 0x6553f100:00000000"), "{stat}");
    // A folder that the archive does not list has no time of its own: the clamp gives it the epoch.
    let (_, stat) = run("debugfs", &["-R", "stat /deep", &root]);
    assert!(stat.contains(" mtime: 0x6553f100:00000000"), "{stat}");
}

#[tokio::test]
async fn a_tree_that_does_not_fit_names_a_size_that_it_fits_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let tar = dir.path().join("big.tar");
    let script = "mkdir t && head -c 60000000 /dev/urandom > t/a && tar -C t --owner=0 --group=0 -cf \"$1\" .";
    let mut sh = Command::new("sh");
    let made = sh.args(["-c", script, "sh"]).arg(&tar).current_dir(dir.path()).status();
    assert!(made.expect("sh runs").success());
    let out = dir.path().join("small.raw");
    let e = assemble(&tar, &out, &layout(100), &CancellationToken::new()).await;
    let e = e.expect_err("60 MB do not fit").to_string();
    assert!(e.contains("do not fit on a disk of 100 MiB"), "{e}");
    assert!(!out.exists());
    let needed: u64 = e
        .split_once('`')
        .and_then(|_| e.split("MiB` or more").next())
        .and_then(|s| s.rsplit('`').next())
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| panic!("no size in {e}"));
    disk(dir.path(), &tar, "fits.raw", &layout(needed)).await;
}

#[tokio::test]
async fn an_interrupt_leaves_no_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let tar = tree(dir.path());
    let out = dir.path().join("never.raw");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let e = assemble(&tar, &out, &layout(160), &cancel).await.expect_err("interrupted");
    assert_eq!(e.kind(), devbox::error::Kind::Interrupted);
    assert!(!out.exists());
}
