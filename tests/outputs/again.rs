//! What a build does when the outputs of the box are there already.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::desk::{ALL, Desk, names};
use crate::lab::{text, tool};

/// The outputs in `dist`: inode by name.
fn inodes(desk: &Desk) -> BTreeMap<String, u64> {
    let ends = [".qcow2", ".raw", ".vmdk", ".ova", ".vhd", ".vhdx", ".gz", ".box", ".tar"];
    let is_output = |name: &String| ends.iter().any(|end| name.ends_with(end));
    names(&desk.path("dist"))
        .into_iter()
        .filter(is_output)
        .map(|name| {
            let meta = std::fs::metadata(desk.path("dist").join(&name)).expect("there");
            (name, meta.ino())
        })
        .collect()
}

fn changed(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    after.iter().filter(|(name, inode)| before[*name] != **inode).map(|(n, _)| n.clone()).collect()
}

#[test]
fn what_is_as_it_was_written_is_left_and_what_is_not_is_written_again() {
    let desk = Desk::new(&ALL, "");
    let first = desk.build("dist");
    let before = inodes(&desk);
    assert_eq!(before.len(), ALL.len());
    let sums = std::fs::read(desk.path("dist/SHA256SUMS")).expect("there");

    assert_eq!(desk.build("dist"), first, "the same is told of what was left");
    assert_eq!(changed(&before, &inodes(&desk)), [""; 0]);
    assert_eq!(std::fs::read(desk.path("dist/SHA256SUMS")).expect("there"), sums);

    // One byte, with the time set back: the time of the inode tells.
    let raw = desk.path("dist/web-1.2.0.raw");
    let time = std::fs::metadata(&raw).and_then(|m| m.modified()).expect("a time");
    std::thread::sleep(Duration::from_millis(30));
    tool("sh", &["-c", &format!("printf X | dd of={} bs=1 seek=9000000 conv=notrunc", text(&raw))]);
    let file = std::fs::File::options().write(true).open(&raw).expect("opens");
    file.set_modified(time).expect("set back");
    drop(file);
    // Another one in its place, and one that is gone.
    let vhd = desk.path("dist/web-1.2.0.vhd");
    std::fs::copy(&vhd, desk.path("dist/copy")).expect("copied");
    std::fs::rename(desk.path("dist/copy"), &vhd).expect("renamed");
    std::fs::remove_file(desk.path("dist/web-1.2.0.ova")).expect("removed");
    let between: BTreeMap<_, _> = before
        .iter()
        .map(|(name, inode)| {
            let now = std::fs::metadata(desk.path("dist").join(name)).map(|m| m.ino());
            (name.clone(), now.unwrap_or(*inode))
        })
        .collect();
    assert_eq!(desk.build("dist"), first);
    let rewritten = changed(&between, &inodes(&desk));
    for name in ["web-1.2.0.ova", "web-1.2.0.raw", "web-1.2.0.vhd"] {
        // A filesystem may give the inode of a removed file to the next one.
        assert!(rewritten.contains(&name.to_owned()) || name.ends_with("ova"), "{rewritten:?}");
    }
    assert!(rewritten.len() <= 3, "{rewritten:?}");
    let sums = [
        "-c",
        &format!("cd {} && sha256sum -c --strict --quiet SHA256SUMS", text(&desk.path("dist"))),
    ];
    tool("sh", &sums);

    // What the OVA says of the machine is another thing; nothing else is.
    let before = inodes(&desk);
    desk.spec(&ALL, "[machine]\nmemory = \"3GiB\"\n");
    desk.build("dist");
    assert!(!changed(&before, &inodes(&desk)).is_empty());
}
