//! VMDK.

use crate::workshop::Workshop;

const ALL: &[&str] = &["disk", "content", "tree"];

/// A folder with a descriptor with these extent lines.
fn descriptor(extents: &str) -> Workshop {
    let shop = Workshop::new();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\n\n{extents}\nddb.adapterType = \"ide\"\n"
    );
    std::fs::write(shop.path("disk.vmdk"), text).expect("write");
    shop.sh("printf 'a secret of the host' > secret; truncate -s 1M secret; mkdir inside");
    shop
}

#[test]
fn extents_elsewhere_on_the_host_are_named_and_not_touched() {
    for place in
        ["/etc/passwd", "../secret", "inside/../../secret", "/dev/sda", "/proc/self/environ"]
    {
        let shop = descriptor(&format!("RW 2048 FLAT \"{place}\" 0"));
        shop.refused("disk.vmdk", ALL, "disk.vmdk");
    }
    // A link in the folder that leads out of it.
    let shop = descriptor("RW 2048 FLAT \"link\" 0");
    shop.sh("ln -s /etc/passwd link");
    shop.refused("disk.vmdk", ALL, "disk.vmdk");
}

#[test]
fn descriptors_that_lie_are_refused() {
    for extents in [
        "RW 99999999999999999999 FLAT \"secret\" 0",
        "RW 18446744073709551615 ZERO",
        "RW 2048 VMFSRDM \"secret\"",
        "RW 2048 FLAT",
        "NOACCESS 2048 FLAT \"secret\" 0",
    ] {
        descriptor(extents).refused("disk.vmdk", ALL, "disk.vmdk");
    }
    let shop = descriptor("");
    shop.refused("disk.vmdk", ALL, "disk.vmdk");
}

#[test]
fn a_parent_is_named_and_not_touched() {
    let shop = Workshop::new();
    shop.sh("qemu-img create -q -f vmdk parent.vmdk 1M
         qemu-img create -q -f vmdk -b parent.vmdk -F vmdk disk.vmdk");
    shop.refused("disk.vmdk", ALL, "parent");
}

#[test]
fn headers_that_lie_are_refused() {
    // Offsets in VMware's Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
    for (offset, bytes) in [
        (4, &9u32.to_le_bytes()[..]),
        (8, &(1u32 << 20).to_le_bytes()),
        (12, &u64::MAX.to_le_bytes()),
        (12, &(1u64 << 50).to_le_bytes()),
        (20, &0u64.to_le_bytes()),
        (20, &(1u64 << 40).to_le_bytes()),
        (28, &(1u64 << 40).to_le_bytes()),
        (36, &u64::MAX.to_le_bytes()),
        (44, &0u32.to_le_bytes()),
        (44, &u32::MAX.to_le_bytes()),
        (56, &(1u64 << 40).to_le_bytes()),
        (73, b"\n\n\n\n"),
    ] {
        let shop = Workshop::new();
        shop.sh("qemu-img create -q -f vmdk disk.vmdk 1M");
        shop.put("disk.vmdk", offset, bytes);
        shop.refused("disk.vmdk", &["disk"], "disk.vmdk");
    }
}
