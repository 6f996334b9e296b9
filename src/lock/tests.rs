use super::*;

use std::path::Path;

use crate::spec::{Checksum, Source, parse};

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.to_owned(),
        arch: "amd64".to_owned(),
        version: version.to_owned(),
        kind: None,
        sha256: None,
        step: false,
    }
}

/// Without a step, of the installer.
fn host(step: &str, host: &str, port: Option<u16>, udp: bool) -> Host {
    let installer = step.is_empty();
    Host { step: step.to_owned(), installer, host: host.to_owned(), port, udp }
}

fn example() -> Lock {
    let mut lock = Lock {
        version: VERSION,
        spec: "spec1:00".to_owned(),
        snapshot: Some("2026-07-11T10:16:37Z".to_owned()),
        source_box: None,
        inputs: vec![Input { name: "step \"a\\b\"".to_owned(), digest: "step1:00".to_owned() }],
        hosts: vec![
            host("", "files.example", Some(443), false),
            host("b", MIRROR, None, false),
            host("b", "ns.example", Some(53), true),
        ],
        packages: vec![],
        replaced: vec![],
        tools: Tools {
            devbox: "0.1.0".to_owned(),
            firmware: "SeaBIOS".to_owned(),
            mmdebstrap: Some("1.3.5".to_owned()),
            qemu: "7.2.22 (Debian 1:7.2+dfsg)".to_owned(),
        },
    };
    let own = [package("b", "1"), package("a", "1"), package("c", "1")];
    lock.set_packages(&own, vec![package("b", "2"), package("d", "1"), package("a", "1")]);
    lock
}

#[test]
fn what_is_written_is_read_and_one_entry_is_one_line() {
    let lock = example();
    let text = lock.text();
    assert_eq!(Lock::parse(&text).as_ref(), Ok(&lock));
    assert!(text.starts_with("# Made by `devbox lock`; keep it in git"), "{text}");
    assert!(text.contains("\n  { name = \"a\", arch = \"amd64\", version = \"1\" },\n"), "{text}");
    assert!(
        text.contains("\n  { name = \"b\", arch = \"amd64\", version = \"2\", step = true },\n")
    );
    assert!(
        text.contains("  { step = \"b\", host = \"ns.example\", port = 53, udp = true },\n"),
        "{text}"
    );
    let installer = "  { installer = true, host = \"files.example\", port = 443 },\n";
    assert!(text.contains(installer), "{text}");
    assert_eq!(Lock::parse(&text).expect("read").text(), text);
}

#[test]
fn what_a_step_brought_and_what_it_replaced_are_told_apart() {
    let lock = example();
    let names = |list: &[Package]| {
        list.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>()
    };
    assert_eq!(names(&lock.packages), ["a 1", "b 2", "d 1"]);
    assert_eq!(names(&lock.replaced), ["b 1", "c 1"]);
    assert_eq!(names(&lock.source_packages()), ["a 1", "b 1", "c 1"]);
    let without = lock.without(&["b".to_owned()].into());
    assert_eq!(names(&without.source_packages()), ["a 1", "c 1"]);
    assert_eq!(lock.without(&["packages".to_owned()].into()).source_packages(), []);
}

#[test]
fn a_host_is_locked_for_every_step_and_with_its_port() {
    let lock = example();
    assert!(lock.reaches(&host("other", MIRROR, None, false)));
    assert!(lock.reaches(&host("b", "ns.example", Some(53), true)));
    assert!(!lock.reaches(&host("b", "ns.example", Some(53), false)));
    assert!(!lock.reaches(&host("b", "ns.example", Some(54), true)));
    let mut other = lock.clone();
    other.hosts[0].port = Some(80);
    other.hosts[1].port = Some(80);
    let changed = lock.changed(&other).into_iter().map(|d| d.what).collect::<Vec<_>>();
    assert_eq!(
        changed,
        [
            "the installer reaches `files.example:80`, which is not locked",
            "the step `b` reaches `mirror:80`, which is not locked",
            "the installer no longer reaches `files.example:443`",
            "the step `b` no longer reaches `mirror`"
        ]
    );
}

#[test]
fn a_file_that_is_no_lock_is_refused_with_the_line() {
    let text = example().text();
    for (from, to, why) in [
        ("spec = ", "sepc = ", "line 3: unknown field `sepc`"),
        ("arch = \"amd64\"", "arc = \"amd64\"", "unknown field `arc`"),
        ("version = 1\n", "version = 2\n", "its version is 2"),
        ("version = 1\n", "version = 2\nmore = 1\n", "this devbox reads 1: a newer one wrote it"),
        ("version = 1\n", "<<<<<<< HEAD\n", "line 2: a conflict of a merge is not resolved"),
        ("2026-07-11T10:16:37Z", "a day in July", "its `snapshot` is no time: `a day in July`"),
        ("step \\\"a\\\\b\\\"", "source", "the digest of `source` is none: `step1:00`"),
        (
            "inputs = [\n",
            "inputs = [\n  { name = \"x\", digest = \"a\" },\n  { name = \"x\", digest = \"b\" },\n",
            "the input `x` is there twice",
        ),
        ("name = \"a\"", "name = \"a\\nPin: x\"", "is no package"),
        ("\n[tools]", "\n[others]", "unknown field `others`"),
        (
            "installer = true, ",
            "",
            "the host `files.example:443` needs either `step` or `installer = true`",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let e = Lock::parse(&text.replacen(from, to, 1)).expect_err(why);
        assert!(e.contains(why), "{why}: {e}");
    }
}

#[test]
fn packages_differ_by_version_by_archive_and_by_being_there() {
    let archive = |sha256: &str| Package { sha256: Some(sha256.to_owned()), ..package("e", "1") };
    let what = |a: &[Package], b: &[Package]| {
        package_differences(a, b).into_iter().map(|d| d.what).collect::<Vec<_>>()
    };
    assert_eq!(
        what(
            &[package("a", "1"), package("b", "1"), archive("aa")],
            &[package("b", "2"), package("c", "1"), archive("bb")]
        ),
        [
            "`a` 1 is locked and not installed",
            "`b` is locked at 1 and is 2",
            "`c` 1 is installed and not locked",
            "the archive of `e` is locked as sha256:aa and is sha256:bb",
        ]
    );
    assert!(what(&[archive("aa")], &[package("e", "1")]).is_empty(), "an unknown digest is none");
    // Two versions side by side, as kernels of rpm.
    let both = [package("k", "1"), package("k", "2")];
    assert!(what(&both, &both).is_empty());
    assert_eq!(what(&both, &both[1..]), ["`k` is locked at 1, 2 and is 2"]);
}

#[test]
fn a_lock_fits_its_spec_until_something_that_it_holds_is_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("s.sh"), "true\n").expect("written");
    let text = "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\
        [[steps]]\ntype = \"shell\"\nname = \"one\"\nscript = \"s.sh\"\n[machine]\ncpus = 1\n";
    let of = |text: &str| parse(text, Path::new("devbox.toml"), dir.path()).expect("valid");
    let spec = of(text);
    let lock = Lock {
        spec: fingerprint(&spec, None).expect("digested"),
        inputs: inputs(&spec, None).expect("read"),
        ..example()
    };
    let names = lock.inputs.iter().map(|input| &*input.name).collect::<Vec<_>>();
    assert_eq!(names, ["step one", "step one: script"]);
    let unfit = |text: &str| {
        let unfit = lock.unfit(&of(text)).expect("read");
        unfit.into_iter().map(|d| d.what).collect::<Vec<_>>()
    };
    assert!(unfit(text).is_empty());
    for same in [("1.0.0", "2.0.0"), ("cpus = 1", "cpus = 4")] {
        assert!(unfit(&text.replace(same.0, same.1)).is_empty(), "{same:?}");
    }
    assert_eq!(unfit(&text.replace("bookworm", "trixie")).len(), 1);
    assert!(
        unfit(&text.replace("\"one\"", "\"two\""))[0]
            .starts_with("`step one` is locked and no longer")
    );
    std::fs::write(dir.path().join("s.sh"), "false\n").expect("written");
    let changed = unfit(text);
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[1].starts_with("`step one: script` was changed: sha256:"), "{changed:?}");
}

#[test]
fn a_lock_pins_an_image_whatever_its_checksum_file_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"image\"\nurl = \"https://h.example/d\"\n\
        checksums = \"https://h.example/SUMS\"\n";
    let spec = parse(text, Path::new("devbox.toml"), dir.path()).expect("valid");
    let image = crate::digest::FileDigest::of(b"x");
    let lock = Lock {
        spec: fingerprint(&spec, Some(&image)).expect("digested"),
        inputs: inputs(&spec, Some(&image)).expect("read"),
        snapshot: None,
        ..example()
    };
    assert!(lock.unfit(&spec).expect("read").is_empty());
    let Source::Image(pinned) = lock.pin(&spec).source else { panic!("an image") };
    assert_eq!(pinned.checksum, Checksum::Sha256(image.hex()));
    let stated = text.replace(
        "checksums = \"https://h.example/SUMS\"",
        &format!("sha256 = \"{}\"", "0".repeat(64)),
    );
    let other = parse(&stated, Path::new("devbox.toml"), dir.path()).expect("valid");
    let unfit = lock.unfit(&other).expect("read");
    assert_eq!((unfit.len(), &*unfit[0].name), (1, SOURCE));
    // Another kind of source than the locked one.
    let text =
        "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";
    let packages = parse(text, Path::new("devbox.toml"), dir.path()).expect("valid");
    assert!(!lock.unfit(&packages).expect("read").is_empty());
    let dated = Lock { snapshot: example().snapshot, inputs: vec![], ..lock };
    assert!(!dated.unfit(&spec).expect("read").is_empty());
}

const BOXED: &str = "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"box\"\n\
    box = \"oci://r.example/base\"\nversion = \"^1.2\"\n";

fn boxed(text: &str) -> Spec {
    parse(text, Path::new("f"), Path::new("/")).expect("valid")
}

#[test]
fn a_box_is_pinned_and_another_wish_does_not_fit() {
    let (spec, disk) = (boxed(BOXED), FileDigest::of(b"disk"));
    let Source::Box(source) = &spec.source else { panic!("a box") };
    let lock = Lock {
        spec: fingerprint(&spec, Some(&disk)).expect("digested"),
        snapshot: None,
        source_box: Some(LockedBox {
            wanted: LockedBox::wanted(source),
            version: "1.2.3".to_owned(),
            manifest: FileDigest::of(b"manifest"),
        }),
        inputs: inputs(&spec, Some(&disk)).expect("digested"),
        ..example()
    };
    assert_eq!(Lock::parse(&lock.text()).as_ref(), Ok(&lock));
    assert_eq!(lock.unfit(&spec).expect("told"), []);
    let pinned = lock.pinned_box(source).expect("pinned");
    assert_eq!((pinned.version.as_str(), pinned.disk), ("1.2.3", disk));
    let Source::Box(found) = lock.pin(&spec).source else { panic!("a box") };
    assert_eq!(found.pinned, Some(pinned));
    for (from, to) in [("^1.2", "^1.3"), ("r.example/base", "r.example/other")] {
        let other = boxed(&BOXED.replace(from, to));
        let unfit = lock.unfit(&other).expect("told");
        assert_eq!((unfit.len(), unfit[0].name.as_str()), (1, SOURCE), "{to}: {unfit:?}");
        assert!(unfit[0].what.contains(to), "{unfit:?}");
        let Source::Box(source) = &other.source else { panic!("a box") };
        assert!(lock.pinned_box(source).is_none());
    }
    // Found anew, nothing of it stays.
    let loose = lock.without(&[SOURCE.to_owned()].into());
    assert!(loose.source_box.is_none() && loose.pinned_box(source).is_none());
    let text = lock.text().replace("manifest = \"sha256:", "manifest = \"sha512:");
    assert!(Lock::parse(&text).is_err());
}

#[test]
fn which_box_is_meant_is_said_once_and_in_words_that_are_known() {
    let wrong = |from: &str, to: &str| {
        let text = BOXED.replace(from, to);
        assert_ne!(text, BOXED);
        let problems = parse(&text, Path::new("f"), Path::new("/")).expect_err(to);
        problems.render(false)
    };
    for (from, to, word) in [
        ("version = \"^1.2\"", "version = \"^1.2\"\nchannel = \"stable\"", "says twice"),
        ("^1.2", "^^1", "neither a version nor a range"),
        ("^1.2", "1.2.3.4", "neither a version nor a range"),
        ("r.example/base", "r.example/base:1.0.0", "without a tag"),
        ("oci://r.example/base", "a b", "without a tag"),
        ("oci://r.example/base", &format!("base@{}", FileDigest::of(b"x")), "says twice"),
    ] {
        let said = wrong(from, to);
        assert!(said.contains(word), "{to}: {said}");
    }
    let own = BOXED.replace("oci://r.example/base", "base");
    assert!(parse(&own, Path::new("f"), Path::new("/")).is_ok());
    let channel = own.replace("version = \"^1.2\"", "channel = \"stable\"");
    let said = parse(&channel, Path::new("f"), Path::new("/")).expect_err("no channel");
    assert!(said.render(false).contains("has no channels"));
    assert!(boxed(BOXED).is_box().is_some());
    let step = format!("{BOXED}[[steps]]\ntype = \"shell\"\ninline = \"true\"\n");
    assert!(boxed(&step).is_box().is_none());
    assert!(boxed(&format!("{BOXED}[seal]\nhostname = \"b\"\n")).is_box().is_none());
}

#[test]
fn line_ends_of_another_system_are_the_same_lock() {
    let text = example().text().replace('\n', "\r\n");
    assert_eq!(Lock::parse(&text), Ok(example()));
}

#[test]
fn what_a_killed_devbox_left_goes_with_the_next_lock() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, new) = (dir.path().join(".devbox.lock-a"), dir.path().join(".devbox.lock-b"));
    for path in [&old, &new] {
        std::fs::write(path, "half").expect("written");
    }
    let long_ago = std::time::SystemTime::now() - 2 * LEFT;
    let file = std::fs::File::options().write(true).open(&old).expect("there");
    file.set_modified(long_ago).expect("set");
    remove_left(dir.path());
    assert!(!old.exists() && new.exists());
}

#[test]
fn a_digest_that_was_edited_in_the_lock_is_not_blamed_on_the_spec_alone() {
    let text = "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"image\"\n\
        url = \"https://images.example/a.qcow2\"\nchecksums = \"https://images.example/SHA256SUMS\"\n\
        [machine]\ncpus = 1\n";
    let spec = parse(text, Path::new("devbox.toml"), Path::new(".")).expect("valid");
    let image = FileDigest::of(b"one");
    let mut lock = Lock {
        spec: fingerprint(&spec, Some(&image)).expect("digested"),
        inputs: inputs(&spec, Some(&image)).expect("read"),
        snapshot: None,
        ..example()
    };
    assert_eq!(lock.unfit(&spec).expect("read"), []);
    lock.inputs[0].digest = FileDigest::of(b"another").to_string();
    let unfit = lock.unfit(&spec).expect("read");
    assert!(unfit[0].what.ends_with("or the digest of `source` in the lock"), "{unfit:?}");
}
