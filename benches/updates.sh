#!/usr/bin/env bash
# How much of a Debian box a new version of it moves, for real updates that real guests installed, beside casync and beside
# the changed files alone, each compressed by zstd.
#
#   benches/updates.sh [DEVBOX] [CASE...]
#
# A case is what the new version has: `security` (all security updates but the kernel), `kernel`, `runtime` (Python's) or
# `nginx` (a package more); all of them if none is named. Each is made twice: `in place`, in a guest on the old box, and
# `rebuilt`, from the spec, so that most files have moved. The old box is of this day too: its lock has the versions of the
# suite itself, without those of its security archive. Between a point release and the first update after it there is nothing to measure.
#
# To be run as root, on a Debian host whose apt has that suite and its updates; the guests take minutes each without KVM.
# DESK=FOLDER keeps the boxes there, and a second run builds none of them again; it also has what changed, in NAME.changed.
# SUITE is another suite than `bookworm`.
set -euo pipefail
devbox=$(realpath "${1:-target/release/devbox}")
[ -x "$devbox" ] || { echo 'build it first: cargo build --release' >&2; exit 2; }
shift $(($# > 0 ? 1 : 0))
[ $# -gt 0 ] || set -- security kernel runtime nginx
for name in "$@"; do
    case $name in security | kernel | runtime | nginx) ;; *) echo "no case: $name" >&2; exit 2 ;; esac
done
[ "$(id -u)" = 0 ] || { echo 'run it as root: it mounts the disks' >&2; exit 2; }
for program in docker-registry casync zstd qemu-img sfdisk python3 jq; do
    command -v "$program" > /dev/null || { echo "install $program" >&2; exit 2; }
done
suite=${SUITE:-bookworm} arch=$(dpkg --print-architecture)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/devbox-bench.XXXXXX")
desk=$(mkdir -p "${DESK:-$work/desk}" && realpath "${DESK:-$work/desk}")
export DEVBOX_HOME=$desk/home
# shellcheck source=benches/registry.sh
. "$(dirname "$0")/registry.sh"
trap 'stop; rm -rf "$work"' EXIT

at=oci://127.0.0.1:$port/debian

# built NAME COMMAND...: what takes long, with its words in a file that is shown if it fails
built() {
    local name=$1
    shift
    "$@" > "$desk/$name.log" 2>&1 || { tail -n 30 "$desk/$name.log" >&2; exit 1; }
}
beginning() {
    printf 'name = "debian"\nversion = "%s"\narch = "%s"\n\n[machine]\ncpus = 2\nmemory = "1GiB"\n\n[source]\n' "$1" "$arch"
}
# older LOCK PATTERN: packages of the security archive go back to the suite's own version, but for those that fit the pattern
older() {
    python3 - "$1" "$2" "$suite" "$arch" << 'PYTHON'
import re, subprocess, sys
lock, keep, suite, arch = sys.argv[1:]
ask = ['apt-get', 'indextargets', '--format', '$(FILENAME)', 'Created-By: Packages', 'Origin: Debian', f'Codename: {suite}',
       'Component: main', f'Architecture: {arch}']
files = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.split()
if not files:
    sys.exit(f'apt of this host does not have the suite {suite}')
index = {}
for stanza in subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', files[0]], check=True, capture_output=True,
                             text=True).stdout.split('\n\n'):
    fields = dict(re.findall(r'^(Package|Version|SHA256|Depends): (.*)$', stanza, re.M))
    if fields:
        index[fields['Package']] = fields
kernel = re.search(r'linux-image-[0-9]\S+', index[f'linux-image-cloud-{arch}']['Depends'])[0]
number = 0
def line(found):
    global number
    name, between, version, digest = found.groups()
    if re.search(keep, name):
        return found[0]
    own = index[kernel if re.match('linux-image-[0-9]', name) else name]
    number += own['Version'] != version
    return f'name = "{own["Package"]}"{between}version = "{own["Version"]}", sha256 = "{own["SHA256"]}"'
text = open(lock).read()
text = re.sub(r'name = "([^"]+)"(, arch = "[^"]+", )version = "([^"]+)", sha256 = "([^"]+)"', line, text)
open(lock, 'w').write(text)
print(number, 'packages are behind')
PYTHON
}
# of_packages VERSION PATTERN [PACKAGES]: a box of packages in the store
of_packages() {
    local folder=$desk/$1 newest=$desk/newest${3:+-more}.lock
    [ ! -e "$folder/built" ] || return 0
    mkdir -p "$folder"
    { beginning "$1"; printf 'type = "packages"\nsuite = "%s"\npackages = [%s]\n' "$suite" "${3:-}"; } > "$folder/devbox.toml"
    if [ ! -e "$newest" ]; then
        built "$1-lock" "$devbox" lock "$folder"
        mv "$folder/devbox.lock" "$newest"
    fi
    cp "$newest" "$folder/devbox.lock"
    older "$folder/devbox.lock" "$2" > "$folder/older"
    built "$1" "$devbox" build --locked "$folder"
    touch "$folder/built"
}
# in_place VERSION COMMAND: a box that a guest on the old one made
in_place() {
    local folder=$desk/$1
    [ ! -e "$folder/built" ] || return 0
    mkdir -p "$folder"
    {
        beginning "$1"
        printf '%s\n' 'type = "box"' 'box = "debian"' 'version = "1.0.0"' '' '[[steps]]' 'type = "shell"' 'script = "update.sh"'
    } > "$folder/devbox.toml"
    printf '%s\n' '#!/bin/sh' 'set -eu' 'export DEBIAN_FRONTEND=noninteractive' 'apt-get -q update' "$2" 'apt-get clean' \
        'rm -rf /var/lib/apt/lists/*' > "$folder/update.sh"
    built "$1" "$devbox" build "$folder"
    touch "$folder/built"
}
old=1.0.0
of_packages "$old" '^$'
echo "$(cat "$desk/$old/older") in $old"
python='^(lib)?python3\.[0-9]+(-minimal|-stdlib)?$'
for name in "$@"; do
    case $name in
        security)
            in_place 1.1.0-security "apt-mark hold linux-image-cloud-$arch; apt-get -qy upgrade; apt-mark unhold linux-image-cloud-$arch"
            of_packages 1.2.0-security '^(?!linux-image)' ;;
        kernel)
            in_place 1.1.0-kernel "apt-get -qy install linux-image-cloud-$arch"
            of_packages 1.2.0-kernel '^linux-image' ;;
        runtime)
            in_place 1.1.0-runtime "apt-get -qy install --only-upgrade \$(dpkg-query -Wf '\${Package}\n' | grep -E '$python')"
            of_packages 1.2.0-runtime "$python" ;;
        nginx)
            in_place 1.1.0-nginx 'apt-get -qy install nginx-light'
            of_packages 1.2.0-nginx '^(lib)?nginx' '"nginx-light"' ;;
    esac
done

disk() { "$devbox" box show "debian:$1" --json | jq -r .disk; }
# changed NEW: number, and bytes compressed by zstd, of the regular files that are new or differ from the old version's
changed() {
    unshare --mount bash -euc '
        for one in old new; do
            start=$(sfdisk --json "$1/$one.raw" | jq "[.partitiontable.partitions | max_by(.size) | .start][0]")
            mkdir -p "$1/$one"
            mount -o "ro,noload,loop,offset=$((start * 512))" "$1/$one.raw" "$1/$one"
        done
        python3 - "$1/old" "$1/new" "$1/changed" << "PYTHON"
import filecmp, os, stat, subprocess, sys
old, new, log = sys.argv[1:]
count = total = 0
seen = set()
with open(log, "w") as names:
    for folder, _, files in os.walk(new):
        for path in (os.path.join(folder, name) for name in files):
            one, other = os.lstat(path), os.path.join(old, os.path.relpath(path, new))
            if not stat.S_ISREG(one.st_mode) or one.st_ino in seen:
                continue
            seen.add(one.st_ino)
            if os.path.isfile(other) and not os.path.islink(other) and filecmp.cmp(path, other, shallow=False):
                continue
            size = len(subprocess.run(["zstd", "-3", "-qc", path], check=True, capture_output=True).stdout)
            count, total = count + 1, total + size
            print(size, os.path.relpath(path, new), file=names)
print(count, total)
PYTHON
        umount "$1/old" "$1/new"' updates "$work"
}
chunks() { find "$1" -type f -printf '%s\n' | awk '{ n++; s += $1 } END { print s, n }'; }

qemu-img convert -O raw "$(disk "$old")" "$work/old.raw"
mkdir "$work/castr"
casync make --compression=zstd --store="$work/castr" "$work/old.caibx" "$work/old.raw" > /dev/null
row='%-22s %5s files %10s B | push %10s B %4s | pull %10s B %4s %5s | casync %10s B %5s %5s\n'
printf '%s\n' "bytes and requests; how many times the changed files compressed"
for name in "$@"; do
    for new in "1.1.0-$name" "1.2.0-$name"; do
        start
        "$devbox" -q box push "debian:$old" "$at" > /dev/null
        "$devbox" -q box push "debian:$new" "$at" --json > "$work/push"
        rm -rf "$work/user"
        DEVBOX_HOME=$work/user "$devbox" -q box pull "$at:$old" > /dev/null
        DEVBOX_HOME=$work/user "$devbox" -q box pull "$at:$new" --json > "$work/pull"
        rm -rf "$work/user"
        stop

        qemu-img convert -O raw "$(disk "$new")" "$work/new.raw"
        read -r files compressed < <(changed)
        [ -z "${DESK:-}" ] || sort -rn "$work/changed" > "$desk/$new.changed"
        rm -rf "$work/castr-new"
        cp -al "$work/castr" "$work/castr-new"
        read -r before number < <(chunks "$work/castr")
        casync make --compression=zstd --store="$work/castr-new" "$work/new.caibx" "$work/new.raw" > /dev/null
        read -r after number_after < <(chunks "$work/castr-new")
        bytes=$((after - before + $(stat -c %s "$work/new.caibx")))
        rm "$work/new.raw"

        received=$(jq .moved.received "$work/pull")
        times() { awk -v a="$1" -v b="$compressed" 'BEGIN { printf "%.2f", a / b }'; }
        case $new in 1.1.0*) way='in place' ;; *) way=rebuilt ;; esac
        # shellcheck disable=SC2059
        printf "$row" "$name, $way" "$files" "$compressed" "$(jq .moved.sent "$work/push")" "$(jq .moved.requests "$work/push")" \
            "$received" "$(jq .moved.requests "$work/pull")" "$(times "$received")" \
            "$bytes" "$((number_after - number + 1))" "$(times "$bytes")"
    done
done
