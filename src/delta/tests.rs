use std::io::{Cursor, Write as _};

use super::*;
use crate::digest::{BoxDigest, BytesDigest, SpecDigest};
use crate::store::{BoxConfig, Existing};

/// Bytes that look like nothing else, the same for the same seed.
fn noise(seed: u64, blocks: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..blocks * BLOCK / 8).flat_map(|_| next()).collect()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn encode(base: &[u8], disk: &[u8]) -> Vec<u8> {
    let base = file(base);
    let known = Base::read(&base, &|| Ok(())).expect("reads");
    let mut encoder = Encoder::new(&known, zstd::Encoder::new(vec![], 1).expect("zstd"));
    encoder.push(disk).expect("takes it");
    encoder.finish().expect("flushed").finish().expect("compressed")
}

fn decode(delta: &[u8], base: &[u8], size: u64) -> Result<Vec<u8>> {
    let mut out = vec![];
    decode::read(Cursor::new(delta), &file(base), size, &mut |piece| {
        match piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::Zeros(bytes) => out.resize(out.len() + bytes as usize, 0),
        }
        Ok(())
    })?;
    Ok(out)
}

#[test]
fn a_disk_comes_back_byte_for_byte_and_what_moved_costs_little() {
    let base = [noise(1, 600), vec![0; 64 * BLOCK], noise(2, 300), vec![7; 10 * BLOCK]].concat();
    let block = |number: usize| &base[number * BLOCK..][..BLOCK];
    let disks = [
        base.clone(),
        // Moved by whole blocks, torn apart, with new ones between and a short end.
        [&noise(3, 2), &base[300 * BLOCK..], &vec![0; 9 * BLOCK], &base[..300 * BLOCK], b"the end"]
            .concat(),
        // One block again and again, backwards, and zeros at the end.
        [block(5), block(4), block(5), block(5), &[0; 3 * BLOCK]].concat(),
        noise(4, 700),
        vec![0; 5 * BLOCK],
        b"short".to_vec(),
        vec![],
    ];
    for (number, disk) in disks.iter().enumerate() {
        let delta = encode(&base, disk);
        let back = decode(&delta, &base, disk.len() as u64).expect("reads");
        assert!(back == *disk, "disk {number}");
        if number < 3 {
            assert!(delta.len() < 4 * BLOCK, "disk {number} takes {} bytes", delta.len());
        }
        // Of another size than it says.
        for size in [disk.len() as u64 + BLOCK as u64, (disk.len() as u64).saturating_sub(8192)] {
            assert!(size == 0 && disk.is_empty() || decode(&delta, &base, size).is_err());
        }
    }
}

#[test]
fn a_damaged_delta_is_an_error_and_never_more_than_the_disk() {
    let base = noise(1, 40);
    let disk = [&base[10 * BLOCK..], &noise(2, 3), &vec![0; BLOCK][..]].concat();
    let delta = encode(&base, &disk);
    for end in 0..delta.len() {
        assert!(decode(&delta[..end], &base, disk.len() as u64).is_err(), "cut at {end}");
    }
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("compressed");
    let run = |kind: u8, blocks: u64, from: &[u64]| {
        let from = from.iter().flat_map(|from| from.to_le_bytes());
        [vec![kind], blocks.to_le_bytes().to_vec(), from.collect()].concat()
    };
    let size = 4 * BLOCK as u64;
    for (what, bad) in [
        ("a kind that there is not", run(3, 4, &[])),
        ("no blocks", run(0, 0, &[])),
        ("too many blocks", run(0, 5, &[])),
        ("blocks beyond all", run(1, u64::MAX, &[0])),
        ("behind the end of the other disk", run(1, 4, &[37])),
        ("a place beyond all", run(1, 4, &[u64::MAX / 2])),
        ("a place that wraps around", run(1, 4, &[u64::MAX / BLOCK as u64])),
        ("blocks that do not come", run(2, 4, &[])),
        ("more than there is", [run(0, 4, &[]), run(0, 1, &[])].concat()),
    ] {
        assert!(decode(&zstd(&bad), &base, size).is_err(), "{what}");
    }
    assert!(decode(b"no zstd", &base, size).is_err());
    decode(&zstd(&run(1, 4, &[36])), &base, size).expect("good");
}

struct Home {
    _dir: tempfile::TempDir,
    store: Store,
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("folder");
    let store = Store::open(&dir.path().join("store")).expect("opens");
    Home { _dir: dir, store }
}

impl Home {
    fn add(&self, name: &str, version: &str, disk: &[u8]) -> BoxRef {
        let config = BoxConfig {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            firmware: "bios".into(),
            spec1: SpecDigest::of(disk),
            bytes1: BytesDigest::of(disk),
            box1: BoxDigest::of(disk),
            disk_size: 1 << 20,
            cmdline: String::new(),
            epoch: 0,
            seal: "seal/1".into(),
            devbox: "0".into(),
        };
        let staged = self.store.stage().expect("stages");
        std::fs::write(staged.path(), disk).expect("written");
        self.store.add(&config, staged, Existing::Refuse).expect("adds").image
    }

    fn get(&self, name: &str, version: &str) -> BoxRef {
        self.store.find(name, version).expect("reads").expect("is there")
    }

    /// What `devbox box prune` does; the tasks as text.
    fn prune(&self, live: &Live) -> Vec<String> {
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        let mut done = vec![];
        for task in plan(&self.store, live).expect("plans") {
            done.push(match &task {
                Task::Unfold(image) => {
                    unfold(&self.store, image, &events, &cancel).expect("whole");
                    format!("{} whole", image.config().reference())
                }
                Task::Fold(image, base) => {
                    let live = || Ok(live.clone());
                    let folded = fold(&self.store, image, base, &live, &events, &cancel);
                    let folded = match folded.expect("folds") {
                        Folded::To(_) => "",
                        Folded::NotWorth => " not worth",
                        Folded::InUse => " in use",
                    };
                    let (image, base) = (image.config().reference(), base.config().reference());
                    format!("{image} of {base}{folded}")
                }
            });
        }
        self.store.prune(live, false).expect("prunes");
        assert!(self.store.check(None, &CancellationToken::new()).expect("checks").is_clean());
        done
    }

    fn files(&self, folder: &str) -> usize {
        std::fs::read_dir(self.store.root().join(folder)).map_or(0, Iterator::count)
    }

    /// Bytes of all blobs and deltas.
    fn bytes(&self) -> u64 {
        crate::host::stored_bytes(&self.store.root().join("blobs"))
            + crate::host::stored_bytes(&self.store.root().join("deltas"))
    }

    fn whole(&self, image: &BoxRef) -> BoxRef {
        let (events, cancel) = (Events::silent(), CancellationToken::new());
        unfold(&self.store, image, &events, &cancel).expect("whole")
    }
}

/// Three versions that share nearly all, each moved by some blocks.
fn versions() -> [Vec<u8>; 3] {
    let all = noise(1, 500);
    [all.clone(), [&noise(2, 3), &all[..]].concat(), [&noise(3, 5), &all[2 * BLOCK..]].concat()]
}

#[test]
fn of_each_name_the_newest_version_is_whole_and_the_others_are_small() {
    let home = home();
    let [one, two, three] = versions();
    home.add("web", "1.9.0", &one);
    home.add("web", "1.10.0", &two);
    home.add("other", "1.0.0", &noise(9, 20));
    let before = home.bytes();
    assert_eq!(home.prune(&Live::new()), ["web:1.9.0 of web:1.10.0"]);
    assert!(home.bytes() < before * 6 / 10, "{} of {before}", home.bytes());
    let image = home.get("web", "1.9.0");
    assert!(image.delta().is_some() && !image.disk_path().exists());
    assert_eq!(image.stored_size(), one.len() as u64);
    assert!(image.kept_size() < image.stored_size() / 10);
    assert!(home.prune(&Live::new()).is_empty(), "nothing more is to be done");

    // A newer one: all others are differences from that, and the one between is none any more that others need.
    home.add("web", "2.0.0", &three);
    let done = home.prune(&Live::new());
    assert_eq!(done, ["web:1.9.0 of web:2.0.0", "web:1.10.0 of web:2.0.0"]);
    assert_eq!((home.files("deltas"), home.files("blobs/sha256")), (2, 2 * 4 + 2));

    // Whole again, and the delta is gone.
    let image = home.whole(&home.get("web", "1.9.0"));
    assert_eq!(std::fs::read(image.disk_path()).expect("reads"), one);
    assert_eq!(home.files("deltas"), 1);
    // While it is held, it stays.
    assert_eq!(home.prune(&Live::new()), ["web:1.9.0 of web:2.0.0 in use"]);
    drop(image);
    assert_eq!(home.prune(&Live::new()), ["web:1.9.0 of web:2.0.0"]);

    // The newest one goes: the next one is whole, and the oldest one is a difference from it.
    home.store.remove("web", "2.0.0", &Live::new()).expect("removes");
    assert_eq!(home.files("blobs/sha256"), 2 * 3 + 1 + 1, "the disk that others need stays");
    assert_eq!(home.prune(&Live::new()), ["web:1.10.0 whole", "web:1.9.0 of web:1.10.0"]);
    assert_eq!((home.files("deltas"), home.files("blobs/sha256")), (1, 2 * 3 + 2));
    let image = home.whole(&home.get("web", "1.9.0"));
    assert_eq!(std::fs::read(image.disk_path()).expect("reads"), one);
}

#[test]
fn what_machines_use_stays_whole_and_what_has_nothing_in_common_too() {
    let home = home();
    let [one, two, three] = versions();
    let old = home.add("web", "1.0.0", &one);
    home.add("web", "1.1.0", &two);
    home.add("web", "1.2.0", &three);
    home.add("alien", "1.0.0", &noise(5, 100));
    home.add("alien", "2.0.0", &noise(6, 100));
    let live: Live = [(old.manifest_digest(), vec!["machine".to_owned()])].into();
    assert_eq!(
        home.prune(&live),
        ["alien:1.0.0 of alien:2.0.0 not worth", "web:1.1.0 of web:1.2.0"]
    );
    assert!(home.get("web", "1.0.0").disk_path().exists());
    // A machine that began to use it between the plan and the deed.
    let (image, base) = (home.get("web", "1.0.0"), home.get("web", "1.2.0"));
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    let asked = || Ok(live.clone());
    let folded = fold(&home.store, &image, &base, &asked, &events, &cancel).expect("asks");
    assert_eq!(folded, Folded::InUse);
    assert!(image.disk_path().exists());
}

#[test]
fn a_delta_whose_disk_is_damaged_is_named_and_never_given_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = home();
    let [one, two, _] = versions();
    home.add("web", "1.0.0", &one);
    let newest = home.add("web", "1.1.0", &two);
    home.prune(&Live::new());
    let path = newest.disk_path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let mut bytes = std::fs::read(path).expect("reads");
    bytes[100 * BLOCK] ^= 1;
    std::fs::write(path, bytes).expect("written");

    let image = home.get("web", "1.0.0");
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    assert!(home.store.verify(&image).expect_err("damaged").what().contains("web:1.0.0"));
    let e = unfold(&home.store, &image, &events, &cancel).expect_err("damaged");
    assert!(e.what().contains("web:1.0.0"), "{e:?}");
    assert!(!image.disk_path().exists());
    assert_eq!((home.files("tmp"), home.files("deltas")), (0, 1));
    // Nothing is made of the damaged one either.
    home.add("web", "1.2.0", &noise(8, 3));
    home.store.remove("web", "1.0.0", &Live::new()).expect("removes");
    assert_eq!(home.files("deltas"), 0);
}
