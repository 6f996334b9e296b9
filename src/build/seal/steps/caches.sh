# Caches that hold inode numbers or times, and are made again when they are needed.
step caches
absent var/cache/ldconfig/aux-cache var/cache/man/index.db var/lib/mlocate/mlocate.db var/lib/plocate/plocate.db
hollow var/cache/man var/cache/fontconfig
# A .pyc names its source's time unless it names its hash. The sources that the build brought or changed get
# another time below, so such a .pyc would be stale in every machine; or, if it is one from before a change that kept the size,
# it would be taken for right, since that source had been given the same time.
# Ten thousand of them are not rare, and under emulation a process for each takes minutes: one reads all headers (flags are
# the fifth byte, PEP 552), and the shell compares times itself.
for root in usr opt srv; do
    [ -d "$root" ] || continue
    find "$root" -xdev -type f -path '*/__pycache__/*.pyc' ! -path '*
*' -size +15c
done > "$W/pyc"
tr '\n' '\0' < "$W/pyc" | xargs -0 -r head -q -c 5 | od -An -v -tu1 -w5 > "$W/headers"
[ "$(wc -l < "$W/pyc")" -eq "$(wc -l < "$W/headers")" ] || fail "cannot read .pyc files"
count=0
while IFS= read -r pyc && read -r a b c d flags <&3; do
    dir=${pyc%/__pycache__/*}
    name=${pyc##*/}
    if [ "$flags" = 0 ] && [ "$dir/${name%%.*}.py" -nt "$W/epoch" ]; then
        printf '%s\n' "$pyc" >&4
        count=$((count + 1))
    fi
done < "$W/pyc" 3< "$W/headers" 4> "$W/stale"
tr '\n' '\0' < "$W/stale" | xargs -0 -r rm -f || fail "cannot remove .pyc files"
[ "$count" -eq 0 ] || say "absent $count .pyc files of new sources"
