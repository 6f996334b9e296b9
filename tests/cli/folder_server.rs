//! What becomes the server of a folder, before it does: `devbox folder-server` in namespaces of its own.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `script` as the server, behind a gate that is opened with `word`.
fn behind_a_gate(read_only: Option<&Path>, script: &str, word: &[u8]) -> Output {
    let (mut gate, inner) = UnixStream::pair().expect("a pair");
    gate.write_all(word).expect("written");
    drop(gate);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-user=1000", "--map-group=1000", "--mount", "--keep-caps", "--"])
        .args([env!("CARGO_BIN_EXE_devbox"), "folder-server"]);
    if let Some(folder) = read_only {
        command.arg("--read-only").arg(folder);
    }
    command.args(["--", "sh", "-c", script]).stdin(Stdio::null()).stdout(OwnedFd::from(inner));
    command.output().expect("unshare runs")
}

#[test]
fn a_server_keeps_its_rights_when_it_makes_a_file_as_root_and_then_as_others() {
    let out = behind_a_gate(None, "setpriv --dump", b"go");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("no_setuid_fixup"), "{said}");
}

#[test]
fn a_folder_that_is_only_read_takes_no_write_of_its_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("a folder");
    std::fs::create_dir(&place).expect("made");
    let write = format!("echo x > '{}/file'", place.display());
    let out = behind_a_gate(Some(&place), &write, b"go");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("Read-only file system"), "{said}");
    let out = behind_a_gate(None, &write, b"go");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(place.join("file").exists());
    // One that is not there is not served.
    let gone = dir.path().join("gone");
    let out = behind_a_gate(Some(&gone), "echo served >&2", b"go");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("cannot be made read-only") && !said.contains("served"), "{said}");
}

#[test]
fn a_gate_that_closes_lets_no_server_through() {
    let out = behind_a_gate(None, "echo served >&2", b"");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody waits for this server"), "{said}");
}
