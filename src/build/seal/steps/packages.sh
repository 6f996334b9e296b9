# Package managers: lists are a moment in time, caches hold file times, backups an earlier state.
step packages
# Removes the files of a folder with a name and keeps the folder.
hollow_of_files() {
    [ -d "$1" ] && [ -n "$(find "$1" -type f -name "$2" ! -name lock)" ] || return 0
    find "$1" -type f -name "$2" ! -name lock -exec rm -f {} + || fail "cannot empty /$1"
    say "hollow /$1"
}
absent var/lib/apt/lists/auxfiles
hollow_of_files var/lib/apt/lists '*'
hollow_of_files var/cache/apt/archives '*.deb'
absent var/cache/apt/*.bin var/lib/apt/daily_lock \
    var/lib/dpkg/*-old var/cache/debconf/*-old var/lib/dpkg/lock* var/cache/apt/archives/lock
hollow var/cache/apt/archives/partial var/lib/apt/periodic var/backups var/cache/dnf var/cache/yum var/lib/unattended-upgrades
find etc -xdev -type f \( -name '*.dpkg-old' -o -name '*.dpkg-dist' -o -name '*.dpkg-new' \
    -o -name '*.dpkg-bak' -o -name '*.ucf-old' -o -name '*.ucf-dist' -o -name '*.ucf-new' \) > "$W/backups"
while IFS= read -r path; do absent "$path"; done < "$W/backups"
