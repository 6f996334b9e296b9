//! Help, version and wrong usage.

use crate::Sandbox;

#[test]
fn help_lists_every_verb_in_the_order_of_the_work() {
    let s = Sandbox::new();
    let out = s.run(&["--help"]);
    assert!(out.starts_with("exit 0\n"), "{out}");
    let verbs = [
        "init",
        "validate",
        "schema",
        "build",
        "up",
        "halt",
        "reload",
        "destroy",
        "status",
        "list",
        "ssh",
        "exec",
        "cp",
        "ssh-config",
        "port",
        "logs",
        "console",
        "screenshot",
        "box",
        "cache",
        "parity",
        "digest",
        "manifest",
        "verify-attestation",
        "completions",
    ];
    let mut from = 0;
    for verb in verbs {
        let at = out[from..].find(&format!("\n  {verb} "));
        from += at.unwrap_or_else(|| panic!("`{verb}` is missing or out of order:\n{out}"));
    }
}

#[test]
fn every_verb_explains_itself() {
    let s = Sandbox::new();
    for verb in [
        "init",
        "validate",
        "schema",
        "build",
        "up",
        "halt",
        "reload",
        "destroy",
        "status",
        "list",
        "ssh",
        "exec",
        "cp",
        "ssh-config",
        "port",
        "logs",
        "console",
        "screenshot",
        "box",
        "cache",
        "parity",
        "digest",
        "manifest",
        "verify-attestation",
        "completions",
    ] {
        let out = s.run(&[verb, "--help"]);
        assert!(out.starts_with("exit 0\n") && out.contains("Usage: devbox"), "{verb}: {out}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let s = Sandbox::new();
    let expected =
        format!("exit 0\n--- stdout\ndevbox {}\n--- stderr\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(s.run(&["--version"]), expected);
}

#[test]
fn wrong_usage_exits_2_and_suggests() {
    let s = Sandbox::new();
    for args in [&["valdiate"][..], &["validate", "--jsn"], &["-q", "-v", "schema"], &[]] {
        let out = s.run(args);
        assert!(out.starts_with("exit 2\n--- stdout\n--- stderr\n"), "{args:?}: {out}");
    }
    insta::assert_snapshot!(s.run(&["valdiate"]));
}

#[test]
fn no_escape_codes_reach_a_pipe() {
    let s = Sandbox::new();
    s.write("devbox.toml", "name = 1\n");
    for args in [&["--help"][..], &["validate"], &["nonsense"], &["init"], &["init", "web"]] {
        assert!(!s.run(args).contains('\u{1b}'), "{args:?}");
    }
}
