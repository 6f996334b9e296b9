//! What is said about outputs, checked by the programs of those who defined it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::desk::{ALL, Desk, names, said};
use crate::lab::{text, tool};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
}

#[test]
fn sums_manifest_and_provenance_name_every_file_with_its_digest() {
    let desk = Desk::new(&ALL, "[deploy]\n");
    let built = desk.build("dist");
    let dist = desk.path("dist");
    let all: Vec<_> = names(&dist).into_iter().filter(|name| name != "SHA256SUMS").collect();
    assert_eq!(all.len(), 12 + 3 + 4, "{all:?}");

    let checked =
        tool("sh", &["-c", &format!("cd {} && sha256sum -c --strict SHA256SUMS", text(&dist))]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    let ok: Vec<_> = checked.lines().filter_map(|line| line.strip_suffix(": OK")).collect();
    assert_eq!(ok, all, "every file, in this order");

    // In the order in which each can know of the others.
    let about: Vec<_> = built["about"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|path| {
            Path::new(path.as_str().expect("text"))
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let last = [
        "web-1.2.0.spdx.json",
        "web-1.2.0.provenance.json",
        "manifest.json",
        "terraform.tfvars.json",
        "SHA256SUMS",
    ];
    assert_eq!(about, last);

    let manifest = json(&dist.join("manifest.json"));
    assert_eq!(manifest["schema"], "devbox.outputs/1");
    let files = manifest["files"].as_array().expect("a list");
    let listed: Vec<_> = files.iter().map(|file| file["name"].as_str().expect("text")).collect();
    let mut expected: Vec<_> = all.iter().map(String::as_str).collect();
    expected.retain(|name| !["manifest.json", "terraform.tfvars.json"].contains(name));
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let sums = std::fs::read_to_string(dist.join("SHA256SUMS")).expect("there");
    for file in files {
        let (name, hex) =
            (file["name"].as_str().expect("text"), file["sha256"].as_str().expect("text"));
        assert!(sums.contains(&format!("{hex}  {name}\n")), "{name}");
        let size = std::fs::metadata(dist.join(name)).expect("there").len();
        assert_eq!(file["size"], size, "{name}");
    }
    let disks = files.iter().filter(|file| !file["bytes1"].is_null());
    assert!(disks.clone().all(|file| file["bytes1"] == manifest["box"]["bytes1"]));
    assert_eq!(disks.count(), ALL.len());

    let provenance = json(&dist.join("web-1.2.0.provenance.json"));
    assert_eq!(provenance["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    for subject in provenance["subject"].as_array().expect("a list") {
        let (name, hex) = (
            subject["name"].as_str().expect("text"),
            subject["digest"]["sha256"].as_str().expect("text"),
        );
        assert!(sums.contains(&format!("{hex}  {name}\n")), "{name}");
    }
    let build = &provenance["predicate"]["buildDefinition"];
    assert_eq!(build["externalParameters"]["spec1"], manifest["box"]["spec1"]);
    let source = tool("sha256sum", &[text(&desk.disk)]).stdout;
    let source = String::from_utf8_lossy(&source)[..64].to_owned();
    assert_eq!(build["resolvedDependencies"][0]["digest"]["sha256"], source);

    // No path of this host, and no name of it, in any of them.
    let folder = text(&desk.path("")).to_owned();
    for name in last {
        let told = std::fs::read_to_string(dist.join(name)).expect("text");
        assert!(!told.contains(folder.trim_end_matches('/')), "{name}: {told}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn the_sbom_lists_what_is_installed_as_spdx_wants_it() {
    let desk = Desk::new(&["raw"], "");
    desk.build("dist");
    let path = desk.path("dist/web-1.2.0.spdx.json");
    let sbom = json(&path);
    let packages = sbom["packages"].as_array().expect("a list");
    let names: Vec<_> =
        packages.iter().map(|package| package["name"].as_str().expect("text")).collect();
    assert_eq!(names, ["web", "bash", "libc6"], "nano left its configuration only");
    assert_eq!(
        packages[2]["externalRefs"][0]["referenceLocator"],
        "pkg:deb/debian/libc6@1%3A2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    );
    assert_eq!(sbom["creationInfo"]["created"], "2023-11-14T22:13:20Z");

    // The validator of the SPDX project itself, from PyPI; kept for the next run.
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spdx-tools-0.8.5");
    let program = tools.join("bin/pyspdxtools");
    if !program.exists() {
        let make = format!(
            "rm -rf {0} && python3 -m venv {0} && {0}/bin/pip install -q --timeout 60 spdx-tools==0.8.5",
            text(&tools)
        );
        let made = Command::new("sh").args(["-c", &make]).output().expect("sh runs");
        if !made.status.success() {
            let _ = std::fs::remove_dir_all(&tools);
            eprintln!("not run: the SBOM against SPDX's own validator: {}", said(&made).trim());
            return;
        }
    }
    tool(text(&program), &["-i", text(&path), "--version", "SPDX-2.3"]);
    let wrong = desk.path("wrong.spdx.json");
    let text_of = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&wrong, text_of.replace("\"CONTAINS\"", "\"HOLDS\"")).expect("written");
    let refused =
        Command::new(&program).args(["-i", text(&wrong), "--version", "SPDX-2.3"]).output();
    assert!(!refused.expect("runs").status.success());
}

#[test]
fn a_system_without_a_package_database_has_an_sbom_that_says_so() {
    let desk = Desk::without_packages(&["raw"]);
    let out = desk.command(&["build", "--output-dir", "dist"]).output().expect("runs");
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("the SBOM lists no packages"), "{}", said(&out));
    let sbom = json(&desk.path("dist/web-1.2.0.spdx.json"));
    assert_eq!(sbom["packages"].as_array().map(Vec::len), Some(1));
    assert!(sbom["comment"].as_str().expect("text").contains("could not be told"));
}

/// The module of `examples/terraform` with what a build wrote for it.
#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn the_example_s_module_takes_what_is_written_and_refuses_another_file() {
    let desk = Desk::new(&["qcow2", "vhd"], "");
    let infra = desk.path("infra");
    std::fs::create_dir(&infra).expect("made");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/terraform/infra");
    for name in names(&example) {
        std::fs::copy(example.join(&name), infra.join(&name)).expect("copied");
    }
    desk.spec(&["qcow2", "vhd"], "[deploy]\nterraform = \"infra\"\n");
    desk.build("dist");
    let told = json(&infra.join("terraform.tfvars.json"));
    assert_eq!(told["devbox_box"]["outputs"]["vhd"]["path"], "../dist/web-1.2.0.vhd");
    assert_eq!(told["devbox_box"]["outputs"]["qcow2"]["image_id"], "");
    // Written again, and not over what somebody else wrote.
    desk.build("dist");
    std::fs::write(infra.join("terraform.tfvars.json"), "{\"region\": \"eu\"}").expect("written");
    let out = desk.command(&["build", "--output-dir", "dist"]).output().expect("runs");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("was not written by devbox"), "{}", said(&out));
    std::fs::remove_file(infra.join("terraform.tfvars.json")).expect("removed");
    desk.build("dist");

    let terraform = |args: &[&str]| {
        let mut command = Command::new("terraform");
        command.arg(format!("-chdir={}", text(&infra))).args(args).env("CHECKPOINT_DISABLE", "1");
        command.env_remove("TF_CLI_CONFIG_FILE").output()
    };
    if terraform(&["version"]).is_err() {
        eprintln!("not run: Terraform with the example's module: `terraform` is not installed");
        return;
    }
    let ran = |args: &[&str]| {
        let out = terraform(args).expect("runs");
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    ran(&["init", "-input=false", "-no-color"]);
    ran(&["validate", "-no-color"]);
    ran(&["apply", "-auto-approve", "-input=false", "-no-color"]);
    let image = ran(&["output", "-raw", "image"]);
    assert!(image.ends_with("/../dist/web-1.2.0.qcow2"), "{image}");
    let changed = ran(&["plan", "-detailed-exitcode", "-no-color"]);
    assert!(changed.contains("No changes"), "{changed}");
    // Bytes that devbox has not written.
    let file = desk.path("dist/web-1.2.0.vhd");
    tool("truncate", &["-s", "+512", text(&file)]);
    let out = terraform(&["plan", "-var", "output=vhd", "-no-color"]).expect("runs");
    assert!(
        !out.status.success() && said(&out).contains("is not the file that devbox"),
        "{}",
        said(&out)
    );
}
