#!/bin/sh
# Makes the images that the other benches measure, with Debian's own tools and none of devbox: a 2 GiB
# Debian 12 with kernel, systemd, cloud-init and ssh (A), and the same one with four differences (B): a file
# changed without a change of size, one added, one with another mode, one removed.
#
#   benches/image.sh DIR        needs root (loop mounts), mmdebstrap, qemu-utils, fdisk, zstd
#
# DIR gets A and B as .raw, .qcow2, .zstd.qcow2, .vmdk (sparse) and .stream.vmdk; what is there is kept.
set -eu
dir=${1:?usage: benches/image.sh DIR}
[ "$(id -u)" = 0 ] || { echo "run it as root: the mounts need it" >&2; exit 2; }
mkdir -p "$dir"
cd "$dir"
packages=systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,grub2-common,cloud-init,openssh-server
packages=$packages,qemu-guest-agent,sudo,ifupdown,isc-dhcp-client,iproute2,ca-certificates,netbase,rsync
packages=$packages,python3-minimal,cloud-guest-utils,fdisk,curl

if [ ! -e A.raw ]; then
    [ -e root.tar ] || { mmdebstrap --mode=root --variant=minbase --include="$packages" bookworm root.part.tar \
        && mv root.part.tar root.tar; }
    mkdir -p mnt
    trap 'umount mnt 2> /dev/null || true' EXIT
    truncate -s 2G A.part
    printf 'label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\nstart=4096, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n' \
        | sfdisk -q A.part
    # The filesystem ends where the backup of the table begins.
    mkfs.ext4 -q -L root -E offset=$((4096 * 512)) A.part $(((2097152 - 2048 - 1024)))k
    mount -o loop,offset=$((4096 * 512)) A.part mnt
    tar --xattrs --xattrs-include='*' -xpf root.tar -C mnt
    echo 'LABEL=root / ext4 defaults 0 1' > mnt/etc/fstab
    printf 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="console=ttyS0"\n' > mnt/etc/default/grub
    rm -f mnt/etc/ssh/ssh_host_*
    umount mnt
    mv A.part A.raw
fi
if [ ! -e B.raw ]; then
    cp --sparse=always A.raw B.part
    mkdir -p mnt
    trap 'umount mnt 2> /dev/null || true' EXIT
    mount -o loop,offset=$((4096 * 512)) B.part mnt
    sed -i 's/^GRUB_TIMEOUT=0/GRUB_TIMEOUT=9/' mnt/etc/default/grub
    echo added > mnt/etc/added.conf
    chmod 600 mnt/etc/passwd
    rm mnt/usr/share/base-files/dot.bashrc
    umount mnt
    mv B.part B.raw
fi
make() { # <from> <to> <qemu-img options>...
    from=$1 to=$2
    shift 2
    [ -e "$to" ] || { qemu-img convert -f raw "$@" "$from" "$to.part" && mv "$to.part" "$to"; }
}
for one in A B; do
    make $one.raw $one.qcow2 -O qcow2
    make $one.raw $one.zstd.qcow2 -O qcow2 -c -o compression_type=zstd
    make $one.raw $one.vmdk -O vmdk
    make $one.raw $one.stream.vmdk -O vmdk -o subformat=streamOptimized
done
ls -ls
