//! Tables made by `sfdisk`, and the same ones damaged.

use std::fs;
use std::process::{Command, Stdio};

use super::{Kind, read};
use crate::error::Kind as ErrorKind;
use crate::image::oracle::{Memory, Numbers, contents, tool};

const MIB: usize = 1 << 20;

/// A disk of `mib` MiB with the table that `script` describes.
fn disk(test: &str, mib: usize, script: &str) -> Option<Vec<u8>> {
    use std::io::Write as _;
    let sfdisk = tool("sfdisk", test)?;
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("disk");
    fs::File::create(&path).and_then(|f| f.set_len((mib * MIB) as u64)).expect("file");
    let mut child = Command::new(sfdisk)
        .args(["-q", "--no-reread", "--no-tell-kernel"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("write");
    assert!(child.wait().expect("it ends").success());
    Some(fs::read(&path).expect("read"))
}

const GPT: &str = "label: gpt
label-id: 11111111-2222-3333-4444-555555555555
first-lba: 2048
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, uuid=AAAAAAAA-0000-4000-8000-000000000001, name=\"BIOS\", attrs=\"LegacyBIOSBootable\"
start=4096, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-4000-8000-000000000002, name=\"EFI system\"
";

const MBR: &str = "label: dos
label-id: 0x1234abcd
start=2048, size=2048, type=83, bootable
start=4096, size=20480, type=5
start=6144, size=2048, type=82
start=10240, size=2048, type=83
";

/// First sectors, and the ones behind the last.
fn sectors(ranges: &[std::ops::Range<u64>]) -> Vec<(u64, u64)> {
    ranges.iter().map(|range| (range.start / 512, range.end / 512)).collect()
}

#[test]
fn a_gpt_is_read_as_sfdisk_wrote_it() {
    let Some(mut data) = disk("gpt", 16, GPT) else { return };
    data[100] = 7;
    data[4096 * 512] = 9;
    let disk = Memory::shared(data.clone());
    let table = read(&*disk).expect("a table");
    assert_eq!(
        (table.kind, table.disk_id.as_str()),
        (Kind::Gpt, "11111111-2222-3333-4444-555555555555")
    );
    assert_eq!(table.boot_code[..], data[..440]);
    assert_eq!(sectors(&table.gap), [(34, 2048)]);
    assert_eq!(table.notes, Vec::<String>::new());
    let [bios, esp] = &table.partitions[..] else { panic!("two partitions: {table:?}") };
    assert_eq!((bios.index, bios.start, bios.length), (1, 1 << 20, 1 << 20));
    assert_eq!(bios.type_id, "21686148-6449-6e6f-744e-656564454649");
    assert_eq!(bios.unique_id, "aaaaaaaa-0000-4000-8000-000000000001");
    assert_eq!((bios.name.as_str(), bios.attributes), ("BIOS", 4));
    assert_eq!((esp.index, esp.name.as_str(), esp.attributes), (2, "EFI system", 0));
    let reader = esp.reader(&disk).expect("inside");
    assert!(contents(&*reader) == data[2 * MIB..6 * MIB]);
}

#[test]
fn the_second_copy_helps_when_the_first_is_damaged() {
    let Some(good) = disk("gpt backup", 16, GPT) else { return };
    let whole = read(&*Memory::shared(good.clone())).expect("a table");
    // In the header, and in the entries.
    for at in [512 + 60, 1024 + 130] {
        let mut data = good.clone();
        data[at] ^= 0xff;
        let table = read(&*Memory::shared(data.clone())).expect("the second copy");
        assert!(table.notes[0].contains("first copy of the GPT is damaged"), "{:?}", table.notes);
        assert_eq!((&table.partitions, &table.gap), (&whole.partitions, &whole.gap));
        // Both: no answer.
        let last = data.len() - 512 + 60;
        data[last] ^= 0xff;
        let e = read(&*Memory::shared(data)).expect_err("nothing left");
        assert!(e.what().contains("both copies") && e.kind() == ErrorKind::Undetermined, "{e}");
    }
    let mut data = good.clone();
    let last = data.len() - 512 + 60;
    data[last] ^= 0xff;
    let table = read(&*Memory::shared(data)).expect("the first copy");
    assert!(table.notes[0].contains("second copy of the GPT is damaged"), "{:?}", table.notes);
    let mut grown = good;
    grown.resize(17 * MIB, 0);
    let table = read(&*Memory::shared(grown)).expect("the first copy");
    assert!(table.notes[0].contains("not in the last sector"), "{:?}", table.notes);
    assert_eq!(table.partitions, whole.partitions);
}

#[test]
fn a_disk_that_was_cut_off_behind_its_partitions_is_read_with_a_note() {
    let Some(mut cut) = disk("gpt cut off", 16, GPT) else { return };
    let whole = read(&*Memory::shared(cut.clone())).expect("a table");
    // The second copy alone: 32 sectors of entries and its header.
    cut.truncate(16 * MIB - 33 * 512);
    let table = read(&*Memory::shared(cut.clone())).expect("the first copy");
    assert_eq!(table.partitions, whole.partitions);
    assert!(
        table.notes.iter().any(|note| note.contains("is not on the disk")),
        "{:?}",
        table.notes
    );
    // A sector more, which the first copy calls usable: Linux does not take it either
    // (`is_gpt_valid` of block/partitions/efi.c).
    cut.truncate(16 * MIB - 34 * 512);
    let e = read(&*Memory::shared(cut)).expect_err("refused");
    assert!(e.to_string().contains("are not on the disk"), "{e}");
}

#[test]
fn a_copy_that_is_sound_and_says_something_else_is_noted() {
    let Some(good) = disk("gpt copies differ", 16, GPT) else { return };
    let mut data = good.clone();
    forge(&mut data, 1, |entry| entry[48] ^= 4);
    let table = read(&*Memory::shared(data)).expect("the first copy");
    assert_eq!(table.partitions[1].attributes, 4);
    let found = table.notes.iter().any(|note| note.contains("two copies of the GPT differ"));
    assert!(found, "{:?}", table.notes);
}

#[test]
fn a_hybrid_mbr_is_noted_and_the_gpt_read() {
    let Some(mut data) = disk("hybrid MBR", 16, GPT) else { return };
    let whole = read(&*Memory::shared(data.clone())).expect("a table");
    // A second entry: type 0c, from sector 4096 on, 8192 sectors.
    data[462..478].copy_from_slice(&[0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0]);
    let table = read(&*Memory::shared(data)).expect("the GPT");
    assert_eq!((table.kind, &table.partitions), (Kind::Gpt, &whole.partitions));
    assert!(table.notes.iter().any(|note| note.contains("hybrid MBR")), "{:?}", table.notes);
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn not_run(test: &str) {
    eprintln!("not run: {test}: loop devices need root");
}

/// A disk of 16 MiB with the table that `sfdisk` writes on a device with sectors of 4096 bytes; none,
/// said aloud, where this host makes no such device.
fn disk_of_4k(test: &str) -> Option<Vec<u8>> {
    tool("sfdisk", test)?;
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("disk");
    fs::File::create(&path).and_then(|f| f.set_len(16 * MIB as u64)).expect("file");
    let script = "device=$(losetup --find --show --sector-size 4096 disk) || exit 2
        trap 'losetup --detach $device' EXIT
        printf 'label: gpt\nstart=256, size=512, type=uefi, name=a\nstart=1024, size=1024\n' |
            sfdisk -q --no-reread --no-tell-kernel $device";
    let out = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output();
    let out = out.expect("it starts");
    if out.status.code() == Some(2) {
        not_run(test);
        return None;
    }
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(fs::read(&path).expect("read"))
}

#[test]
fn a_gpt_for_sectors_of_4096_bytes_is_read() {
    let Some(mut data) = disk_of_4k("gpt of 4096") else { return };
    let table = read(&*Memory::shared(data.clone())).expect("a table");
    let found: Vec<_> = table.partitions.iter().map(|p| (p.index, p.start, p.length)).collect();
    assert_eq!(found, [(1, 256 << 12, 512 << 12), (2, 1024 << 12, 1024 << 12)]);
    // The entries are 16 KiB behind the header: sectors 2 to 5. MBR and header take 512 bytes each.
    let gap = [512..4096, 4608..8192, 6 << 12..256 << 12];
    assert_eq!((table.kind, &table.gap[..]), (Kind::Gpt, &gap[..]));
    assert!(table.notes[0].contains("sectors of 4096 bytes"), "{:?}", table.notes);
    assert_eq!(table.notes.len(), 1, "{:?}", table.notes);
    // The second copy, with the mark of the first or without.
    for at in [4096 + 60, 4096] {
        data[at] ^= 0xff;
        let second = read(&*Memory::shared(data.clone())).expect("the second copy");
        assert_eq!(second.partitions, table.partitions);
        assert!(second.notes[1].contains("first copy of the GPT is damaged"), "{:?}", second.notes);
    }
    // Grown: the second copy stays where the first one says.
    data[4096] ^= 0xff;
    data[4096 + 60] ^= 0xff;
    data.resize(17 * MIB, 0);
    let grown = read(&*Memory::shared(data.clone())).expect("the first copy");
    assert_eq!(grown.partitions, table.partitions);
    assert!(grown.notes[1].contains("not in the last sector"), "{:?}", grown.notes);
    // Neither.
    data[4096 + 60] ^= 0xff;
    let e = read(&*Memory::shared(data)).expect_err("refused");
    assert!(e.what().contains("both copies"), "{e}");
}

/// Rewrites entry `n` of the first copy, with correct checksums.
fn forge(data: &mut [u8], n: usize, change: impl Fn(&mut [u8])) {
    change(&mut data[1024 + n * 128..1024 + (n + 1) * 128]);
    let sum = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    let entries = sum(&data[1024..1024 + 128 * 128]);
    data[512 + 88..512 + 92].copy_from_slice(&entries);
    data[512 + 16..512 + 20].fill(0);
    let header = sum(&data[512..512 + 92]);
    data[512 + 16..512 + 20].copy_from_slice(&header);
}

/// `sgdisk --move-main-table` leaves room for a board's loader in front of the entries.
#[test]
fn the_gap_is_everything_before_the_first_partition_but_the_table() {
    let Some(good) = disk("gpt moved entries", 16, GPT) else { return };
    for (lba, gap) in [
        (2u64, vec![(34, 2048)]),
        (100, vec![(2, 100), (132, 2048)]),
        (2016, vec![(2, 2016)]),
        // Beside the second copy's.
        (16 * 2048 - 33, vec![(2, 2048)]),
    ] {
        let mut data = good.clone();
        let at = lba as usize * 512;
        let entries = data[1024..1024 + 128 * 128].to_vec();
        data[at..at + entries.len()].copy_from_slice(&entries);
        data[512 + 72..512 + 80].copy_from_slice(&lba.to_le_bytes());
        // Only the header's sum is new: the entries are the same.
        forge(&mut data, 0, |_| ());
        let table = read(&*Memory::shared(data)).expect("a table");
        assert_eq!((sectors(&table.gap), table.notes), (gap, vec![]), "{lba}");
    }
}

#[test]
fn partitions_that_overlap_or_leave_the_disk_are_refused() {
    let Some(good) = disk("gpt ranges", 16, GPT) else { return };
    let cases: [(u64, u64, &str); 5] = [
        (4095, 6000, "overlap"),
        (4096, 1 << 40, "not inside the disk"),
        (4096, u64::MAX, "not inside the disk"),
        (6000, 5000, "not inside the disk"),
        (0, 100, "not inside the disk"),
    ];
    for (first, last, word) in cases {
        let mut data = good.clone();
        forge(&mut data, 1, |entry| {
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        });
        // The first copy is sound by its checksums, so its contradiction is no reason to look at
        // the second.
        let e = read(&*Memory::shared(data)).expect_err("refused");
        assert!(e.what().contains(word) && e.kind() == ErrorKind::Undetermined, "{e}");
    }
}

#[test]
fn a_name_is_utf_16_or_an_error() {
    let Some(good) = disk("gpt names", 16, GPT) else { return };
    let mut data = good.clone();
    forge(&mut data, 1, |entry| {
        for (at, unit) in (56..).step_by(2).zip("\u{e9}\u{1f600}\0x".encode_utf16()) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
    });
    assert_eq!(
        read(&*Memory::shared(data.clone())).expect("a table").partitions[1].name,
        "\u{e9}\u{1f600}"
    );
    forge(&mut data, 1, |entry| entry[56..58].copy_from_slice(&0xd800u16.to_le_bytes()));
    let e = read(&*Memory::shared(data)).expect_err("half of a pair");
    assert!(e.what().contains("not UTF-16"), "{e}");
}

#[test]
fn a_gpt_without_its_protective_mbr_is_refused() {
    let Some(mut data) = disk("protective MBR", 16, GPT) else { return };
    data[446..512].fill(0);
    let e = read(&*Memory::shared(data)).expect_err("refused");
    assert!(e.what().contains("without its protective MBR"), "{e}");
}

#[test]
fn an_mbr_is_read_with_its_logical_partitions() {
    let Some(data) = disk("mbr", 16, MBR) else { return };
    let table = read(&*Memory::shared(data)).expect("a table");
    assert_eq!((table.kind, table.disk_id.as_str()), (Kind::Mbr, "1234abcd"));
    assert_eq!(sectors(&table.gap), [(1, 2048)]);
    assert_eq!(table.records, [4096 * 512, 8192 * 512]);
    let found: Vec<_> = table
        .partitions
        .iter()
        .map(|p| {
            (
                p.index,
                p.type_id.as_str(),
                p.unique_id.as_str(),
                p.attributes,
                p.start / 512,
                p.length / 512,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, "83", "1234abcd-01", 0x80, 2048, 2048),
            (5, "82", "1234abcd-05", 0, 6144, 2048),
            (6, "83", "1234abcd-06", 0, 10240, 2048),
        ]
    );
}

#[test]
fn entries_that_hold_nothing_take_no_number() {
    let Some(good) = disk("mbr with empty entries", 16, MBR) else { return };
    let whole = read(&*Memory::shared(good.clone())).expect("a table");
    // The first logical partition is deleted, as old programs do it: its record leads on.
    let mut data = good.clone();
    data[4096 * 512 + 446..4096 * 512 + 462].fill(0);
    let table = read(&*Memory::shared(data)).expect("a table");
    let [first, logical] = &table.partitions[..] else { panic!("{table:?}") };
    assert_eq!((first, logical.index), (&whole.partitions[0], 5));
    assert_eq!((logical.start, logical.unique_id.as_str()), (10240 * 512, "1234abcd-05"));
    // A type and no sectors.
    let mut data = good;
    data[446 + 3 * 16 + 4] = 0x83;
    assert_eq!(read(&*Memory::shared(data)).expect("a table"), whole);
}

#[test]
fn a_chain_of_extended_records_ends() {
    let Some(good) = disk("extended records", 16, MBR) else { return };
    // The first extended record's second entry: back to itself, and beyond the disk.
    for (lba, word) in [
        (0u32, "goes back"),
        (30_000, "not inside the extended"),
        (u32::MAX, "not inside the extended"),
    ] {
        let mut data = good.clone();
        let at = 4096 * 512 + 462;
        data[at + 8..at + 12].copy_from_slice(&lba.to_le_bytes());
        let e = read(&*Memory::shared(data)).expect_err("refused");
        assert!(e.what().contains(word) && e.kind() == ErrorKind::Undetermined, "{e}");
    }
}

#[test]
fn no_table_is_no_error_here() {
    for size in [0, 100, 512, MIB] {
        assert_eq!(read(&*Memory::shared(vec![0; size])).expect("none").kind, Kind::None);
    }
}

#[test]
fn damage_anywhere_is_an_error_or_a_table() {
    let (Some(gpt), Some(mbr)) = (disk("damage", 16, GPT), disk("damage", 16, MBR)) else { return };
    let mut numbers = Numbers::new(3);
    for (good, places) in [
        (gpt, vec![0..34 * 512, 16 * MIB - 34 * 512..16 * MIB]),
        (mbr, vec![440..512, 4096 * 512 + 440..4096 * 512 + 512]),
    ] {
        let mut disk = Memory(good.clone());
        for _ in 0..3000 {
            let mut touched = vec![];
            for _ in 0..=numbers.below(8) {
                let place = &places[numbers.below(places.len() as u64) as usize];
                let at = place.start + numbers.below(place.len() as u64) as usize;
                disk.0[at] = numbers.next() as u8;
                touched.push(at);
            }
            if let Ok(table) = read(&disk) {
                for partition in &table.partitions {
                    assert!(partition.start + partition.length <= disk.0.len() as u64);
                }
            }
            touched.iter().for_each(|at| disk.0[*at] = good[*at]);
        }
    }
}

/// A second reading of the same table.
#[test]
fn sfdisk_reads_back_what_the_tests_write() {
    let Some(sfdisk) = tool("sfdisk", "sfdisk reads back") else { return };
    let Some(data) = disk("sfdisk reads back", 16, GPT) else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("disk"), &data).expect("write");
    let dump = crate::image::oracle::run(dir.path(), &sfdisk, &["--json", "disk"]);
    let dump: serde_json::Value = serde_json::from_slice(&dump).expect("json");
    let table = read(&*Memory::shared(data)).expect("a table");
    let theirs = dump["partitiontable"]["partitions"].as_array().expect("list").clone();
    assert_eq!(theirs.len(), table.partitions.len());
    for (ours, theirs) in table.partitions.iter().zip(theirs) {
        assert_eq!(Some(ours.start / 512), theirs["start"].as_u64());
        assert_eq!(Some(ours.length / 512), theirs["size"].as_u64());
        assert_eq!(Some(ours.unique_id.to_uppercase().as_str()), theirs["uuid"].as_str());
        assert_eq!(Some(ours.name.as_str()), theirs["name"].as_str());
    }
}
