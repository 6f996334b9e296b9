//! Statements against in-toto's rules, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

fn hex(digit: &str) -> String {
    digit.repeat(64)
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn side(name: &str, digests: &[&str], sha256: &str) -> Compared {
    let digests = digests.iter().map(|name| format!("{name}:{}", hex("a"))).collect();
    let side = Side { name: name.to_owned(), of: "image".to_owned(), digests };
    Compared { side, sha256: hex(sha256) }
}

fn period() -> Period {
    Period { created: time("2026-11-22T06:00:00Z"), expires: time("2027-02-20T06:00:00Z") }
}

fn made(level: &str, digests: &[&str]) -> Result<Statement> {
    // At level `file` there is one digest, and it is the file's.
    let second = if level == "file" { "a" } else { "b" };
    let sides = [side("a.raw", digests, "a"), side("b.qcow2", digests, second)];
    Statement::new(level, sides, None, period())
}

/// The field rules of spec/v1 of in-toto/attestation: statement.md, resource_descriptor.md, digest_set.md
/// and field_types.md.
fn rules() -> Value {
    json!({
        "type": "object",
        "required": ["_type", "subject", "predicateType"],
        "properties": {
            "_type": { "const": "https://in-toto.io/Statement/v1" },
            "subject": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["digest"],
                    "properties": {
                        "name": { "type": "string" },
                        "digest": {
                            "type": "object",
                            "minProperties": 1,
                            "properties": { "sha256": { "pattern": "^[0-9a-f]{64}$" } },
                            "additionalProperties": { "type": "string" },
                        },
                    },
                },
            },
            // A URI whose scheme is in lower case.
            "predicateType": { "type": "string", "pattern": "^[a-z][a-z0-9+.-]*:[!-~]+$" },
            "predicate": {
                "type": "object",
                "properties": {
                    "created": { "$ref": "#/$defs/time" },
                    "expires": { "$ref": "#/$defs/time" },
                },
            },
        },
        // RFC 3339, in UTC.
        "$defs": { "time": {
            "type": "string",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$",
        } },
    })
}

#[test]
fn statements_of_all_levels_keep_in_toto_s_rules() {
    let rules = jsonschema::validator_for(&rules()).expect("rules");
    for (level, digests) in DIGESTS {
        let statement = made(level, digests).expect(level);
        let value: Value = serde_json::from_slice(&statement.to_json()).expect("JSON");
        let problems: Vec<String> = rules.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{level}: {problems:?}");
        let names: BTreeSet<_> = statement.subject.iter().map(|one| &one.name).collect();
        assert_eq!(names.len(), 2, "names are unique");
        assert_eq!(Statement::parse(&statement.to_json()).expect("reads"), statement);
    }
    let mut wrong: Value =
        serde_json::from_slice(&made("disk", &["bytes1"]).expect("made").to_json()).expect("JSON");
    wrong["subject"][0]["digest"]["sha256"] = json!("A");
    assert!(!rules.is_valid(&wrong), "the rules can be broken");
}

#[test]
fn a_statement_says_all_that_was_compared() {
    let statement = made("tree", &["tree1", "links1"]).expect("made");
    let value: Value = serde_json::from_slice(&statement.to_json()).expect("JSON");
    let digest = |sha256: &str| json!({ "sha256": hex(sha256), "devboxTree1": hex("a"), "devboxLinks1": hex("a") });
    let digests = json!([format!("tree1:{}", hex("a")), format!("links1:{}", hex("a"))]);
    let expected = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            { "name": "a.raw", "digest": digest("a") },
            { "name": "b.qcow2", "digest": digest("b") },
        ],
        "predicateType": "urn:devbox:parity-attestation:v1",
        "predicate": {
            "level": "tree",
            "verdict": "equal",
            "sides": [
                { "name": "a.raw", "of": "image", "digests": digests },
                { "name": "b.qcow2", "of": "image", "digests": digests },
            ],
            "tool": { "name": "devbox", "version": env!("CARGO_PKG_VERSION") },
            "created": "2026-11-22T06:00:00Z",
            "expires": "2027-02-20T06:00:00Z",
        },
    });
    assert_eq!(value, expected);
}

#[test]
fn no_difference_can_be_stated() {
    let digests = ["box1"];
    let mut other = side("b", &digests, "b");
    other.side.digests = vec![format!("box1:{}", hex("d"))];
    let e = Statement::new("content", [side("a", &digests, "a"), other], None, period());
    assert!(e.expect_err("refused").to_string().contains("digests of the two sides differ"));
    let same = [side("a", &digests, "a"), side("a", &digests, "b")];
    let e = Statement::new("content", same, None, period()).expect_err("refused");
    assert!(e.to_string().contains("both subjects are `a`"), "{e}");
}

#[test]
fn equivalence_names_its_policy_and_what_is_left() {
    let digests = ["box1"];
    let sides = || {
        let mut other = side("b", &digests, "b");
        other.side.digests = vec![format!("box1:{}", hex("d"))];
        [side("a", &digests, "a"), other]
    };
    let declared = |policy: &str, base: &str| {
        Some(Declared {
            policy: format!("{policy}:{}", hex("c")),
            base: format!("{base}:{}", hex("e")),
        })
    };
    let made =
        Statement::new("content", sides(), declared("policy1", "base1"), period()).expect("made");
    assert_eq!(made.predicate.verdict, Verdict::Equivalent);
    assert_eq!(Statement::parse(&made.to_json()).expect("reads"), made);
    for wrong in [declared("policy2", "base1"), declared("policy1", "tree1")] {
        let e = Statement::new("content", sides(), wrong, period()).expect_err("refused");
        assert!(e.to_string().contains("a `policy1` and a `base1`"), "{e}");
    }
    let same = [side("a", &digests, "a"), side("b", &digests, "b")];
    let e = Statement::new("content", same, declared("policy1", "base1"), period());
    assert!(e.expect_err("refused").to_string().contains("differ in something"));
    let mut value: Value = serde_json::from_slice(&made.to_json()).expect("JSON");
    value["predicate"]["verdict"] = json!("equal");
    Statement::parse(value.to_string().as_bytes()).expect_err("it is not equal");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let good = made("content", &["box1"]).expect("made");
    let good: Value = serde_json::from_slice(&good.to_json()).expect("JSON");
    Statement::parse(good.to_string().as_bytes()).expect("good");
    let cases: [(&str, Value, &str); 19] = [
        ("/_type", json!("https://in-toto.io/Statement/v2"), "`_type` is not known"),
        ("/_type", json!(1), "`_type` is not known"),
        ("/predicateType", json!("https://slsa.dev/provenance/v1"), "`predicateType` is not known"),
        ("/subject", json!([]), "0 subjects"),
        ("/subject", json!({}), "invalid type"),
        ("/subject/0/digest", json!({}), "no sha256"),
        ("/subject/0/digest/sha256", json!(hex("A")), "no sha256"),
        ("/subject/0/digest/sha256", json!("aa"), "no sha256"),
        ("/subject/0/digest/devboxBox1", json!(hex("d")), "is not the side"),
        ("/subject/1/name", json!("c"), "is not the side"),
        ("/predicate/level", json!("all"), "level \"all\" is not known"),
        ("/predicate/level", json!("disk"), "no digests of the level"),
        ("/predicate/verdict", json!("different"), "unknown variant"),
        ("/predicate/sides", json!([]), "0 sides"),
        ("/predicate/sides/0/digests", json!([]), "no digests of the level"),
        ("/predicate/sides/0/digests", json!([format!("box1:{}", hex("d"))]), "differ"),
        ("/predicate/tool/name", json!("a\u{1b}[2J"), "terminals obey"),
        ("/predicate/created", json!("2026-11-22T06:00:00+01:00"), "expected a time"),
        ("/predicate/expires", Value::Null, "invalid type"),
    ];
    for (place, value, why) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(place).expect(place) = value;
        let e = Statement::parse(bad.to_string().as_bytes()).expect_err(place);
        assert_eq!(e.kind(), Kind::Trust);
        assert!(e.to_string().contains(why), "{place}: {e}");
    }
    let twice = good.to_string().replacen('{', r#"{"_type": "x", "#, 1);
    let e = Statement::parse(twice.as_bytes()).expect_err("twice");
    assert!(e.to_string().contains("is there twice"), "{e}");
}

#[test]
fn members_that_are_not_known_are_ignored() {
    let good = made("disk", &["bytes1"]).expect("made");
    let mut more: Value = serde_json::from_slice(&good.to_json()).expect("JSON");
    more["later"] = json!({ "a": [1] });
    more["predicate"]["later"] = json!(1);
    more["subject"][0]["mediaType"] = json!("application/x-qcow2");
    more["subject"][0]["digest"]["sha512"] = json!("not looked at");
    let read = Statement::parse(more.to_string().as_bytes()).expect("read");
    assert_eq!(read.predicate, good.predicate);
}
