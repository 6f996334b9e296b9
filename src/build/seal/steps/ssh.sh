# Host keys: the same private key in every machine would be nobody's identity.
step ssh
if [ -e usr/sbin/sshd ]; then
    maker=
    [ -e usr/bin/cloud-init ] && maker=cloud-init
    for unit in etc/systemd/system/*.service usr/lib/systemd/system/*.service lib/systemd/system/*.service; do
        [ -f "$unit" ] && grep -q 'ssh-keygen.* -A' "$unit" && maker=$unit
    done
    [ -n "$maker" ] || fail "nothing in the image would make ssh host keys at first boot; install cloud-init or a unit with 'ssh-keygen -A'"
fi
absent etc/ssh/ssh_host_* etc/dropbear/dropbear_*_host_key etc/dropbear/host etc/ssh/sshd_config.d/50-cloud-init.conf
