//! Boot loader configuration that would never end.

use crate::workshop::Workshop;

/// A system whose `grub.cfg` a shell script writes to standard output.
fn system(script: &str) -> Workshop {
    let shop = Workshop::new();
    shop.sh(&format!(
        "mkdir -p root/boot/grub root/etc && echo ID=lab > root/etc/os-release
         {{ {script} ; }} > root/boot/grub/grub.cfg
         truncate -s 8M disk.raw && mke2fs -q -t ext4 -d root disk.raw"
    ));
    shop
}

#[test]
fn endless_configuration_is_refused() {
    for script in [
        // Variables that double: 2^60 bytes.
        "echo 'set a=xxxxxxxxxxxxxxxx'; for i in $(seq 60); do echo 'set a=$a$a'; done",
        "for i in $(seq 300); do printf 'submenu x { '; done",
        "for i in $(seq 2000); do echo \"menuentry $i { linux /k; }\"; done",
        "head -c 2000000 /dev/zero | tr '\\0' x",
    ] {
        system(script).refused("disk.raw", &["content"], "disk.raw");
    }
}

#[test]
fn configuration_that_calls_itself_is_refused_or_ends() {
    for script in ["echo 'source /boot/grub/grub.cfg'", "echo 'function f { f; f; }'; echo f"] {
        let shop = system(script);
        shop.refused("disk.raw", &["content"], "disk.raw");
        shop.read("disk.raw", "tree");
    }
}
