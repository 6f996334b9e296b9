//! `devbox parity --attest` and `devbox verify-attestation`, with keys and an agent of OpenSSH; and the
//! same without devbox, as `docs/attestation.md` says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, put, text, tool};

const SIGNER: &str = "release@example.org";

/// Exit code, standard output and standard error.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(out: Output) -> Self {
        Ran {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8(out.stdout).expect("UTF-8"),
            err: String::from_utf8(out.stderr).expect("UTF-8"),
        }
    }
}

impl Lab {
    /// A lab with `a.raw`, the same disk as `b.qcow2`, and a key that is trusted.
    fn with_key() -> Self {
        let lab = Lab::new();
        lab.convert("b.qcow2", &["qcow2"]);
        lab.key("release", "");
        lab.trust("trust", "release", "namespaces=\"devbox-attestation\"");
        lab
    }

    fn key(&self, name: &str, passphrase: &str) {
        let key = self.path(name);
        tool(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", passphrase, "-C", SIGNER, "-f", text(&key)],
        );
    }

    fn trust(&self, name: &str, key: &str, options: &str) {
        let public = std::fs::read_to_string(self.path(&format!("{key}.pub"))).expect("a key");
        let line = format!("# who may sign\n{SIGNER} {options} {public}");
        std::fs::write(self.path(name), line).expect("write");
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command
            .args(words.split(' '))
            .env("DEVBOX_HOME", self.path("home"))
            .env("TZ", "UTC")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("DEVBOX_SIGNING_KEY")
            .current_dir(self.path(""));
        command
    }

    fn run(&self, words: &str) -> Ran {
        self.command(words).output().expect("devbox runs").into()
    }

    /// An attestation of the two, valid for a year.
    fn attested(&self) -> PathBuf {
        let ran = self.run("parity a.raw b.qcow2 --attest c.json --key release --expires 1y");
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("wrote `c.json`, signed by SHA256:"), "{ran:?}");
        self.path("c.json")
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read(self.path(name)).expect("read");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Runs a verification that has to end with 4; returns the message.
    fn refused(&self, words: &str) -> String {
        let ran = self.run(&format!("verify-attestation {words}"));
        assert_eq!((ran.code, ran.out.as_str()), (4, ""), "{words}: {ran:?}");
        assert_eq!(ran.err.matches("error: ").count(), 1, "{ran:?}");
        assert!(ran.err.contains("\nhint: "), "{ran:?}");
        ran.err
    }
}

fn sha256(path: &Path) -> String {
    let out = tool("sha256sum", &[text(path)]).stdout;
    String::from_utf8_lossy(&out[..64]).into_owned()
}

#[test]
fn an_equal_pair_is_attested_and_verified() {
    let lab = Lab::with_key();
    lab.attested();
    let both = "verify-attestation c.json --trust trust --subject b.qcow2 --subject a.raw";
    let ran = lab.run(both);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("trusted: `a.raw` and `b.qcow2` are equal at level content\n"),
        "{ran:?}"
    );
    let sum = sha256(&lab.path("b.qcow2"));
    let checked = format!("\n  checked  `b.qcow2` is `b.qcow2`\n  sha256   {sum}\n");
    for part in ["\n  signer   release@example.org\n", "\n  key      SHA256:", &checked] {
        assert!(ran.out.contains(part), "{ran:?}");
    }
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{ran:?}");
    let ran = lab.run(&format!("{both} --signer {SIGNER} --json"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["schema"], "devbox.verify-attestation/1");
    assert_eq!(json["signer"], SIGNER);
    let listed = tool("ssh-keygen", &["-l", "-f", text(&lab.path("release.pub"))]).stdout;
    let keyid = json["keyid"].as_str().expect("a fingerprint");
    assert!(String::from_utf8_lossy(&listed).contains(keyid), "{keyid}");
    assert_eq!(lab.json("c.json")["signatures"][0]["keyid"], keyid);
    let said = &json["statement"];
    let (_, digest) = lab.devbox(&["digest", "a.raw"]);
    for (i, name) in ["a.raw", "b.qcow2"].into_iter().enumerate() {
        assert_eq!(said["subject"][i]["name"], name);
        assert_eq!(said["subject"][i]["digest"]["sha256"], sha256(&lab.path(name)));
        let box1 = said["subject"][i]["digest"]["devboxBox1"].as_str().expect("a digest");
        assert_eq!(digest.trim(), format!("box1:{box1}"));
    }
    assert_eq!(said["predicate"]["tool"]["version"], env!("CARGO_PKG_VERSION"));
    // The image is not looked at before: what is no image at all is refused by its bytes.
    std::fs::write(lab.path("text"), "text").expect("write");
    let err = lab.refused("c.json --trust trust --subject text");
    assert!(err.contains("`text` is not one of the files it is about"), "{err}");
}

#[test]
fn every_level_can_be_attested() {
    let lab = Lab::with_key();
    lab.copy("same.raw");
    let other = lab.convert("c.vhd", &["vpc", "-o", "subformat=fixed,force_size=on"]);
    for (level, b, keys) in [
        ("file", "same.raw", &["sha256"][..]),
        ("disk", text(&other), &["devboxBytes1", "sha256"]),
        ("tree", "b.qcow2", &["devboxLinks1", "devboxTree1", "sha256"]),
        ("times", "b.qcow2", &["devboxLinks1", "devboxTree1t", "sha256"]),
    ] {
        let file = format!("{level}.json");
        // The second time, the cache knows the digests.
        for _ in 0..2 {
            let _ = std::fs::remove_file(lab.path(&file));
            let ran =
                lab.run(&format!("parity a.raw {b} --level {level} --attest {file} --key release"));
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(!ran.err.contains("from the cache"), "{ran:?}");
        }
        let verify = format!("verify-attestation {file} --trust trust --subject {b} --json");
        let ran = lab.run(&verify);
        assert_eq!(ran.code, 0, "{ran:?}");
        let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        let digest = json["statement"]["subject"][1]["digest"].as_object().expect("digests");
        assert_eq!(digest.keys().collect::<Vec<_>>(), keys);
        assert_eq!(json["statement"]["predicate"]["level"], level);
    }
}

/// What differs as declared is attested with the policy and with what is left without it.
#[test]
fn a_declared_difference_is_attested_under_its_policy() {
    let lab = Lab::with_key();
    let word = lab.path("word");
    std::fs::write(&word, "for developers\n").expect("write");
    let changed = lab.changed(&[
        "cd /etc",
        &format!("write {} issue", text(&word)),
        "set_inode_field issue mode 0100644",
    ]);
    std::fs::rename(changed, lab.path("dev.raw")).expect("rename");
    let spec = |why: &str, mode: &str| {
        let text = format!(
            "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\
             [[parity.delta]]\nonly = \"dev\"\nop = \"add\"\npath = \"/etc/issue\"\nfile = \"word\"\nmode = \"{mode}\"\nwhy = \"{why}\"\n"
        );
        std::fs::write(lab.path("devbox.toml"), text).expect("write");
    };
    spec("a greeting", "0644");
    let ran = lab.run("parity dev.raw a.raw --attest c.json --key release");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("equivalent at level content: 1 declared difference\n"), "{ran:?}");
    let ran = lab.run("verify-attestation c.json --trust trust --subject dev.raw --subject a.raw");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("are equivalent at level content"), "{ran:?}");
    assert!(
        ran.out.contains("  policy   policy1:") && ran.out.contains("  base     base1:"),
        "{ran:?}"
    );
    // Another reason is another policy.
    spec("another greeting", "0644");
    assert_eq!(lab.run("parity dev.raw a.raw --attest d.json --key release").code, 0);
    let policy = |file: &str| lab.run(&format!("verify-attestation {file} --trust trust")).out;
    assert_ne!(policy("c.json"), policy("d.json"));
    // What is not as declared is not attested.
    spec("a greeting", "0600");
    let ran = lab.run("parity dev.raw a.raw --attest e.json --key release");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!lab.path("e.json").exists());
}

#[test]
fn a_difference_is_not_attested() {
    let lab = Lab::with_key();
    lab.changed(&["rm /etc/shadow"]);
    let ran = lab.run("parity a.raw b.raw --attest c.json --key release");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("different at level content"), "{ran:?}");
    assert!(ran.err.contains("not equal: `c.json` was not written"), "{ran:?}");
    assert!(!lab.path("c.json").exists());
    // Padding may be allowed, and is still not equality.
    let padded = lab.copy("d.raw");
    let file = std::fs::OpenOptions::new().write(true).open(&padded).expect("open");
    file.set_len(33 << 20).expect("longer");
    let allowed = "parity a.raw d.raw --level disk --allow-padding";
    assert_eq!(lab.run(allowed).code, 0);
    let ran = lab.run(&format!("{allowed} --attest c.json --key release"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!lab.path("c.json").exists());
}

#[test]
fn tampering_a_wrong_key_and_wrong_times_end_with_4() {
    let lab = Lab::with_key();
    let file = lab.attested();
    let good = std::fs::read_to_string(&file).expect("read");
    let json = lab.json("c.json");
    let member =
        |place: &str| json.pointer(place).and_then(|v| v.as_str()).expect(place).to_owned();
    for (place, why) in [
        ("/payload", "does not fit"),
        ("/signatures/0/sig", "does not fit"),
        ("/signatures/0/keyid", "not trusted"),
        ("/payloadType", "does not fit"),
    ] {
        let old = member(place);
        let mut new = old.clone().into_bytes();
        let at = new.len() / 2;
        new[at] = if new[at] == b'a' { b'b' } else { b'a' };
        let new = String::from_utf8(new).expect("text");
        std::fs::write(&file, good.replace(&old, &new)).expect("write");
        let err = lab.refused("c.json --trust trust");
        assert!(err.contains("cannot trust `c.json`") && err.contains(why), "{place}: {err}");
    }
    for broken in [&good[..good.len() / 2], "", "[", "{}", &good.repeat(2)] {
        std::fs::write(&file, broken).expect("write");
        assert!(lab.refused("c.json --trust trust").contains("not a DSSE envelope"));
    }
    std::fs::write(&file, &good).expect("write");
    lab.key("other", "");
    for (key, options, why) in [
        ("other", "", "signed by a key that is not trusted"),
        ("release", "namespaces=\"git\"", "trusted for `git`"),
        ("release", "valid-before=\"20200101Z\"", "valid until 2020-01-01"),
        ("release", "valid-after=\"20990101Z\"", "not valid before 2099-01-01"),
    ] {
        lab.trust("others", key, options);
        let err = lab.refused("c.json --trust others");
        assert!(err.contains(why), "{err}");
    }
    assert!(
        lab.refused("c.json --trust trust --signer me@example.org")
            .contains("not of `me@example.org`")
    );
    std::fs::write(lab.path("others"), "nonsense\n").expect("write");
    assert!(lab.refused("c.json --trust others").contains("line 1 of it is wrong"));
    assert!(lab.refused("c.json --trust missing").contains("cannot use the trust file `missing`"));
    assert!(lab.refused("missing --trust trust").contains("cannot trust `missing`"));
    assert!(lab.refused("c.json --trust trust --subject missing.raw").contains("missing.raw"));
    assert!(lab.refused("home --trust trust").contains("cannot trust `home`"));
}

/// Time passes here: a clock that users could set would be a way around the expiry.
#[test]
fn what_has_expired_ends_with_4() {
    let lab = Lab::with_key();
    let ran = lab.run("parity a.raw b.qcow2 --attest c.json --key release --expires 4s");
    assert_eq!(ran.code, 0, "{ran:?}");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(lab.refused("c.json --trust trust").contains("it expired at "));
}

#[test]
fn a_file_that_was_replaced_ends_with_4() {
    let lab = Lab::with_key();
    lab.attested();
    put(&lab.path("b.qcow2"), 1 << 20, b"X");
    let err = lab.refused("c.json --trust trust --subject a.raw --subject b.qcow2");
    assert!(err.contains("`b.qcow2` is not one of the files it is about"), "{err}");
    assert!(err.contains(&format!("its sha256 is {}", sha256(&lab.path("b.qcow2")))), "{err}");
    let err = lab.refused("c.json --trust trust --subject a.raw --subject a.raw");
    assert!(err.contains("`a.raw` is there twice"), "{err}");
}

#[test]
fn wrong_usage_ends_with_2_before_anything_is_read() {
    let lab = Lab::with_key();
    lab.key("locked", "secret");
    tool("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "", "-f", text(&lab.path("ecdsa"))]);
    std::fs::create_dir(lab.path("folder")).expect("made");
    std::fs::write(lab.path("there.json"), "old").expect("write");
    let ran = lab.run("manifest a.raw -o a.manifest");
    assert_eq!(ran.code, 0, "{ran:?}");
    tool(
        "sh",
        &[
            "-c",
            &format!(
                "cd '{}' && qemu-img convert -O vmdk -o subformat=monolithicFlat a.raw parts.vmdk",
                text(&lab.path(""))
            ),
        ],
    );
    for (words, why) in [
        ("parity a.raw b.qcow2 --attest c.json", "no key to sign with"),
        ("parity a.raw b.qcow2 --attest c.json --key missing", "cannot read the key `missing`"),
        ("parity a.raw b.qcow2 --attest c.json --key a.raw", "`a.raw` holds no SSH key"),
        ("parity a.raw b.qcow2 --attest c.json --key locked", "the key `locked` is encrypted"),
        ("parity a.raw b.qcow2 --attest c.json --key release.pub", "is a public key"),
        ("parity a.raw b.qcow2 --attest c.json --key ecdsa", "not of type ed25519"),
        (
            "parity a.raw b.qcow2 --attest c.json --key release --expires 2020-01-01",
            "no time in the future",
        ),
        (
            "parity a.raw b.qcow2 --attest c.json --key release --expires soon",
            "no time in the future",
        ),
        ("parity a.raw b.qcow2 --attest there.json --key release", "`there.json` is there already"),
        ("parity a.raw b.qcow2 --attest no/c.json --key release", "no folder for `no/c.json`"),
        ("parity a.raw a.raw --attest c.json --key release", "both sides are `a.raw`"),
        ("parity a.raw a.manifest --attest c.json --key release", "it is a manifest"),
        ("parity folder a.raw --level tree --attest c.json --key release", "it is a directory"),
        ("parity a.raw parts.vmdk --attest c.json --key release", "`parts.vmdk` is not one file"),
        ("parity a.raw b.qcow2 --key release", "--attest"),
        ("parity a.raw b.qcow2 --expires 1d", "--attest"),
        ("verify-attestation c.json", "--trust"),
        ("verify-attestation --trust trust", "<FILE>"),
        ("verify-attestation c --trust trust --subject a --subject b --subject c", "3 times"),
    ] {
        let ran = lab.run(words);
        assert_eq!(ran.code, 2, "{words}: {ran:?}");
        assert!(ran.err.contains(why), "{words}: {ran:?}");
        assert!(!lab.path("c.json").exists(), "{words}");
    }
    assert_eq!(std::fs::read_to_string(lab.path("there.json")).expect("there"), "old");
}

/// An agent that ends with the test.
struct Agent(String);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(&self.0).status();
    }
}

#[test]
fn an_agent_signs_with_keys_that_devbox_cannot_read() {
    let lab = Lab::with_key();
    lab.key("locked", "secret");
    lab.trust("others", "locked", "");
    let socket = lab.path("agent");
    let started = tool("ssh-agent", &["-s", "-a", text(&socket)]).stdout;
    let started = String::from_utf8_lossy(&started).into_owned();
    let pid = started.split("SSH_AGENT_PID=").nth(1).and_then(|rest| rest.split(';').next());
    let _agent = Agent(pid.expect("its process").to_owned());
    let parity = |file: &str, key: &str| -> Ran {
        let mut command = lab.command(&format!("parity a.raw b.qcow2 --attest {file}"));
        let command = command.env("SSH_AUTH_SOCK", &socket).env("DEVBOX_SIGNING_KEY", key);
        command.output().expect("devbox runs").into()
    };
    let ran = parity("c.json", "locked");
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("the SSH agent does not sign"), "{ran:?}");
    assert!(!lab.path("c.json").exists());
    let ask = lab.path("ask");
    std::fs::write(&ask, "#!/bin/sh\necho secret\n").expect("write");
    tool("chmod", &["+x", text(&ask)]);
    let added = Command::new("ssh-add")
        .arg(lab.path("locked"))
        .envs([("SSH_AUTH_SOCK", &socket), ("SSH_ASKPASS", &ask)])
        .envs([("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", "none")])
        .output()
        .expect("ssh-add is part of openssh-client");
    assert!(added.status.success(), "{added:?}");
    for (file, key) in [("c.json", "locked"), ("d.json", "locked.pub")] {
        let ran = parity(file, key);
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = lab.run(&format!("verify-attestation {file} --trust others --subject a.raw"));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

/// The commands of the page, run as they stand there.
#[test]
fn openssh_alone_verifies_it_as_the_page_says() {
    let lab = Lab::with_key();
    let ran = lab.run("parity a.raw b.qcow2 --attest web.parity.json --key release");
    assert_eq!(ran.code, 0, "{ran:?}");
    lab.trust("trusted-keys", "release", "namespaces=\"devbox-attestation\"");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/attestation.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let commands = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let commands = commands.expect("the commands").to_owned();
    let audit = || -> Ran {
        let shell =
            Command::new("sh").args(["-e", "-c", &commands]).current_dir(lab.path("")).output();
        shell.expect("a shell").into()
    };
    let ran = audit();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("Good \"devbox-attestation\" signature for release@example.org"),
        "{ran:?}"
    );
    for line in ["equal", "content", "a.raw: OK", "b.qcow2: OK"] {
        assert!(ran.out.lines().any(|l| l == line), "{line}: {ran:?}");
    }
    // And it says no where devbox does.
    let good = std::fs::read_to_string(lab.path("web.parity.json")).expect("read");
    let json = lab.json("web.parity.json");
    let payload = json["payload"].as_str().expect("a payload").to_owned();
    // `"level":"content"` begins three characters of base64 in; any other letter will do.
    let changed = payload.replacen('Q', "R", 1);
    assert_ne!(changed, payload);
    std::fs::write(lab.path("web.parity.json"), good.replace(&payload, &changed)).expect("write");
    assert_ne!(audit().code, 0);
    assert!(lab.refused("web.parity.json --trust trusted-keys").contains("does not fit"));
    std::fs::write(lab.path("web.parity.json"), &good).expect("write");
    lab.trust("trusted-keys", "release", "valid-before=\"20200101Z\"");
    assert_ne!(audit().code, 0);
    lab.refused("web.parity.json --trust trusted-keys");
}

/// One trust file for both readers: what the one takes, the other one takes.
#[test]
fn devbox_and_ssh_keygen_read_the_trust_file_alike() {
    let lab = Lab::with_key();
    lab.attested();
    let script = "jq -r .payload c.json | base64 -d > s
        { printf 'DSSEv1 28 application/vnd.in-toto+json %d ' \"$(wc -c < s)\"; cat s; } > m
        { echo '-----BEGIN SSH SIGNATURE-----'; jq -r '.signatures[0].sig' c.json | fold -w 70
          echo '-----END SSH SIGNATURE-----'; } > m.sig";
    let made = Command::new("sh").args(["-e", "-c", script]).current_dir(lab.path("")).status();
    assert!(made.expect("a shell").success());
    let key = std::fs::read_to_string(lab.path("release.pub")).expect("a key");
    let verify =
        format!("exec ssh-keygen -Y verify -f list -I {SIGNER} -n devbox-attestation -s m.sig < m");
    let mut taken = 0;
    for line in LINES {
        std::fs::write(lab.path("list"), line.replace("KEY", key.trim()) + "\n").expect("write");
        let theirs = Command::new("sh")
            .args(["-c", &verify])
            .env("TZ", "UTC")
            .current_dir(lab.path(""))
            .output()
            .expect("a shell");
        let ours = lab.run(&format!("verify-attestation c.json --trust list --signer {SIGNER}"));
        let both = (theirs.status.success(), ours.code);
        assert!(matches!(both, (true, 0) | (false, 4)), "{line}: {theirs:?} {ours:?}");
        taken += usize::from(both.0);
    }
    assert!((8..20).contains(&taken), "{taken} were taken");
}

/// Lines of a trust file, good and bad ones.
const LINES: [&str; 30] = [
    "release@example.org KEY",
    "release@example.org\tKEY and a comment of words",
    "  release@example.org   KEY\r",
    "\"release@example.org\" KEY",
    "you@example.org,*@example.org KEY",
    "*@example.org,!release@* KEY",
    "relea?e@example.org KEY",
    "you@example.org KEY",
    "release@example.org namespaces=\"devbox-attestation\" KEY",
    "release@example.org NAMESPACES=\"git,devbox-*\" KEY",
    "release@example.org namespaces=\"*,!devbox-attestation\" KEY",
    "release@example.org namespaces=\"git\" KEY",
    "release@example.org namespaces=git KEY",
    "release@example.org namespaces=devbox-attestation KEY",
    "release@example.org namespaces=\"devbox-attestation KEY",
    "release@example.org namespaces=\"*\",namespaces=\"*\" KEY",
    "release@example.org namespaces=\"*\", KEY",
    "release@example.org namespaces=\"*\"valid-after=\"20200101\" KEY",
    "release@example.org unknown=\"1\" KEY",
    "release@example.org cert-authority KEY",
    "release@example.org valid-after=\"20200101\",valid-before=\"20990101\" KEY",
    "release@example.org valid-after=\"202001010101Z\" KEY",
    "release@example.org valid-after=\"20200101010101Z\" KEY",
    "release@example.org valid-after=\"20990101\" KEY",
    "release@example.org valid-before=\"20200101\" KEY",
    "release@example.org valid-after=\"20200101\",valid-before=\"20190101\" KEY",
    "release@example.org valid-after=\"2020\" KEY",
    "release@example.org valid-after=\"20201301\" KEY",
    "# release@example.org KEY",
    "KEY",
];

/// What `ssh-keygen` signed is an attestation too, if it is of the right bytes.
#[test]
fn a_signature_of_ssh_keygen_s_holds() {
    let lab = Lab::with_key();
    lab.attested();
    lab.key("second", "");
    lab.trust("others", "second", "");
    let script = "type=$(jq -r .payloadType c.json); jq -r .payload c.json | base64 -d > s
        { printf 'DSSEv1 %d %s %d ' \"${#type}\" \"$type\" \"$(wc -c < s)\"; cat s; } > m
        ssh-keygen -q -Y sign -f second -n devbox-attestation m
        sig=$(grep -v -e ----- m.sig | tr -d '\\n')
        id=$(ssh-keygen -l -f second.pub | cut -d' ' -f2)
        jq --arg id \"$id\" --arg sig \"$sig\" '.signatures += [{keyid: $id, sig: $sig}]' c.json > d.json";
    let out = Command::new("sh").args(["-e", "-c", script]).current_dir(lab.path("")).output();
    let out = out.expect("a shell");
    assert!(out.status.success(), "{out:?}");
    let ran = lab.run("verify-attestation d.json --trust others --subject b.qcow2");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lab.run("verify-attestation d.json --trust trust").code, 0);
    lab.refused("c.json --trust others");
}
