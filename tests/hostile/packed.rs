//! Compressed images and archives: gzip, xz, zstd, tar, OVA, Vagrant boxes, zip.

use crate::workshop::Workshop;

const ALL: &[&str] = &["disk", "content", "tree"];
const DISK: &[&str] = &["disk"];

/// A folder with `disk.raw`, 1 MiB of noise and holes, and `secret`.
fn workshop() -> Workshop {
    let shop = Workshop::new();
    shop.sh("printf 'a secret of the host' > secret && truncate -s 64K secret
         truncate -s 1M disk.raw
         for at in 0 8 20 40 80 130 180 250; do
           dd if=/dev/urandom of=disk.raw bs=4096 seek=$at count=1 conv=notrunc status=none
         done");
    shop
}

/// A header with the checksum that belongs to it (POSIX.1-2017, pax, "ustar Interchange Format").
fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A member with contents, padded.
fn member(name: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
    let mut all = [&header(name, kind, contents.len() as u64, "")[..], contents].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// A record of an extended header, which begins with its own length.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
    member("pax", b'x', text.as_bytes())
}

/// Writes an archive of these parts with its end mark.
fn archive(shop: &Workshop, name: &str, parts: &[&[u8]]) {
    let all = [parts.concat(), vec![0; 1024]].concat();
    std::fs::write(shop.path(name), all).expect("write");
}

/// Bytes that make a member a disk: the mark of a boot sector.
fn disk() -> Vec<u8> {
    let mut disk = vec![7; 8192];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn bombs_are_refused() {
    let shop = workshop();
    shop.sh("yes | head -c 100M > words; for p in 'gzip -9' 'xz -0' 'zstd -q'; do
           set -- $p; $p -c words > bomb.$1; gzip -c bomb.$1 > twice.$1; done
         tar -cf - words --transform s/words/disk.raw/ | gzip > tar.gz");
    for file in ["bomb.gzip", "bomb.xz", "bomb.zstd", "twice.gzip", "twice.zstd", "tar.gz"] {
        shop.refused(file, DISK, "--max-ratio");
    }
}

/// zstd frames of RLE blocks of 128 KiB of zeros, four bytes each (RFC 8878, section 3.1.1).
fn zeros(blocks: usize) -> Vec<u8> {
    // No content size, no checksum, a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let block = |last: u32| (((128u32 << 10) << 3 | 1 << 1 | last).to_le_bytes(), 0u8);
    for left in (0..blocks).rev() {
        let (head, byte) = block(u32::from(left == 0));
        frame.extend_from_slice(&head[..3]);
        frame.push(byte);
    }
    frame
}

#[test]
fn zeros_are_a_sparse_disk_until_layers_multiply_them() {
    let shop = workshop();
    std::fs::write(shop.path("zeros.zst"), zeros(8 << 10)).expect("write");
    shop.read("zeros.zst", "disk");
    shop.refused("zeros.zst", &["content", "tree"], "no partition table and no filesystem");
    // 1 TiB from a file of less than a KiB in two layers.
    std::fs::write(shop.path("inner"), zeros(8 << 20)).expect("write");
    shop.sh("zstd -q -19 inner -o many.zst; rm inner");
    let size = std::fs::metadata(shop.path("many.zst")).expect("there").len();
    assert!(size < 16 << 10, "{size}");
    shop.refused("many.zst", DISK, "zeros included");
}

#[test]
fn streams_that_want_much_memory_are_refused() {
    let shop = workshop();
    shop.sh("head -c 1M disk.raw | zstd -q --ultra -1 --long=31 -c > window.zst
         head -c 1M disk.raw | xz -0 --lzma2=preset=0,dict=1GiB -c > dictionary.xz");
    shop.refused("window.zst", DISK, "zstd stream");
    shop.refused("dictionary.xz", DISK, "xz stream");
}

#[test]
fn a_fifth_layer_is_refused() {
    let shop = workshop();
    shop.sh("cp disk.raw next; for i in 1 2 3 4 5; do gzip -c next > gz; mv gz next; done
         mv next five.gz; cp disk.raw next.raw
         for i in 1 2 3 4 5; do tar -cf tar next.raw; mv tar next.raw; done; mv next.raw five.tar");
    shop.refused("five.gz", DISK, "more than 4 layers");
    shop.refused("five.tar", DISK, "more than 4 layers");
    // A stream that unpacks to itself would never end (the quine of R. Cox): layers are counted, so
    // any chain does.
    shop.sh("cp disk.raw next; for i in $(seq 40); do gzip -c next > gz; mv gz next; done");
    shop.refused("next", DISK, "more than 4 layers");
}

#[test]
fn streams_that_are_cut_or_followed_by_something_are_refused() {
    let shop = workshop();
    shop.sh("tar -cf - disk.raw | gzip > disk.tar.gz; gzip -k disk.raw; xz -0 -k disk.raw
         zstd -q disk.raw; gzip -c secret > other.gz");
    for file in ["disk.tar.gz", "disk.raw.gz", "disk.raw.xz", "disk.raw.zst"] {
        shop.sh(&format!(
            "size=$(stat -c %s {file}); head -c $((size / 2)) {file} > half
             head -c $((size - 1)) {file} > short; {{ cat {file}; printf garbage; }} > tail
             {{ cat {file}; head -c 512 secret; }} > zeros"
        ));
        for cut in ["half", "short", "tail", "zeros"] {
            shop.refused(cut, DISK, "damaged or cut short");
        }
    }
    // Two gzip members are one stream by the format; the second one lies about its checksum.
    shop.sh("cat disk.raw.gz other.gz > two.gz");
    shop.read("two.gz", "disk");
    let size = std::fs::metadata(shop.path("two.gz")).expect("there").len();
    shop.put("two.gz", size - 8, &[1, 2, 3, 4]);
    shop.refused("two.gz", DISK, "damaged or cut short");
    // So does the length, which some programs take for the size of the disk.
    shop.put(
        "disk.raw.gz",
        std::fs::metadata(shop.path("disk.raw.gz")).expect("there").len() - 4,
        &[0],
    );
    shop.put(
        "disk.raw.gz",
        std::fs::metadata(shop.path("disk.raw.gz")).expect("there").len() - 1,
        &[9],
    );
    shop.refused("disk.raw.gz", DISK, "damaged or cut short");
}

#[test]
fn what_is_not_unpacked_is_named() {
    let shop = workshop();
    // An empty zip archive with one stored member's local header, and bzip2.
    shop.sh("printf 'PK\\003\\004\\024\\000\\000\\000' > disk.zip; cat disk.raw >> disk.zip
         printf 'BZh91AY&SY' > disk.bz2; cat disk.raw >> disk.bz2");
    shop.refused("disk.zip", ALL, "is a zip file");
    shop.refused("disk.bz2", ALL, "is a bzip2 file");
}

#[test]
fn members_that_lead_to_the_host_are_not_followed() {
    let shop = workshop();
    for name in ["../secret", "/etc/passwd", "a/../../secret", "./../secret", ".."] {
        archive(&shop, "bad.tar", &[&member(name, b'0', &disk())]);
        shop.refused("bad.tar", ALL, "leads out of the archive");
        archive(&shop, "bad.tar", &[&pax(&[("path", name)]), &member("disk.raw", b'0', &disk())]);
        shop.refused("bad.tar", DISK, "leads out of the archive");
        let long = member("././@LongLink", b'L', name.as_bytes());
        archive(&shop, "bad.tar", &[&long, &member("disk.raw", b'0', &disk())]);
        shop.refused("bad.tar", DISK, "leads out of the archive");
    }
    // Links, devices and pipes with the name of a disk.
    for kind in *b"123456" {
        for to in ["/etc/passwd", "../secret", "secret"] {
            archive(&shop, "bad.tar", &[&header("disk.raw", kind, 0, to)]);
            shop.refused("bad.tar", DISK, "holds no disk image");
        }
        archive(&shop, "bad.tar", &[&member("disk.raw", kind, &disk())]);
        shop.refused("bad.tar", DISK, "no regular file, but has contents");
        let sized = pax(&[("size", "8192")]);
        archive(&shop, "bad.tar", &[&sized, &header("disk.raw", kind, 0, "secret")]);
        shop.refused("bad.tar", DISK, "no regular file, but has contents");
    }
}

#[test]
fn archives_that_show_each_program_another_disk_are_refused() {
    let shop = workshop();
    let (one, two) = (member("disk.raw", b'0', &disk()), member("other.raw", b'0', &disk()));
    let mut boot = one.clone();
    boot[510..512].copy_from_slice(&[0x55, 0xaa]);
    seal(&mut boot);
    let end = vec![0; 1024];
    // What an extended header says of the size, and what the header behind it says.
    let hidden = member("disk.raw", b'0', &[&member("hidden.raw", b'0', &disk())[..]].concat());
    for (parts, words) in [
        (&[&one[..], &two][..], "holds 2 disks"),
        (&[&one, &one], "two members `disk.raw`"),
        (&[&one, &end, &two], "something else follows its end mark"),
        (&[&boot], "both a tar archive and a disk with a boot sector"),
        (&[&pax(&[("size", "512")]), &hidden], "the extended header before it 512"),
        (&[&pax(&[("size", "0")]), &hidden], "the extended header before it 0"),
        (&[&pax(&[("size", "18446744073709551615")]), &one], "not all in the archive"),
        (&[&pax(&[("size", "99999999999999999999")]), &one], "extended header is damaged"),
        (&[&pax(&[("size", "-1")]), &one], "extended header is damaged"),
        (
            &[&pax(&[("size", "8192")]), &pax(&[("path", "x.raw")]), &one],
            "two extended headers describe one member",
        ),
        (&[&member("pax", b'x', b"8 path=x\n"), &one], "extended header is damaged"),
        (&[&member("pax", b'x', b"99999999 path=x\n"), &one], "extended header is damaged"),
        (
            &[&member("pax", b'x', b"18446744073709551615 a=b\n"), &one],
            "extended header is damaged",
        ),
        (&[&member("pax", b'g', record("size", "512").as_bytes()), &one], "global header"),
        (&[&header("pax", b'x', 1 << 32, ""), &one], "extended header has"),
        (&[&header("disk.raw", b'0', (1 << 33) - 1, ""), &one], "not all in the archive"),
        (&[&member("disk.raw", b'M', &disk())], "disk.raw"),
        (&[&one, &member("x", b'M', &disk())], "continues a file of another archive"),
        (&[&one, &member("x", b'?', b"")], "type `?`, which is not read"),
    ] {
        archive(&shop, "bad.tar", parts);
        shop.refused("bad.tar", if words == "disk.raw" { &[] } else { DISK }, words);
    }
    // Cut inside of a member, and before the end mark.
    for cut in [512, 1000, 512 + 8192] {
        std::fs::write(shop.path("bad.tar"), &one[..cut]).expect("write");
        shop.refused("bad.tar", DISK, "bad.tar");
    }
    let many: Vec<u8> = (0..1001).flat_map(|i| header(&format!("f{i}"), b'0', 0, "")).collect();
    archive(&shop, "bad.tar", &[&many, &one]);
    shop.refused("bad.tar", DISK, "more than 1000 members");
    // A name that would colour a terminal or forge a line.
    let forged = member("x\u{1b}[2J\nerror: forged.raw", b'0', &disk());
    archive(&shop, "bad.tar", &[&forged, &one]);
    shop.refused("bad.tar", DISK, "holds 2 disks");
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let shop = workshop();
    shop.sh("tar --format=oldgnu --sparse -cf old.tar disk.raw
         tar --format=posix --sparse --sparse-version=1.0 -cf pax.tar disk.raw
         for v in 0.0 0.1; do
           tar --format=posix --sparse --sparse-version=$v -cf $v.tar disk.raw; done");
    shop.read("old.tar", "disk");
    shop.read("pax.tar", "disk");
    shop.refused("0.0.tar", DISK, "GNU format 0.0 or 0.1");
    shop.refused("0.1.tar", DISK, "GNU format 0.0 or 0.1");
    let old = std::fs::read(shop.path("old.tar")).expect("read");
    assert_eq!((old[156], old[482]), (b'S', 1), "a map that goes on behind the header");
    for (at, bytes, words) in [
        // A piece behind the end, two in one place, one of another length, an empty one between.
        (386, &b"77777777777\0"[..], "overlap or lie outside"),
        (410, b"00000000000\0", "overlap or lie outside"),
        (398, b"77777777777\0", "overlap or lie outside"),
        (398, b"00000001000\0", "but its map speaks of"),
        (398, b"-0000000001\0", "map of a sparse member is damaged"),
        (410, &[0; 24], "map of a sparse member is damaged"),
        // The size of the whole.
        (483, b"00000000001\0", "overlap or lie outside"),
        (483, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "limit"),
    ] {
        let mut bad = old.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut bad);
        std::fs::write(shop.path("bad.tar"), bad).expect("write");
        shop.refused("bad.tar", DISK, words);
    }
    // A map that says that it goes on in each block up to the end.
    let endless = [&old[..512], &[1; 64 << 10]].concat();
    std::fs::write(shop.path("bad.tar"), endless).expect("write");
    shop.refused("bad.tar", DISK, "map of a sparse member is damaged");
    let sparse = |map: &str, size: &str| {
        let mut contents = map.as_bytes().to_vec();
        contents.resize(512, 0);
        contents.extend(disk());
        let keys = [
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "disk.raw"),
            ("GNU.sparse.realsize", size),
        ];
        [pax(&keys), member("GNUSparseFile.1/disk.raw", b'0', &contents)].concat()
    };
    for (map, size, words) in [
        ("1\n0\n8192\n", "8191", "overlap or lie outside"),
        ("1\n18446744073709551615\n8192\n", "8192", "overlap or lie outside"),
        ("2\n0\n8192\n4096\n8192\n", "99999", "overlap or lie outside"),
        ("1\n0\n4096\n", "8192", "but its map speaks of"),
        ("1000001\n0\n1\n", "8192", "more than 1000000 pieces"),
        ("18446744073709551616\n", "8192", "map of a sparse member is damaged"),
        ("999999\n0\n0\n", "8192", "map of a sparse member is damaged"),
        ("-1\n", "8192", "map of a sparse member is damaged"),
        ("", "8192", "map of a sparse member is damaged"),
        ("1\n0\n8192\n", "9223372036854775807", "limit"),
    ] {
        archive(&shop, "bad.tar", &[&sparse(map, size)]);
        shop.refused("bad.tar", DISK, words);
    }
    archive(&shop, "good.tar", &[&sparse("1\n0\n8192\n", "70368744177664")]);
    shop.read("good.tar", "disk");
    let name =
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "512")];
    let name = [&name[..], &[("GNU.sparse.name", "../../etc/passwd")]].concat();
    archive(&shop, "bad.tar", &[&pax(&name), &member("x.raw", b'0', &disk())]);
    shop.refused("bad.tar", DISK, "leads out of the archive");
}

/// An OVA of this `.ovf`, this `.mf` and one disk.
fn ova(shop: &Workshop, ovf: &str, manifest: &str) {
    archive(
        shop,
        "vm.ova",
        &[
            &member("vm.ovf", b'0', ovf.as_bytes()),
            &member("vm.mf", b'0', manifest.as_bytes()),
            &member("disk.raw", b'0', &disk()),
        ],
    );
}

#[test]
fn manifests_that_lie_are_refused_and_reach_no_file_of_the_host() {
    let shop = workshop();
    let zeros = "0".repeat(64);
    for (manifest, words) in [
        (format!("SHA256(disk.raw)= {zeros}\n"), "`disk.raw` has another digest"),
        (format!("SHA256(/etc/passwd)= {zeros}\n"), "names `/etc/passwd`, which is not there"),
        (format!("SHA256(../secret)= {zeros}\n"), "names `../secret`, which is not there"),
        (format!("SHA256(secret)= {zeros}\n"), "names `secret`, which is not there"),
        (format!("MD5(disk.raw)= {}\n", &zeros[..32]), "a line is not understood"),
        ("SHA256(disk.raw)= \n".to_owned(), "a line is not understood"),
        ("\u{1b}[2J\n".to_owned(), "a line is not understood"),
        ("x".repeat(2 << 20), "the limit is 1048576 bytes"),
    ] {
        ova(&shop, "<Envelope/>", &manifest);
        shop.refused("vm.ova", DISK, words);
    }
}

#[test]
fn descriptions_of_machines_reach_no_file_of_the_host() {
    let shop = workshop();
    let doubled: String =
        (1..64).map(|i| format!("<!ENTITY l{i} \"&l{0};&l{0};&l{0};&l{0};\">", i - 1)).collect();
    for ovf in [
        "<Envelope><References><File href=\"/etc/passwd\"/></References></Envelope>".to_owned(),
        "<Envelope><References><File href=\"../secret\"/></References></Envelope>".to_owned(),
        "<Envelope><References><File href=\"http://127.0.0.1/x\"/></References></Envelope>".into(),
        "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><Envelope>&e;</Envelope>".into(),
        format!("<!DOCTYPE x [<!ENTITY l0 \"lol\">{doubled}]><Envelope>&l63;</Envelope>"),
        "<a>".repeat(1 << 20),
    ] {
        // The disk is found by its content; what the description says is not followed.
        ova(&shop, &ovf, "");
        shop.read("vm.ova", "disk");
    }
}

#[test]
fn boxes_that_lie_about_their_disk_are_refused() {
    let shop = workshop();
    shop.sh("qemu-img create -q -f qcow2 box.qcow2 1M; gzip -kc box.qcow2 > box.gz
         qemu-img create -q -f vmdk box.vmdk 1M
         qemu-img create -q -f qcow2 -u -F raw -b /etc/passwd backed.qcow2 1M");
    let named = |format: &str| format!("{{\"provider\":\"libvirt\",\"format\":\"{format}\"}}");
    let differs = "is not of the format";
    for (disk, metadata, words) in [
        ("box.qcow2", named("raw"), differs),
        ("box.qcow2", named("vmdk"), differs),
        ("box.qcow2", named("../../etc/passwd"), differs),
        ("box.gz", named("raw"), differs),
        ("disk.raw", named("qcow2"), differs),
        ("box.vmdk", named("qcow2"), differs),
        ("backed.qcow2", named("qcow2"), "backing file"),
        ("box.qcow2", "{\"disks\":[{\"format\":\"raw\"}]}".to_owned(), differs),
        ("box.qcow2", "{\"disks\":[{\"path\":\"/etc/passwd\"}]}".to_owned(), "which is not there"),
        ("box.qcow2", "{\"disks\":[{\"path\":\"../secret\"}]}".to_owned(), "which is not there"),
        ("box.qcow2", "{\"format\":7}".to_owned(), "metadata.json"),
        ("box.qcow2", "[".repeat(200_000), "metadata.json"),
        ("box.qcow2", " ".repeat(2 << 20), "the limit is 1048576 bytes"),
        ("box.qcow2", "{\"provider\":\"\u{1b}[2J\"".to_owned(), "metadata.json"),
    ] {
        let contents = std::fs::read(shop.path(disk)).expect("read");
        let parts = [
            member("metadata.json", b'0', metadata.as_bytes()),
            member("box.img", b'0', &contents),
        ];
        archive(&shop, "lies.box", &[&parts[0], &parts[1]]);
        shop.refused("lies.box", DISK, words);
    }
    let honest = "{\"provider\":\"\\u001b[2J\\nerror: forged\",\"format\":\"qcow2\"}";
    let contents = std::fs::read(shop.path("box.qcow2")).expect("read");
    let parts =
        [member("metadata.json", b'0', honest.as_bytes()), member("box.img", b'0', &contents)];
    archive(&shop, "honest.box", &[&parts[0], &parts[1]]);
    shop.read("honest.box", "disk");
}
