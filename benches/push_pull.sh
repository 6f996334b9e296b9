#!/usr/bin/env bash
# What moves when a box is pushed, pulled and updated, and how long it takes, beside `skopeo copy` of the same disk, which is
# one blob there, and casync.
#
#   benches/push_pull.sh OLD NEW [RUNS] [DEVBOX]
#
# OLD and NEW are boxes in the store of DEVBOX_HOME (or of the user), as in web:1.0.0 and web:1.1.0. A registry is started on
# loopback for each run (package docker-registry). The peers and devbox take turns, so that they see the same machine. Times are
# medians in milliseconds; nothing that a run leaves is read by the next one but the page cache.
set -euo pipefail
old=${1:?usage: benches/push_pull.sh OLD NEW [RUNS] [DEVBOX]} new=${2:?usage: benches/push_pull.sh OLD NEW [RUNS] [DEVBOX]}
runs=${3:-3}
devbox=$(realpath "${4:-target/release/devbox}")
[ -x "$devbox" ] || { echo 'build it first: cargo build --release' >&2; exit 2; }
for program in docker-registry skopeo python3 jq; do
    command -v "$program" > /dev/null || { echo "install $program" >&2; exit 2; }
done
work=$(mktemp -d)
# shellcheck source=benches/registry.sh
. "$(dirname "$0")/registry.sh"
trap 'stop; rm -rf "$work"' EXIT

# measure NAME COMMAND...: appends "milliseconds MiB-of-memory" to $work/NAME; its output is in $work/NAME.out
measure() {
    local name=$1
    shift
    python3 - "$work/$name" "$@" << 'PYTHON'
import resource, subprocess, sys, time
begin = time.monotonic()
with open(sys.argv[1] + '.out', 'w') as out:
    code = subprocess.run(sys.argv[2:], stdout=out).returncode
took = round((time.monotonic() - begin) * 1000)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
with open(sys.argv[1], 'a') as log:
    print(took, peak, file=log)
sys.exit(code)
PYTHON
}
median() { sort -n "$work/$1" | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }
memory() { awk '$2 > most { most = $2 } END { print most }' "$work/$1"; }
# moved NAME WHAT: a figure of what devbox said last
moved() { jq ".moved.$2" "$work/$1.out"; }
line() { printf '%-44s %10s ms %6s MiB %12s B %6s\n' "$@"; }

show() { "$devbox" box show "$1" --json; }
disk() { show "$1" | jq -r .disk; }
at=127.0.0.1:$port
# The store is an OCI image layout, with one box here.
for one in "$old" "$new"; do
    layout=$work/layout-${one##*:}
    mkdir -p "$layout/blobs/sha256"
    printf '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
    store=$(dirname "$(dirname "$(dirname "$(disk "$one")")")")
    jq -c --arg name "$one" '.manifests |= map(select(.annotations["org.opencontainers.image.ref.name"] == $name) | del(.annotations))' \
        "$store/index.json" > "$layout/index.json"
    manifest=$(show "$one" | jq -r .manifest)
    for blob in "$manifest" $(jq -r '.config.digest, .layers[].digest' "$store/blobs/sha256/${manifest#sha256:}"); do
        ln -s "$store/blobs/sha256/${blob#sha256:}" "$layout/blobs/sha256/"
    done
done

for ((run = 0; run < runs; run++)); do
    start
    measure push "$devbox" -q box push "$old" "oci://$at/web" --json
    measure push-update "$devbox" -q box push "$new" "oci://$at/web" --json
    rm -rf "$work/user"
    DEVBOX_HOME=$work/user measure pull "$devbox" -q box pull "oci://$at/web:${old##*:}" --json
    DEVBOX_HOME=$work/user measure pull-update "$devbox" -q box pull "oci://$at/web:${new##*:}" --json
    rm -rf "$work/user"
    start
    measure skopeo-push skopeo copy -q --dest-tls-verify=false "oci:$work/layout-${old##*:}" "docker://$at/web:1"
    measure skopeo-push-update skopeo copy -q --dest-tls-verify=false "oci:$work/layout-${new##*:}" "docker://$at/web:2"
    rm -rf "$work/copy"
    measure skopeo-pull skopeo copy -q --src-tls-verify=false "docker://$at/web:1" "oci:$work/copy:1"
    measure skopeo-pull-update skopeo copy -q --src-tls-verify=false "docker://$at/web:2" "oci:$work/copy:2"
    rm -rf "$work/copy"
done
stop

echo "$old -> $new, $runs runs"
size() { stat -L -c %s "$(disk "$1")"; }
for what in push push-update pull pull-update; do
    case $what in push*) direction=sent ;; *) direction=received ;; esac
    case $what in *update) one=$new ;; *) one=$old ;; esac
    line "devbox box $what" "$(median "$what")" "$(memory "$what")" "$(moved "$what" "$direction")" "$(moved "$what" requests) requests"
    line "skopeo copy, $what" "$(median "skopeo-$what")" "$(memory "skopeo-$what")" "$(size "$one")" ''
done

if ! command -v casync > /dev/null; then
    echo 'not run: casync is not installed'
    exit 0
fi
chunks() { find "$work/castr" -type f -printf '%s\n' | awk '{ n++; s += $1 } END { print s, n }'; }
qemu-img convert -O raw "$(disk "$old")" "$work/old.raw"
qemu-img convert -O raw "$(disk "$new")" "$work/new.raw"
mkdir "$work/castr"
measure casync-make casync make --compression=zstd --store="$work/castr" "$work/old.caibx" "$work/old.raw"
read -r bytes number < <(chunks)
measure casync-make-update casync make --compression=zstd --store="$work/castr" "$work/new.caibx" "$work/new.raw"
read -r bytes_after number_after < <(chunks)
index=$(stat -c %s "$work/new.caibx")
line 'casync make' "$(median casync-make)" "$(memory casync-make)" "$bytes" "$number chunks"
line 'casync, update with its index' "$(median casync-make-update)" "$(memory casync-make-update)" \
    "$((bytes_after - bytes + index))" "$((number_after - number + 1)) requests"
