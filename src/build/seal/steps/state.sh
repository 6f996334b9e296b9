# What services remember of one machine.
step state
absent var/lib/systemd/random-seed var/lib/systemd/credential.secret boot/efi/loader/random-seed efi/loader/random-seed boot/loader/random-seed \
    var/lib/logrotate/status var/lib/logrotate.status var/lib/urandom/random-seed
hollow var/lib/systemd/timers var/lib/systemd/timesync var/lib/systemd/rfkill var/lib/systemd/backlight var/lib/private/systemd/timesync
# Their times say that /etc and /var fit /usr; with none, every first boot would do that work again.
for path in etc/.updated var/.updated; do
    [ ! -e "$path" ] || fixed "$path" 0644 "# This file was created by systemd-update-done. Its only
# purpose is to hold a timestamp of the time this directory
# was updated. See man:systemd-update-done.service(8).
TIMESTAMP_NSEC=${EPOCH}000000000
"
done
# Sockets belong to processes that are gone.
find . -xdev -type s > "$W/sockets"
while IFS= read -r path; do absent "${path#./}"; done < "$W/sockets"
