//! `devbox parity ssh://…` by a real sshd on loopback: the verdict is that of the directory, and nothing
//! is left on the host.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

#[path = "support/live.rs"]
mod host;

use host::{Host, Place, lines};

/// A small root filesystem.
fn tree(at: &Path) {
    for dir in ["etc", "bin", "run", "var/lib/dpkg"] {
        std::fs::create_dir_all(at.join(dir)).expect("mkdir");
    }
    for (name, text) in [
        ("etc/os-release", "ID=lab\n"),
        ("etc/motd", "hello\n"),
        (
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
        ),
    ] {
        std::fs::write(at.join(name), text).expect("write");
    }
    symlink("busybox", at.join("bin/sh")).expect("symlink");
    std::fs::hard_link(at.join("etc/motd"), at.join("etc/motd.d")).expect("link");
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(at.join("etc/motd"), mode).expect("chmod");
}

/// A copy with owners, times and links.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp").success());
}

#[test]
fn a_host_is_compared_as_its_directory_is_and_nothing_is_left() {
    let host = Host::start(&[]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&a);
    copy(&a, &b);
    let b = b.to_str().expect("UTF-8");
    let live = host.address("/root");
    for level in ["tree", "times", "packages"] {
        let (code, out, err) = host.devbox(&["parity", &live, b, "--level", level]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.starts_with(&format!("equal at level {level}: ")), "{out}");
        assert!(err.contains("the host told this of itself"), "{err}");
    }
    // The strongest that a host can tell, where nobody names a level.
    let (code, out, err) = host.devbox(&["parity", &live, b]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("equal at level tree: "), "{out}");
    let (code, told, _) = host.devbox(&["digest", &live]);
    let (_, own, _) = host.devbox(&["digest", b]);
    assert_eq!((code, told), (0, own));

    std::fs::write(a.join("etc/motd"), "jello\n").expect("write");
    let (code, out, err) = host.devbox(&["parity", b, &live, "--level", "tree", "--json"]);
    assert_eq!(code, 1, "{out}{err}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (json["b"]["of"].as_str(), json["a"]["of"].as_str()),
        (Some("host"), Some("directory"))
    );
    assert_eq!(json["b"]["reference"], live);
    let places: Vec<_> =
        json["differences"].as_array().expect("a list").iter().map(|d| &d["place"]).collect();
    assert_eq!(places, ["/etc/motd", "/etc/motd.d"]);
    assert_eq!(host.left(), [""; 0]);

    // What was asked once is kept as a file.
    let (code, _, err) = host.devbox(&["manifest", &live, "-o", "kept.manifest"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = host.devbox(&["parity", "kept.manifest", "root", "--level", "times"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn sockets_are_left_out_with_a_note() {
    let host = Host::start(&[]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&a);
    copy(&a, &b);
    let _socket = UnixListener::bind(a.join("etc/agent")).expect("bind");
    let live = host.address("/root");
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "tree"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("left out, since no image holds sockets: /etc/agent"), "{err}");
    let (code, _, err) = host.devbox(&["parity", "root", "b", "--level", "tree"]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn a_cut_connection_leaves_nothing_and_is_no_answer() {
    let host = Host::start(&[]);
    let root = host.path("root");
    tree(&root);
    // Zeros without end, as far as this test is concerned.
    let huge = std::fs::File::create(root.join("huge")).expect("create");
    huge.set_len(2 << 40).expect("a sparse file");
    let live = host.address("/root");
    for victim in ["ssh", "devbox"] {
        let running = host.spawn(&["parity", &live, "root", "--level", "tree"]);
        host.wait_until("the host hashes", || !host.hashing().is_empty());
        // Its file is gone as soon as it runs.
        assert_eq!(host.files(), [""; 0]);
        let output = host.kill(running, victim);
        if victim == "ssh" {
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            let err = lines(&output.stderr);
            assert!(err.contains(&format!("the connection to `{live}` broke")), "{err}");
        }
        host.wait_until("nothing is left", || host.left().is_empty());
    }
}

#[test]
fn what_is_in_the_way_is_said() {
    let host = Host::start(&[]);
    tree(&host.path("root"));
    let live = host.address("/root");
    let tree = |address: &str| host.devbox(&["parity", address, "root", "--level", "tree"]);

    let (code, _, err) = host.devbox(&["parity", &live, "root", "--level", "content"]);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("level `content` cannot be told of") && err.contains("`--level tree`"),
        "{err}"
    );
    let (code, _, err) = tree("ssh://a:secret@127.0.0.1");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("a password has no place in an address"), "{err}");
    let (code, _, err) =
        host.devbox(&["parity", &live, "root", "--level", "tree", "--attest", "x"]);
    assert_eq!(code, 2, "{err}");

    let (code, _, err) = tree(&host.address("/nowhere"));
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("could not tell what it holds") && err.contains("cannot open the directory"),
        "{err}"
    );
    let (code, _, err) = tree("ssh://127.0.0.1:1/");
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("Connection refused") && err.contains("Check the port"), "{err}");

    host.forget_host_key();
    let (code, _, err) = tree(&live);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("Host key verification failed") && err.contains("fingerprint"), "{err}");
    host.know_host_key();
    host.refuse_key();
    let (code, _, err) = tree(&live);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("Permission denied") && err.contains("cannot log in"), "{err}");
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_devbox_that_needs_libraries_is_not_sent() {
    let host = Host::start(&[]);
    tree(&host.path("root"));
    let live = host.address("/root");
    let (code, _, err) = host.dynamic(&["parity", &live, "root", "--level", "tree"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("it is not static") && err.contains("crt-static"), "{err}");
    let program = host.program();
    let (code, out, err) =
        host.dynamic(&["parity", &live, "root", "--level", "tree", "--host-binary", program]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) =
        host.dynamic(&["parity", &live, "root", "--level", "tree", "--host-binary", "/bin/sh"]);
    assert_eq!(code, 2, "{err}");
}

/// By a `uname` of another architecture that the host has first in its path.
#[test]
fn another_architecture_proves_packages_by_its_shell_and_nothing_more() {
    let host =
        Host::start(&[Place::Command("uname", "[ \"$1\" = -s ] && echo Linux || echo aarch64")]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&a);
    copy(&a, &b);
    let live = host.address("/root");
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "tree"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("its architecture is aarch64"), "{err}");
    assert!(err.contains("`--level packages`"), "{err}");
    // What no package database says does not count, and nobody says so.
    std::fs::write(a.join("etc/motd"), "jello\n").expect("write");
    let (code, out, err) = host.devbox(&["parity", &live, "b"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("equal at level packages: pkgs1:"), "{out}");
    assert!(
        err.contains(
            "is not compared at level `tree`: no devbox can run there: its architecture is aarch64"
        ),
        "{err}"
    );
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "packages"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("equal at level packages: pkgs1:"), "{out}");
    assert!(err.contains("its shell proves level `packages`, and nothing about any file"), "{err}");
    let status = std::fs::read_to_string(b.join("var/lib/dpkg/status")).expect("read");
    std::fs::write(b.join("var/lib/dpkg/status"), status.replace("Version: 1", "Version: 2"))
        .expect("write");
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "packages", "--all"]);
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("1 -> 2"), "{out}");
    assert_eq!(host.left(), [""; 0]);
}

/// Its database is one of SQLite, made by rpm itself.
#[test]
fn a_system_of_rpm_proves_its_packages_by_a_shell() {
    let host =
        Host::start(&[Place::Command("uname", "[ \"$1\" = -s ] && echo Linux || echo aarch64")]);
    let (a, b) = (host.path("root"), host.path("b"));
    std::fs::create_dir_all(a.join("etc")).expect("mkdir");
    std::fs::create_dir_all(a.join("usr/lib/sysimage/rpm")).expect("mkdir");
    std::fs::create_dir_all(a.join("var/lib")).expect("mkdir");
    std::fs::write(a.join("etc/os-release"), "ID=fedora\n").expect("write");
    symlink("../../usr/lib/sysimage/rpm", a.join("var/lib/rpm")).expect("symlink");
    let make = "printf 'Name: one\\nVersion: 1\\nRelease: 1\\nSummary: x\\nLicense: none\\nBuildArch: noarch\\n\
                %%description\\nx\\n%%files\\n' > one.spec
        rpmbuild -bb --quiet one.spec --define \"_topdir $PWD/top\" --define \"_rpmdir $PWD\" \\
            --define '_rpmfilename one.rpm'
        rpm --dbpath \"$1/usr/lib/sysimage/rpm\" -U --justdb --nodeps --nosignature one.rpm";
    let scratch = tempfile::tempdir().expect("tempdir");
    let made = std::process::Command::new("sh")
        .args(["-ec", make, "sh"])
        .arg(&a)
        .current_dir(&scratch)
        .output()
        .expect("sh");
    assert!(made.status.success(), "{}", lines(&made.stderr));
    copy(&a, &b);
    let live = host.address("/root");
    let packages = |of: &str| host.devbox(&["parity", &live, of, "--level", "packages"]);
    let (code, out, err) = packages("b");
    assert_eq!(code, 0, "{out}{err}");
    let beside = a.join("usr/lib/sysimage/rpm/rpmdb.sqlite-wal");
    std::fs::write(&beside, "x").expect("write");
    let (code, _, err) = packages("b");
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("rpmdb.sqlite` is not whole") && err.contains("--rebuilddb"), "{err}");
    std::fs::remove_file(&beside).expect("remove");
    std::fs::write(a.join("usr/lib/sysimage/rpm/Packages.db"), "").expect("write");
    let (code, _, err) = packages("b");
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("Packages.db` is not read"), "{err}");
    assert_eq!(host.left(), [""; 0]);
}

/// By an `id` that says that the user is not root; the sudo is the system's own.
#[test]
fn sudo_is_used_where_it_asks_nothing() {
    if !rustix::process::geteuid().is_root() {
        return not_run("sudo_is_used_where_it_asks_nothing");
    }
    let host = Host::start(&[Place::Command("id", "echo 1000")]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&a);
    copy(&a, &b);
    let live = host.address("/root");
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "tree"]);
    assert_eq!(code, 0, "{out}{err}");
    let huge = std::fs::File::create(a.join("huge")).expect("create");
    huge.set_len(2 << 40).expect("a sparse file");
    let running = host.spawn(&["parity", &live, "b", "--level", "tree"]);
    host.wait_until("the host hashes", || !host.hashing().is_empty());
    host.kill(running, "ssh");
    host.wait_until("nothing is left", || host.left().is_empty());
}

/// On a busy host the end of the input can end the program just after its last word.
#[test]
fn a_program_that_is_ended_after_its_last_word_has_answered() {
    let ended = "[ \"$2\" = true ] || { shift; \"$@\"; exit 143; }";
    let host = Host::start(&[Place::Command("id", "echo 1000"), Place::Command("sudo", ended)]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&a);
    copy(&a, &b);
    let (code, out, err) = host.devbox(&["parity", &host.address("/root"), "b", "--level", "tree"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn mounts_are_looked_beneath_and_a_host_where_no_program_runs_is_told_as_one() {
    if !rustix::process::geteuid().is_root() {
        return not_run(
            "mounts_are_looked_beneath_and_a_host_where_no_program_runs_is_told_as_one",
        );
    }
    let host = Host::start(&[Place::Tmpfs("root/run")]);
    let (a, b) = (host.path("root"), host.path("b"));
    tree(&b);
    copy(&b, &a.join("new"));
    let moved = std::process::Command::new("sh")
        .args(["-c", "cd \"$0\" && rmdir run && mv new/* . && rmdir new && touch -r ../b ."])
        .arg(&a)
        .status();
    assert!(moved.expect("sh").success());
    host.restart();
    let live = host.address("/root");
    let (code, out, err) = host.devbox(&["parity", &live, "b", "--level", "times"]);
    assert_eq!(code, 0, "{out}{err}");
    drop(host);

    let places = ["/dev/shm", "/run", "/tmp", "/var/tmp"].map(Place::NoExec);
    let host = Host::start(&places);
    tree(&host.path("root"));
    let live = host.address("/root");
    let (code, _, err) = host.devbox(&["parity", &live, "root", "--level", "tree"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("/tmp lets no program run"), "{err}");
    let (code, out, err) = host.devbox(&["parity", &live, "root", "--level", "packages"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn not_run(name: &str) {
    eprintln!("not run: {name}: it needs root");
}
