//! `devbox init`.

use crate::Sandbox;

#[test]
fn what_init_writes_is_valid_and_keeps_its_comments() {
    let s = Sandbox::new();
    insta::assert_snapshot!(s.run(&["init", "web"]));
    let text = std::fs::read_to_string(s.project().join("devbox.toml")).expect("written");
    assert!(text.contains("name = \"web\"") && text.starts_with("# "));
    assert!(s.run(&["validate"]).starts_with("exit 0\n"));
}

#[test]
fn the_name_is_the_folder_s_unless_given() {
    let s = Sandbox::new();
    s.write("My App/x", "");
    let out = s.devbox().args(["init", "--output", "My App/devbox.toml"]).output().expect("runs");
    assert!(out.status.success(), "{out:?}");
    let text = std::fs::read_to_string(s.project().join("My App/devbox.toml")).expect("written");
    assert!(text.contains("name = \"my-app\""), "{text}");
}

#[test]
fn init_never_overwrites() {
    let s = Sandbox::new();
    s.write("devbox.toml", "precious\n");
    insta::assert_snapshot!(s.run(&["init", "web"]));
    let kept = std::fs::read_to_string(s.project().join("devbox.toml")).expect("there");
    assert_eq!(kept, "precious\n");
    // Not through a dangling link either.
    std::os::unix::fs::symlink("elsewhere", s.project().join("link.toml")).expect("linked");
    assert!(s.run(&["init", "web", "-o", "link.toml"]).starts_with("exit 2\n"));
    assert!(!s.project().join("elsewhere").exists());
}

#[test]
fn a_bad_name_is_refused_before_anything_is_written() {
    let s = Sandbox::new();
    insta::assert_snapshot!(s.run(&["init", "My Web"]));
    assert!(!s.project().join("devbox.toml").exists());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let s = Sandbox::new();
    insta::assert_snapshot!(s.run(&["init", "web", "--output", "no/such/devbox.toml"]));
}
