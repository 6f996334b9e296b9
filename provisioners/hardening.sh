#!/bin/sh
# Closes what a server on Debian does not need: SSH by key alone, kernel settings, modules that are
# seldom used, modes of files. Downloads nothing.
#
#   SSH_USERS   accounts that may log in by SSH, separated by spaces; all that have a key if empty
set -eu
: "${SSH_USERS=}"

# put FILE: standard input, whole or not at all, and only if it is new.
put() {
    cat > "$1.new"
    chmod 0644 "$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1" && echo "wrote $1"; fi
}

if [ -d /etc/ssh ]; then
    mkdir -p /etc/ssh/sshd_config.d
    {
        printf '%s\n' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' \
            'PermitRootLogin no' 'PermitEmptyPasswords no' 'X11Forwarding no' \
            'MaxAuthTries 3' 'LoginGraceTime 30'
        [ -z "$SSH_USERS" ] || printf 'AllowUsers %s\n' "$SSH_USERS"
    } | put /etc/ssh/sshd_config.d/10-hardening.conf
    grep -qiE '^[[:space:]]*Include[[:space:]]+/etc/ssh/sshd_config.d/' /etc/ssh/sshd_config || {
        echo "/etc/ssh/sshd_config does not include /etc/ssh/sshd_config.d; nothing would hold" >&2
        exit 1
    }
    # The image has no host keys before its first boot, and sshd asks for one.
    key=$(mktemp -d)
    trap 'rm -rf "$key"' EXIT
    ssh-keygen -q -t ed25519 -N '' -f "$key/key"
    mkdir -p /run/sshd
    /usr/sbin/sshd -t -h "$key/key"
fi

put /etc/sysctl.d/60-hardening.conf << 'SETTINGS'
# The kernel's own documentation: admin-guide/sysctl, networking/ip-sysctl.
kernel.dmesg_restrict = 1
kernel.kptr_restrict = 2
kernel.unprivileged_bpf_disabled = 1
kernel.yama.ptrace_scope = 1
fs.protected_fifos = 2
fs.protected_regular = 2
fs.protected_hardlinks = 1
fs.protected_symlinks = 1
fs.suid_dumpable = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.default.accept_redirects = 0
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.default.send_redirects = 0
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.tcp_syncookies = 1
net.ipv6.conf.all.accept_redirects = 0
net.ipv6.conf.default.accept_redirects = 0
SETTINGS

mkdir -p /etc/modprobe.d
for module in dccp sctp rds tipc cramfs hfs hfsplus udf firewire-core; do
    printf 'install %s /bin/false\n' "$module"
done | put /etc/modprobe.d/60-hardening.conf

mkdir -p /etc/security/limits.d
printf '* hard core 0\n' | put /etc/security/limits.d/60-no-core.conf

for path in /etc/crontab /etc/cron.d /etc/cron.daily /etc/cron.hourly /etc/cron.weekly /etc/cron.monthly; do
    [ ! -e "$path" ] || chmod go-rwx "$path"
done
echo "hardened"
