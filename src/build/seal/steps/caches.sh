# Caches that hold inode numbers or times, and are made again when they are needed.
step caches
absent var/cache/ldconfig/aux-cache var/cache/man/index.db var/lib/mlocate/mlocate.db var/lib/plocate/plocate.db
hollow var/cache/man var/cache/fontconfig
# A .pyc names its source's time unless it names its hash. The sources that the build brought get
# another time below, so such a .pyc would be stale in every machine.
for root in usr opt srv; do
    [ -d "$root" ] || continue
    find "$root" -xdev -type f -name '*.pyc' -newer "$W/epoch"
done > "$W/pyc"
count=0
while IFS= read -r pyc; do
    dir=${pyc%/__pycache__/*}
    name=${pyc##*/}
    source=$dir/${name%%.*}.py
    if [ -n "$(find "$source" -newer "$W/epoch" 2> /dev/null)" ] &&
        [ "$(dd if="$pyc" bs=1 skip=4 count=1 2> /dev/null | od -An -tu1 | tr -d ' ')" = 0 ]; then
        rm -f "$pyc" || fail "cannot remove /$pyc"
        count=$((count + 1))
    fi
done < "$W/pyc"
[ "$count" -eq 0 ] || say "absent $count .pyc files of new sources"
