//! Every container around one disk, made by the programs that people use, and the way back.

use std::path::Path;
use std::process::Command;

/// What is made of `disk.raw`, and how, in a shell; `$to` is the result.
const MADE: &[(&str, &str)] = &[
    ("sparse raw", "cp --sparse=always disk.raw $to"),
    ("qcow2", "qemu-img convert -f raw -O qcow2 disk.raw $to"),
    (
        "qcow2, as QEMU 0.10 wrote it",
        "qemu-img convert -f raw -O qcow2 -o compat=0.10 disk.raw $to",
    ),
    ("qcow2, zlib", "qemu-img convert -f raw -O qcow2 -c disk.raw $to"),
    ("qcow2, zstd", "qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd disk.raw $to"),
    (
        "qcow2, subclusters",
        "qemu-img convert -f raw -O qcow2 -o extended_l2=on,cluster_size=128k disk.raw $to",
    ),
    (
        "qcow2, small clusters",
        "qemu-img convert -f raw -O qcow2 -o cluster_size=512,refcount_bits=1 disk.raw $to",
    ),
    (
        "qcow2, large clusters",
        "qemu-img convert -f raw -O qcow2 -o cluster_size=2M,lazy_refcounts=on disk.raw $to",
    ),
    (
        "qcow2, preallocated",
        "qemu-img convert -f raw -O qcow2 -o preallocation=metadata disk.raw $to",
    ),
    ("vmdk", "qemu-img convert -f raw -O vmdk disk.raw $to"),
    (
        "vmdk, version 6 hardware",
        "qemu-img convert -f raw -O vmdk -o compat6,adapter_type=lsilogic disk.raw $to",
    ),
    ("vmdk, flat", "qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw $to"),
    (
        "vmdk, sparse extents",
        "qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw $to",
    ),
    (
        "vmdk, flat extents",
        "qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat disk.raw $to",
    ),
    (
        "vmdk, stream-optimised",
        "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw $to",
    ),
    ("vhd, fixed", "qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk.raw $to"),
    ("vhd, dynamic", "qemu-img convert -f raw -O vpc -o force_size=on disk.raw $to"),
    ("vhdx, dynamic", "qemu-img convert -f raw -O vhdx disk.raw $to"),
    ("vhdx, fixed", "qemu-img convert -f raw -O vhdx -o subformat=fixed disk.raw $to"),
    ("gzip", "gzip -1 < disk.raw > $to"),
    ("xz", "xz -0 -T2 < disk.raw > $to"),
    ("zstd", "zstd -q -1 < disk.raw > $to"),
    (
        "gzip around qcow2",
        "qemu-img convert -f raw -O qcow2 disk.raw inner && gzip -1 -c inner > $to",
    ),
    ("an image for Google's cloud", "tar --format=oldgnu -Sczf $to disk.raw"),
    (
        "an OVA",
        "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw disk.vmdk \
         && echo '<Envelope/>' > box.ovf && tar --format=ustar -cf $to box.ovf disk.vmdk",
    ),
    (
        "a Vagrant box of libvirt",
        "qemu-img convert -f raw -O qcow2 disk.raw box.img \
         && echo '{\"provider\":\"libvirt\",\"format\":\"qcow2\",\"virtual_size\":1}' > metadata.json \
         && tar -czf $to metadata.json box.img",
    ),
];

/// Formats that `qemu-img` can be told to read, for the way back, by the beginning of the name.
const BACK: &[(&str, &str)] =
    &[("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vhd,", "vpc"), ("vhdx", "vhdx")];

/// Calls `check` with the name and the path of every container around `disk` whose name is `wanted`, and with the raw
/// disk that `qemu-img` makes of it again. Each is removed after its turn.
pub(crate) fn each(
    disk: &Path,
    desk: &Path,
    wanted: &dyn Fn(&str) -> bool,
    check: &mut dyn FnMut(&str, &Path),
) {
    for (name, script) in MADE.iter().filter(|(name, _)| wanted(name)) {
        let room = tempfile::tempdir_in(desk).expect("a folder");
        std::os::unix::fs::symlink(disk, room.path().join("disk.raw")).expect("a link");
        // tar must not pack the link itself.
        let script = script.replace("tar ", "tar -h ");
        shell(room.path(), name, &format!("to=made; {script}"));
        check(name, &room.path().join("made"));
        let Some((_, format)) = BACK.iter().find(|(start, _)| name.starts_with(start)) else {
            continue;
        };
        shell(room.path(), name, &format!("qemu-img convert -f {format} -O raw made back"));
        check(&format!("{name}, and back"), &room.path().join("back"));
    }
}

fn shell(folder: &Path, name: &str, script: &str) {
    let out = Command::new("bash")
        .args(["-ec", script])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("bash is needed for this test: {e}"));
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
}
