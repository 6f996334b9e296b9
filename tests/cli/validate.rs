//! `devbox validate`.

use crate::{Sandbox, shipped};

const BAD: &str = "name = \"web\"\nversion = \"1.0\"\n\n[source]\ntype = \"packages\"\nsuit = \"bookworm\"\n\n\
    [[steps]]\ntype = \"shell\"\nscript = \"install.sh\"\ntimeout = \"10min\"\n";

#[test]
fn a_valid_spec_says_what_it_is() {
    let s = Sandbox::new();
    s.write("devbox.toml", "name = \"web\"\nversion = \"1.0.0\"\noutputs = [\"raw\"]\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n");
    insta::assert_snapshot!(s.run(&["validate"]));
    insta::assert_snapshot!(s.run(&["validate", "--json"]));
}

#[test]
fn a_spec_that_nobody_built_says_so() {
    let s = Sandbox::new();
    s.write("devbox.toml", "name = \"web\"\nversion = \"1.0.0\"\ntested = false\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n");
    let out = s.run(&["validate"]);
    assert!(out.contains("`tested = false`: whoever wrote it could not build it"), "{out}");
    assert!(s.run(&["validate", "--json"]).contains("\"tested\": false"), "{out}");
}

#[test]
fn all_problems_are_shown_with_their_lines() {
    let s = Sandbox::new();
    s.write("devbox.toml", BAD);
    insta::assert_snapshot!(s.run(&["validate"]));
}

#[test]
fn all_problems_as_json_on_standard_output() {
    let s = Sandbox::new();
    s.write("devbox.toml", BAD);
    insta::assert_snapshot!(s.run(&["validate", "--json"]));
}

#[test]
fn mounts_that_cannot_be_are_named_each_with_a_hint() {
    let s = Sandbox::new();
    s.write("file", "");
    s.write("dir/file", "");
    let mount = |source: &str, target: &str, more: &str| {
        format!("[[mounts]]\nsource = \"{source}\"\ntarget = \"{target}\"\n{more}\n")
    };
    let head = "name = \"web\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\n\
        suite = \"bookworm\"\n[machines.a]\nuser = \"ada\"\n[machines.b]\n";
    let good = [
        mount("dir", "/work", "writable = true"),
        mount("dir", "/home/ada/work", "machines = [\"a\"]"),
        mount(".", "/home/ada/work", "machines = [\"b\"]"),
        mount("~", "/data", "type = \"rsync\"\nexclude = [\".git/\"]"),
    ];
    s.write("devbox.toml", &format!("{head}{}", good.concat()));
    let said = s.run(&["validate"]);
    assert!(said.starts_with("exit 0\n"), "{said}");
    let bad = [
        mount("none", "/work", ""),
        mount("file", "/work/2", ""),
        mount("dir", "work", ""),
        mount("dir", "/etc", ""),
        mount("dir", "/proc/x", ""),
        mount("dir", "/home/ada", ""),
        mount("dir", "/a/../b", ""),
        mount("dir", "/same", ""),
        mount(".", "/same", "machines = [\"b\"]"),
        mount("dir", "/c", "type = \"nfs\""),
        mount("dir", "/d", "type = \"rsync\"\nwritable = true"),
        mount("dir", "/e", "exclude = [\"x\"]"),
        mount("dir", "/f", "machines = [\"c\"]"),
    ];
    s.write("devbox.toml", &format!("{head}{}", bad.concat()));
    insta::assert_snapshot!(s.run(&["validate"]));
    let many: Vec<String> = (0..8).map(|n| mount("dir", &format!("/m{n}"), "")).collect();
    s.write("devbox.toml", &format!("{head}{}", many.concat()));
    let said = s.run(&["validate"]);
    assert!(said.contains("`a` has 8 mounts of type `9p` or `virtiofs`, and room for 7"), "{said}");
}

#[test]
fn a_spec_is_found_from_below_and_by_file_or_folder() {
    let s = Sandbox::new();
    s.write("devbox.toml", "name = \"web\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n");
    s.write("a/b/x", "");
    let mut below = s.devbox();
    let out = below.current_dir(s.project().join("a/b")).arg("validate").output().expect("runs");
    assert!(out.status.success(), "{out:?}");
    assert!(s.run(&["validate", "devbox.toml"]).starts_with("exit 0\n"));
    assert!(s.run(&["validate", "."]).starts_with("exit 0\n"));
}

#[test]
fn files_that_cannot_be_a_spec_are_refused_with_the_next_step() {
    let s = Sandbox::new();
    insta::assert_snapshot!(s.run(&["validate"]));
    insta::assert_snapshot!(s.run(&["validate", "other.toml"]));
    let file = s.project().join("devbox.toml");
    std::fs::write(&file, b"name = \"web\"\nversion = \"\xff\"\n").expect("written");
    insta::assert_snapshot!(s.run(&["validate"]));
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).expect("written");
    insta::assert_snapshot!(s.run(&["validate"]));
}

#[test]
fn an_endless_file_does_not_hang() {
    let s = Sandbox::new();
    assert!(s.run(&["validate", "/dev/zero"]).starts_with("exit 2\n"));
}

#[test]
fn every_spec_that_ships_is_valid() {
    let s = Sandbox::new();
    for file in shipped() {
        let out = s.run(&["validate", &file.display().to_string()]);
        assert!(out.starts_with("exit 0\n"), "{out}");
    }
}
