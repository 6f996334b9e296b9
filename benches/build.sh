#!/usr/bin/env bash
# How long a build takes while no guest of it runs, beside Packer's of the same image, with one shell step and one file:
#
#   benches/build.sh BASE.qcow2 [DEVBOX]
#
# BASE is an image with cloud-init and sshd that boots by BIOS, such as a `qcow2` output of a spec without steps. Packer's
# qemu builder gets the same processors, memory and emulation or KVM. Then devbox's rebuilds: unchanged, and with the last
# step changed. Packer is measured if it is installed. The boot that seals is reported by itself: Packer has none.
set -euo pipefail
base=$(realpath "${1:?usage: benches/build.sh BASE.qcow2 [DEVBOX]}")
devbox=$(command -v "${2:-devbox}")
desk=$(mktemp -d "${TMPDIR:-/var/tmp}/devbox-bench.XXXXXX")
trap 'rm -rf "$desk"' EXIT
cd "$desk"
export DEVBOX_HOME=$desk/home
digest=$(sha256sum "$base" | cut -d' ' -f1)
echo 'uploaded=1' > up.conf

# stamped COMMAND...: its lines with the seconds since it began in front
stamped() {
    local begin=${EPOCHREALTIME/[.,]/} line
    { "$@" 2>&1 || echo "FAILED: exit $?"; } | while IFS= read -r line; do
        printf '%d.%03d %s\n' "$(((${EPOCHREALTIME/[.,]/} - begin) / 1000000))" \
            "$(((${EPOCHREALTIME/[.,]/} - begin) / 1000 % 1000))" "$line"
    done
    printf '%d.%03d END\n' "$(((${EPOCHREALTIME/[.,]/} - begin) / 1000000))" \
        "$(((${EPOCHREALTIME/[.,]/} - begin) / 1000 % 1000))"
}
# at LOG PATTERN: when the first line came that fits
at() { awk -v pattern="$2" '$0 ~ pattern { print $1; exit }' "$1"; }
whole() { awk 'END { print $1 }' "$1"; }
failed() { if grep -q ' FAILED: ' "$1"; then tail -n 20 "$1" >&2; exit 1; fi; }

cat > devbox.toml << EOF
name = "bench"
version = "1.0.0-bench"
arch = "amd64"
outputs = ["qcow2"]

[source]
type = "image"
path = "$base"
sha256 = "$digest"

[[steps]]
type = "shell"
inline = "echo hi > /etc/hello"

[[steps]]
type = "file"
source = "up.conf"
target = "/etc/up.conf"

[machine]
cpus = 2
memory = "1GiB"
EOF

# guests LOG: the seconds in which the guest of the steps ran, and that of the seal
devbox_report() {
    local log=$1 all booting down sealing sealed
    failed "$log"
    all=$(whole "$log")
    booting=$(at "$log" '==> (Booting|Going on)') down=$(at "$log" 'the guest shut down')
    sealing=$(at "$log" '==> Sealing') sealed=$(at "$log" ' sealed, ')
    awk -v all="$all" -v b="${booting:-0}" -v d="${down:-0}" -v s="${sealing:-0}" -v e="${sealed:-0}" -v name="$2" 'BEGIN {
        printf "%-28s %8.1f s; steps'"'"' guest %6.1f s, seal %5.1f s, no guest %5.1f s\n", name, all, d - b, e - s, all - (d - b) - (e - s) }'
    awk -v all="$all" -v b="${booting:-0}" -v d="${down:-0}" -v s="${sealing:-0}" -v e="${sealed:-0}" \
        'BEGIN { print all - (d - b) - (e - s) }' > none
}

stamped "$devbox" build > first.log
devbox_report first.log 'devbox build'
ours=$(cat none)
stamped "$devbox" build > unchanged.log
devbox_report unchanged.log 'devbox build, unchanged'
echo 'uploaded=2' > up.conf
stamped "$devbox" build > last.log
devbox_report last.log 'devbox build, last step'

command -v packer > /dev/null || { echo 'packer is not installed: not measured'; exit 0; }
echo 'uploaded=1' > up.conf
ssh-keygen -q -t ed25519 -N '' -f key
mkdir seed
cat > seed/user-data << EOF
#cloud-config
users: [{name: dev, sudo: "ALL=(ALL) NOPASSWD:ALL", shell: /bin/sh, ssh_authorized_keys: ["$(cat key.pub)"]}]
EOF
printf 'instance-id: bench\nlocal-hostname: bench\n' > seed/meta-data
genisoimage -quiet -output seed.iso -volid cidata -joliet -rock seed/user-data seed/meta-data
accelerator=tcg
"$devbox" doctor 2>&1 | grep -qi 'kvm works' && accelerator=kvm
cat > packer.json << EOF
{ "builders": [{ "type": "qemu", "iso_url": "$base", "iso_checksum": "sha256:$digest", "disk_image": true,
    "format": "qcow2", "accelerator": "$accelerator", "machine_type": "q35", "headless": true, "cpus": 2,
    "memory": 1024, "net_device": "virtio-net", "disk_interface": "virtio", "output_directory": "out",
    "vm_name": "disk.qcow2", "boot_wait": "1s", "ssh_username": "dev", "ssh_private_key_file": "$desk/key",
    "ssh_timeout": "15m", "shutdown_command": "sudo shutdown -P now", "skip_resize_disk": true,
    "qemuargs": [["-cpu", "max"], ["-drive", "file=out/disk.qcow2,if=virtio,format=qcow2"],
        ["-drive", "file=$desk/seed.iso,if=virtio,format=raw,readonly=on"]] }],
  "provisioners": [
    { "type": "shell", "execute_command": "sudo sh -c '{{ .Vars }} {{ .Path }}'", "inline": ["echo hi > /etc/hello"] },
    { "type": "file", "source": "up.conf", "destination": "/tmp/up.conf" }] }
EOF
export PACKER_CACHE_DIR=$desk/packer-cache PACKER_CONFIG_DIR=$desk CHECKPOINT_DISABLE=1 PACKER_LOG=1
stamped packer build packer.json > packer.log
failed packer.log
all=$(whole packer.log)
began=$(at packer.log 'Executing /.*qemu-system') ended=$(at packer.log 'Converting hard drive|Build .* finished')
awk -v all="$all" -v b="$began" -v e="$ended" -v ours="$ours" 'BEGIN {
    none = all - (e - b)
    printf "%-28s %8.1f s; guest %6.1f s, no guest %5.1f s\n", "packer build", all, e - b, none
    printf "no guest: devbox / packer = %.2f\n", ours / none }'
