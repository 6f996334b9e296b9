//! The scripts in `provisioners/` against a server that somebody else has taken over: what its key has not
//! signed is refused before anything is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with a key, and a `curl` that serves what is in `files` by the last part of an address.
struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Server { dir: tempfile::tempdir().expect("a folder") };
        for name in ["bin", "files", "gnupg"] {
            fs::create_dir(server.path(name)).expect("made");
        }
        fs::set_permissions(server.path("gnupg"), fs::Permissions::from_mode(0o700)).expect("mode");
        server.gpg(&["--passphrase", "", "--quick-generate-key", "attacker", "ed25519", "sign"]);
        let files = server.path("files");
        server.program(
            "curl",
            &format!(
                "while [ $# -gt 1 ]; do case $1 in --output) out=$2; shift ;; esac; shift; done\n\
                 exec cp {}/\"${{1##*/}}\" \"$out\"",
                files.display()
            ),
        );
        // Whatever would change the system is the failure that the test looks for.
        for name in ["apt-get", "apt-mark", "install", "systemctl", "useradd", "dpkg"] {
            let called = server.path("called");
            server.program(name, &format!("echo \"{name} $*\" >> {}", called.display()));
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
    }

    fn gpg(&self, args: &[&str]) -> Output {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--quiet", "--homedir"]).arg(self.path("gnupg"));
        let out = command.args(args).stdin(Stdio::null()).output().expect("gpg runs");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out
    }

    /// The key of whoever has taken the server over, as it would be served under this name.
    fn serve_key(&self, name: &str) -> String {
        let key = self.gpg(&["--armor", "--export", "attacker"]).stdout;
        fs::write(self.path("files").join(name), key).expect("written");
        let shown = self.gpg(&["--with-colons", "--list-keys", "attacker"]).stdout;
        let shown = String::from_utf8_lossy(&shown).into_owned();
        let print =
            shown.lines().find_map(|line| line.strip_prefix("fpr:")).expect("a fingerprint");
        print.trim_matches(':').to_owned()
    }

    fn run(&self, script: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
        let path = std::env::var("PATH").unwrap_or_default();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioners").join(script);
        let mut command = Command::new("sh");
        command.arg(script).env("PATH", format!("{}:{path}", self.path("bin").display()));
        let out = command.envs(env.iter().copied()).output().expect("runs");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn called(&self) -> String {
        fs::read_to_string(self.path("called")).unwrap_or_default()
    }
}

#[test]
fn a_key_that_is_not_the_vendors_is_refused() {
    for (script, name, env) in [
        ("docker.sh", "gpg", &[][..]),
        ("kubernetes-node.sh", "Release.key", &[("KUBERNETES_MINOR", "1.31")][..]),
    ] {
        let server = Server::new();
        let print = server.serve_key(name);
        let (code, said) = server.run(script, env);
        assert_eq!(code, Some(1), "{script}: {said}");
        assert!(said.contains(&format!("`{print}`, expected ")), "{script}: {said}");
        // The packages that the check itself needs are all that was asked for.
        let called = server.called();
        assert!(!called.contains("keyring") && !called.contains("kubeadm"), "{script}: {called}");
        assert!(!called.contains("docker-ce"), "{script}: {called}");
    }
}

#[test]
fn a_release_that_the_vendor_has_not_signed_is_refused() {
    let server = Server::new();
    let print = server.serve_key("pgp-key.txt");
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let (zip, sums) = (format!("consul_1.2.3_linux_{arch}.zip"), "consul_1.2.3_SHA256SUMS");
    let files = server.path("files");
    fs::write(files.join(&zip), "something else").expect("written");
    let digest = devbox::digest::FileDigest::of(b"what was signed").hex();
    fs::write(files.join(sums), format!("{digest}  {zip}\n")).expect("written");
    let (list, signature) = (files.join(sums), files.join(format!("{sums}.sig")));
    let [list, signature] = [&list, &signature].map(|path| path.to_str().expect("text"));
    server.gpg(&["--output", signature, "--detach-sign", list]);

    let version = ("CONSUL_VERSION", "1.2.3");
    let (code, said) = server.run("consul.sh", &[version]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("SHA256SUMS is not signed by C874011F0AB405110D02105534365D9472D7468F"),
        "{said}"
    );
    // Signed by whom it should be, and another archive than the one that was signed.
    let (code, said) = server.run("consul.sh", &[version, ("CONSUL_FINGERPRINT", &print)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("sha256sum"), "{said}");
    assert_eq!(server.called(), "");
}
