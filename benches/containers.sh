#!/bin/sh
# `devbox digest` of one system disk in each container against the cheapest thing that reads every file:
# `find -type f -print0 | xargs -0 -P2 sha256sum` on the loop-mounted raw image, which needs root, and knows neither
# owners, modes, links and attributes nor anything outside of files. And peak memory, also of a sparse disk of 200 GiB.
#
#   benches/containers.sh IMAGE.raw [RUNS] [DEVBOX]        benches/image.sh makes one
#
# Runs of all sides alternate, after one warm-up each; prints every time, medians and ratios.
set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
image=${1:?usage: benches/containers.sh IMAGE.raw [RUNS] [DEVBOX]}
runs=${2:-5}
devbox=${3:-target/release/devbox}
[ "$(id -u)" = 0 ] || { echo "run it as root: the mount needs it" >&2; exit 2; }
[ -x "$devbox" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
devbox=$(realpath "$devbox")
work=$(mktemp -d)
cleanup() { umount "$work/mnt" 2> /dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$work/mnt"

# The largest Linux partition, or the whole image if there is no table.
sectors=$(sfdisk --dump "$image" 2> /dev/null | sed -n 's/.*start= *\([0-9]*\), size= *\([0-9]*\).*/\2 \1/p' | sort -n | tail -n 1)
start=$(( ${sectors:+${sectors#* }} + 0 ))
mount -o "loop,ro,noload,offset=$((start * 512))" "$image" "$work/mnt"

convert() { qemu-img convert -q -f raw "$@"; }
ln -s "$(realpath "$image")" "$work/raw"
convert -O qcow2 "$image" "$work/qcow2"
convert -O qcow2 -c -o compression_type=zstd "$image" "$work/qcow2-zstd"
convert -O vmdk -o subformat=monolithicSparse "$image" "$work/vmdk-sparse"
convert -O vmdk -o subformat=streamOptimized "$image" "$work/vmdk-stream"
# Name, and the most that its median may be of the loop's.
sides='raw:0.67 qcow2:0.67 qcow2-zstd:1.20 vmdk-sparse:1.20 vmdk-stream:1.50'

loop() { (cd "$work/mnt" && find . -xdev -type f -print0 | xargs -0 -P2 sha256sum > "$work/sums"); }
# peak NAME COMMAND...: runs it, and keeps the largest resident size in KiB
peak() {
    name=$1
    shift
    python3 -c 'import os, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "a") as out: print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=out)
sys.exit(code)' "$work/$name.kib" "$@"
}
digest() { peak "$1" "$devbox" digest --recompute "$work/$1" > "$work/$1.digest"; }
took() { # <name> <command>...: appends the milliseconds of one run
    to=$work/$1.ms
    shift
    begin=$(date +%s%N)
    "$@"
    end=$(date +%s%N)
    echo "$(((end - begin) / 1000000))" >> "$to"
}
median() { sort -n "$work/$1.ms" | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }
most() { sort -n "$work/$1.kib" | awk 'END { printf "%d", $1 / 1024 }'; }

loop
for side in $sides; do digest "${side%%:*}"; done
i=0
while [ "$i" -lt "$runs" ]; do
    took loop loop
    for side in $sides; do took "${side%%:*}" digest "${side%%:*}"; done
    i=$((i + 1))
done

echo "$(grep -c . "$work/sums") files, $(du -m --apparent-size "$(realpath "$image")" | cut -f1) MiB of disk, $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "loop: $(tr '\n' ' ' < "$work/loop.ms") ms, median $(median loop)"
failed=0
for side in $sides; do
    name=${side%%:*}
    cmp -s "$work/raw.digest" "$work/$name.digest" || { echo "$name has another digest than raw" >&2; failed=1; }
    awk -v name="$name" -v a="$(median "$name")" -v b="$(median loop)" -v goal="${side#*:}" -v mib="$(most "$name")" \
        -v all="$(tr '\n' ' ' < "$work/$name.ms")" \
        'BEGIN { printf "%s: %sms, median %s, ratio %.2f (at most %s), %d MiB (at most 100)%s\n", name, all, a, a / b, goal, mib, (a / b > goal || mib > 100) ? "  MISSED" : "" }'
done

# The same disk, grown to 200 GiB by a hole.
cp --sparse=always "$image" "$work/sparse"
truncate -s 200G "$work/sparse"
for level in content disk; do
    took "sparse-$level" peak "sparse-$level" "$devbox" digest --recompute --level "$level" "$work/sparse" > /dev/null
    echo "200 GiB, sparse, level $level: $(cat "$work/sparse-$level.ms") ms, $(most "sparse-$level") MiB"
done
exit "$failed"
