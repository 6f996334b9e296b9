//! Tests of the whole way from text to [`Spec`].

use std::path::{Path, PathBuf};

use crate::spec::quantity::{GIB, MIB};
use crate::spec::types::*;
use crate::spec::{Problems, parse};

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A folder with the files that the specs below name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("setup.sh"), "echo hello\n").expect("written");
    std::fs::create_dir(dir.path().join("site")).expect("made");
    std::fs::write(dir.path().join("disk.qcow2"), "not looked into").expect("written");
    dir
}

/// Every key once, none with its default.
pub(super) fn full(sha: &str) -> String {
    format!(
        r#"name = "web-1"
version = "1.2.3"
arch = "amd64"
outputs = ["vhd", "raw"]

[source]
type = "packages"
suite = "trixie"
packages = ["nginx", "g++"]
mirror = "https://mirror.example/debian/"
security_mirror = "https://mirror.example/security"
components = ["main", "non-free-firmware"]
disk = "3GiB"

[[steps]]
type = "shell"
name = "say hello"
inline = "echo hello"
env = {{ LANG = "C.UTF-8" }}
timeout = "90s"

[[steps]]
type = "file"
name = "site"
source = "site"
target = "/srv/site"
mode = "0750"
owner = "www-data:www-data"
timeout = "1m"

[[steps]]
type = "shell"
script = "setup.sh"

[seal]
hostname = "sealed"
epoch = 1700000000

[machine]
cpus = 4
memory = "512MiB"
disk = "10GiB"
firmware = "uefi"
user = "ada"
timeout = "20m"

[[machine.ports]]
guest = 80
host = 8080
host_ip = "0.0.0.0"
protocol = "udp"
auto_correct = false
# {sha}
"#
    )
}

fn problems(text: &str) -> Vec<(String, String, Option<String>)> {
    let dir = folder();
    match parse(text, Path::new("devbox.toml"), dir.path()) {
        Ok(_) => vec![],
        Err(all) => {
            all.list().iter().map(|p| (p.path.clone(), p.what.clone(), p.hint.clone())).collect()
        }
    }
}

const HEAD: &str =
    "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";

#[test]
fn a_minimal_spec_gets_the_documented_defaults() {
    let dir = folder();
    let spec = parse(HEAD, Path::new("devbox.toml"), dir.path()).expect("valid");
    assert_eq!(spec.arch, Arch::Amd64);
    let Source::Packages(p) = &spec.source else { panic!("packages") };
    assert_eq!(p.mirror, "http://deb.debian.org/debian");
    assert_eq!(p.security_mirror, "http://deb.debian.org/debian-security");
    assert_eq!((p.components.as_slice(), p.disk_size), (["main".to_owned()].as_slice(), 2 * GIB));
    assert_eq!(
        (spec.machine.cpus, spec.machine.memory, spec.machine.user.as_str()),
        (2, GIB, "dev")
    );
    assert_eq!(spec.machine.timeout.as_secs(), 600);
    assert_eq!((spec.seal.hostname.as_str(), spec.seal.epoch), ("a", None));
    assert!(spec.outputs.is_empty() && spec.steps.is_empty());
}

#[test]
fn every_key_reaches_the_spec() {
    let dir = folder();
    let spec = parse(&full(SHA), Path::new("devbox.toml"), dir.path()).expect("valid");
    assert_eq!((spec.name.as_str(), spec.version.as_str()), ("web-1", "1.2.3"));
    assert_eq!(spec.outputs, [OutputFormat::Vhd, OutputFormat::Raw]);
    let Source::Packages(p) = &spec.source else { panic!("packages") };
    assert_eq!((p.suite.as_str(), p.mirror.as_str()), ("trixie", "https://mirror.example/debian"));
    assert_eq!((p.packages.len(), p.components.len(), p.disk_size), (2, 2, 3 * GIB));
    let Action::Shell { script: Script::Inline(text) } = &spec.steps[0].action else {
        panic!("shell")
    };
    let env = &spec.steps[0].env;
    assert_eq!(
        (text.as_str(), env["LANG"].as_str(), spec.steps[0].timeout.as_secs()),
        ("echo hello", "C.UTF-8", 90)
    );
    let Action::File { source, target, mode, owner } = &spec.steps[1].action else {
        panic!("file")
    };
    assert_eq!(*source, dir.path().join("site"));
    assert_eq!(
        (target.as_str(), *mode, owner.as_str()),
        ("/srv/site", Some(0o750), "www-data:www-data")
    );
    assert_eq!(spec.steps[2].name, "step 3");
    assert_eq!((spec.seal.hostname.as_str(), spec.seal.epoch), ("sealed", Some(1_700_000_000)));
    let m = &spec.machine;
    assert_eq!(
        (m.cpus, m.memory, m.disk, m.firmware),
        (4, 512 * MIB, Some(10 * GIB), Firmware::Uefi)
    );
    let port = PortForward {
        guest: 80,
        host: Some(8080),
        host_ip: std::net::Ipv4Addr::UNSPECIFIED,
        protocol: Protocol::Udp,
        auto_correct: false,
    };
    assert_eq!(m.ports, [port]);
    assert_eq!(
        spec.machines,
        std::slice::from_ref(m),
        "without `[machines]` there is one, named as the box"
    );
    assert_eq!((m.name.as_str(), m.depends_on.len()), ("web-1", 0));
}

#[test]
fn machines_override_the_defaults_key_by_key_and_keep_the_order_of_the_file() {
    let dir = folder();
    let text = format!(
        "{HEAD}[machine]\ncpus = 4\nmemory = \"512MiB\"\n[[machine.ports]]\nguest = 80\n\
         [machines.web]\ndepends_on = [\"db\"]\ncpus = 1\n[machines.db]\nports = []\nuser = \"pg\"\n"
    );
    let spec = parse(&text, Path::new("f"), dir.path()).expect("valid");
    let [web, db] = &spec.machines[..] else { panic!("{:?}", spec.machines) };
    assert_eq!((web.name.as_str(), db.name.as_str()), ("web", "db"));
    assert_eq!((web.cpus, web.memory, web.user.as_str()), (1, 512 * MIB, "dev"));
    assert_eq!((web.ports.len(), web.depends_on.as_slice()), (1, ["db".to_owned()].as_slice()));
    assert_eq!((db.cpus, db.memory, db.user.as_str(), db.ports.len()), (4, 512 * MIB, "pg", 0));
    assert_eq!((spec.machine.name.as_str(), spec.machine.cpus), ("a", 4));
}

#[test]
fn an_image_source_takes_a_path_or_an_address_and_one_checksum() {
    let dir = folder();
    let of = |source: &str| {
        let text =
            format!("name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"image\"\n{source}");
        parse(&text, Path::new("f"), dir.path())
    };
    let upper = SHA.to_uppercase();
    let spec = of(&format!("path = \"disk.qcow2\"\nsha256 = \"{upper}\"\nformat = \"qcow2\""))
        .expect("valid");
    let Source::Image(image) = spec.source else { panic!("image") };
    assert_eq!(image.location, Location::Path(dir.path().join("disk.qcow2")));
    assert_eq!(image.checksum, Checksum::Sha256(SHA.to_owned()));
    assert_eq!(image.format, Some(InputFormat::Qcow2));
    let spec =
        of("url = \"https://h.example/a.img\"\nchecksums = \"https://h.example/SHA256SUMS\"");
    assert!(spec.is_ok());
    let what = |r: Result<Spec, Problems>| -> Vec<String> {
        r.expect_err("bad").list().iter().map(|p| p.what.clone()).collect()
    };
    assert_eq!(what(of("")), ["`path` or `url` is missing", "`sha256` or `checksums` is missing"]);
    let listed = "path = \"disk.qcow2\"\nchecksums = \"https://h.example/SHA256SUMS\"";
    let print = "0123456789abcdef0123456789abcdef01234567";
    let signed = format!(
        "{listed}\nkeys = [\"disk.qcow2\"]\nfingerprints = [\"{print}\"]\nsignature = \"https://h.example/SHA256SUMS.gpg\""
    );
    let Source::Image(image) = of(&signed).expect("valid").source else { panic!("image") };
    let signing = image.signing.expect("signed");
    assert_eq!(signing.fingerprints, [print.to_uppercase()]);
    assert_eq!(
        signing.signature,
        Some(Location::Url("https://h.example/SHA256SUMS.gpg".to_owned()))
    );
    let fetched = format!("{listed}\nkeys = [\"https://h.example/key.asc\"]\n");
    let Source::Image(image) =
        of(&format!("{fetched}fingerprints = [\"{print}\"]")).expect("valid").source
    else {
        panic!("image")
    };
    assert_eq!(
        image.signing.expect("signed").keys,
        [Location::Url("https://h.example/key.asc".to_owned())]
    );
    assert_eq!(
        what(of(&fetched)),
        ["a key that comes from an address is known by nothing but that address"]
    );
    for (more, why) in [
        ("keys = []", "`keys` is empty"),
        ("signature = \"disk.qcow2\"", "`signature` says nothing without `keys`"),
        (&*format!("fingerprints = [\"{print}\"]"), "`fingerprints` says nothing without `keys`"),
    ] {
        assert_eq!(what(of(&format!("{listed}\n{more}"))), [why]);
    }
    assert_eq!(
        what(of(&format!("path = \"disk.qcow2\"\nsha256 = \"{SHA}\"\nkeys = [\"disk.qcow2\"]"))),
        ["`keys` is for a checksum file, and the spec names none"]
    );
    assert_eq!(
        what(of(&format!("path = \"disk.qcow2\"\nurl = \"http://h/x\"\nsha256 = \"{SHA}\""))),
        ["`path` and `url` exclude each other"]
    );
    assert_eq!(what(of("suite = \"x\"\nurl = \"http://h/x\"\nsha256 = \"12\"")).len(), 2);
}

#[test]
fn everything_wrong_is_reported_at_once_with_place_expectation_and_suggestion() {
    let text = "name = \"My Box\"\nversion = \"1.0\"\narch = \"x86_64\"\noutputs = [\"qcow\", \"raw\", \"raw\"]\nstpes = 1\n\n\
        [source]\ntype = \"packages\"\nsuite = \"stable\"\npakages = [\"vim\"]\ndisk = \"2GB\"\n\n\
        [[steps]]\ntype = \"shell\"\ninline = \"true\"\nscript = \"no-such.sh\"\ntimeout = 90\n\n\
        [[steps]]\ntype = \"fiel\"\n\n\
        [[steps]]\ntype = \"file\"\nsource = \"site\"\ntarget = \"/a/../b\"\nmode = 644\n\n\
        [machine]\n\tmemory = \"1.5GiB\"\r\ncpus = 0\nuser = \"root\"\n\n\
        [[machine.ports]]\nguest = 70000\nhost = 8080\n[[machine.ports]]\nguest = 80\nhost = 8080\n";
    let dir = folder();
    let all = parse(text, Path::new("devbox.toml"), dir.path()).expect_err("bad");
    let rendered = all.render(false).replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(rendered);
}

#[test]
fn firmware_follows_the_architecture_and_secure_boot_is_uefi() {
    let arm64 = format!("arch = \"arm64\"\n{HEAD}");
    let of = |text: &str| {
        let spec = parse(text, Path::new("devbox.toml"), folder().path());
        spec.map(|spec| spec.machines[0].firmware).map_err(|all| all.render(false))
    };
    let signed = "packages = [\"shim-signed\", \"grub-efi-amd64-signed\"]\n";
    let secure = "[machine]\nsecure_boot = true\n";
    assert_eq!(of(HEAD), Ok(Firmware::Bios));
    assert_eq!(of(&arm64), Ok(Firmware::Uefi));
    assert_eq!(of(&format!("{HEAD}{signed}{secure}")), Ok(Firmware::SecureBoot));
    assert_eq!(
        of(&format!("{HEAD}{signed}{secure}firmware = \"uefi\"\n")),
        Ok(Firmware::SecureBoot)
    );
    // A machine of its own takes the one word and keeps the other.
    let one = |keys: &str| of(&format!("{HEAD}{signed}{secure}[machines.a]\n{keys}\n"));
    assert_eq!(one(""), Ok(Firmware::SecureBoot));
    assert_eq!(one("firmware = \"uefi\""), Ok(Firmware::SecureBoot));
    assert_eq!(one("firmware = \"bios\""), Ok(Firmware::Bios));
    assert_eq!(one("secure_boot = false"), Ok(Firmware::Uefi));
    let why = |text: &str| of(text).expect_err("refused");
    let bios = why(&format!("{HEAD}{signed}{secure}firmware = \"bios\"\n"));
    assert!(bios.contains("a BIOS has no Secure Boot"), "{bios}");
    let unsigned = why(&format!("{HEAD}packages = [\"shim-signed\"]\n{secure}"));
    assert!(unsigned.contains("without `grub-efi-amd64-signed` does not start"), "{unsigned}");
    let arm = why(&format!("{arm64}[machine]\nfirmware = \"bios\"\n"));
    assert!(arm.contains("a machine of arm64 has no BIOS"), "{arm}");
}

#[test]
fn problems_in_words() {
    let first = |body: &str| {
        let all = problems(&format!("{HEAD}{body}"));
        assert_eq!(all.len(), 1, "{body}: {all:?}");
        let (path, what, hint) = all.into_iter().next().expect("one");
        format!("{path}: {what}. {}", hint.unwrap_or_default())
    };
    let cases = [
        (
            "url = \"http://h/x\"",
            "source.url: unknown key `url`. Remove it: it belongs to `type = \"image\"`.",
        ),
        (
            "packages = \"vim\"",
            "source.packages: wrong type: a string. Put it into an array: `[\"vim\"]`.",
        ),
        (
            "packages = [\"vim\", \"vim\"]",
            "source.packages[1]: `vim` is there already, at [0]. Remove one of the two.",
        ),
        (
            "packages = [\"Vim\"]",
            "source.packages[0]: `Vim` is not valid here. Did you mean `vim`?",
        ),
        (
            "components = []",
            "source.components: `components` is empty. Write `components = [\"main\"]`, or remove the key.",
        ),
        ("disk = \"2049KiB\"", "source.disk: `2049KiB` is out of range. "),
        (
            "disk = \"2147483649B\"",
            "source.disk: `2147483649B` is not a whole number of MiB. Did you mean `\"2049MiB\"`?",
        ),
        (
            "disk = \"3TiB\"\n[machine]\ndisk = \"1TiB\"",
            "machine.disk: a disk of 1TiB is smaller than the image, which has 3TiB. Set it to \"3TiB\" or more, or remove it.",
        ),
        ("[seal]\nepoch = -1", "seal.epoch: `-1` is out of range. "),
        ("[seal]\nepoch = 1.5", "seal.epoch: wrong type: a number with a fraction. "),
        (
            "[seal]\nepoch = 99999999999999999999",
            "seal.epoch: `99999999999999999999` is out of range. ",
        ),
        (
            "[machine]\nmemory = 1024",
            "machine.memory: wrong type: a whole number. Write a number with its unit, such as `\"1024MiB\"`.",
        ),
        ("[machine]\ntimeout = \"0s\"", "machine.timeout: `0s` is out of range. "),
        (
            "[machine.ports]\nguest = 1",
            "machine.ports: wrong type: a table. Write the header with two brackets: `[[machine.ports]]`.",
        ),
        (
            "[[machine.ports]]\nguest = 1\nauto_correct = \"true\"",
            "machine.ports[0].auto_correct: wrong type: a string. Write it without quotes: `true`.",
        ),
        (
            "[[steps]]\ntype = \"shell\"\ninline = \"  \\n\"",
            "steps[0].inline: `  \\n` is not valid here. ",
        ),
        (
            "[[steps]]\ntype = \"shell\"\nscript = \"site\"",
            "steps[0].script: `DIR/site` is a folder. Name a file.",
        ),
        (
            "[[steps]]\ntype = \"shell\"\ninline = \"x\"\nenv = { \"A-B\" = \"1\" }",
            "steps[0].env.A-B: `A-B` is no name of a variable. ",
        ),
        (
            "[[steps]]\ntype = \"shell\"\ninline = \"x\"\nenv = { A = 1 }",
            "steps[0].env.A: wrong type: a whole number. Put the value in quotes.",
        ),
        (
            "[machines]",
            "machines: `machines` is empty. Write `[machines.NAME]`, or remove the table.",
        ),
        ("[machines.Web]", "machines.Web: `Web` is no valid name. Did you mean `web`?"),
        ("[machines]\nweb = 1", "machines.web: wrong type: a whole number. "),
        ("[machines.web]\ncpu = 1", "machines.web.cpu: unknown key `cpu`. Did you mean `cpus`?"),
        (
            "[machine]\ndepends_on = [\"a\"]",
            "machine.depends_on: unknown key `depends_on`. Remove it; known keys are `cpus`, `memory`, `disk`, `firmware`, `secure_boot`, `tpm`, `user`, `login`, `timeout`, `proxy`, `certificates`, `disks` and `ports`.",
        ),
        (
            "[machines.web]\ndepends_on = [\"dba\"]\n[machines.db]",
            "machines.web.depends_on[0]: there is no machine `dba`. Did you mean `db`?",
        ),
        (
            "[machines.web]\ndepends_on = [\"web\"]",
            "machines.web.depends_on[0]: `web` depends on itself. Remove it.",
        ),
        (
            "[machines.x]\ndepends_on = [\"a\"]\n[machines.a]\ndepends_on = [\"b\"]\n[machines.b]\ndepends_on = [\"a\"]",
            "machines.b.depends_on[0]: a cycle: `a` needs `b` needs `a`. Remove one of these dependencies.",
        ),
        (
            "[[machine.ports]]\nguest = 1\nhost = 80\nauto_correct = false\n[machines.a]\n[machines.b]",
            "machines.b: port 80 of the host is taken by machines.a. Give each machine a port of its own, or set `auto_correct = true`.",
        ),
        (
            "[network]\nsubnet = \"10.77.0.1/24\"",
            "network.subnet: `10.77.0.1/24` is an address in a range, not a range. Did you mean \"10.77.0.0/24\"?",
        ),
        (
            "[network]\nsubnet = \"10.0.0.0/16\"",
            "network.subnet: 10.0.0.0/16 has addresses of 10.0.2.0/24, each machine's way out. Choose another range, or leave it out to get a free one.",
        ),
        (
            "[network]\nsubnet = \"8.8.8.0/24\"",
            "network.subnet: 8.8.8.0/24 is not a private range. Choose one within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16.",
        ),
        (
            "[network]\nsubnet = \"10.77.0.0/30\"",
            "network.subnet: a prefix of 30 bits. Use one from 8 to 29; 24 has room for 254 machines.",
        ),
        (
            "[network]\nsubnet = \"10.77.0.0/29\"\n[machines]\na={}\nb={}\nc={}\nd={}\ne={}\nf={}\ng={}",
            "network.subnet: 10.77.0.0/29 has 6 addresses for 7 machines. Make its prefix smaller.",
        ),
        (
            "[[steps]]\ninline = \"x\"",
            "steps[0].type: `type` is missing. Add `type = \"shell\"`, or another of these.",
        ),
    ];
    for (body, expected) in cases {
        let got = first(body);
        // The folder of the test has a new name each time.
        let got = match (got.find("`/"), got.find("/site`")) {
            (Some(a), Some(b)) if a < b => format!("{}`DIR{}", &got[..a], &got[b..]),
            _ => got,
        };
        assert_eq!(got, expected);
    }
}

#[test]
fn large_vhds_are_refused_before_the_build() {
    let all = problems(&format!("outputs = [\"vhd\"]\n{HEAD}disk = \"3TiB\""));
    assert_eq!(all[0].1, "a fixed VHD cannot hold a disk of 3TiB");
}

#[test]
fn syntax_errors_do_not_hide_other_problems_and_make_no_noise() {
    let all = problems(
        "name = \"a\"\nversion = \nouputs = []\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n",
    );
    let paths: Vec<&str> = all.iter().map(|(path, _, _)| path.as_str()).collect();
    assert_eq!(paths, ["", "ouputs"], "{all:?}");
}

#[test]
fn byte_order_mark_and_crlf_are_fine() {
    let dir = folder();
    let text = format!("\u{feff}{}", HEAD.replace('\n', "\r\n"));
    parse(&text, Path::new("f"), dir.path()).expect("valid");
    let text = format!("\u{feff}x = 1\r\n{}", HEAD.replace('\n', "\r\n"));
    let all = parse(&text, Path::new("f"), dir.path()).expect_err("bad");
    let place = all.place(&all.list()[0]);
    assert_eq!((place.line, place.column), (1, 1));
}

#[test]
fn mutated_specs_never_panic_and_never_fail_without_a_reason() {
    use proptest::prelude::*;
    const ESCAPE: char = '\u{1b}';
    let dir = folder();
    let base = full(SHA).into_bytes();
    let root: PathBuf = dir.path().to_owned();
    let strange: &[&str] = &[
        "\0", "\"", "[", "]", "{", "}", "=", "\n", "\r", ".", "é", "\u{1b}", "''' ", "-1", "1e999",
        "nan", "#", "\\",
    ];
    proptest!(ProptestConfig::with_cases(600), |(edits in proptest::collection::vec((0..base.len(), 0..3u8, 0..strange.len(), 1..40usize), 1..6))| {
        let mut bytes = base.clone();
        for (at, kind, with, length) in edits {
            let at = at.min(bytes.len());
            let end = (at + length).min(bytes.len());
            match kind {
                0 => { bytes.splice(at..at, strange[with].bytes()); }
                1 => { bytes.drain(at..end); }
                _ => { let piece = bytes[at..end].to_vec(); bytes.splice(at..at, piece); }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(all) = parse(&text, Path::new("devbox.toml"), &root) {
            prop_assert!(!all.list().is_empty());
            let rendered = all.render(false);
            prop_assert!(!rendered.contains(ESCAPE));
            prop_assert!(serde_json::to_string(&all.json()).is_ok());
        }
    });
}

#[test]
fn ports_in_a_row_are_as_many_forwards() {
    let spec = |ports: &str| {
        let text = format!(
            "name = \"x\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n{ports}"
        );
        parse(&text, Path::new("devbox.toml"), folder().path())
    };
    let row = "[[machine.ports]]\nguest = 80\nhost = 8000\ncount = 3\n";
    let ports = spec(row).expect("a spec").machines[0].ports.clone();
    let pairs: Vec<_> = ports.iter().map(|p| (p.host.expect("a port"), p.guest)).collect();
    assert_eq!(pairs, [(8000, 80), (8001, 81), (8002, 82)]);
    let free = spec("[[machine.ports]]\nguest = 80\ncount = 2\n").expect("a spec");
    assert!(free.machines[0].ports.iter().all(|p| p.host.is_none()));
    for (more, word) in [
        (
            "[[machine.ports]]\nguest = 1\nhost = 8002\n",
            "8002 of the host is taken by machine.ports[0]",
        ),
        ("[[machine.ports]]\nguest = 65530\ncount = 10\n", "would be beyond 65535"),
    ] {
        let problems = spec(&format!("{row}{more}")).expect_err(more);
        let problems = format!("{problems:?}");
        assert!(problems.contains(word), "{problems}");
    }
}

#[test]
fn folders_and_data_disks_share_the_machines_slots() {
    let spec = |disks: usize, mounts: usize| {
        let mut text = "name = \"x\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n".to_owned();
        for n in 0..disks {
            text += &format!("[[machine.disks]]\nname = \"d{n}\"\nsize = \"1GiB\"\n");
        }
        for n in 0..mounts {
            text += &format!("[[mounts]]\nsource = \".\"\ntarget = \"/work/{n}\"\n");
        }
        parse(&text, Path::new("devbox.toml"), folder().path())
    };
    spec(0, 7).expect("seven folders");
    spec(3, 4).expect("three disks and four folders");
    let problems = format!("{:?}", spec(3, 5).expect_err("too many"));
    assert!(problems.contains("room for 4 beside 3 disks"), "{problems}");
}

#[test]
fn a_data_disk_has_a_name_and_a_place_of_its_own() {
    let spec = |disks: &str| {
        let text = format!(
            "name = \"x\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n{disks}"
        );
        parse(&text, Path::new("devbox.toml"), folder().path())
    };
    let disk = |name: &str, target: &str| {
        format!("[[machine.disks]]\nname = \"{name}\"\nsize = \"1GiB\"\ntarget = \"{target}\"\n")
    };
    let good = spec(&disk("data", "/var/lib/data")).expect("a spec");
    let found = &good.machines[0].disks[0];
    assert_eq!(
        (found.size, found.keep, found.target.as_deref()),
        (GIB, false, Some("/var/lib/data"))
    );
    for (disks, word) in [
        (disk("root", "/data"), "is the name of another disk of the machine"),
        (disk("a", "/usr"), "the guest's system is there"),
        (disk("a", "/a b"), "cannot be mounted"),
        (disk("a", "/data") + &disk("a", "/other"), "another disk has this name"),
        (disk("a", "/data") + &disk("b", "/data"), "another disk is mounted there"),
        (
            ["a", "b", "c", "d"].map(|name| disk(name, &format!("/{name}"))).concat(),
            "at most 3 data disks",
        ),
    ] {
        let problems = spec(&disks).expect_err(word);
        let problems = format!("{problems:?}");
        assert!(problems.contains(word), "{problems}");
    }
}

#[test]
fn what_goes_through_ssh_is_refused_for_machines_without() {
    let spec =
        |rest: &str| parse(&format!("{HEAD}{rest}"), Path::new("devbox.toml"), folder().path());
    let closed = "[machine]\nlogin = \"agent\"\n";
    let mixed = "[machines.web]\n[machines.db]\nlogin = \"agent\"\n";
    assert_eq!(spec("").expect("a spec").machines[0].login, Login::Ssh);
    assert_eq!(spec(closed).expect("a spec").machines[0].login, Login::Agent);
    let both = spec(mixed).expect("a spec");
    let logins: Vec<_> = both.machines.iter().map(|machine| machine.login).collect();
    assert_eq!(logins, [Login::Ssh, Login::Agent]);
    let back = spec(&format!("{closed}[machines.web]\nlogin = \"ssh\"\n")).expect("a spec");
    assert_eq!(back.machines[0].login, Login::Ssh);

    let script = "[[provision]]\nname = \"x\"\ninline = \"true\"\n";
    let folder = "[[mounts]]\nsource = \".\"\ntarget = \"/work\"\n";
    let copy = format!("{folder}type = \"rsync\"\n");
    let hook = "[[hooks]]\nwhen = \"after-up\"\ninline = \"true\"\non = \"guest\"\n";
    for (table, path, what) in [
        (script, "provision[0]", "a script goes through SSH"),
        (folder, "mounts[0]", "a folder goes through SSH"),
        (&copy, "mounts[0]", "a folder goes through SSH"),
        (hook, "hooks[0]", "a hook in the guest goes through SSH"),
    ] {
        let all = problems(&format!("{HEAD}{closed}{table}"));
        let [(at, said, Some(hint))] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (at.as_str(), said.as_str()),
            (path, &*format!("{what}, and `a` has `login = \"agent\"`"))
        );
        assert!(hint.starts_with("Remove it: ") && hint.ends_with('.'), "{hint}");
        let all = problems(&format!("{HEAD}{mixed}{table}"));
        let [(at, said, Some(hint))] = &all[..] else { panic!("{all:?}") };
        assert_eq!((at.as_str(), said.contains("`db` has")), (path, true), "{said}");
        assert!(hint.starts_with("Set `machines = [\"web\"]`: "), "{hint}");
        let all = problems(&format!("{HEAD}{mixed}{table}machines = [\"db\", \"web\"]\n"));
        assert_eq!(all[0].0, format!("{path}.machines"), "{all:?}");
        spec(&format!("{mixed}{table}machines = [\"web\"]\n")).expect("a spec");
    }
    // On the host it needs nothing of the guest.
    spec(&format!("{closed}{}", hook.replace("on = \"guest\"\n", ""))).expect("a spec");
}
