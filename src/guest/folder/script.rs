//! What a guest does to mount a folder and to let go of it, in its own shell.

/// Exit codes of the scripts, which no program in them uses.
pub(super) const NO_FILESYSTEM: i32 = 50;
pub(super) const NO_DEVICE: i32 = 51;
pub(super) const NO_TARGET: i32 = 52;
pub(super) const NOT_MOUNTED: i32 = 53;
pub(super) const HELD: i32 = 54;

/// The device of a folder takes a moment to be seen after it was plugged in. 9p shows the tags of its devices;
/// virtiofs does so on new kernels only, so it is tried until it works.
pub(super) const MOUNT: &str = r#"
while read -r device on rest; do
    [ "$device" != "$tag" ] || { echo already; exit 0; }
done < /proc/mounts
for module in $modules; do modprobe "$module" > /dev/null 2>&1; done
grep -qw "$type" /proc/filesystems || exit 50
seen() {
    for file in /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag; do
        [ "$(tr -d '\0\n' < "$file" 2> /dev/null)" != "$tag" ] || return 0
    done
    return 1
}
n=0
if [ "$type" = 9p ]; then
    until seen; do
        n=$((n + 1))
        [ "$n" -lt 200 ] || exit 51
        sleep 0.1
    done
fi
mkdir -p "$target" || exit 52
until error=$(mount -t "$type" -o "$options" "$tag" "$target" 2>&1); do
    n=$((n + 1))
    if [ "$type" = 9p ] || [ "$n" -ge 200 ]; then
        echo "$error" >&2
        [ "$type" = 9p ] || ls -d /sys/bus/virtio/drivers/virtiofs/virtio* > /dev/null 2>&1 || exit 51
        exit 53
    fi
    sleep 0.1
done
echo mounted
"#;

/// Names the processes that hold it, by what the kernel shows of each.
pub(super) const UNMOUNT: &str = r#"
mounted() {
    while read -r device on rest; do
        [ "$device" != "$tag" ] || return 0
    done < /proc/mounts
    return 1
}
mounted || exit 0
umount "$target" 2> /dev/null && exit 0
sleep 0.3
error=$(umount "$target" 2>&1) && exit 0
for process in /proc/[0-9]*; do
    for link in "$process/cwd" "$process/root" "$process/exe" "$process"/fd/*; do
        case $(readlink "$link" 2> /dev/null) in
            "$target" | "$target"/*)
                echo "held by $(tr -d '\n' < "$process/comm") (process ${process#/proc/} of the guest)"
                break
                ;;
        esac
    done
done
mounted || exit 0
echo "$error" >&2
exit 54
"#;
