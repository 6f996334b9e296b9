//! Disks in a guest: an empty one gets a filesystem, and each its place in the tree.

use std::ffi::OsStr;

use crate::exec::quote;

/// A script for the guest's root: the disk with this serial number is mounted at `target`, now and after
/// each restart of the guest. One that holds nothing that `blkid` knows and begins with zeros is
/// formatted as ext4; anything else stays as it is. A filesystem grows with its disk.
#[must_use]
pub fn mount_script(serial: &str, target: &str) -> String {
    format!("name={serial}\ntarget={}\n{MOUNT}", quote(OsStr::new(target)))
}

/// A disk that was just plugged in shows after a moment. Not every busybox has
/// `mountpoint`, so the kernel's own list is read.
const MOUNT: &str = r#"set -eu
find() {
    for block in /sys/block/vd*; do
        if [ -r "$block/serial" ] && [ "$(cat "$block/serial")" = "$name" ]; then
            device=/dev/${block##*/}
            return 0
        fi
    done
    return 1
}
n=0
until find; do
    n=$((n + 1))
    if [ "$n" -gt 100 ]; then echo "the disk \`$name\` does not show in the guest" >&2; exit 1; fi
    sleep 0.1 2> /dev/null || sleep 1
done
fresh=
if [ -z "$(blkid "$device" 2> /dev/null || :)" ]; then
    if [ -n "$(dd if="$device" bs=1024 count=1024 2> /dev/null | tr -d '\000' | head -c 1)" ]; then
        echo "the disk \`$name\` holds something that is no filesystem; it is left as it is" >&2
        exit 1
    fi
    command -v mkfs.ext4 > /dev/null || { echo 'the guest has no `mkfs.ext4` (package `e2fsprogs`)' >&2; exit 1; }
    mkfs.ext4 -q -L "$name" "$device" > /dev/null
    fresh=1
fi
mkdir -p "$target"
if ! grep -q "^$device $target " /proc/mounts; then
    mount -o discard "$device" "$target" 2> /dev/null || mount "$device" "$target"
fi
if [ -z "$fresh" ] && command -v resize2fs > /dev/null; then
    case $(blkid "$device") in *TYPE=\"ext[234]\"*) resize2fs "$device" > /dev/null 2>&1 || : ;; esac
fi
link=/dev/disk/by-id/virtio-$name
if [ -e "$link" ] && ! grep -q "^$link " /etc/fstab; then
    echo "$link $target auto nofail,discard 0 2" >> /etc/fstab
fi
if [ -n "$fresh" ]; then echo formatted; fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_that_a_shell_reads_to_its_end() {
        let script = mount_script("data", "/srv/it's here");
        assert!(script.starts_with("name=data\ntarget='/srv/it'\\''s here'\n"), "{script}");
        let status = std::process::Command::new("sh").args(["-nc", &script]).status();
        assert!(status.expect("sh runs").success());
    }
}
