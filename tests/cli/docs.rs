//! The pages of the repository: links lead somewhere, and the verbs that they name exist.

use std::path::{Path, PathBuf};

use crate::{Sandbox, repository};

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![];
    for folder in ["", "boxes", "docs", "examples/hello", "provisioners", "tests/vectors"] {
        for entry in std::fs::read_dir(repository(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() >= 6, "{pages:?}");
    pages
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("read");
        let folder = page.parent().unwrap_or(Path::new("/"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or(link);
            let inside = !file.is_empty() && !link.contains("://");
            assert!(!inside || folder.join(file).exists(), "{}: `{link}`", page.display());
        }
    }
}

#[test]
fn verbs_that_the_pages_name_exist() {
    let s = Sandbox::new();
    let mut seen = std::collections::BTreeSet::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("read");
        let lines = text.lines().filter_map(|l| l.strip_prefix("    devbox "));
        let quoted = text.split("`devbox ").skip(1);
        for rest in lines.chain(quoted) {
            let verb: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if !verb.is_empty() && seen.insert(verb.clone()) {
                let out = s.run(&[&verb, "--help"]);
                assert!(out.starts_with("exit 0"), "{}: `{verb}`", page.display());
            }
        }
    }
    assert!(seen.contains("parity") && seen.contains("up"), "{seen:?}");
}

/// The architecture page is read in one sitting.
#[test]
fn the_architecture_page_stays_short() {
    let text = std::fs::read_to_string(repository("ARCHITECTURE.md")).expect("read");
    assert!(text.lines().count() < 150);
}

/// What the program asks for at run time, the two commands install.
#[test]
fn every_helper_program_is_installed_by_the_two_commands() {
    let exec = std::fs::read_to_string(repository("src/exec.rs")).expect("read");
    let host = std::fs::read_to_string(repository("scripts/host.sh")).expect("read");
    let (_, tools) = exec.split_once("pub mod tools {").expect("the tools");
    let (tools, _) = tools.split_once("\n}\n").expect("their end");
    let mut seen = 0;
    for package in tools.split("package: \"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(host.contains(&format!("\n{package}|")), "`{package}` is not in scripts/host.sh");
        seen += 1;
    }
    assert!(seen >= 8);
}

/// Each step that the page on steps shows is one that the program takes.
#[test]
fn the_steps_that_the_page_shows_are_valid() {
    const HEAD: &str = "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\n";
    let s = Sandbox::new();
    let project = s.project();
    for folder in ["site", "ansible", "puppet/manifests", "chef", "states"] {
        std::fs::create_dir_all(project.join(folder)).expect("made");
    }
    for file in [
        "install.sh",
        "fetch.sh",
        "app.conf.j2",
        "app.tar",
        "ansible/site.yml",
        "puppet/manifests/site.pp",
    ] {
        s.write(file, "x");
    }
    let page = std::fs::read_to_string(repository("docs/provisioners.md")).expect("read");
    let mut kinds = std::collections::BTreeSet::new();
    for block in page.split("\n\n").filter(|block| block.starts_with("    [[steps]]")) {
        let step: String = block.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        s.write("devbox.toml", &format!("{HEAD}{step}"));
        let out = s.run(&["validate"]);
        assert!(out.starts_with("exit 0"), "{step}\n{out}");
        let kind = step.lines().find_map(|line| line.strip_prefix("type = ")).expect("a type");
        kinds.insert(kind.trim_matches('"').to_owned());
    }
    let all = devbox::spec::keys::STEP_TYPES.iter().map(|variant| variant.name.to_owned());
    assert_eq!(kinds, all.collect());
}
