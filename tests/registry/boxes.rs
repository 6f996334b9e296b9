//! Small boxes with a real filesystem, and stores to put them into.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use devbox::digest::{BoxDigest, BytesDigest, FileDigest, SpecDigest};
use devbox::error::Result;
use devbox::event::Events;
use devbox::registry::{self, Address, Described, Options, Policy, Pulled, Pushed, Retry};
use devbox::store::{BoxConfig, BoxRef, Existing, Live, Store};
use tokio_util::sync::CancellationToken;

/// Files of a disk: enough for some packs.
const FILES: u64 = 120;

/// The folder of one user.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(&dir.path().join("store")).expect("store");
        Home { dir, store }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts the disk at `disk` into the store.
    pub(crate) fn add(&self, name: &str, version: &str, disk: &Path) -> BoxRef {
        self.add_for(name, version, "amd64", disk)
    }

    /// The same for guests of `arch`.
    pub(crate) fn add_for(&self, name: &str, version: &str, arch: &str, disk: &Path) -> BoxRef {
        let content = std::fs::read(disk).expect("reads");
        let staged = self.store.stage().expect("stages");
        std::fs::write(staged.path(), &content).expect("writes");
        let config = BoxConfig {
            name: name.into(),
            version: version.into(),
            arch: arch.into(),
            firmware: "bios".into(),
            spec1: SpecDigest::of(&content),
            bytes1: BytesDigest::of(&content),
            box1: BoxDigest::of(&content),
            disk_size: 64 << 20,
            cmdline: "root=UUID=x ro".into(),
            epoch: 1_790_000_000,
            seal: "seal/1".into(),
            devbox: "0.1.0".into(),
        };
        self.store.add(&config, staged, Existing::Refuse).expect("adds").image
    }

    pub(crate) async fn push(&self, image: &BoxRef, address: &str) -> Result<Pushed> {
        self.push_to(image, address, &[]).await
    }

    pub(crate) async fn push_to(
        &self,
        image: &BoxRef,
        address: &str,
        channels: &[&str],
    ) -> Result<Pushed> {
        let channels = channels.iter().map(|name| (*name).to_owned()).collect();
        self.push_with(image, address, Options { channels, ..options() }).await
    }

    pub(crate) async fn push_with(
        &self,
        image: &BoxRef,
        address: &str,
        options: Options,
    ) -> Result<Pushed> {
        let described = Described::new(&self.path().join("cache"));
        let address = Address::parse(address).expect("address");
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        registry::push(&self.store, image, &address, &described, &options, &events, &cancel).await
    }

    pub(crate) async fn pull(&self, address: &str) -> Result<Pulled> {
        self.pull_with(address, options()).await
    }

    pub(crate) async fn pull_with(&self, address: &str, options: Options) -> Result<Pulled> {
        let described = Described::new(&self.path().join("cache"));
        let address = Address::parse(address)?;
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        let existing = Existing::Refuse;
        registry::pull(&self.store, &address, existing, &described, &options, &events, &cancel)
            .await
    }

    /// Whatever happened: each blob has the digest of its name, and nothing lies about that nobody names.
    pub(crate) fn is_clean(&self) {
        let blobs = self.path().join("store/blobs/sha256");
        for entry in std::fs::read_dir(&blobs).expect("reads") {
            let entry = entry.expect("reads");
            let digest = FileDigest::of(&std::fs::read(entry.path()).expect("reads"));
            assert_eq!(entry.file_name().to_str(), Some(digest.hex().as_str()), "a wrong blob");
        }
        let unnamed = self.store.prune(&Live::new(), true).expect("prunes").blobs;
        assert_eq!(unnamed, [], "blobs that nothing names");
        let left = std::fs::read_dir(self.path().join("store/tmp")).expect("reads").count();
        assert_eq!(left, 0, "temporary files");
    }
}

/// As usual, but for pauses that no test has time for, and without the user's own credentials.
pub(crate) fn options() -> Options {
    Options {
        retry: Retry { pause: Duration::from_millis(5), ..Retry::default() },
        credentials: vec![],
        ..Options::new(Policy::none())
    }
}

/// The same for a server that fails at random: each request may fail so often in a row that it never does.
pub(crate) fn patient() -> Options {
    let retry = Retry {
        without_progress: 40,
        in_all: 40,
        pause: Duration::from_millis(1),
        ..Retry::default()
    };
    Options { retry, ..options() }
}

/// Runs a program that must succeed.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {text}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Bytes like those of programs and texts: they compress to about a half.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 64);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 3 {
            0 => out.extend_from_slice(&state.to_le_bytes()),
            1 => out.extend_from_slice(format!("word{} ", state % 5000).as_bytes()),
            _ => out.extend_from_slice(&[0x20; 7]),
        }
    }
    out.truncate(length);
    out
}

/// The tree of a box, in `dir`.
pub(crate) fn tree(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for number in 0..FILES {
        let folder = root.join(format!("usr/lib/part{}", number % 12));
        std::fs::create_dir_all(&folder).expect("folder");
        let length = (number * number * 37 % 400_000) as usize + 100;
        std::fs::write(folder.join(format!("file{number}")), bytes(number, length)).expect("file");
    }
    root
}

/// Makes a disk with the files in `root`, the same way each time.
pub(crate) fn disk(dir: &Path, root: &Path, name: &str) -> PathBuf {
    let raw = dir.join(format!("{name}.raw"));
    let _ = std::fs::remove_file(&raw);
    let folder = root.to_str().expect("text");
    let (raw, out) = (raw.to_str().expect("text"), format!("{name}.qcow2"));
    let uuid = "0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa";
    run(
        dir,
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-U",
            uuid,
            "-E",
            "hash_seed=0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fb,lazy_itable_init=0",
            "-d",
            folder,
            raw,
            "64M",
        ],
    );
    run(dir, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw, &out]);
    dir.join(out)
}

/// Two versions of a box in one store: in the second, some files grew and one is new, so most blocks have moved.
pub(crate) fn two_versions(home: &Home) -> (BoxRef, BoxRef) {
    let root = tree(home.path());
    let first = home.add("web", "1.0.0", &disk(home.path(), &root, "v1"));
    for number in [5u64, 40] {
        let path = root.join(format!("usr/lib/part{}/file{number}", number % 12));
        let mut content = std::fs::read(&path).expect("file");
        content.extend(bytes(1000 + number, 9000));
        std::fs::write(path, content).expect("file");
    }
    std::fs::write(root.join("usr/lib/part3/afile"), bytes(2000, 30_000)).expect("file");
    let second = home.add("web", "1.1.0", &disk(home.path(), &root, "v2"));
    (first, second)
}
