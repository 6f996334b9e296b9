//! What holds, and everything that does not. Time is an argument.

use std::path::Path;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::attest::envelope::Signed;
use crate::attest::sign::Signer;
use crate::attest::statement::{Compared, Period, Side};
use crate::error::Kind;
use crate::guest::keys::KeyPair;

const CREATED: &str = "2026-11-22T06:00:00Z";
const LATER: &str = "2026-12-01T00:00:00Z";
const EXPIRES: &str = "2027-02-20T06:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn hex(digit: &str) -> String {
    digit.repeat(64)
}

fn statement() -> Statement {
    let side = |name: &str, sha256: &str| {
        let digests = vec![format!("box1:{}", hex("c"))];
        let side = Side { name: name.to_owned(), of: "image".to_owned(), digests };
        Compared { side, sha256: hex(sha256) }
    };
    let period = Period { created: time(CREATED), expires: time(EXPIRES) };
    Statement::new("content", [side("a", "a"), side("b", "b")], None, period).expect("made")
}

struct Key {
    pair: KeyPair,
}

impl Key {
    fn new() -> Self {
        Key { pair: KeyPair::generate("").expect("a key") }
    }

    fn signer(&self) -> Signer {
        Signer::parse(self.pair.private().as_bytes(), Path::new("id"), None).expect("a signer")
    }

    fn sign(&self, statement: &Statement) -> Envelope {
        self.signer().sign(statement).expect("signed")
    }

    fn line(&self, options: &str) -> String {
        format!("me@example.org {options} {}\n", self.pair.public().trim())
    }

    fn trust(&self) -> Trust {
        trust(&self.line(""))
    }
}

fn trust(text: &str) -> Trust {
    Trust::parse(text.as_bytes(), &TimeZone::UTC).expect("a list")
}

fn at(envelope: &Envelope, trust: &Trust, now: &str) -> Result<Verified> {
    verify(envelope.to_json().as_bytes(), trust, None, time(now))
}

/// The message of a refusal, which has to be one of trust.
fn refusal(result: Result<Verified>) -> String {
    let e = result.expect_err("refused");
    assert_eq!(e.kind(), Kind::Trust, "{e}");
    assert!(!e.hints().is_empty() || !e.causes().is_empty(), "{e}");
    e.to_string()
}

#[test]
fn what_was_signed_comes_out() {
    let key = Key::new();
    let verified = at(&key.sign(&statement()), &key.trust(), LATER).expect("it holds");
    assert_eq!(verified.statement, statement());
    assert_eq!(verified.principals, "me@example.org");
    assert_eq!(verified.keyid, key.signer().keyid());
}

/// Each bit of the file: of the payload, of the signature, of the key's id, of types, of names, of spaces.
#[test]
fn no_bit_can_be_changed() {
    let key = Key::new();
    let trust = key.trust();
    let good = key.sign(&statement()).to_json();
    verify(good.as_bytes(), &trust, None, time(LATER)).expect("it holds");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone().into_bytes();
        bad[bit / 8] ^= 1 << (bit % 8);
        // What ends a line may as well be missing, or a space.
        if bad.trim_ascii_end() == good.trim_ascii_end().as_bytes() {
            continue;
        }
        let result = verify(&bad, &trust, None, time(LATER));
        assert!(result.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
        refusal(result);
    }
}

#[test]
fn other_keys_are_named() {
    let (ours, other) = (Key::new(), Key::new());
    let envelope = other.sign(&statement());
    let text = refusal(at(&envelope, &ours.trust(), LATER));
    assert!(text.contains(&format!("not trusted: `{}`", other.signer().keyid())), "{text}");
    // Whoever claims to be a key that is trusted.
    let mut forged = envelope;
    forged.signatures[0].keyid = ours.signer().keyid();
    let text = refusal(at(&forged, &ours.trust(), LATER));
    assert!(text.contains("does not fit"), "{text}");
}

#[test]
fn messages_repeat_little_of_what_is_hostile() {
    let key = Key::new();
    let mut envelope = key.sign(&statement());
    envelope.signatures[0].keyid = "\u{1b}[2J".repeat(10_000);
    let text = refusal(at(&envelope, &key.trust(), LATER));
    assert!(text.len() < 2000 && !text.contains('\u{1b}'), "{} bytes", text.len());
    let long = "x".repeat(100_000);
    let twice = format!(r#"{{"{long}": 1, "{long}": 2}}"#);
    let text = refusal(verify(twice.as_bytes(), &key.trust(), None, time(LATER)));
    assert!(text.len() < 2000, "{} bytes", text.len());
}

#[test]
fn time_is_that_of_the_statement_and_of_the_key() {
    let key = Key::new();
    let envelope = key.sign(&statement());
    let holds = |trust: &Trust, now: &str| at(&envelope, trust, now).map(|_| ());
    holds(&key.trust(), CREATED).expect("at once");
    holds(&key.trust(), "2026-11-22T05:56:00Z").expect("clocks differ a little");
    holds(&key.trust(), "2027-02-20T05:59:59Z").expect("up to the end");
    let text = refusal(at(&envelope, &key.trust(), EXPIRES));
    assert!(text.contains("expired at 2027-02-20T06:00:00Z"), "{text}");
    let text = refusal(at(&envelope, &key.trust(), "2026-11-22T05:54:59Z"));
    assert!(text.contains("of the future"), "{text}");
    for (options, why) in [
        ("valid-after=\"20270101Z\"", "not valid before 2027-01-01"),
        ("valid-before=\"20261130Z\"", "valid until 2026-11-30"),
        ("namespaces=\"git\"", "trusted for `git`"),
    ] {
        let text = refusal(at(&envelope, &trust(&key.line(options)), LATER));
        assert!(text.contains(why), "{text}");
        // Another line of the same key counts on its own.
        let both = key.line(options) + &key.line("valid-after=\"20260101Z\"");
        holds(&trust(&both), LATER).expect("by the other line");
    }
}

#[test]
fn the_signer_can_be_asked_for() {
    let key = Key::new();
    let text = key.sign(&statement()).to_json();
    let by = |name| verify(text.as_bytes(), &key.trust(), Some(name), time(LATER));
    by("me@example.org").expect("it is");
    let text = refusal(by("you@example.org"));
    assert!(text.contains("of `me@example.org`, not of `you@example.org`"), "{text}");
}

#[test]
fn of_several_signatures_one_has_to_hold() {
    let (ours, other) = (Key::new(), Key::new());
    let mut envelope = other.sign(&statement());
    let hostile = Signed { keyid: ours.signer().keyid(), sig: vec![0; 90] };
    envelope.signatures.insert(0, hostile);
    let text = refusal(at(&envelope, &ours.trust(), LATER));
    assert!(text.contains("does not fit"), "{text}");
    envelope.signatures.extend(ours.sign(&statement()).signatures);
    let verified = at(&envelope, &ours.trust(), LATER).expect("by the last one");
    assert_eq!(verified.keyid, ours.signer().keyid());
}

#[test]
fn types_that_are_not_known_are_refused_though_they_are_signed() {
    let key = Key::new();
    let signed = |payload_type: &str, payload: &[u8]| {
        let mut envelope = Envelope {
            payload_type: payload_type.to_owned(),
            payload: payload.to_vec(),
            signatures: vec![],
        };
        let private = ssh_key::PrivateKey::from_openssh(key.pair.private()).expect("a key");
        let message = envelope.pae();
        let made = sshsig::sign(&private, sshsig::NAMESPACE, &message).expect("signed");
        let sig = sshsig::assemble(private.public_key(), sshsig::NAMESPACE, made, &message)
            .expect("whole");
        envelope.signatures.push(Signed { keyid: key.signer().keyid(), sig });
        refusal(at(&envelope, &key.trust(), LATER))
    };
    let good = statement().to_json();
    assert!(signed("application/json", &good).contains("payload type is not known"));
    assert!(signed("", &good).contains("payload type is not known"));
    assert!(signed(PAYLOAD_TYPE, b"{}").contains("`_type` is not known"));
    assert!(signed(PAYLOAD_TYPE, b"").contains("not an attestation of two equal images"));
    let other = String::from_utf8(good).expect("JSON").replace("parity-attestation", "something");
    assert!(signed(PAYLOAD_TYPE, other.as_bytes()).contains("`predicateType` is not known"));
}

#[test]
fn files_are_known_by_their_bytes_alone() {
    let statement = statement();
    let of = |digits: &[&str]| {
        let file =
            |(i, digit): (usize, &&str)| Present { name: format!("file{i}"), sha256: hex(digit) };
        let files: Vec<Present> = digits.iter().enumerate().map(file).collect();
        subjects(&statement, &files).map(|names| names.join(" "))
    };
    assert_eq!(of(&[]).expect("none"), "");
    assert_eq!(of(&["b"]).expect("one"), "b");
    assert_eq!(of(&["b", "a"]).expect("both"), "b a");
    let e = of(&["a", "d"]).expect_err("another file");
    assert_eq!(e.kind(), Kind::Trust);
    assert!(e.to_string().contains("`file1` is not one of the files"), "{e}");
    assert!(e.to_string().contains(&format!("`b` has sha256 {}", hex("b"))), "{e}");
    let e = of(&["a", "a"]).expect_err("twice");
    assert!(e.to_string().contains("`file1` is there twice"), "{e}");
    // The digest of the level is no sha256 of a file.
    of(&["c"]).expect_err("the digest of what is in it");
}

proptest! {
    #[test]
    fn nothing_that_is_read_ends_in_a_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let trust = Key::new().trust();
        prop_assert!(verify(&text, &trust, None, time(LATER)).is_err());
        let _ = Trust::parse(&text, &TimeZone::UTC);
    }

    #[test]
    fn nor_do_envelopes_of_anything(payload in "\\PC{0,80}", sig in prop::collection::vec(any::<u8>(), 0..200)) {
        let key = Key::new();
        let keyid = key.signer().keyid();
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: payload.into_bytes(),
            signatures: vec![Signed { keyid, sig }],
        };
        prop_assert!(at(&envelope, &key.trust(), LATER).is_err());
    }

    #[test]
    fn nor_do_lists_that_are_nearly_right(options in "[a-z\\-=\",\\\\ 0-9Z]{0,60}") {
        let _ = Trust::parse(Key::new().line(&options).as_bytes(), &TimeZone::UTC);
    }
}
