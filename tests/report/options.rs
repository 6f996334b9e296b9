//! Where reports go.

use crate::lab::{Lab, text};
use crate::told;

#[test]
fn several_forms_go_to_files_and_one_to_standard_output() {
    let lab = Lab::new();
    std::fs::write(lab.path("old.json"), "what was there").expect("write");
    let files = ["--format", "json", "-o", "old.json", "-o", "r.sarif", "-o", "r.xml"];
    let args = [&["parity", "a.raw", "a.raw"], &files[..]].concat();
    let (code, out) = lab.devbox(&args);
    assert_eq!((code, out.as_str()), (0, ""));
    let read = |name: &str| std::fs::read_to_string(lab.path(name)).expect("a report");
    assert_eq!(told::by_json(&read("old.json")).verdict, "equal");
    assert_eq!(told::by_sarif(&read("r.sarif")).verdict, "equal");
    assert_eq!(told::by_junit(&read("r.xml")).verdict, "equal");
    let args = ["parity", "a.raw", "a.raw", "--format=junit", "-o", "r.xml", "--format=text"];
    let (code, out) = lab.devbox(&args);
    assert_eq!(code, 0);
    assert!(out.starts_with("equal at level content: box1:") && out.lines().count() == 1, "{out}");
}

#[test]
fn a_place_that_cannot_be_written_fails_before_anything_is_read() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("folder.json")).expect("mkdir");
    let with = |bad: &str| {
        // The side is not there: whoever read it would end with 3.
        lab.devbox(&["parity", "absent.raw", "a.raw", "-o", "good.json", "-o", bad])
    };
    for (bad, said) in [
        ("no/such/r.xml", "cannot write `no/such/r.xml`"),
        ("folder.json", "it is a directory"),
        ("good.json", "`good.json` is named twice"),
        ("r.pdf", "`r.pdf` does not say which form it has"),
    ] {
        let (code, out) = with(bad);
        assert_eq!(code, 2, "{bad}: {out}");
        assert!(out.contains(said) && out.contains("hint: "), "{out}");
    }
    let left = std::fs::read_dir(lab.path(".")).expect("read").flatten();
    let left: Vec<_> =
        left.filter(|e| e.file_name().to_string_lossy().starts_with(".devbox")).collect();
    assert!(left.is_empty() && !lab.path("good.json").exists(), "{left:?}");
}

#[test]
fn a_padded_disk_that_is_allowed_fails_no_test() {
    let lab = Lab::new();
    let disk = lab.copy("b.raw");
    let file = std::fs::OpenOptions::new().write(true).open(&disk).expect("open");
    file.set_len(33 << 20).expect("grow");
    let args = ["parity", "a.raw", text(&disk), "--level", "disk", "--format", "junit"];
    let (code, out) = lab.devbox(&args);
    assert_eq!(code, 1);
    assert!(out.contains("<failure") && told::by_junit(&out).verdict == "padded", "{out}");
    let (code, out) = lab.devbox(&[&args[..], &["--allow-padding"]].concat());
    assert_eq!(code, 0);
    assert!(!out.contains("<failure") && told::by_junit(&out).verdict == "padded", "{out}");
}
