#!/bin/bash
# What people and programs do to a Debian, at random by a number: guest.sh KIND NUMBER [KIND NUMBER]...
#
# A workload that cannot be done, such as a package that is there already, changes nothing.
set -u
here=$(dirname "$0")
lab=/srv/lab
mkdir -p "$lab"/{files,moved,many,links}

# Functions that choose leave what they chose in a variable: a subshell would draw the same again.

# below BOUND: sets n
below() { n=$((((RANDOM << 15) | RANDOM) % $1)); }

# find_files: sets files to those that a machine boots without
find_files() {
    mapfile -t files < <(find /usr/share/{doc,locale,zoneinfo,man,i18n,bash-completion,lintian,grub} \
        /lib/modules/*/kernel/{sound,drivers/media,drivers/infiniband,drivers/iio,drivers/hwmon} "$lab" -xdev -type f 2> /dev/null | sort)
}

# pick: sets file
pick() {
    local tries
    for tries in 1 2 3 4 5 6; do
        below ${#files[@]}
        file=${files[n]}
        [ ! -f "$file" ] || return 0
    done
    file=$lab/files/picked-$tries
    echo "$tries" > "$file"
}

# fresh: sets path, where nothing is yet
fresh() {
    local parts=(files moved many links)
    below 4
    path=$lab/${parts[n]}
    below 1000000
    path+="/a name $n"
}

# random MOST: writes up to so many bytes to standard output
random() {
    below "$1"
    head -c "$n" /dev/urandom
}

# times BOUND COMMAND...: at least once
times() {
    local count
    below "$1"
    count=$n
    shift
    while [ "$count" -ge 0 ]; do
        "$@"
        count=$((count - 1))
    done
}

install_packages() {
    local debs=("$here"/packages/*.deb) some=() i
    for i in 1 2; do
        below ${#debs[@]}
        some[i]=${debs[n]}
    done
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${some[@]}"
}

remove_package() {
    local names=(tree bc figlet less sl dos2unix pv ed unzip zip) verbs=(remove purge)
    local first=$((RANDOM % 10)) verb=${verbs[RANDOM % 2]} i name
    for i in {0..9}; do
        name=${names[(first + i) % 10]}
        if dpkg-query --show --showformat='${Status}' "$name" 2> /dev/null | grep -q 'ok installed'; then
            DEBIAN_FRONTEND=noninteractive apt-get "$verb" --yes --quiet=2 "$name"
            return
        fi
    done
}

remove_file() { pick && rm -f -- "$file"; }

rename_file() {
    pick
    local from=$file
    if ((RANDOM % 3)); then fresh; else pick && path=$file; fi
    mv -f -- "$from" "$path"
}

truncate_file() {
    pick
    local sizes=("0" "/2" "+4096" "5" "%4096")
    if ((RANDOM % 4)); then truncate -s "${sizes[RANDOM % 5]}" -- "$file"; else random 30000 > "$file"; fi
}

sparse_file() {
    pick
    below 200000
    local at=$n
    case $((RANDOM % 4)) in
        0) fallocate --punch-hole --offset "$at" --length $((1 + RANDOM * 3)) -- "$file" ;;
        1) fallocate --dig-holes -- "$file" ;;
        2) cp -a --sparse=always -- "$file" "$file.new" && mv -f -- "$file.new" "$file" ;;
        3)
            fresh
            { random 9000 && head -c 300000 /dev/zero && random 9000; } > "$path"
            fallocate --dig-holes -- "$path"
            ;;
    esac
}

reserve_space() {
    pick
    local at=$((RANDOM % 8 * 4096)) length=$((4096 + RANDOM % 8 * 4096))
    case $((RANDOM % 5)) in
        0) fallocate --length $((RANDOM * 8)) -- "$file" ;;
        1) fallocate --keep-size --length $((RANDOM * 40)) -- "$file" ;;
        2) fallocate --zero-range --offset $((RANDOM)) --length $((1 + RANDOM)) -- "$file" ;;
        3) fallocate --collapse-range --offset $at --length $length -- "$file" ;;
        4) fallocate --insert-range --offset $at --length $length -- "$file" ;;
    esac
}

link_file() {
    pick
    fresh
    case $((RANDOM % 3)) in
        0) ln -- "$file" "$path" ;;
        1) ln -s -- "$file" "$path" ;;
        2) ln -sfn -- "$(head -c $((40 + RANDOM % 300)) /dev/zero | tr '\0' x)" "$path" ;;
    esac
}

change_rights() {
    pick
    case $((RANDOM % 7)) in
        0) chmod $((RANDOM % 8))$((RANDOM % 8))$((RANDOM % 8))$((RANDOM % 8)) -- "$file" ;;
        1) chown $((RANDOM % 3 * 33)):$((RANDOM % 70000)) -- "$file" ;;
        2) setfattr -n user.note$((RANDOM % 4)) -v "$(head -c $((RANDOM % 90)) /dev/zero | tr '\0' v)" -- "$file" ;;
        3) setfattr -n user.long -v "$(head -c $((RANDOM % 3000)) /dev/urandom | base64 -w0)" -- "$file" ;;
        4) setfacl -m u:$((RANDOM % 5 * 11)):rwx,g:33:r -- "$file" ;;
        5) setfacl -m d:u:$((RANDOM % 5 * 11)):rx -- "$lab/files" ;;
        6)
            fresh
            echo kept > "$path"
            chattr +i -- "$path"
            ;;
    esac
}

move_folder() {
    pick
    local folder=${file%/*}
    fresh
    case $((RANDOM % 4)) in
        # Not a folder of the lab itself.
        0) [[ $folder == "$lab"* ]] || mv -- "$folder" "$path" ;;
        1) cp -a -- "$folder" "$path" ;;
        2) mkdir -p -- "$path/one/two" && touch -- "$path/one/two/three" ;;
        3) [[ $folder == "$lab"* ]] || rm -rf -- "$folder" ;;
    esac
    find_files
}

# Large files that stay: blocks of them are written again in place, some with what stands there.
rewrite_big() {
    local big=$lab/big-$((RANDOM % 4)) i
    [ -f "$big" ] || head -c $((4 << 20 | RANDOM * 700)) /dev/urandom > "$big"
    for i in {1..12}; do
        below 1100
        if ((i % 4)); then
            dd if=/dev/urandom of="$big" bs=4096 count=$((1 + RANDOM % 20)) seek="$n" conv=notrunc status=none
        else
            dd if="$big" of="$big" bs=4096 count=8 seek="$n" skip="$n" conv=notrunc,fsync status=none
        fi
    done
}

# The same bytes in other places of the disk.
rewrite_same() {
    pick
    cp -a -- "$file" "$file.new" && mv -f -- "$file.new" "$file"
}

write_database() {
    local base=$lab/base-$((RANDOM % 3)).db modes=(wal delete truncate persist)
    sqlite3 "$base" > /dev/null <<EOF
PRAGMA journal_mode = ${modes[RANDOM % 4]};
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, key TEXT, value BLOB);
CREATE INDEX IF NOT EXISTS k ON t (key);
BEGIN;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $((50 + RANDOM % 900)))
INSERT INTO t (key, value) SELECT hex(randomblob(8)), randomblob(abs(random()) % 2000) FROM n;
COMMIT;
UPDATE t SET value = randomblob(100) WHERE id % 7 = $((RANDOM % 7));
DELETE FROM t WHERE id % 5 = $((RANDOM % 5));
EOF
    ((RANDOM % 3)) || sqlite3 "$base" VACUUM
    # The log stays behind, as where a server is killed.
    ((RANDOM % 2)) || sqlite3 "$base" "PRAGMA journal_mode = wal; INSERT INTO t (key) VALUES ('x');" \
        ".system kill -9 \$PPID" > /dev/null 2>&1
}

discard_space() {
    rm -f "$lab/big-$((RANDOM % 4))"
    sync
    fstrim /
}

write_many() {
    local batch=$((RANDOM % 50)) i
    mkdir -p "$lab/many/$batch"
    for i in {1..80}; do echo "$RANDOM" > "$lab/many/$batch/entry-number-$i"; done
    for i in {1..80}; do ((RANDOM % 4)) || rm -f "$lab/many/$batch/entry-number-$i"; done
}

make_special() {
    fresh
    # No socket: an image with one is refused by the full comparison.
    case $((RANDOM % 3)) in
        0) mkfifo -- "$path" ;;
        1) mknod -- "$path" c $((RANDOM % 300)) $((RANDOM)) ;;
        2) mknod -- "$path" b 8 $((RANDOM % 255)) ;;
    esac
}

configure() {
    local name=person$((RANDOM % 4))
    case $((RANDOM % 5)) in
        0) useradd --create-home "$name" || userdel --remove "$name" ;;
        1) systemctl --quiet mask "fstrim.timer" || systemctl --quiet unmask "fstrim.timer" ;;
        2) echo "kernel.pid_max = $((32768 + RANDOM))" > /etc/sysctl.d/80-lab.conf ;;
        3) sed -i "s/^#*MaxSessions .*/MaxSessions $((20 + RANDOM % 9))/" /etc/ssh/sshd_config ;;
        4) ldconfig && logger -t lab "$RANDOM" && journalctl --quiet --flush --rotate ;;
    esac
}

# A file that lost its name while a program has it open.
hold_file() {
    fresh
    (
        exec 9> "$path"
        rm -- "$path"
        random 60000 >&9
        exec sleep 900
    ) > /dev/null 2>&1 &
}

append_durably() {
    local i
    for i in {1..6}; do random 9000 | dd of="$lab/journal" oflag=append conv=notrunc,fsync status=none; done
}

# Until the power is cut.
churn() {
    local kinds=(unlink rename truncate sparse space link rights big same database many append hold) i
    while :; do
        i=$((RANDOM % ${#kinds[@]}))
        one "${kinds[i]}"
    done
}

one() {
    case $1 in
        install) install_packages ;;
        remove) remove_package ;;
        unlink) times 20 remove_file ;;
        rename) times 10 rename_file ;;
        truncate) times 8 truncate_file ;;
        sparse) times 8 sparse_file ;;
        space) times 8 reserve_space ;;
        link) times 8 link_file ;;
        rights) times 8 change_rights ;;
        folder) times 3 move_folder ;;
        big) rewrite_big ;;
        same) times 8 rewrite_same ;;
        database) write_database ;;
        discard) discard_space ;;
        many) write_many ;;
        special) times 3 make_special ;;
        configure) configure ;;
        hold) hold_file ;;
        append) append_durably ;;
        sync) sync ;;
        churn) churn ;;
        *) echo "no workload $1" >&2 && exit 2 ;;
    esac
}

while [ $# -ge 2 ]; do
    RANDOM=$2
    find_files
    one "$1"
    shift 2
done 2>> "$here/said"
exit 0
