# The script is the only program in the guest, started by the shell that the kernel started as init;
# the root filesystem is mounted read-write and nothing else runs.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
# The kernel's own lines must not stand in the middle of ours.
echo 1 > /proc/sys/kernel/printk
step begin
say "begin $SEAL"

mount -o remount,rw / || fail "cannot write to the root filesystem"
# The image's own tree, without what is mounted over it (/run, /dev, /proc), stands below R.
W=/tmp
mount -t tmpfs tmpfs "$W" || fail "cannot mount a tmpfs"
R=$W/root
mkdir "$R" && mount -o bind / "$R" && cd "$R" || fail "cannot look below the mounts"
: > "$W/epoch" && touch -d "@$EPOCH" "$W/epoch" || fail "cannot set a file's time"
if [ "$(date +%s)" -lt "$EPOCH" ]; then fail "the guest's clock is before the epoch"; fi
