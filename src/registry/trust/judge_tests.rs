use std::path::Path;

use super::super::Key;
use super::*;
use crate::attest::sign::Signer;
use crate::digest::{BoxDigest, BytesDigest, SpecDigest};
use crate::guest::keys::KeyPair;
use crate::registry::manifest::Blob;

const PLACE: &str = "oci://r.example/team/web";

struct Who {
    signer: Signer,
    key: Key,
}

fn who() -> Who {
    let pair = KeyPair::generate("test").expect("a key");
    let signer = Signer::parse(pair.private().as_bytes(), Path::new("id"), None).expect("a signer");
    let key = Key { fingerprint: signer.keyid(), comment: String::new() };
    Who { signer, key }
}

fn config(version: &str) -> BoxConfig {
    BoxConfig {
        name: "web".into(),
        version: version.into(),
        arch: "amd64".into(),
        firmware: "bios".into(),
        spec1: SpecDigest::of(b"spec"),
        bytes1: BytesDigest::of(b"disk"),
        box1: BoxDigest::of(b"disk"),
        disk_size: 1 << 20,
        cmdline: String::new(),
        epoch: 0,
        seal: "seal/1".into(),
        devbox: "0.1.0".into(),
    }
}

struct Case {
    address: Address,
    shipped: Shipped,
    config: BoxConfig,
    envelopes: Vec<Vec<u8>>,
}

impl Case {
    fn new(address: &str, version: &str) -> Self {
        let blob = |name: &str| Blob::of(format!("{name} {version}").as_bytes());
        let shipped = Shipped {
            config: blob("config"),
            index: blob("index"),
            tables: blob("tables"),
            packs: vec![],
            disk: FileDigest::of(version.as_bytes()),
        };
        let address = Address::parse(address).expect("address");
        Case { address, shipped, config: config(version), envelopes: vec![] }
    }

    fn given(&self) -> Given<'_> {
        Given {
            address: &self.address,
            manifest: FileDigest::of(self.config.version.as_bytes()),
            shipped: &self.shipped,
            config: &self.config,
            envelopes: &self.envelopes,
        }
    }

    fn signed(mut self, who: &Who) -> Self {
        let text = self.given().placed().sign(&who.signer).expect("signs");
        self.envelopes.push(text);
        self
    }

    fn judged(&self, policy: &Policy) -> Result<Option<Accepts>> {
        policy.judge(&self.given(), &store::Place::default())
    }
}

fn demand(names: &str, keys: &[&Who]) -> Demand {
    let keys = keys.iter().map(|who| who.key.clone()).collect();
    let rules = vec![Rule { names: vec![names.to_owned()], keys }];
    Demand { from: "/etc/x.toml".into(), required: false, rules }
}

fn policy(demands: Vec<Demand>) -> Policy {
    Policy { demands, ..Policy::none() }
}

fn refusal(case: &Case, policy: &Policy) -> String {
    let e = case.judged(policy).expect_err("refused");
    assert_eq!(e.kind(), Kind::Trust, "{e}");
    e.to_string()
}

#[test]
fn a_covered_name_needs_a_signature_by_a_key_that_may() {
    let (ours, other) = (who(), who());
    let rules = policy(vec![demand("oci://r.example/team/*", &[&ours])]);
    let tag = format!("{PLACE}:1.2.0");
    let plain = Case::new(&tag, "1.2.0");
    let e = refusal(&plain, &rules);
    assert!(e.contains("is not signed") && e.contains(&ours.key.fingerprint), "{e}");
    let e = refusal(&Case::new(&tag, "1.2.0").signed(&other), &rules);
    assert!(e.contains(&ours.key.fingerprint) && e.contains(&other.key.fingerprint), "{e}");
    // Beside one of somebody else, and beside junk, a good one is good.
    let mut both = Case::new(&tag, "1.2.0").signed(&other).signed(&ours);
    both.envelopes.insert(0, b"junk".to_vec());
    let accepts = both.judged(&rules).expect("signed").expect("covered");
    assert_eq!((accepts.version.as_str(), accepts.channel), ("1.2.0", None));
    assert_eq!(both.given().about_it().len(), 2, "both are kept, the junk is not");
    let mut junk = Case::new(&tag, "1.2.0");
    junk.envelopes.push(b"junk".to_vec());
    assert!(refusal(&junk, &rules).contains("does not hold"));
    // Other names are taken as they are.
    let free = Case::new("oci://r.example/free/web:1.2.0", "1.2.0");
    assert_eq!(free.judged(&rules).expect("free"), None);
}

#[test]
fn a_signature_holds_for_nothing_else() {
    let ours = who();
    let rules = policy(vec![demand("oci://r.example/team/*", &[&ours])]);
    let good = || Case::new(&format!("{PLACE}:stable"), "1.2.0").signed(&ours);
    good().judged(&rules).expect("good");
    let mut elsewhere = good();
    elsewhere.address = Address::parse("oci://r.example/team/other:stable").expect("address");
    let e = refusal(&elsewhere, &rules);
    assert!(
        e.contains("at oci://r.example/team/other,") && e.contains(&format!("at {PLACE},")),
        "{e}"
    );
    let changes: [fn(&mut Case); 5] = [
        |case| case.config.version = "1.3.0".into(),
        |case| case.config.name = "db".into(),
        |case| case.config.arch = "arm64".into(),
        |case| case.shipped.disk = FileDigest::of(b"other"),
        |case| case.shipped.config = Blob::of(b"other"),
    ];
    for change in changes {
        let mut case = good();
        change(&mut case);
        assert!(refusal(&case, &rules).contains("signed as something else"));
    }
    // The tag of a version that means another one, although that one is signed.
    let moved = Case::new(&format!("{PLACE}:1.3.0"), "1.2.0").signed(&ours);
    let e = refusal(&moved, &rules);
    assert!(e.contains("expected: version 1.3.0") && e.contains("found:    version 1.2.0"), "{e}");
}

#[test]
fn what_the_spec_allows_is_not_what_the_user_demands() {
    let (mine, theirs) = (who(), who());
    let user = || demand("oci://r.example/*", &[&mine]);
    let spec = || demand(PLACE, &[&theirs]);
    let tag = format!("{PLACE}:1.2.0");
    let both = policy(vec![user(), spec()]);
    let by_theirs = Case::new(&tag, "1.2.0").signed(&theirs);
    assert!(refusal(&by_theirs, &both).contains(&mine.key.fingerprint));
    by_theirs.judged(&policy(vec![spec()])).expect("what the spec demands alone");
    by_theirs.signed(&mine).judged(&both).expect("by both");
    let all = Demand { required: true, ..demand("oci://s.example/*", &[&mine]) };
    let e = refusal(&Case::new(&tag, "1.2.0").signed(&mine), &policy(vec![all]));
    assert!(e.contains("nobody may sign for") && e.contains("trust.required"), "{e}");
    let nobody = Demand { rules: vec![Rule { names: vec!["*".into()], keys: vec![] }], ..user() };
    assert!(
        refusal(&Case::new(&tag, "1.2.0").signed(&mine), &policy(vec![nobody])).contains("nobody")
    );
}

#[test]
fn a_channel_or_a_range_does_not_go_back() {
    let ours = who();
    let rules = policy(vec![demand("*", &[&ours])]);
    let before = store::Place {
        channels: [("stable".to_owned(), "1.10.0".to_owned())].into(),
        versions: ["1.10.0", "1.11.0-rc.1", "2.0.0"].map(str::to_owned).into(),
    };
    let judged = |at: &str, version: &str, policy: &Policy| {
        Case::new(&format!("{PLACE}{at}"), version).signed(&ours).given_judged(policy, &before)
    };
    let e = judged(":stable", "1.9.0", &rules).expect_err("older").to_string();
    assert!(
        e.contains("version 1.10.0 or a newer one") && e.contains("found:    version 1.9.0"),
        "{e}"
    );
    judged(":stable", "1.10.0-rc.1", &rules).expect_err("before its release");
    judged(":stable", "1.10.0", &rules).expect("the same");
    judged(":stable", "1.11.0", &rules).expect("newer");
    judged(":edge", "1.0.0", &rules).expect("another channel");
    judged(":1.9.0", "1.9.0", &rules).expect("by its version");
    let pinned = format!("@{}", FileDigest::of(b"1.9.0"));
    judged(&pinned, "1.9.0", &rules).expect("by its digest");
    let back = Policy { allow_downgrade: true, ..rules.clone() };
    let accepts = judged(":stable", "1.9.0", &back).expect("allowed").expect("covered");
    assert_eq!(accepts.channel.as_deref(), Some("stable"));
    let wish = |wish: Wish| Policy { wish: Some(wish), ..rules.clone() };
    let range = |range: &str| wish(Wish::version(range).expect("a range"));
    judged(":1.9.0", "1.9.0", &range("^1")).expect_err("the range had 1.10.0");
    judged(":1.9.0", "1.9.0", &range("~1.9")).expect("which it does not hold");
    judged(":2.0.0", "2.0.0", &range(">=1")).expect("the newest");
    // Found by a channel, and then fetched by its digest.
    let stable = wish(Wish::Channel("stable".to_owned()));
    judged(&pinned, "1.9.0", &stable).expect_err("the channel had 1.10.0");
    let exact = wish(Wish::version("1.8.0").expect("a version"));
    judged(&pinned, "1.9.0", &exact).expect_err("another version than was asked for");
}

impl Case {
    fn given_judged(&self, policy: &Policy, before: &store::Place) -> Result<Option<Accepts>> {
        policy.judge(&self.given(), before)
    }
}
