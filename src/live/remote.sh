#!/bin/sh
# The far side of a comparison with a host that runs. Says what the host is, then runs a devbox that
# arrives by standard input, or shows the package databases. Nothing of it is left: the program's file is
# removed before it starts, and what runs ends when the connection does.
#
# In: `root PATH` and `words OPTIONS`; then `binary SIZE SHA256` and, after `ready`, the bytes; or `packages`.
# Out: `devbox-live/1 KERNEL MACHINE RIGHTS`; `ready` or `refused WHY`; then what was asked for.
set -u
umask 077
LC_ALL=C
export LC_ALL
folder=
trap '[ -z "$folder" ] || rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT PIPE TERM

# Runs "$@"; ends it when standard input does, which is when the connection is gone.
# shellcheck disable=SC2016 # it is for another shell
runner='
DEVBOX_HOME=/nonexistent
export DEVBOX_HOME
exec 4<&0
"$@" < /dev/null 4<&- &
program=$!
(
    trap "kill \$cat; exit" TERM
    cat <&4 &
    cat=$!
    wait "$cat"
    kill -TERM "$program"
) > /dev/null 2>&1 &
watcher=$!
wait "$program"
code=$?
kill -TERM "$watcher" 2> /dev/null
exit "$code"'

# place KIB: a private folder where programs may run, with that much room; else says why not in `why`
place() {
    why=
    for parent in /dev/shm "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" /tmp /var/tmp; do
        [ -d "$parent" ] || continue
        free=$(df -Pk "$parent" 2> /dev/null | { read -r _; read -r _ _ _ free _; echo "${free:-}"; })
        case $free in
            '' | *[!0-9]*) ;;
            *) [ "$free" -gt "$1" ] || { why="$why$parent is full; "; continue; } ;;
        esac
        mkdir "$parent/devbox-live.$$" 2> /dev/null || { why="$why$parent cannot be written to; "; continue; }
        folder=$parent/devbox-live.$$
        printf '#!/bin/sh\nexit 0\n' > "$folder/devbox" && chmod 700 "$folder/devbox" && "$folder/devbox" && return 0
        rm -rf "$folder"
        folder=
        why="$why$parent lets no program run; "
    done 2> /dev/null
    why="no place for a program: ${why%; }"
    return 1
}

# binary SIZE SHA256
binary() {
    [ -e "/proc/$$/fd" ] || { echo 'refused there is no /proc'; return; }
    place "$(($1 / 1024 + 1024))" || { echo "refused $why"; return; }
    echo ready
    head -c "$1" > "$folder/devbox" || { echo 'the program could not be written' >&2; exit 1; }
    [ "$(($(wc -c < "$folder/devbox")))" = "$1" ] || { echo 'the program did not arrive as a whole' >&2; exit 1; }
    if command -v sha256sum > /dev/null 2>&1; then
        [ "$(sha256sum < "$folder/devbox" | cut -c 1-64)" = "$2" ] || { echo 'the program arrived damaged' >&2; exit 1; }
    fi
    exec 3< "$folder/devbox"
    rm -rf "$folder"
    folder=
    # This shell stays, and with it the only way to the removed file: sudo closes what it inherits.
    # shellcheck disable=SC2086 # several words
    set -- "/proc/$$/fd/3" manifest "dir:$root" --level tree --running $words
    case $rights in
        sudo) sudo -n /bin/sh -c "$runner" devbox-live "$@" ;;
        *) /bin/sh -c "$runner" devbox-live "$@" ;;
    esac
    exit
}

# Whether $1 is a file inside of the root, and reached without a link that leads out of it.
inside() {
    [ -f "$top/$1" ] || return 1
    at=$(cd "$top/${1%/*}" 2> /dev/null && pwd -P) || return 1
    [ -z "$top" ] || [ ! -L "$top/$1" ] || return 1
    case $at/ in "$top"/*) ;; *) return 1 ;; esac
}

# show PATH: the file with its size
show() {
    inside "$1" || return 0
    size=$(($(wc -c < "$top/$1")))
    echo "file /$1 $size"
    head -c "$size" "$top/$1"
    echo
}

# rpm PATH: the database, unless some of it stands beside it, also as soon as it was read
rpm() {
    for end in -wal -journal; do [ ! -s "$top/$1$end" ] || echo "beside /$1 $end"; done
    show "$1"
    for end in -wal -journal; do [ ! -s "$top/$1$end" ] || echo "beside /$1 $end"; done
}

packages() {
    top=$(cd "$root" && pwd -P) || exit 1
    # Nothing for `/`.
    top=${top%/}
    seen=
    for base in var/lib/rpm usr/lib/sysimage/rpm usr/share/rpm; do
        for file in Packages.db Packages; do
            [ ! -e "$top/$base/$file" ] || echo "unread the rpm database \`/$base/$file\`"
        done
        # One of them is often a link to another.
        inside "$base/rpmdb.sqlite" || continue
        case $seen in *"|$at|"*) continue ;; esac
        seen="$seen|$at|"
        rpm "$base/rpmdb.sqlite"
    done
    [ ! -d "$top/var/lib/pacman/local" ] || echo 'unread the pacman database `/var/lib/pacman/local`'
    show var/lib/dpkg/status
    for file in "$top"/var/lib/dpkg/status.d/*; do show "${file#"$top"/}"; done
    show lib/apk/db/installed
    # With a merged /usr both are one file.
    [ "$(cd "$top/lib" 2> /dev/null && pwd -P)" = "$top/usr/lib" ] || show usr/lib/apk/db/installed
    echo end
    exit
}

rights=none
if [ "$(id -u)" = 0 ]; then
    rights=root
elif sudo -n true < /dev/null > /dev/null 2>&1; then
    rights=sudo
fi
echo "devbox-live/1 $(uname -s) $(uname -m) $rights"
root=/ words=
while read -r word rest; do
    case $word in
        root) root=$rest ;;
        words) words=$rest ;;
        packages) packages ;;
        binary) binary "${rest% *}" "${rest#* }" ;;
        *) exit 1 ;;
    esac
done
