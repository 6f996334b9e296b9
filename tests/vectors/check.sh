#!/bin/sh
# Checks every vector with sha256sum alone: no line of devbox is involved.
set -eu
cd "$(dirname "$0")"
bad=0 count=0
for preimage in */*.preimage; do
    name=${preimage%%/*}
    expected=$(cat "${preimage%.preimage}.digest")
    got=$name:$(sha256sum < "$preimage" | cut -d' ' -f1)
    count=$((count + 1))
    [ "$got" = "$expected" ] || { echo "$preimage: expected $expected, got $got"; bad=1; }
    # A child digest in a preimage must be the digest of some vector: the nodes form one tree.
    for child in $(grep -aoE '(tree1|tree1t|links1|fs1|vg1|bytes1|disk1):[0-9a-f]{64}' "$preimage"); do
        grep -qx "$child" "${child%%:*}"/*.digest || { echo "$preimage: no vector has $child"; bad=1; }
    done
done

# The disks of bytes1, made again and cut into chunks.
zeros() { head -c "$1" /dev/zero; }
sparse() {
    zeros 4194816
    zeros 512 | tr '\0' '\245'
    zeros 5241856
    printf '!'
}
chunks() { # <file>: the lines that follow the header
    size=$(stat -c %s "$1") at=0
    while [ "$at" -lt "$size" ]; do
        dd if="$1" bs=4194304 skip=$((at / 4194304)) count=1 status=none | sha256sum | cut -d' ' -f1
        at=$((at + 4194304))
    done
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: > "$dir/empty"
printf 'hi\n' > "$dir/small"
zeros 8388608 > "$dir/zeros"
sparse > "$dir/sparse"
{ sparse; zeros 1048575; } > "$dir/padded"
for disk in empty small zeros sparse padded; do
    printf 'devbox/bytes/1\nsize %s\nchunk 4194304\n' "$(stat -c %s "$dir/$disk")" > "$dir/out"
    chunks "$dir/$disk" >> "$dir/out"
    cmp -s "$dir/out" "bytes1/$disk.preimage" || { echo "bytes1/$disk: other chunks"; bad=1; }
done
[ "$bad" = 0 ] && echo "$count vectors hold"
exit "$bad"
