//! Signatures by real `gpg`.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A home of `gpg` with keys of its own.
struct Signer {
    dir: tempfile::TempDir,
}

impl Signer {
    fn new(names: &[&str]) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let signer = Signer { dir: tempfile::tempdir().expect("a folder") };
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(signer.dir.path(), private).expect("mine");
        for name in names {
            signer.gpg(&["--passphrase", ""], &["--quick-generate-key", name, "ed25519", "sign"]);
        }
        signer
    }

    fn gpg(&self, options: &[&str], command: &[&str]) -> Vec<u8> {
        let out = Command::new("gpg")
            .args(["--batch", "--quiet", "--no-tty", "--yes", "--homedir"])
            .arg(self.dir.path())
            .args(options)
            .args(command)
            .output()
            .expect("gpg is needed for this test");
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    /// The public key of `who` as a file.
    fn key(&self, who: &str, options: &[&str]) -> PathBuf {
        let bytes = self.gpg(options, &["--export", who]);
        self.file(&format!("{who}.key"), &bytes)
    }

    fn print(&self, who: &str) -> String {
        let listed = self.gpg(&["--with-colons"], &["--list-keys", who]);
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a key");
        line.split(':').nth(9).expect("a fingerprint").to_owned()
    }

    /// `text` signed by `who`, as `--clear-sign` or `--detach-sign` write it.
    fn signed(&self, who: &str, how: &[&str], text: &str) -> Vec<u8> {
        let file = self.file("to-sign", text.as_bytes());
        let file = file.to_str().expect("UTF-8");
        self.gpg(&["--local-user", who, "--output", "-"], &[how, &[file]].concat())
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent holds the keys, and would outlive the test.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.dir.path())
            .args(["--kill", "all"])
            .status();
    }
}

/// The keys of these files.
fn read(files: &[PathBuf], only: &[String]) -> Result<Keys> {
    let file = |path: &PathBuf| KeyFile {
        name: path.display().to_string(),
        bytes: fs::read(path).expect("read"),
    };
    Keys::read(&files.iter().map(file).collect::<Vec<_>>(), only)
}

const TEXT: &str = "# sums\n- a line with a dash\nabc  disk.img\n";

fn detached<'a>(text: &'a str, signature: &'a [u8]) -> Signed<'a> {
    Signed { text, origin: "SUMS", signature: Some((signature, "SUMS.sig")) }
}

fn clear(text: &str) -> Signed<'_> {
    Signed { text, origin: "SUMS", signature: None }
}

#[test]
fn what_a_named_key_signed_is_taken_in_every_form() {
    let signer = Signer::new(&["ann", "bob"]);
    for options in [&["--armor"][..], &[]] {
        let keys = read(&[signer.key("ann", options), signer.key("bob", options)], &[]);
        let keys = keys.expect("keys");
        assert_eq!(keys.fingerprints, [signer.print("ann"), signer.print("bob")]);
        for armour in [&["--armor", "--detach-sign"][..], &["--detach-sign"]] {
            let signature = signer.signed("bob", armour, TEXT);
            assert_eq!(keys.verified(detached(TEXT, &signature)).expect("good"), TEXT);
        }
        let signed =
            String::from_utf8(signer.signed("ann", &["--clear-sign"], TEXT)).expect("text");
        assert!(signed.contains("- - a line"), "{signed}");
        assert_eq!(keys.verified(clear(&signed)).expect("good"), TEXT);
    }
    let joined = [signer.key("ann", &["--armor"]), signer.key("bob", &["--armor"])]
        .map(|key| fs::read(key).expect("read"))
        .concat();
    let joined = signer.file("both.asc", &joined);
    assert_eq!(read(&[joined], &[]).expect("keys").fingerprints.len(), 2);
}

#[test]
fn anybody_else_and_anything_changed_is_refused_with_both_sides_named() {
    let signer = Signer::new(&["ann", "bob"]);
    let (ann, bob) = (signer.print("ann"), signer.print("bob"));
    let keys = read(&[signer.key("ann", &["--armor"])], &[]).expect("keys");
    let refused = |keys: &Keys, signed: Signed<'_>, why: &str| {
        let e = keys.verified(signed).expect_err(why);
        assert_eq!(e.kind(), Kind::Trust, "{e}");
        let text = e.to_string();
        assert!(text.contains("`SUMS`") && text.contains(why) && text.contains(&ann), "{text}");
        text
    };
    let by_bob = signer.signed("bob", &["--detach-sign"], TEXT);
    let text = refused(&keys, detached(TEXT, &by_bob), "not among the keys");
    assert!(text.contains(&bob[24..]), "{text}");
    let by_ann = signer.signed("ann", &["--detach-sign"], TEXT);
    let changed = TEXT.replace("abc", "abd");
    refused(&keys, detached(&changed, &by_ann), "the file was changed");
    refused(&keys, detached(TEXT, b"nonsense"), "no signature that can be read");
    refused(&keys, clear(TEXT), "the file is not signed");
    let signed = String::from_utf8(signer.signed("ann", &["--clear-sign"], TEXT)).expect("text");
    refused(&keys, clear(&signed.replace("abc", "abd")), "the file was changed");
    refused(&keys, clear(&format!("x  y\n{signed}")), "line 1 stands outside");
    let weak = signer.signed("ann", &["--digest-algo", "SHA1", "--detach-sign"], TEXT);
    refused(&keys, detached(TEXT, &weak), "cannot be checked: too weak");

    // Of the two keys at hand only one may sign.
    let both = [signer.key("ann", &[]), signer.key("bob", &[])];
    let only = read(&both, &[ann.to_lowercase()]).expect("keys");
    assert!(only.verified(detached(TEXT, &by_ann)).is_ok());
    refused(&only, detached(TEXT, &by_bob), "`fingerprints` leaves out");
    let e = read(&both[..1], &[bob]).expect_err("no such key").to_string();
    assert!(e.contains("no key in `keys` has the fingerprint"), "{e}");
}

#[test]
fn a_key_that_was_revoked_signs_nothing_any_more() {
    let signer = Signer::new(&["ann"]);
    let signature = signer.signed("ann", &["--detach-sign"], TEXT);
    let print = signer.print("ann");
    let stored = signer.dir.path().join(format!("openpgp-revocs.d/{print}.rev"));
    // A colon in front keeps it from being used by accident.
    let revocation =
        fs::read_to_string(stored).expect("made with the key").replace("\n:---", "\n---");
    let file = signer.file("revocation", revocation.as_bytes());
    signer.gpg(&[], &["--import", file.to_str().expect("UTF-8")]);
    let keys = read(&[signer.key("ann", &["--armor"])], &[]).expect("keys");
    let e = keys.verified(detached(TEXT, &signature)).expect_err("revoked").to_string();
    assert!(e.contains("a key that was revoked"), "{e}");
}

#[test]
fn what_only_a_key_that_ended_has_signed_is_not_proven() {
    let signer = Signer::new(&["ann"]);
    // `gpg` signs by no key that has expired, so it signs while the key holds.
    signer.gpg(
        &["--passphrase", ""],
        &["--quick-generate-key", "bob", "ed25519", "sign", "seconds=3"],
    );
    let framed =
        |who: &str| String::from_utf8(signer.signed(who, &["--clear-sign"], TEXT)).expect("UTF-8");
    let (by_ann, by_bob) = (framed("ann"), framed("bob"));
    std::thread::sleep(std::time::Duration::from_secs(4));
    let keys = read(&[signer.key("ann", &[]), signer.key("bob", &[])], &[]).expect("keys");
    let status = |text: &str| keys.gpgv(text, None).expect("gpgv runs").0;
    proven(&status(&by_ann)).expect("good");
    let found = proven(&status(&by_bob)).expect_err("expired");
    assert!(found[0].starts_with("a signature of a key that has expired, key "), "{found:?}");
    let found = proven(&status(&by_ann.replace("disk.img", "disk.bad"))).expect_err("changed");
    assert!(found[0].starts_with("a signature of something else"), "{found:?}");
}

#[test]
fn a_file_that_is_no_public_key_is_refused() {
    let signer = Signer::new(&["ann"]);
    let secret = signer.gpg(&["--passphrase", ""], &["--export-secret-keys", "ann"]);
    let keybox = fs::read(signer.dir.path().join("pubring.kbx")).expect("read");
    for (bytes, why) in [
        (&secret[..], "a secret key"),
        (&keybox, "a keybox"),
        (b"ssh-ed25519 AAAA", "no block of public keys"),
        (b"", "no block of public keys"),
    ] {
        let file = signer.file("k", bytes);
        let e = read(&[file], &[]).expect_err(why).to_string();
        assert!(e.contains(why), "{why}: {e}");
    }
}
