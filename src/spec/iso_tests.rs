//! `[source]` with `type = "iso"`: what is taken, and what is said about the rest.

use std::path::Path;
use std::time::Duration;

use super::*;

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["a.iso", "user-data", "preseed.cfg"] {
        std::fs::write(dir.path().join(name), "x\n").expect("written");
    }
    dir
}

fn text(rest: &str) -> String {
    format!(
        "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"iso\"\npath = \"a.iso\"\nsha256 = \"{SHA}\"\n{rest}"
    )
}

fn source(dir: &Path, rest: &str) -> IsoSource {
    let spec = parse(&text(rest), Path::new("f"), dir);
    let Source::Iso(iso) = spec.expect("valid").source else { panic!("iso") };
    iso
}

fn problems(rest: &str) -> Vec<String> {
    let dir = folder();
    let problems = parse(&text(rest), Path::new("f"), dir.path()).expect_err("problems");
    let told =
        |p: &Problem| format!("{}: {}. {}", p.path, p.what, p.hint.as_deref().unwrap_or_default());
    problems.list().iter().map(told).collect()
}

#[test]
fn a_medium_alone_boots_by_itself() {
    let dir = folder();
    let iso = source(dir.path(), "");
    assert_eq!(iso.location, Location::Path(dir.path().join("a.iso")));
    assert_eq!((iso.disk_size, iso.reboots, iso.end), (8 << 30, 3, End::PowerOff));
    assert_eq!((iso.boot, iso.answers), (Boot::Cd, vec![]));
    assert_eq!(iso.timeout, Duration::from_secs(7200));
}

#[test]
fn answers_have_a_place_and_a_name() {
    let dir = folder();
    let iso = source(
        dir.path(),
        "disk = \"2GiB\"\nend = \"reboot\"\nreboots = 0\n\
         answers = [{ type = \"cd\", label = \"cidata\", source = \"user-data\" },\n\
         { type = \"http\", source = \"preseed.cfg\", name = \"d-i/a.cfg\" },\n\
         { type = \"fw-cfg\", source = \"user-data\", name = \"opt/com.coreos/config\" },\n\
         { type = \"initrd\", source = \"preseed.cfg\" },\n\
         { type = \"floppy\", source = \"preseed.cfg\" }]\n\
         [source.boot]\ntype = \"kernel\"\nkernel = \"casper/vmlinuz\"\ninitrd = \"casper/initrd\"\n\
         cmdline = \"url={{ http }}/d-i/a.cfg\"\n",
    );
    let places: Vec<_> = iso.answers.iter().map(|a| (a.place.as_str(), &*a.name)).collect();
    assert_eq!(
        places,
        [
            ("cd", "user-data"),
            ("http", "d-i/a.cfg"),
            ("fw-cfg", "opt/com.coreos/config"),
            ("initrd", "preseed.cfg"),
            ("floppy", "preseed.cfg")
        ]
    );
    assert_eq!(iso.answers[0].place, Place::Cd("cidata".to_owned()));
    assert!(iso.serves());
    assert!(matches!(iso.boot, Boot::Kernel { initrd: Some(_), .. }));
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    assert_eq!(
        problems(
            "answers = [{ type = \"initrd\", source = \"user-data\" },\n\
             { type = \"http\", source = \"user-data\" }, { type = \"http\", source = \"user-data\" }]\n\
             [source.boot]\ntype = \"command\"\ncommand = \"<entre>{{ htpp }}\"\n"
        ),
        [
            "source.answers: nothing can be appended to the initial RAM disk, which the boot loader loads. Add `[source.boot]` with `type = \"kernel\"` and an `initrd`.",
            "source.answers[2].source: there are two answers with the name `user-data` in the same place. Give one of them another `name`, or remove it.",
            "source.boot.command: there is no variable `htpp`, at character 8. Known are `{{ http }}` and `{{ hostname }}`.",
            "source.boot.command: there is no key `<entre>`, at character 1. Did you mean `<enter>`?",
        ]
    );
    assert_eq!(
        problems("[source.boot]\ntype = \"kernel\"\nkernel = \"k\"\ncmdline = \"{{ http }}\"\n"),
        [
            "source.boot.cmdline: there is no variable `http`, at character 1. Add an entry to `answers` with `type = \"http\"`: without one, nothing is served."
        ]
    );
    assert_eq!(
        problems("answers = [{ type = \"fw-cfg\", source = \"user-data\", name = \"config\" }]\n"),
        ["source.answers[0].name: `config` is not valid here. Did you mean `opt/config`?"]
    );
}

#[test]
fn the_digest_covers_what_is_installed_and_not_how_long_it_may_take() {
    let dir = folder();
    let of = |rest: &str| {
        let spec = parse(&text(rest), Path::new("f"), dir.path()).expect("valid");
        digest::spec1(&spec, None).expect("digested")
    };
    let boot = "[source.boot]\ntype = \"command\"\ncommand = \"<enter>\"\n";
    let answer = "answers = [{ type = \"cd\", label = \"cidata\", source = \"user-data\" }]\n";
    let before = of(&format!("{answer}{boot}"));
    for same in [
        format!("timeout = \"3h\"\nstart_timeout = \"1h\"\nreboots = 9\n{answer}{boot}"),
        format!("{answer}{boot}wait = \"30s\"\n"),
    ] {
        assert_eq!(of(&same), before, "{same}");
    }
    for other in [
        format!("disk = \"9GiB\"\n{answer}{boot}"),
        format!("end = \"reboot\"\n{answer}{boot}"),
        format!("{}{boot}", answer.replace("cidata", "OEMDRV")),
        format!("{answer}{}", boot.replace("<enter>", "<esc>")),
        answer.to_owned(),
    ] {
        assert_ne!(of(&other), before, "{other}");
    }
    std::fs::write(dir.path().join("user-data"), "another\n").expect("written");
    assert_ne!(of(&format!("{answer}{boot}")), before);
}
