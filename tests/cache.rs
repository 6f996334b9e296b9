//! Digests of unchanged files are remembered, and never longer than the file is unchanged.

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, put, text, tool};

impl Lab {
    fn json(&self, args: &[&str]) -> (i32, serde_json::Value) {
        let (code, out) = self.devbox(&[args, &["--json"]].concat());
        (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}")))
    }

    /// Digest and whether it was remembered.
    fn digest(&self, more: &[&str]) -> (String, bool) {
        let (code, json) = self.json(&[&["digest", "a.raw"], more].concat());
        assert_eq!(code, 0, "{json}");
        let digest = json["digests"][0].as_str().expect("a digest").to_owned();
        (digest, json["cached"].as_bool().expect("cached"))
    }

    /// Computes until the files have rested long enough to be remembered.
    fn until_remembered(&self, args: &[&str], cached: impl Fn(&serde_json::Value) -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !cached(&self.json(args).1) {
            assert!(Instant::now() < end, "never remembered: {args:?}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

fn entries(lab: &Lab) -> Vec<std::path::PathBuf> {
    let list = std::fs::read_dir(lab.path("home/cache/digests")).expect("the cache");
    list.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn an_unchanged_image_is_hashed_once_and_a_changed_one_again() {
    let lab = Lab::new();
    let (box1, cached) = lab.digest(&[]);
    assert!(!cached, "written a moment ago");
    // The sides of a comparison rest together.
    lab.copy("same.raw");
    lab.convert("z.qcow2", &["qcow2", "-c"]);
    lab.changed(&["rm /etc/shadow"]);
    let same = ["parity", "a.raw", "same.raw"];
    lab.until_remembered(&same, |json| json["a"]["cached"] == true && json["b"]["cached"] == true);
    assert_eq!(lab.digest(&[]), (box1.clone(), true));
    assert_eq!(lab.digest(&["--recompute"]), (box1.clone(), false));
    assert!(!lab.digest(&["--level", "disk"]).1, "another level");
    assert!(!lab.digest(&["--max-depth", "99"]).1, "other limits");
    let (code, json) = lab.json(&same);
    assert_eq!((code, &json["verdict"]), (0, &"equal".into()));
    let notes = json["notes"].to_string();
    assert!(notes.contains("a.raw: from the cache") && notes.contains("same.raw: from"), "{notes}");
    let (code, json) = lab.json(&[&same[..], &["--recompute"]].concat());
    assert_eq!(
        (code, &json["a"]["cached"], &json["b"]["cached"]),
        (0, &false.into(), &false.into())
    );
    lab.until_remembered(&["parity", "a.raw", "z.qcow2"], |json| json["b"]["cached"] == true);
    // What differs is read, and listed.
    lab.until_remembered(&["digest", "b.raw"], |json| json["cached"] == true);
    let (code, json) = lab.json(&["parity", "a.raw", "b.raw"]);
    assert_eq!(
        (code, &json["a"]["cached"], &json["b"]["cached"]),
        (1, &false.into(), &false.into())
    );
    assert_eq!(json["differences"][0]["place"], "3:/etc/shadow", "{json}");
    // A manifest is always read; it stands in for the image all the same.
    let (code, _) = lab.devbox(&["manifest", "a.raw", "-o", "a.manifest"]);
    assert_eq!(code, 0);
    let (code, json) = lab.json(&["parity", "a.manifest", "a.raw"]);
    assert_eq!(
        (code, &json["a"]["cached"], &json["b"]["cached"]),
        (0, &false.into(), &true.into())
    );

    // Damage is no answer, and is mended.
    for entry in entries(&lab) {
        let mut bytes = std::fs::read(&entry).expect("read");
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&entry, bytes).expect("write");
    }
    assert_eq!(lab.digest(&[]), (box1.clone(), false));
    assert_eq!(lab.digest(&[]), (box1.clone(), true));

    // Many at once.
    let folder = lab.path("home/cache/digests");
    std::fs::remove_dir_all(&folder).expect("remove");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(lab.digest(&[]).0, box1));
        }
    });
    assert_eq!(lab.digest(&[]), (box1.clone(), true));
    assert_eq!(entries(&lab).len(), 1, "no temporary file is left");

    // No cache at all.
    std::fs::remove_dir_all(&folder).expect("remove");
    std::fs::write(&folder, b"in the way").expect("write");
    assert_eq!(lab.digest(&[]), (box1.clone(), false));
    std::fs::remove_file(&folder).expect("remove");
    assert_eq!(lab.digest(&[]), (box1.clone(), false));
    assert_eq!(lab.digest(&[]), (box1.clone(), true));

    // One byte, and the time put back.
    let image = lab.path("a.raw");
    change_unseen(&image);
    let (changed, cached) = lab.digest(&[]);
    assert!(!cached && changed != box1, "{changed}");
    // The old file in its place is another one.
    std::fs::copy(lab.path("same.raw"), lab.path("new.raw")).expect("copy");
    std::fs::rename(lab.path("new.raw"), &image).expect("rename");
    assert_eq!(lab.digest(&[]), (box1, false));
}

/// Changes a byte of boot code; size and mtime are what they were.
fn change_unseen(image: &Path) {
    let before = std::fs::metadata(image).and_then(|meta| meta.modified()).expect("mtime");
    put(image, 100, b"X");
    let file = std::fs::File::options().write(true).open(image).expect("open");
    file.set_modified(before).expect("mtime");
    let after = std::fs::metadata(image).and_then(|meta| meta.modified()).expect("mtime");
    assert_eq!(before, after, "{}", text(image));
    tool("sync", &["-d", text(image)]);
}
