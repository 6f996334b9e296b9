//! A real disk from Debian's packages, over the network, as whoever runs the tests.
#![expect(clippy::print_stderr, reason = "what was measured or said explains a failed run")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use devbox::event::{Event, Events, Sink};
use devbox::host::Paths;
use devbox::source::packages;
use devbox::source::seed::Seed;
use devbox::spec::types::{Arch, Packages};
use tokio_util::sync::CancellationToken;

fn spec() -> Packages {
    Packages {
        suite: "bookworm".to_owned(),
        packages: vec![],
        mirror: "http://deb.debian.org/debian".to_owned(),
        security_mirror: "http://deb.debian.org/debian-security".to_owned(),
        components: vec!["main".to_owned()],
        disk_size: 2 << 30,
    }
}

fn paths(home: &Path) -> Paths {
    Paths {
        store: home.join("store"),
        machines: home.join("machines"),
        templates: home.join("templates"),
        bundles: home.join("bundles"),
        disks: home.join("disks"),
        settings: home.join("config.toml"),
        cache: home.join("cache"),
        runtime: home.join("run"),
    }
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Sink for Said {
    fn emit(&self, event: Event) {
        eprintln!("{event:?}");
        if let Ok(mut all) = self.0.lock() {
            all.push(format!("{event:?}"));
        }
    }
}

impl Said {
    fn text(&self) -> String {
        self.0.lock().map(|all| all.join("\n")).unwrap_or_default()
    }
}

/// Names and times of the host's own package lists.
fn host_lists() -> Vec<(PathBuf, Option<std::time::SystemTime>)> {
    let Ok(entries) = std::fs::read_dir("/var/lib/apt/lists") else { return vec![] };
    let files = entries.flatten().filter(|e| e.path().is_file() && e.file_name() != "lock");
    let mut all: Vec<_> =
        files.map(|e| (e.path(), e.metadata().and_then(|m| m.modified()).ok())).collect();
    all.sort();
    all
}

fn debugfs(image: &str, request: &str) -> String {
    let out = std::process::Command::new("debugfs")
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .args(["-R", request, image])
        .output()
        .expect("debugfs runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[tokio::test]
async fn a_disk_is_made_once_and_reused() {
    // Another user than the one who built the tests cannot write into `target/`.
    let home = std::env::var_os("DEVBOX_TEST_DIR");
    let home = home.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let home = home.join("packages");
    let paths = paths(&home);
    let (seed, cancel, said) = (Seed::from_text("t"), CancellationToken::new(), Said::default());
    let events = Events::new(said.clone());
    let host = host_lists();
    let spec = spec();
    let wanted =
        packages::Wanted { spec: &spec, arch: Arch::Amd64, epoch: None, seed: &seed, locked: None };
    let first = packages::build(&wanted, &paths, &events, &cancel).await;
    let first = first.unwrap_or_else(|e| panic!("{e}\n{}", said.text()));
    let meta = std::fs::metadata(&first.path).expect("the disk is there");
    assert_eq!(meta.len(), first.size);
    assert!(meta.permissions().readonly());
    assert_eq!(host_lists(), host, "the build changed the host's package lists");
    // The root begins at 50 MiB; what mmdebstrap cleans up is gone from the image, not from the host.
    let root = format!("{}?offset={}", first.path.display(), 50 << 20);
    for (dir, gone) in [("/var/lib/apt/lists", "InRelease"), ("/tmp", "mmdebstrap")] {
        let listing = debugfs(&root, &format!("ls -p {dir}"));
        assert!(listing.contains("/..//"), "{dir} is there: {listing}");
        assert!(!listing.contains(gone), "{listing}");
    }

    let again = packages::build(&wanted, &paths, &events, &cancel).await;
    assert_eq!(again.expect("reused"), first);
    assert!(said.text().contains("reusing their disk"), "{}", said.text());

    // A lock takes it from the cache, and what the mirror has not is named before anything is installed.
    assert!(packages::cached(&wanted, &paths).expect("listed").contains(&first));
    let names = ["adduser".to_owned()].into();
    let (spec, arch) = (wanted.spec, wanted.arch);
    let archives = packages::archives(&names, spec, arch, &events, &cancel).await;
    let archives = archives.expect("the signed index is read");
    let now = archives.first().expect("Debian has it");
    let package = |version: &str, sha256: &str| packages::Locked {
        packages: vec![devbox::lock::Package {
            name: now.name.clone(),
            arch: now.arch.clone(),
            version: version.to_owned(),
            kind: None,
            sha256: Some(sha256.to_owned()),
            step: false,
        }],
        epoch: None,
        only: true,
    };
    for (locked, why) in [
        (
            package("0", &now.sha256),
            format!("`adduser` 0 is locked; the mirror has {}", now.version),
        ),
        (package(&now.version, "00"), format!("the mirror has sha256:{}", now.sha256)),
    ] {
        let wanted = packages::Wanted { locked: Some(&locked), ..wanted };
        let e = packages::build(&wanted, &paths, &events, &cancel).await.expect_err("not there");
        assert!(e.to_string().contains(&why), "{why}: {e}");
    }
}
