//! Each form of one comparison against the rules of its format.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;

use jsonschema::Validator;
use proptest::prelude::{ProptestConfig, prop_assert_eq};
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::lab::{Lab, text};
use crate::{pair, told};

/// Every form of the pair's report, in the order of [`NAMES`].
const NAMES: [&str; 5] = ["r.txt", "r.json", "r.xml", "r.sarif", "r.html"];

fn reports(lab: &Lab, level: &str) -> Vec<String> {
    let mut args = vec!["parity", "a.raw", "b.raw", "--all", "--level", level];
    for name in NAMES {
        args.extend(["-o", name]);
    }
    let (code, out) = lab.devbox(&args);
    assert!(code <= 1 && out.is_empty(), "{code}: {out}");
    NAMES.iter().map(|name| std::fs::read_to_string(lab.path(name)).expect("a report")).collect()
}

#[test]
fn every_form_tells_the_same_and_none_tells_a_secret() {
    let lab = Lab::new();
    pair::make(&lab);
    let all = reports(&lab, "content");
    let told = told::by_json(&all[1]);
    assert_eq!(told.verdict, "different");
    for expected in [
        "boot.command-line",
        "privilege.setuid",
        "access.sudo",
        "access.accounts",
        "access.shared-host-keys",
        "packages.changed",
        "packages.sources",
        "config.etc",
    ] {
        assert!(told.groups.contains(expected), "{expected}: {:?}", told.groups);
    }
    assert_eq!(told::by_sarif(&all[3]), told);
    assert_eq!(told::by_junit(&all[2]), told);
    assert_eq!(told::by_html(&all[4]), told);
    let of_text = told::by_text(&all[0]);
    assert_eq!(of_text.counts["differences"], told.counts["differences"]);
    assert_eq!(told::Told { counts: told.counts.clone(), ..of_text }, told);
    for (name, report) in NAMES.iter().zip(&all) {
        // A page spells the slash so.
        let report = report.replace("&#x2f;", "/");
        for secret in pair::SECRETS {
            assert!(!report.contains(secret), "{name} holds {secret}");
        }
        // What differs is told all the same.
        for path in ["etc/shadow", "etc/environment", "etc/db.ini", "etc/app/server.conf"] {
            assert!(report.contains(path), "{name} lacks {path}");
        }
    }
}

#[test]
fn small_differences_are_told_alike() {
    let lab = Lab::new();
    let changes: [&[&str]; 4] = [
        &["set_inode_field /bin/busybox mode 0100755"],
        &["rm /etc/shadow", "cd /etc", "symlink gone nowhere"],
        &["ea_set /etc/shadow user.a 1"],
        &["cd /dev", "mknod disk b 8 0"],
    ];
    for requests in changes {
        lab.changed(requests);
        let all = reports(&lab, "content");
        let told = told::by_json(&all[1]);
        assert!(told.counts["differences"] > 0 && !told.groups.is_empty(), "{requests:?}");
        assert_eq!(told::by_junit(&all[2]), told);
        assert_eq!(told::by_sarif(&all[3]), told);
        assert_eq!(told::by_html(&all[4]), told);
    }
    let other = lab.convert("a.qcow2", &["qcow2"]);
    for format in ["json", "junit", "sarif", "html"] {
        let args = ["parity", "a.raw", text(&other), "--format", format];
        let (code, out) = lab.devbox(&args);
        assert_eq!(code, 0, "{out}");
        let told = match format {
            "json" => told::by_json(&out),
            "junit" => told::by_junit(&out),
            "html" => told::by_html(&out),
            _ => told::by_sarif(&out),
        };
        assert_eq!((told.verdict.as_str(), told.groups.len()), ("equal", 0));
    }
}

/// Whatever differs, at whatever level: one verdict, the same counts and groups in every form.
#[test]
fn random_pairs_are_told_alike() {
    let lab = Lab::new();
    let levels = ["disk", "content", "tree", "times", "packages"];
    let config = ProptestConfig {
        cases: 40,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let verdicts = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(config);
    let strategy = (proptest::array::uniform(proptest::bool::weighted(0.3)), 0..levels.len());
    runner
        .run(&strategy, |(chosen, level)| {
            pair::make_some(&lab, &chosen);
            let all = reports(&lab, levels[level]);
            let told = told::by_json(&all[1]);
            prop_assert_eq!(&told::by_sarif(&all[3]), &told);
            prop_assert_eq!(&told::by_junit(&all[2]), &told);
            prop_assert_eq!(&told::by_html(&all[4]), &told);
            let of_text = told::by_text(&all[0]);
            prop_assert_eq!(of_text.counts["differences"], told.counts["differences"]);
            let counts = told.counts.clone();
            prop_assert_eq!(&told::Told { counts, ..of_text }, &told);
            verdicts.borrow_mut().insert(told.verdict);
            Ok(())
        })
        .expect("every form tells the same");
    let verdicts = verdicts.into_inner();
    assert!(verdicts.contains("different"), "{verdicts:?}");
}

#[test]
fn the_json_object_fits_its_schema() {
    let lab = Lab::new();
    pair::make(&lab);
    let (code, schema) = lab.devbox(&["schema", "parity"]);
    assert_eq!(code, 0, "{schema}");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    let ids = schema["$defs"]["id"]["enum"].as_array().expect("ids");
    let causes = devbox::parity::explain::cause::ALL.map(|cause| cause.about().id);
    assert_eq!(ids.iter().filter_map(Value::as_str).collect::<Vec<_>>(), causes);
    let validator = Validator::new(&schema).expect("it compiles");
    for level in ["file", "disk", "content", "tree", "times", "packages"] {
        for other in ["a.raw", "b.raw"] {
            let (_, out) = lab.devbox(&["parity", "a.raw", other, "--level", level, "--json"]);
            let object = told::json(&out);
            let errors: Vec<_> = validator.iter_errors(&object).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{level} {other}: {errors:?}");
        }
    }
    // It can tell a wrong one.
    let (_, out) = lab.devbox(&["parity", "a.raw", "b.raw", "--json"]);
    for (pointer, wrong) in [
        ("/verdict", Value::from("same")),
        ("/counts/remain", Value::from(-1)),
        ("/groups/0/id", Value::from("boot.moon")),
        ("/differences/0/changes", Value::from(Vec::<Value>::new())),
        ("/a/digests/0", Value::from("box1:12")),
    ] {
        let mut object = told::json(&out);
        *object.pointer_mut(pointer).expect(pointer) = wrong;
        assert!(!validator.is_valid(&object), "{pointer}");
    }
}

/// The rules of the XSD of Jenkins' xUnit plugin, which is the widest read: names, numbers that add up.
#[test]
fn junit_has_the_elements_and_the_numbers_that_readers_expect() {
    let lab = Lab::new();
    pair::make(&lab);
    for other in ["b.raw", "a.raw"] {
        let (_, out) = lab.devbox(&["parity", "a.raw", other, "--format", "junit"]);
        let document = roxmltree::Document::parse(&out).expect("XML");
        let root = document.root_element();
        assert!(root.has_tag_name("testsuites"));
        let elements = |node: roxmltree::Node<'_, '_>, name: &str| {
            node.descendants().filter(|n| n.has_tag_name(name)).count().to_string()
        };
        let allowed = [
            (
                "testsuites",
                &["name", "tests", "failures", "errors", "time"][..],
                &["testsuite"][..],
            ),
            (
                "testsuite",
                &["name", "tests", "failures", "errors", "skipped", "time"],
                &["properties", "testcase"],
            ),
            ("properties", &[], &["property"]),
            ("property", &["name", "value"], &[]),
            ("testcase", &["classname", "name", "time"], &["failure", "system-out"]),
            ("failure", &["message", "type"], &[]),
            ("system-out", &[], &[]),
        ];
        for node in root.descendants().filter(roxmltree::Node::is_element) {
            let name = node.tag_name().name();
            let (_, attributes, children) = allowed.iter().find(|(n, ..)| *n == name).expect(name);
            assert!(node.attributes().all(|a| attributes.contains(&a.name())), "{name}");
            assert_eq!(node.attributes().len(), attributes.len(), "{name}");
            let inside = node.children().filter(roxmltree::Node::is_element);
            assert!(inside.clone().all(|n| children.contains(&n.tag_name().name())), "{name}");
            if ["testsuites", "testsuite"].contains(&name) {
                assert_eq!(node.attribute("tests"), Some(elements(node, "testcase").as_str()));
                assert_eq!(node.attribute("failures"), Some(elements(node, "failure").as_str()));
                assert_eq!(node.attribute("errors"), Some("0"));
            }
        }
        // Properties stand in front of the cases.
        let suite = root.first_element_child().expect("a suite");
        assert!(suite.first_element_child().is_some_and(|n| n.has_tag_name("properties")));
        let failed = root.attribute("failures").expect("a number") != "0";
        assert_eq!(failed, other == "b.raw", "{out}");
        for class in [
            "boot",
            "privilege",
            "access",
            "packages",
            "files",
            "services",
            "config",
            "metadata",
            "data",
            "layout",
        ] {
            assert!(out.contains(&format!("classname=\"parity.{class}\"")), "{class}");
        }
    }
}

/// The public schema, from the package that Microsoft publishes it in.
#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn sarif_fits_the_public_schema() {
    const PACKAGE: &str =
        "https://registry.npmjs.org/@microsoft/jest-sarif/-/jest-sarif-1.0.0-beta.0.tgz";
    const MEMBER: &str = "package/lib/schemas/sarif-2.1.0-rtm.5.json";
    let lab = Lab::new();
    pair::make(&lab);
    let archive = lab.path("sarif.tgz");
    let args = ["-sSfL", "--max-time", "60", "--retry", "2", "-o", text(&archive), PACKAGE];
    let fetched = Command::new("curl").args(args).output();
    if let Some(why) = match &fetched {
        Err(e) => Some(e.to_string()),
        Ok(out) if !out.status.success() => Some(String::from_utf8_lossy(&out.stderr).into_owned()),
        Ok(_) => None,
    } {
        eprintln!("not run: sarif_fits_the_public_schema: {}", why.trim());
        return;
    }
    let out = crate::lab::tool("tar", &["-xzOf", text(&archive), MEMBER]);
    // One pattern has a bracket that stands for itself in ECMAScript alone.
    let schema = String::from_utf8(out.stdout).expect("UTF-8").replace("{2}]?$", "{2}\\\\]?$");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    assert!(schema.to_string().contains("Static Analysis Results Format (SARIF) Version 2.1.0"));
    let validator = Validator::new(&schema).expect("it compiles");
    for other in ["a.raw", "b.raw"] {
        let (_, out) = lab.devbox(&["parity", "a.raw", other, "--format", "sarif"]);
        let log = told::json(&out);
        let errors: Vec<_> =
            validator.iter_errors(&log).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(log["version"], "2.1.0");
        let mut wrong = log;
        wrong["runs"][0]["invocations"][0]["executionSuccessful"] = Value::from("yes");
        assert!(!validator.is_valid(&wrong));
    }
}
