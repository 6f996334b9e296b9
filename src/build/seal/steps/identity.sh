# What makes one machine itself: made again at its first boot.
step identity
if [ -e etc/machine-id ] || [ -d usr/lib/systemd ] || [ -d lib/systemd ]; then
    # Empty, not missing: a missing one would make the first boot run every unit's preset again.
    fixed etc/machine-id 0444 ''
fi
if [ -e var/lib/dbus/machine-id ] && [ ! -L var/lib/dbus/machine-id ]; then
    ln -sf /etc/machine-id var/lib/dbus/machine-id && say "fixed /var/lib/dbus/machine-id"
fi
fixed etc/hostname 0644 "$HOST
"
# A symbolic link is the system's own choice of a resolver.
[ -L etc/resolv.conf ] || fixed etc/resolv.conf 0644 ''
absent etc/machine-info etc/adjtime etc/fake-hwclock.data etc/iscsi/initiatorname.iscsi etc/nvme/hostid etc/nvme/hostnqn
