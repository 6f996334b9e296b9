use std::process::Command;

use super::*;
use crate::source::disk::Loader;
use crate::source::seed::Seed;
use crate::spec::Arch;

fn layout() -> Layout {
    Layout {
        size: 160 << 20,
        epoch: 1_700_000_000,
        seed: Seed::from_text("repack"),
        label: "root".to_owned(),
        arch: Arch::Amd64,
        loader: Loader::Made,
    }
}

fn sh(script: &str, dir: &Path) {
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", script]).current_dir(dir);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C.UTF-8");
    let out = command.output().expect("sh runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// All that a tree can hold.
const TREE: &str = r#"
    mkdir -p t/etc t/dev t/bin "t/$(printf '%0120d' 1)/$(printf '%0120d' 2)" && cd t
    echo root:x:0:0::/root:/bin/sh > etc/passwd && : > etc/empty
    echo hi > etc/a && ln etc/a etc/b && ln -s ../etc/a bin/l && ln -s "$(printf '%0300d' 3)" bin/long && mkfifo etc/p
    echo deep > "$(printf '%0120d' 1)/$(printf '%0120d' 2)/$(printf 'odd \351\n=')"
    printf '#!' > bin/su && chmod 4755 bin/su && chmod 1777 etc
    setfattr -n user.note -v "$(printf '%0200d' 4)" etc/a && setfacl -m u:33:r etc/passwd
    truncate -s 3M bin/sparse && printf end >> bin/sparse
    tar --numeric-owner --owner=7 --group=8 --xattrs --xattrs-include='*' --mtime=@1600000000 -cf ../root.tar .
"#;

async fn assembled(dir: &Path) -> PathBuf {
    sh(TREE, dir);
    let raw = dir.join("made.raw");
    let (tar, layout, cancel) = (dir.join("root.tar"), layout(), CancellationToken::new());
    disk::assemble(&tar, &raw, &layout, &cancel).await.unwrap_or_else(|e| panic!("{e}"));
    raw
}

async fn anew(dir: &Path, raw: &str) -> Result<PathBuf> {
    sh(&format!("qemu-img convert -f raw -O qcow2 {raw} {raw}.qcow2"), dir);
    let out = dir.join(format!("{raw}.anew"));
    let sealed = dir.join(format!("{raw}.qcow2"));
    repack(&sealed, vec![], &layout(), &out, &CancellationToken::new()).await?;
    Ok(out)
}

/// The offset of the root filesystem of the layout.
const ROOT: u64 = 50 << 20;

#[tokio::test]
async fn whatever_blocks_a_tree_stands_in_it_is_written_to_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = assembled(dir.path()).await;
    // Files that come and go leave their blocks, counters and times.
    let script = format!(
        "cp made.raw used.raw; head -c 5000000 /dev/urandom > junk; \
         printf 'write junk /j1\nwrite root.tar /j2\nrm /j1\nwrite junk /j3\nrm /j2\nrm /j3\n' > commands; \
         debugfs -w -f commands 'used.raw?offset={ROOT}'; ! cmp -s made.raw used.raw"
    );
    sh(&script, dir.path());
    let first = anew(dir.path(), "made.raw").await.unwrap_or_else(|e| panic!("{e}"));
    let second = anew(dir.path(), "used.raw").await.unwrap_or_else(|e| panic!("{e}"));
    for other in [&first, &second] {
        sh(&format!("cmp {} {}", made.display(), other.display()), dir.path());
    }
}

#[tokio::test]
async fn what_no_tree_holds_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    assembled(dir.path()).await;
    // The boot code of the disk.
    sh("cp made.raw boot.raw; printf x | dd of=boot.raw bs=1 seek=300 conv=notrunc", dir.path());
    let e = anew(dir.path(), "boot.raw").await.expect_err("the boot code would be lost");
    assert!(e.what() == "a step changed what no tree of files holds", "{e}");
    assert!(e.details().iter().any(|line| line.contains("boot code")), "{e}");
    assert!(!dir.path().join("boot.raw.anew").exists());
    // A flag of a file.
    sh(
        &format!(
            "cp made.raw flag.raw; debugfs -w -R 'sif /etc/passwd flags 0x80010' 'flag.raw?offset={ROOT}'"
        ),
        dir.path(),
    );
    let e = anew(dir.path(), "flag.raw").await.expect_err("the flag would be lost");
    assert!(e.details().iter().any(|line| line.contains("/etc/passwd")), "{e}");
}
