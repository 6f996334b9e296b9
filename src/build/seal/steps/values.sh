# The values that a path can have in a sealed image, and the script's words to the host.
# POSIX sh and what both coreutils and busybox have. Paths are relative to the image's root, which is
# the current folder. Set in front: W, a folder for scratch files.
failed=
step=none

say() { printf 'devbox-seal: %s\n' "$*"; }
step() { step=$1; say "step $1"; }
fail() { failed=1; say "fail $step: $*"; }

# Removes files and folders.
absent() {
    for path; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            if rm -rf "$path"; then say "absent /$path"; else fail "cannot remove /$path"; fi
        fi
    done
}

# Removes what is in folders and keeps the folders.
hollow() {
    for dir; do
        if [ -d "$dir" ] && [ ! -L "$dir" ] && [ -n "$(ls -A "$dir")" ]; then
            find "$dir" -xdev -mindepth 1 -maxdepth 1 -exec rm -rf {} + || fail "cannot empty /$dir"
            say "hollow /$dir"
        fi
    done
}

# Makes files empty and keeps their owner and mode.
empty() {
    for path; do
        if [ -f "$path" ] && [ ! -L "$path" ] && [ -s "$path" ]; then
            if : > "$path"; then say "empty /$path"; else fail "cannot empty /$path"; fi
        fi
    done
}

# fixed PATH MODE TEXT: a root-owned file with exactly this text.
fixed() {
    printf '%s' "$3" > "$W/text"
    if [ -L "$1" ] || ! cmp -s "$W/text" "$1"; then
        rm -rf "$1" && cp "$W/text" "$1" || fail "cannot write /$1"
        say "fixed /$1"
    fi
    chmod "$2" "$1" && chown 0:0 "$1" || fail "cannot set the owner of /$1"
}

# filtered PATH COMMAND...: the text of PATH goes through the command; owner and mode stay.
filtered() {
    file=$1
    shift
    [ -f "$file" ] || return 0
    "$@" < "$file" > "$W/text" || fail "cannot filter /$file"
    cmp -s "$W/text" "$file" && return 0
    if cat "$W/text" > "$file"; then say "fixed /$file"; else fail "cannot write /$file"; fi
}
