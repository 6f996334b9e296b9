//! The list of allowed signers, also as `ssh-keygen` reads it.

use super::*;
use crate::error::Kind;
use crate::guest::keys::KeyPair;

const NOW: &str = "2026-11-22T06:00:00Z";

fn time_of(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// `ssh-ed25519 AAAA…`, without a comment.
fn key() -> String {
    let pair = KeyPair::generate("").expect("a key");
    pair.public().trim().to_owned()
}

fn read(text: &str) -> Result<Trust> {
    Trust::parse(text.as_bytes(), &TimeZone::UTC)
}

/// Why the only key of a line is not trusted now.
fn refusal(options: &str) -> Option<String> {
    let trust = read(&format!("me@example.org {options} {}", key())).expect(options);
    trust.keys[0].refuses(time_of(NOW))
}

#[test]
fn lines_are_as_ssh_keygen_s() {
    let (one, two) = (key(), key());
    let text = format!(
        "# a comment\n\n  a@example.org,b@example.org {one} with a comment\r\n\
         \"c d\"\tnamespaces=\"file,devbox-*\",valid-after=\"20200101\" {two}\n\
         ca@example.org cert-authority {two}\n\
         rsa@example.org ssh-rsa AAAAB3NzaC1yc2E=\n"
    );
    let trust = read(&text).expect("a list");
    assert_eq!(trust.keys.len(), 2);
    assert_eq!(trust.keys[0].principals, "a@example.org,b@example.org");
    assert_eq!(trust.keys[1].principals, "c d");
    let first = PublicKey::from_openssh(&one).expect("a key");
    assert_eq!(trust.of(&fingerprint(&first)).count(), 1);
    assert_eq!(trust.of("SHA256:AAAA").count(), 0);
    assert!(trust.keys[0].is_of("b@example.org") && !trust.keys[0].is_of("c@example.org"));
}

#[test]
fn what_ssh_keygen_would_not_take_is_refused() {
    let key = key();
    for (line, why) in [
        (format!("a {key}x="), "line 1"),
        (format!("a@example.org unknown=\"1\" {key}"), "`unknown` is not known"),
        (format!("a@example.org namespaces=file {key}"), "has no"),
        (format!("a@example.org namespaces=\"file {key}"), "a quote does not end"),
        (format!("a@example.org namespaces=\"a\",namespaces=\"b\" {key}"), "twice"),
        (format!("a@example.org cert-authority=\"a\" {key}"), "not known"),
        (format!("a@example.org valid-after {key}"), "not known"),
        (format!("a@example.org valid-after=\"2026\" {key}"), "no time"),
        (format!("a@example.org valid-after=\"20261301\" {key}"), "no time"),
        (format!("a@example.org valid-after=\"+2026111\" {key}"), "no time"),
        (
            format!("a@example.org valid-after=\"20260102\",valid-before=\"20260101\" {key}"),
            "ends to be",
        ),
        (format!("a@example.org cert-authority, {key}"), "behind the last comma"),
        (format!("a@example.org namespaces=\"a\"x {key}"), "no comma"),
        (format!("\"\" {key}"), "names nobody"),
        (key.clone(), "there is no key"),
        ("a@example.org".to_owned(), "there is no key"),
        ("a@example.org ssh-ed25519 AAAA".to_owned(), "line 1"),
        ("# nothing".to_owned(), "holds no ed25519 key"),
        (String::new(), "holds no ed25519 key"),
    ] {
        let e = read(&line).expect_err(&line);
        assert_eq!(e.kind(), Kind::Trust);
        assert!(e.to_string().contains(why), "{line}: {e}");
    }
    Trust::parse(b"\xff\xfe", &TimeZone::UTC).expect_err("no text");
    let large = vec![b'\n'; usize::try_from(MAX_BYTES).expect("small") + 1];
    Trust::parse(&large, &TimeZone::UTC).expect_err("too large");
}

#[test]
fn options_say_for_what_and_when() {
    assert_eq!(refusal(""), None);
    assert_eq!(refusal("namespaces=\"devbox-attestation\""), None);
    assert_eq!(refusal("NameSpaces=\"file,devbox-*\""), None);
    assert_eq!(refusal("valid-after=\"20261122Z\",valid-before=\"20261122060000Z\""), None);
    let of = |options: &str| refusal(options).expect("refused");
    assert!(of("namespaces=\"file,git\"").contains("trusted for `file,git`"));
    assert!(of("namespaces=\"*,!devbox-*\"").contains("not for"));
    assert!(of("valid-after=\"202611220601Z\"").contains("not valid before 2026-11-22T06:01:00Z"));
    assert!(of("valid-before=\"20261122055959Z\"").contains("valid until 2026-11-22T05:59:59Z"));
}

#[test]
fn a_time_without_a_z_is_of_the_host_s_zone() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    assert_eq!(time("20261122", &zone), Ok(time_of("2026-11-21T22:00:00Z")));
    assert_eq!(time("202611220800", &zone), Ok(time_of(NOW)));
    assert_eq!(time("202611220600Z", &zone), Ok(time_of(NOW)));
}

#[test]
fn patterns_are_openssh_s() {
    for (list, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*c?e", "abbcde", true),
        ("a*c?e", "abbcd", false),
        ("*a*b", "xaxxaxb", true),
        ("x,*@example.org", "me@example.org", true),
        ("*@example.org,!me@*", "me@example.org", false),
        ("!me", "you", false),
        ("", "a", false),
    ] {
        assert_eq!(matches(list, text), expected, "{list} {text}");
    }
    // Backtracking to every star would take for ever.
    assert!(!matches(&"*a".repeat(1000), &"a".repeat(900)));
}
