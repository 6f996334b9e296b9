#!/bin/sh
# "Do these two images match?" `devbox parity` against the tools that people use for it today, on two images that
# differ in four files (benches/image.sh).
#
#   benches/compare.sh DIR [RUNS] [DEVBOX]
#
# virt-diff, guestfish and virt-diff --checksum boot an appliance (packages guestfs-tools and libguestfs-tools; a
# distribution kernel is fetched into DIR/kernel, not installed), which takes minutes without KVM: each runs RUNS
# times, but only once if PEER_RUNS is not set, and is ended after LIMIT seconds (default 900). devbox runs before
# and after each of them, so that both see the same machine.
set -eu
dir=$(realpath "${1:?usage: benches/compare.sh DIR [RUNS] [DEVBOX]}")
runs=${2:-5}
devbox=$(realpath "${3:-target/release/devbox}")
peer_runs=${PEER_RUNS:-1}
limit=${LIMIT:-900}
[ -x "$devbox" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
command -v virt-diff > /dev/null || { echo "install guestfs-tools and libguestfs-tools" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -d "$dir/kernel/lib/modules" ]; then
    mkdir -p "$dir/kernel"
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    (cd "$dir/kernel" && apt-get -q download "$package" && dpkg-deb -x "$package"*.deb . && rm -f "$package"*.deb)
    depmod -b "$dir/kernel" "$(ls "$dir/kernel/lib/modules")"
fi
version=$(ls "$dir/kernel/lib/modules")
mkdir -p "$dir/appliance" /lib/modules
export LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg LIBGUESTFS_CACHEDIR="$dir/appliance"
export SUPERMIN_KERNEL="$dir/kernel/boot/vmlinuz-$version" SUPERMIN_MODULES="$dir/kernel/lib/modules/$version"
export SUPERMIN_KERNEL_VERSION="$version"
# The appliance is built once; that is not what is measured.
guestfish --ro --format=qcow2 -a "$dir/A.qcow2" run

a=$dir/A.qcow2 b=$dir/B.qcow2
# measure NAME LIMIT COMMAND...: appends "seconds exit-code" to $work/NAME; the output is in $work/NAME.out
measure() {
    name=$1 most=$2
    shift 2
    begin=$(date +%s%N)
    code=0
    timeout -k 5 "$most" "$@" > "$work/$name.out" 2> "$work/$name.err" || code=$?
    end=$(date +%s%N)
    echo "$(((end - begin) / 1000000)) $code" >> "$work/$name"
}
sums() { for one in A B; do guestfish --ro --format=qcow2 -a "$dir/$one.qcow2" -i checksums-out sha256 / "$work/$one.sums"; sort -k 2 -o "$work/$one.sums" "$work/$one.sums"; done; diff "$work/A.sums" "$work/B.sums"; }
ours() { i=0; while [ "$i" -lt "$runs" ]; do measure devbox 600 "$devbox" -q parity --recompute "$a" "$b"; i=$((i + 1)); done; }
median() { sort -n "$work/$1" | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }

ours
i=0
while [ "$i" -lt "$peer_runs" ]; do
    measure virt-diff "$limit" virt-diff --format=qcow2 -a "$a" -A "$b"
    ours
    begin=$(date +%s%N) code=0
    sums > "$work/guestfish.out" || code=$?
    echo "$((($(date +%s%N) - begin) / 1000000)) $code" >> "$work/guestfish"
    ours
    measure virt-diff-checksum "$limit" virt-diff --checksum=sha256 --format=qcow2 -a "$a" -A "$b"
    ours
    i=$((i + 1))
done

base=$(median devbox)
printf '%-20s %10s %9s %5s  %s\n' "" "median ms" "x devbox" exit "lines printed"
for name in devbox virt-diff guestfish virt-diff-checksum; do
    printf '%-20s %10s %9s %5s  %s\n' "$name" "$(median "$name")" "$(echo "$(median "$name") $base" | awk '{ printf "%.0f", $1 / $2 }')" \
        "$(awk '{ print $2 }' "$work/$name" | sort -u | tr '\n' ' ')" "$(wc -l < "$work/$name.out")"
done
echo "(exit 124: ended after $limit s)"
echo
cat "$work/devbox.out"
