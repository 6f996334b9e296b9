# Blocks of removed files hold what they held, and would make every copy of the image bigger.
step trim
cd /
if command -v fstrim > /dev/null; then
    for where in $MORE /; do
        # A vfat of older kernels cannot be trimmed; it is small.
        fstrim "$where" 2> "$W/text" || say "note cannot trim $where: $(cat "$W/text")"
    done
else
    say "note the image has no fstrim: its free space keeps what was removed"
fi
step end
sync
for where in $MORE; do umount "$R$where" && umount "$where" || fail "cannot unmount $where"; done
umount "$R" || fail "cannot unmount $R"
mount -o remount,ro / || fail "cannot make the root filesystem read-only"
if [ -n "$failed" ]; then say "end failed"; else say "end sealed"; fi
# The kernel says that it powers off in the middle of what the console has not written yet; a change of the
# terminal waits for that (termios(3), TCSADRAIN).
stty -echo <&1 2> /dev/null || sleep 1
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
