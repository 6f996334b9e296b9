//! Files made by gzip, xz, zstd, tar and qemu-img, and the same ones damaged or made to deceive.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind};
use crate::image::Limits;
use crate::image::container::{Container, Format, Options, open};
use crate::image::oracle::{Numbers, contents, data_ranges, patchwork, run, tool};

const MIB: usize = 1 << 20;

/// A folder to work in, and one for scratch files, which must always be empty.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// None if a program is missing.
    fn new(test: &str) -> Option<Self> {
        for program in ["sh", "gzip", "xz", "zstd", "tar", "qemu-img"] {
            tool(program, test)?;
        }
        let lab = Lab { dir: tempfile::tempdir().expect("tempdir") };
        fs::create_dir(lab.path("scratch")).expect("mkdir");
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sh(&self, script: &str) {
        run(self.dir.path(), Path::new("sh"), &["-ec", script]);
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("write");
    }

    fn open_with(&self, name: &str, limits: Limits) -> Result<Container, Error> {
        let scratch = Some(self.path("scratch"));
        let opened = open(&self.path(name), &Options { limits, scratch, ..Options::default() });
        let left = fs::read_dir(self.path("scratch")).expect("readable").count();
        assert_eq!(left, 0, "{name}: a scratch file has a name");
        opened
    }

    fn open(&self, name: &str) -> Container {
        self.open_with(name, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn refused(&self, name: &str, word: &str) -> Error {
        let e = self.open_with(name, Limits::default()).expect_err(name);
        assert_eq!(e.kind(), Kind::Undetermined, "{e}");
        assert!(e.to_string().contains(word), "`{word}` is not in: {e}");
        e
    }

    fn assert_same(&self, name: &str, data: &[u8], wrapping: &str) {
        let container = self.open(name);
        assert_eq!(container.wrapping.as_deref(), Some(wrapping), "{name}");
        assert_eq!(container.notes[0], format!("read from {wrapping}"));
        let reader = &*container.reader;
        assert!(contents(reader) == data, "{name}: the contents differ");
        let mut covered = vec![0; data.len()];
        for range in data_ranges(reader) {
            let range = range.start as usize..range.end as usize;
            covered[range.clone()].copy_from_slice(&data[range]);
        }
        assert!(covered == data, "{name}: a hole holds data");
    }
}

#[test]
fn compressed_disks_give_the_bytes_of_the_disk() {
    let Some(lab) = Lab::new("compressed disks") else { return };
    let data = patchwork(9 * MIB + 700, 1);
    lab.write("raw", &data);
    let kinds = [
        ("gzip -c raw", "gzip"),
        ("head -c 3000001 raw | gzip; tail -c +3000002 raw | gzip -1; gzip -c /dev/null", "gzip"),
        ("xz -0 -c raw", "xz"),
        ("xz -0 -T2 --block-size=1000000 -c raw", "xz"),
        (
            "head -c 3000001 raw | xz -0; head -c 8 /dev/zero; tail -c +3000002 raw | xz -0; head -c 4 /dev/zero",
            "xz",
        ),
        ("xz -0 --check=none -c raw", "xz"),
        ("zstd -q -c raw", "zstd"),
        ("zstd -q --long=27 -c raw", "zstd"),
        ("head -c 3000001 raw | zstd -q -c; tail -c +3000002 raw | zstd -q -19 -c", "zstd"),
        (r"printf '\120\052\115\030\003\000\000\000abc'; zstd -q -c raw", "zstd"),
    ];
    for (script, name) in kinds {
        lab.sh(&format!("( {script} ) > packed"));
        lab.assert_same("packed", &data, &super::with_article(&format!("{name}-compressed file")));
    }
    lab.sh("gzip -c raw | xz -0 | zstd -q > packed");
    lab.assert_same("packed", &data, "a zstd-compressed xz-compressed gzip-compressed file");
    // What is inside can be any container.
    lab.sh("qemu-img convert -f raw -O qcow2 -c raw disk.qcow2; xz -0 -k disk.qcow2");
    let container = lab.open("disk.qcow2.xz");
    assert_eq!(container.format, Format::Qcow2);
    assert!(contents(&*container.reader)[..data.len()] == data);
    let name = container.path.file_name().expect("name");
    assert_eq!(name, "disk.qcow2.xz");
}

#[test]
fn archives_of_one_disk_give_the_bytes_of_the_disk() {
    let Some(lab) = Lab::new("archives") else { return };
    let data = patchwork(24 * MIB, 2);
    // Holes for tar's --sparse; more pieces than one header holds, and than one block behind it.
    lab.write("full", &data);
    lab.sh("cp --sparse=always full disk.raw; rm full");
    let pieces =
        data_ranges(&*open(&lab.path("disk.raw"), &Options::default()).expect("raw").reader);
    assert!(pieces.len() > 25, "only {} pieces", pieces.len());
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        lab.sh(&format!("tar --format={format} -cf plain.tar disk.raw"));
        lab.assert_same("plain.tar", &data, "`disk.raw` in a tar archive");
    }
    for (format, options) in [("oldgnu", ""), ("gnu", ""), ("posix", "--sparse-version=1.0")] {
        lab.sh(&format!("tar --format={format} {options} --sparse -cf sparse.tar ./disk.raw"));
        assert!(fs::metadata(lab.path("sparse.tar")).expect("there").len() < data.len() as u64);
        lab.assert_same("sparse.tar", &data, "`disk.raw` in a tar archive");
        // As a cloud wants it.
        lab.sh(&format!("tar --format={format} {options} --sparse -czf disk.tar.gz disk.raw"));
        lab.assert_same("disk.tar.gz", &data, "`disk.raw` in a gzip-compressed tar archive");
    }
    for version in ["0.0", "0.1"] {
        lab.sh(&format!(
            "tar --format=posix --sparse-version={version} --sparse -cf old.tar disk.raw"
        ));
        lab.refused("old.tar", "GNU format 0.0 or 0.1");
    }
    // Names that need entries of their own, folders and links around it.
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(140));
    lab.sh(&format!(
        "mkdir -p a/{}; cp --sparse=always disk.raw a/{long}.img; ln -s x a/link; mkfifo a/pipe",
        "d".repeat(120)
    ));
    for format in ["gnu", "posix"] {
        lab.sh(&format!(
            "tar --format={format} --sparse -cf long.tar a; xz -0 -c long.tar > long.tar.xz"
        ));
        let wrapping = format!("`a/{long}.img` in an xz-compressed tar archive");
        lab.assert_same("long.tar.xz", &data, &wrapping);
    }
    // A compressed disk in a compressed archive.
    lab.sh("zstd -q disk.raw -o disk.raw.zst; tar -cf - disk.raw.zst | gzip > both.tgz");
    let wrapping = "zstd-compressed `disk.raw.zst` in a gzip-compressed tar archive";
    lab.assert_same("both.tgz", &data, wrapping);
}

#[test]
fn nothing_is_copied_out_of_a_plain_archive() {
    let Some(lab) = Lab::new("plain archive") else { return };
    lab.write("disk.raw", &patchwork(MIB, 3));
    lab.sh("tar -cf plain.tar disk.raw; gzip -k disk.raw");
    let scratch = Some(lab.path("absent"));
    let options = Options { scratch, ..Options::default() };
    open(&lab.path("plain.tar"), &options).expect("needs no scratch file");
    let e = open(&lab.path("disk.raw.gz"), &options).expect_err("needs one");
    assert!(e.to_string().contains("absent") && e.hints()[0].contains("TMPDIR"), "{e}");
}

#[test]
fn an_ova_holds_one_disk_and_its_manifest_counts() {
    let Some(lab) = Lab::new("OVA") else { return };
    let data = patchwork(3 * MIB, 4);
    lab.write("raw", &data);
    lab.write("box.ovf.txt", b"<Envelope/>");
    lab.sh("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized raw vm-disk1.vmdk; echo '<Envelope/>' > vm.ovf; echo cert > vm.cert");
    for (sum, name) in [("sha1sum", "SHA1"), ("sha256sum", "SHA256"), ("sha512sum", "SHA512")] {
        lab.sh(&format!(
            "for f in vm.ovf vm-disk1.vmdk; do echo \"{name}($f)= $({sum} < $f | cut -d' ' -f1)\"; done > vm.mf; \
             tar --format=ustar -cf vm.ova vm.ovf vm.mf vm.cert vm-disk1.vmdk"
        ));
        lab.assert_same("vm.ova", &data, "`vm-disk1.vmdk` in an OVA");
        let notes = lab.open("vm.ova").notes;
        assert!(notes.iter().any(|n| n == "2 digests of the manifest `vm.mf` hold"), "{notes:?}");
        assert!(notes.iter().any(|n| n.contains("signature of the OVA is not checked")));
    }
    lab.sh("echo ' ' >> vm.ovf; tar -cf bad.ova vm.ovf vm.mf vm-disk1.vmdk");
    lab.refused("bad.ova", "`vm.ovf` has another digest");
    lab.sh("tar -cf bad.ova vm.mf vm-disk1.vmdk vm.cert; sed -i s/vm.ovf/no.ovf/ vm.mf; tar -cf bad2.ova vm.ovf vm.mf vm-disk1.vmdk");
    lab.refused("bad2.ova", "it names `no.ovf`, which is not there");
    lab.sh("echo 'MD5(vm.ovf)= 00' > vm.mf; tar -cf bad.ova vm.ovf vm.mf vm-disk1.vmdk");
    lab.refused("bad.ova", "a line is not understood");
    lab.sh("cp vm-disk1.vmdk vm-disk2.vmdk; tar -cf two.ova vm.ovf vm-disk1.vmdk vm-disk2.vmdk");
    let e = lab.refused("two.ova", "holds 2 disks");
    assert!(e.details()[0].contains("`vm-disk1.vmdk`, `vm-disk2.vmdk`"), "{e}");
}

#[test]
fn vagrant_boxes_of_both_versions_are_read() {
    let Some(lab) = Lab::new("Vagrant boxes") else { return };
    let data = patchwork(3 * MIB, 5);
    lab.write("raw", &data);
    lab.sh("qemu-img convert -f raw -O qcow2 raw box.img; echo x > Vagrantfile; echo '<Envelope/>' > box.ovf");
    lab.write("metadata.json", br#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#);
    lab.sh("tar -cf plain.box metadata.json Vagrantfile box.img; tar -czf packed.box ./metadata.json ./Vagrantfile ./box.img");
    lab.assert_same("plain.box", &data, "`box.img` in a Vagrant box");
    lab.assert_same("packed.box", &data, "`box.img` in a gzip-compressed Vagrant box");
    let notes = lab.open("plain.box").notes;
    assert!(notes.iter().any(|n| n.ends_with("the provider `libvirt`")), "{notes:?}");

    lab.write("metadata.json", br#"{"provider":"libvirt","format":"raw"}"#);
    lab.sh("tar -cf odd.box metadata.json box.img");
    lab.refused("odd.box", "is not of the format `raw`");
    // Whoever believes the file would read the compressed bytes as a disk.
    lab.sh("cp box.img plain; gzip -c plain > box.img; tar -cf odd.box metadata.json box.img; mv plain box.img");
    lab.refused("odd.box", "is not of the format `raw`");
    for (metadata, words) in [
        (&br#"{"format":"vmdk"}"#[..], "is not of the format `vmdk`"),
        (br#"{"disks":[{"path":"box.img","format":"raw"}]}"#, "is not of the format `raw`"),
        (
            br#"{"disks":[{"path":"/etc/passwd"}]}"#,
            "names the disk `/etc/passwd`, which is not there",
        ),
    ] {
        lab.write("metadata.json", metadata);
        lab.sh("tar -cf odd.box metadata.json box.img");
        lab.refused("odd.box", words);
    }
    lab.write("metadata.json", br#"{"disks":[{"path":"./box.img","format":"qcow2"}]}"#);
    lab.sh("tar -cf even.box metadata.json box.img");
    lab.assert_same("even.box", &data, "`box.img` in a Vagrant box");
    lab.write("metadata.json", b"{\"provider\":");
    lab.sh("tar -cf odd.box metadata.json box.img");
    lab.refused("odd.box", "`metadata.json`");

    // Version 1, and VirtualBox's version 2: an OVF beside the disk.
    lab.sh("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized raw box-disk001.vmdk; tar -cf one.box Vagrantfile box.ovf box-disk001.vmdk");
    lab.assert_same("one.box", &data, "`box-disk001.vmdk` in a Vagrant box");
    lab.write("metadata.json", br#"{"provider":"virtualbox"}"#);
    lab.sh("tar -czf two.box Vagrantfile box.ovf box-disk001.vmdk metadata.json");
    lab.assert_same("two.box", &data, "`box-disk001.vmdk` in a gzip-compressed Vagrant box");
}

#[test]
fn what_is_cut_short_or_followed_by_something_is_refused() {
    let Some(lab) = Lab::new("cut streams") else { return };
    lab.write("disk.raw", &patchwork(2 * MIB, 6));
    lab.sh("gzip -k disk.raw; xz -0 -k disk.raw; zstd -q disk.raw; tar -cf disk.tar disk.raw");
    for name in ["disk.raw.gz", "disk.raw.xz", "disk.raw.zst", "disk.tar"] {
        let good = fs::read(lab.path(name)).expect("read");
        let whole = lab.open(name);
        assert_eq!(whole.reader.size(), 2 * MIB as u64);
        let end = if name == "disk.tar" { 2 * MIB + 1000 } else { good.len() };
        for cut in [20, 700, end / 2, end - 9, end - 1] {
            lab.write("bad", &good[..cut]);
            let e = lab.open_with("bad", Limits::default());
            // A header that is cut short is no mark: what is left is a raw file.
            match e {
                Err(e) => assert_eq!(e.kind(), Kind::Undetermined, "{name} cut at {cut}: {e}"),
                Ok(c) => {
                    assert!(c.wrapping.is_none() && cut == 20 && name == "disk.tar", "{name} {cut}")
                }
            }
        }
        for tail in [&b"x"[..], b"\x1f", &[7; 5000], b"\xfd7zXZ\0", b"\0\0\0x"] {
            lab.write("bad", &[&good[..], tail].concat());
            let e = lab.open_with("bad", Limits::default()).expect_err(name);
            assert_eq!(e.kind(), Kind::Undetermined, "{name}: {e}");
        }
    }
    // Padding of xz comes in groups of four.
    let xz = fs::read(lab.path("disk.raw.xz")).expect("read");
    lab.write("bad", &[&xz[..], &[0; 3]].concat());
    lab.refused("bad", "something else follows");
}

#[test]
fn a_stream_that_becomes_nothing_is_not_read_to_its_end() {
    let Some(lab) = Lab::new("idle") else { return };
    // A frame of empty blocks, and padding, both in terabytes that cost nothing to make.
    lab.sh(r"printf '\050\265\057\375' > blocks; truncate -s 8T blocks
             echo x | xz > padding; truncate -s 8T padding");
    let began = Instant::now();
    lab.refused("blocks", "unpack to 0");
    lab.refused("padding", "unpack to 2");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn zeros_are_a_sparse_disk_and_a_bomb_of_anything_else_is_refused() {
    let Some(lab) = Lab::new("bombs") else { return };
    // 2 GiB of zeros from some KiB: a legal sparse disk that takes no space.
    lab.sh("truncate -s 2G zeros; zstd -q zeros; printf x | dd of=zeros bs=1 seek=2000000000 conv=notrunc status=none; zstd -q zeros -o one.zst");
    let disk = lab.open("zeros.zst");
    assert_eq!((disk.reader.size(), data_ranges(&*disk.reader)), (2 << 30, vec![]));
    let disk = lab.open("one.zst");
    let ranges = data_ranges(&*disk.reader);
    assert!(ranges.len() == 1 && ranges[0].contains(&2_000_000_000), "{ranges:?}");
    assert!(ranges[0].end - ranges[0].start <= 64 << 10, "{ranges:?}");
    let small = Limits { disk_size: 1 << 30, ..Limits::default() };
    let e = lab.open_with("zeros.zst", small).expect_err("too large");
    assert!(e.hints()[0].contains("--max-disk-size"), "{e}");
    // 200 MiB of a word from some KiB, and the same in two layers.
    lab.sh("yes | head -c 200M | zstd -q > bomb.zst; gzip -c bomb.zst > bomb.zst.gz; yes | head -c 60M | zstd -q > small.zst");
    for name in ["bomb.zst", "bomb.zst.gz"] {
        let e = lab.refused(name, "besides zeros");
        assert!(e.hints()[0].contains("--max-ratio"), "{e}");
    }
    lab.open_with("bomb.zst", Limits { ratio: 100_000, ..Limits::default() }).expect("allowed");
    lab.open("small.zst");
    let late = Some(crate::image::limits::Deadline::after(Duration::ZERO));
    let e = lab.open_with("zeros.zst", Limits { deadline: late, ..Limits::default() });
    assert!(e.expect_err("late").hints()[0].contains("--timeout"));
    // A window that takes 2 GiB of memory.
    lab.sh("yes | head -c 1M | zstd -q --ultra --long=31 --no-check --stream-size=4000000000 -c > window.zst || \
            yes | head -c 1M | zstd -q --long=31 -c > window.zst");
    let e = lab.refused("window.zst", "more than 128 MiB of memory");
    assert!(e.hints()[0].contains("Unpack it"), "{e}");
    lab.sh("yes | head -c 1M | xz -0 --lzma2=dict=512MiB -c > dictionary.xz");
    lab.refused("dictionary.xz", "more than 256 MiB of memory");
}

#[test]
fn a_vmdk_in_pieces_in_an_archive_is_to_be_unpacked_as_a_whole() {
    let Some(lab) = Lab::new("split vmdk in an archive") else { return };
    lab.write("raw", &patchwork(MIB, 8));
    let convert = "qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse raw disk.vmdk";
    lab.sh(&format!("{convert}; tar -czf split.box disk-s001.vmdk disk.vmdk"));
    let e = lab.refused("split.box", "a VMDK in pieces");
    assert!(e.hints()[0].contains("`disk.vmdk`"), "{e}");
}

#[test]
fn twenty_layers_end_after_four() {
    let Some(lab) = Lab::new("layers") else { return };
    lab.write("raw", &patchwork(MIB / 4, 7));
    lab.sh("for i in $(seq 20); do gzip -c raw > next; mv next raw; done");
    lab.refused("raw", "more than 4 layers");
    lab.sh("mv raw disk.raw; for i in $(seq 20); do tar -cf next disk.raw; mv next disk.raw; done");
    lab.refused("disk.raw", "more than 4 layers");
}

/// A header with a right checksum.
fn header(name: &str, kind: u8, size: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn hostile_archives_end_in_one_clear_error() {
    let Some(lab) = Lab::new("hostile archives") else { return };
    let end = vec![0; 1024];
    let disk = header("disk.raw", b'0', b"1000");
    let data = vec![7; 512];
    let pax = |text: &str| {
        let mut block = text.as_bytes().to_vec();
        block.resize(text.len().next_multiple_of(512), 0);
        [header("pax", b'x', format!("{:o}", text.len()).as_bytes()), block].concat()
    };
    let with = |parts: &[&[u8]]| parts.concat();
    let base256 = [&[0x80][..], &[0xff; 11]].concat();
    let mut both = header("disk.raw", b'0', b"1000");
    both[510..].copy_from_slice(&[0x55, 0xaa]);
    seal(&mut both);
    let mut sparse = header("disk.raw", b'S', b"1000");
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[386..410].copy_from_slice(b"00000001000\x0000000001000\0");
    sparse[483..494].copy_from_slice(b"00000001000");
    seal(&mut sparse);
    // A piece behind an entry that is empty, and a map that goes on behind one.
    let mut holes = sparse.clone();
    holes[386..410].fill(0);
    holes[410..434].copy_from_slice(b"00000000000\x0000000001000\0");
    seal(&mut holes);
    let mut on = sparse.clone();
    on[386..410].copy_from_slice(b"00000000000\x0000000001000\0");
    on[482] = 1;
    seal(&mut on);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with(&[&header("disk.raw", b'0', b"77777777777"), &data, &end]), "not all in the archive"),
        (
            with(&[&header("dir/", b'5', b"0"), &header("disk.raw", b'0', &base256), &data, &end]),
            "has no size",
        ),
        (with(&[&header("../disk.raw", b'0', b"1000"), &data, &end]), "leads out of the archive"),
        (with(&[&header("/etc/disk.raw", b'0', b"1000"), &data, &end]), "leads out of the archive"),
        (with(&[&header("link", b'2', b"1000"), &data, &end]), "no regular file, but has contents"),
        (with(&[&disk, &data, &disk, &data, &end]), "two members `disk.raw`"),
        (with(&[&disk, &data]), "ends before its end mark"),
        (with(&[&disk, &data, &end, b"more"]), "something else follows its end mark"),
        (with(&[&header("x", b'x', b"00040000000"), &end]), "extended header has"),
        (with(&[&pax("99 path=x\n"), &disk, &data, &end]), "extended header is damaged"),
        (with(&[&pax("20 path=../../passwd\n"), &disk, &data, &end]), "extended header is damaged"),
        (with(&[&pax("21 path=../../passwd\n"), &disk, &data, &end]), "leads out of the archive"),
        (
            with(&[&pax("27 size=9223372036854775807\n"), &disk, &data, &end]),
            "extended header is damaged",
        ),
        (
            with(&[&pax("28 size=9223372036854775807\n"), &disk, &data, &end]),
            "not all in the archive",
        ),
        (
            with(&[
                &header("g", b'g', b"17"),
                &[&b"15 size=1000000\n"[..15], &[0; 497]].concat(),
                &disk,
                &data,
                &end,
            ]),
            "extended header is damaged",
        ),
        (with(&[&header("disk.raw", b'M', b"1000"), &data, &end]), "no partition"),
        (with(&[&disk, &data, &header("x", b'Z', b"0"), &end]), "type `Z`, which is not read"),
        (with(&[&pax("12 size=100\n"), &disk, &data, &end]), "the extended header before it 100"),
        (with(&[&pax("12 size=512\n"), &header("l", b'2', b"0"), &data, &end]), "no regular file"),
        (
            with(&[&pax("9 path=x\n"), &pax("12 size=512\n"), &disk, &data, &end]),
            "two extended headers describe one member",
        ),
        (with(&[&holes, &data, &end]), "the map of a sparse member is damaged"),
        (with(&[&on, &data, &end]), "the map of a sparse member is damaged"),
        (with(&[&both, &data, &end]), "both a tar archive and a disk"),
        (with(&[&sparse, &data, &end]), "overlap or lie outside"),
        (with(&[&header("dir/", b'5', b"0"), &end]), "holds no disk image"),
        (with(&[&end]), "no partition"),
    ];
    for (bytes, word) in cases {
        lab.write("bad.tar", &bytes);
        match lab.open_with("bad.tar", Limits::default()) {
            Err(e) => {
                assert_eq!(e.kind(), Kind::Undetermined, "{e}");
                assert!(e.to_string().contains(word), "`{word}` is not in: {e}");
            }
            // What has no good first header is no archive, and no disk either.
            Ok(container) => {
                assert_eq!((word, container.wrapping), ("no partition", None));
            }
        }
    }
    // Few pieces in each member, more than there may be in all of them.
    let map = format!("400000\n{}", "0\n0\n".repeat(400_000));
    let mut contents = map.into_bytes();
    contents.resize(contents.len().next_multiple_of(512), 0);
    let keys = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=0\n";
    let size = format!("{:o}", contents.len());
    let member = |n: u32| {
        [&pax(keys)[..], &header(&format!("{n}.raw"), b'0', size.as_bytes()), &contents].concat()
    };
    lab.write("many.tar", &with(&[&member(1), &member(2), &member(3), &end]));
    lab.refused("many.tar", "more than 1000000 pieces");
    // More members than any disk image comes with.
    let many: Vec<u8> = (0..1001).flat_map(|i| header(&format!("f{i}"), b'0', b"0")).collect();
    lab.write("many.tar", &with(&[&many, &disk, &data, &end]));
    lab.refused("many.tar", "more than 1000 members");
    let deep: Vec<u8> = (0..5000).flat_map(|_| header("d/", b'5', b"0")).collect();
    lab.write("many.tar", &with(&[&deep, &disk, &data, &end]));
    lab.refused("many.tar", "more than 1000 members");
}

/// Thousands of damaged files: an error or data, never a panic, never a hang.
#[test]
fn damage_anywhere_is_an_error_or_data() {
    let Some(lab) = Lab::new("damage") else { return };
    lab.write("full", &patchwork(MIB / 2, 8));
    lab.sh(
        "cp --sparse=always full disk.raw; gzip -k disk.raw; xz -0 -k disk.raw; zstd -q disk.raw; \
            tar --format=posix --sparse --sparse-version=1.0 -cf pax.tar disk.raw; \
            tar --format=oldgnu --sparse -cf old.tar disk.raw",
    );
    let mut numbers = Numbers::new(9);
    let began = Instant::now();
    let mut errors = 0;
    for name in ["disk.raw.gz", "disk.raw.xz", "disk.raw.zst", "pax.tar", "old.tar"] {
        let good = fs::read(lab.path(name)).expect("read");
        for _ in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..=numbers.below(4) {
                let near = numbers.below(2) == 0;
                let at = numbers.below(if near {
                    3072.min(good.len() as u64)
                } else {
                    good.len() as u64
                });
                bytes[at as usize] = numbers.next() as u8;
            }
            if name.ends_with(".tar") && numbers.below(2) == 0 {
                for block in bytes.chunks_exact_mut(512).take(3) {
                    if block[257..262] == *b"ustar" {
                        seal(block);
                    }
                }
            }
            lab.write("damaged", &bytes);
            let limits = Limits { disk_size: 64 << 20, ..Limits::default() };
            let read = || {
                let reader = lab.open_with("damaged", limits)?.reader;
                let mut at = 0;
                while let Some(range) = reader.next_data(at)? {
                    let mut buf = vec![0; (range.end - range.start).min(1 << 20) as usize];
                    reader.read_at(&mut buf, range.start)?;
                    at = range.end;
                }
                Ok::<_, Error>(())
            };
            if let Err(e) = read() {
                errors += 1;
                assert_eq!(e.kind(), Kind::Undetermined, "{e}");
            }
        }
    }
    assert!(errors > 500, "only {errors} of 1500 were noticed");
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}
