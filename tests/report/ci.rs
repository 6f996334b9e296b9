//! `examples/ci`: the script that the CI files contain, with real images.

use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, put, tool};
use crate::told;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci");
const REPORTS: [&str; 4] = ["parity.xml", "parity.sarif", "parity.html", "parity.json"];

/// The exit code of the script.
fn run(lab: &Lab, args: &[&str]) -> i32 {
    let out = Command::new(format!("{FOLDER}/parity.sh"))
        .args(args)
        .env("DEVBOX", env!("CARGO_BIN_EXE_devbox"))
        .env("DEVBOX_HOME", lab.path("home"))
        .current_dir(lab.path("."))
        .output()
        .expect("sh runs");
    out.status.code().unwrap_or(-1)
}

#[test]
fn the_script_ends_with_the_verdict_and_leaves_reports_always() {
    let lab = Lab::new();
    lab.copy("same.raw");
    put(&lab.copy("other.raw"), 100, b"X");
    std::fs::write(lab.path("noise.raw"), vec![0x5a; 1 << 20]).expect("write");
    assert_eq!(run(&lab, &["a.raw"]), 2);
    for (other, code, verdict) in [
        ("same.raw", 0, "equal"),
        ("other.raw", 1, "different"),
        ("noise.raw", 3, "undetermined"),
        ("absent.raw", 3, "undetermined"),
    ] {
        assert_eq!(run(&lab, &["a.raw", other]), code, "{other}");
        let read =
            |name: &str| std::fs::read_to_string(lab.path("reports").join(name)).expect("a report");
        let all = REPORTS.map(read);
        assert_eq!(told::json(&all[3])["verdict"], verdict);
        assert_eq!(told::json(&all[1])["runs"][0]["properties"]["verdict"], verdict);
        assert_eq!(
            told::json(&all[1])["runs"][0]["invocations"][0]["executionSuccessful"],
            code != 3
        );
        assert!(all[2].contains(&format!("data-verdict=\"{verdict}\"")));
        let junit = roxmltree::Document::parse(&all[0]).expect("XML");
        let root = junit.root_element();
        let bad = [root.attribute("failures"), root.attribute("errors")];
        assert_eq!(bad.iter().any(|n| *n != Some("0")), code != 0, "{}", all[0]);
        assert_eq!(bad[1] != Some("0"), code == 3);
    }
    // No report of another day is left beside a failure.
    assert_eq!(run(&lab, &["a.raw", "same.raw", "--level", "disk"]), 0);
}

#[test]
fn the_files_of_the_ci_can_be_read_and_run_that_script() {
    let parse =
        "import json,sys,yaml; print(json.dumps(yaml.load(open(sys.argv[1]), yaml.BaseLoader)))";
    let read = |name: &str| {
        let path = Path::new(FOLDER).join(name);
        let out = tool("python3", &["-c", parse, path.to_str().expect("UTF-8")]);
        told::json(&String::from_utf8(out.stdout).expect("UTF-8"))
    };
    let command = "examples/ci/parity.sh dev.qcow2 \"$CLOUD_IMAGE\"";
    let github = read("github.yml");
    let steps = github["jobs"]["parity"]["steps"].as_array().expect("steps");
    let find = |key: &str, value: &str| {
        steps.iter().find(|step| step[key].as_str().is_some_and(|v| v.contains(value)))
    };
    assert_eq!(find("run", "parity.sh").expect("a step")["run"], command);
    for (uses, with, value) in [
        ("upload-artifact", "path", "reports/"),
        ("upload-sarif", "sarif_file", "reports/parity.sarif"),
    ] {
        let step = find("uses", uses).expect(uses);
        assert_eq!((&step["if"], &step["with"][with]), (&"always()".into(), &value.into()));
    }
    let gitlab = read("gitlab.yml");
    let job = &gitlab["parity"];
    assert!(job["script"].as_array().expect("a script").contains(&command.into()));
    assert_eq!(job["artifacts"]["when"], "always");
    assert_eq!(job["artifacts"]["reports"]["junit"], "reports/parity.xml");
    assert!(job["artifacts"]["paths"].as_array().expect("paths").contains(&"reports/".into()));
    // What is published is what the script writes.
    let script = std::fs::read_to_string(format!("{FOLDER}/parity.sh")).expect("read");
    assert!(REPORTS.iter().all(|name| script.contains(&format!("\"$reports/{name}\""))));
}
