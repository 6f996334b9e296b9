# shellcheck shell=bash disable=SC2034 # who sources this uses the lists
# What this host needs: looks for it, and installs it on Debian and Ubuntu. Sourced by `hello` and `test`.
#
# Root or sudo is used for this only, and only if something is missing.

PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
export PATH

# One line a need: package | what shows that it is there (a command, or a file) | why
RUN_NEEDS='
qemu-system-x86|qemu-system-x86_64|runs virtual machines
qemu-utils|qemu-img|creates and converts disk images
ovmf|/usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_CODE.fd|UEFI firmware of virtual machines
mmdebstrap|mmdebstrap|unpacks Debian packages into a root tree, without root
debian-archive-keyring|/usr/share/keyrings/debian-archive-keyring.gpg|checks who signed the packages
apt|apt-get|fetches the packages
gpgv|gpgv|checks who signed the packages
uidmap|newuidmap|gives a plain user a range of user ids for the root tree
e2fsprogs|mke2fs|makes the root filesystem
dosfstools|mkfs.vfat|makes the EFI system partition
mtools|mcopy|fills the EFI system partition
grub-common|grub-mkimage|makes the boot loader
grub-pc-bin|/usr/lib/grub/i386-pc/boot.img|the boot loader for BIOS
grub-efi-amd64-bin|/usr/lib/grub/x86_64-efi/normal.mod|the boot loader for UEFI
openssh-client|ssh|runs commands in a guest
tar|tar|unpacks the root tree
util-linux|unshare|runs qemu-img without network and within limits
fdisk|sfdisk|finds the partition of the copy that is tampered with
ca-certificates|/etc/ssl/certs/ca-certificates.crt|checks downloads
gcc|cc|compiles the C parts of the TLS library
libc6-dev|/usr/include/stdio.h|compiles the C parts of the TLS library
'

TEST_NEEDS='
ansible-core|ansible-playbook|steps that run playbooks
btrfs-progs|mkfs.btrfs|btrfs images, for the kernel to fill
qemu-system-arm|qemu-system-aarch64|runs guests of arm64
qemu-efi-aarch64|/usr/share/AAVMF/AAVMF_CODE.fd|UEFI firmware of guests of arm64
swtpm|swtpm|emulates the TPM of a guest
busybox-static|busybox|the tiny guest of the tests
dropbear-bin|dropbear|the tiny guest of the tests
openssh-server|sshd|the host that a test compares
cpio|cpio|the tiny guest of the tests
rsync|rsync|folders that are copied into a guest
virtiofsd|/usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd /usr/lib/virtiofsd|folders that virtiofsd shows to a guest
xorriso|xorriso|a second reader of the seed image, and the installation media of tests
isolinux|/usr/lib/ISOLINUX/isolinux.bin|the boot loader of an installation medium that a test makes
syslinux-common|/usr/lib/syslinux/modules/bios/ldlinux.c32|the boot loader of an installation medium that a test makes
genisoimage|isoinfo|a third reader of the seed image
attr|setfattr|extended attributes on test files
xfsprogs|xfs_io mkfs.xfs|cuts filesystems off as a crash does, makes XFS filesystems to compare with
lvm2|pvcreate|volume groups of test disks
dmsetup|dmsetup|what the guest of a test sees mapped
acl|setfacl|access lists on test files
libcap2-bin|setcap|capabilities on test files
sudo|sudo|runs a test as a plain user
squashfs-tools|mksquashfs|packs files as a repacked image has them
strace|strace|shows which files a program opens
shellcheck|shellcheck|checks the scripts
xz-utils|xz|compressed images
zstd|zstd|compressed images, and the corpora of the fuzz targets
git|git|the commit that is tested
gpg|gpg|keys that are not the vendors
unzip|unzip|archives that a script unpacks
skopeo|skopeo|reads a containerDisk, and what was pushed to a registry
docker-registry|docker-registry|the registry of the tests
openssl|openssl|the certificates of that registry
libxml2-utils|xmllint|reads the description in an OVA
jq|jq|reads an attestation without devbox
chromium|chromium|opens the page of a report
curl|curl|fetches the public schema of SARIF
python3-yaml|/usr/lib/python3/dist-packages/yaml/__init__.py|reads the CI files of the examples
python3|python3|the second implementation of the digests, and databases of SQLite
rpm|rpmbuild rpm|packages and databases of rpm
g++|c++|compiles libFuzzer
'

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# there COMMAND-OR-FILE...: whether one of them is there
there() {
    local thing
    for thing in "$@"; do
        case $thing in
            /*) [ -e "$thing" ] && return 0 ;;
            *) command -v "$thing" > /dev/null 2>&1 && return 0 ;;
        esac
    done
    return 1
}

# missing NEEDS: those lines of NEEDS that are not there
missing() {
    local package proof why
    while IFS='|' read -r package proof why; do
        [ -n "$package" ] || continue
        # shellcheck disable=SC2086 # several proofs are several words
        there $proof || printf '%s|%s|%s\n' "$package" "$proof" "$why"
    done <<< "$1"
}

apt_like() {
    command -v apt-get > /dev/null 2>&1 || return 1
    # shellcheck disable=SC1091
    case " $(. /etc/os-release 2> /dev/null && echo "${ID:-} ${ID_LIKE:-}") " in
        *' debian '* | *' ubuntu '*) return 0 ;;
    esac
    return 1
}

# as_root COMMAND...: runs it as root; asks for a password only where there is a terminal
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif ! command -v sudo > /dev/null 2>&1; then
        die "root is needed, and there is no sudo. Run as root, then start this again:
    $*"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@" || die "sudo wants a password, and there is no terminal to ask. Run this, then start this again:
    sudo $*"
    fi
}

candidate() { LC_ALL=C apt-cache policy "$1" 2> /dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)'; }
installed() { dpkg-query -W -f='${db:Status-Abbrev}${Version}' "$1" 2> /dev/null | sed -n 's/^ii *//p'; }

apt_install() {
    local package packages=() version
    for package in "$@"; do
        # Empty package lists: a fresh container, or a host that was never updated.
        if [ -z "$(candidate "$package")" ]; then
            say "The package lists do not have \`$package\`; updating them."
            as_root apt-get update -q
            break
        fi
    done
    for package in "$@"; do packages+=("$package"); done
    # A qemu-utils from a newer release breaks the qemu-system-x86 that apt would install here: take
    # the version that fits.
    case " $* " in
        *' qemu-system-x86 '*)
            version=$(candidate qemu-system-x86)
            local old
            for package in qemu-utils qemu-block-extra qemu-system-common; do
                old=$(installed "$package")
                if [ -n "$old" ] && [ -n "$version" ] && dpkg --compare-versions "$old" gt "$version"; then
                    say "\`$package\` $old is newer than the \`qemu-system-x86\` that can be installed; taking $version of both."
                    packages+=("$package=$version")
                fi
            done
            ;;
    esac
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends --allow-downgrades \
        -o DPkg::Lock::Timeout=300 "${packages[@]}" || die "apt-get could not install: ${packages[*]}"
}

# need NEEDS: installs what is missing of them
need() {
    local lines package proof why packages=()
    lines=$(missing "$1")
    [ -n "$lines" ] || return 0
    say 'This host lacks:'
    while IFS='|' read -r package proof why; do
        printf '  %-24s %s\n' "$package" "$why"
        packages+=("$package")
    done <<< "$lines"
    if ! apt_like; then
        say 'These are the names of Debian packages. This is neither Debian nor Ubuntu:' >&2
        say "install what has these programs and files with your system's tool, then start this again." >&2
        while IFS='|' read -r package proof why; do printf '  %-24s %s\n' "$package" "$proof" >&2; done <<< "$lines"
        exit 1
    fi
    say "Installing them with apt-get$([ "$(id -u)" = 0 ] || echo ', through sudo')."
    apt_install "${packages[@]}"
    lines=$(missing "$1")
    [ -z "$lines" ] || die "still missing after the installation: $(cut -d'|' -f1 <<< "$lines" | paste -sd' ')"
}

# A plain user needs a range of ids below which the root tree's owners are kept.
need_id_range() {
    local user from
    user=$(id -un)
    [ "$(id -u)" != 0 ] || return 0
    grep -qs "^\($user\|$(id -u)\):" /etc/subuid && grep -qs "^\($user\|$(id -u)\):" /etc/subgid && return 0
    from=$(cat /etc/subuid /etc/subgid 2> /dev/null | awk -F: '$2 + $3 > max { max = $2 + $3 } END { print max > 100000 ? max : 100000 }')
    say "The user $user has no range of subordinate ids; giving it $from to $((from + 65535)) (usermod)."
    as_root usermod --add-subuids "$from-$((from + 65535))" --add-subgids "$from-$((from + 65535))" "$user"
}

# Rust, at least the version that Cargo.toml asks for.
need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo > /dev/null 2>&1; then
        say "Rust is not installed; devbox needs $wanted or newer. Install it from https://rustup.rs:" >&2
        say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
        say 'then start this again.' >&2
        exit 1
    fi
    found=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1)" != "$wanted" ]; then
        say "Rust $found is older than $wanted, which devbox needs. Update it, then start this again:" >&2
        say '    rustup update stable' >&2
        exit 1
    fi
}
