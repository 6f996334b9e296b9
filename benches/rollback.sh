#!/usr/bin/env bash
# How much longer than a plain start it takes to change a running machine over to another version of its box, and back:
#
#   benches/rollback.sh BOX [RUNS] [DEVBOX]
#
# BOX is in the store of DEVBOX_HOME (or of the user), as in debian-12:1.0.0. Another version of it is built first, by a step
# that writes a file. Warm: all starts are from templates, RUNS times. Cold: each start is a boot, once. With DATA=1 the
# machine has a data disk with a filesystem in use, which stays. All of it is in a store of its own, which is removed.
set -euo pipefail
usage='usage: benches/rollback.sh BOX [RUNS] [DEVBOX]'
box=${1:?$usage} runs=${2:-3}
devbox=$(realpath "${3:-target/release/devbox}")
[ -x "$devbox" ] || { echo 'build it first: cargo build --release' >&2; exit 2; }
command -v jq > /dev/null || { echo 'install jq' >&2; exit 2; }
name=${box%%:*} version=${box##*:}

work=$(mktemp -d)
store=$(dirname "$(dirname "$(dirname "$("$devbox" box show "$box" --json | jq -r .disk)")")")
export DEVBOX_HOME=$work/home XDG_RUNTIME_DIR=$work/run
finish() {
    "$devbox" destroy -f > /dev/null 2>&1 || true
    cd /
    rm -rf "$work"
}
trap finish EXIT
mkdir -p "$work/home" "$work/run" "$work/project"
chmod 700 "$work/run"
cp -a --reflink=auto "$store" "$work/home/store"
cd "$work/project"

# spec VERSION: the machine runs on BOX itself, or on what a step makes of it.
spec() {
    printf 'name = "%s"\nversion = "%s"\narch = "amd64"\n' "$name" "$1"
    printf '[source]\ntype = "box"\nbox = "%s"\nversion = "%s"\n' "$name" "$version"
    [ "$1" = "$version" ] \
        || printf '[[steps]]\ntype = "shell"\nname = "newer"\ninline = "echo newer > /etc/newer"\n'
    printf '[machine]\nmemory = "1GiB"\ntimeout = "20m"\n'
    [ -z "${DATA:-}" ] || printf '[[machine.disks]]\nname = "data"\nsize = "256MiB"\ntarget = "/data"\n'
}
old() { spec "$version" > devbox.toml; }
new() { spec 999.0.0-bench > devbox.toml; }

# timed NAME VERB...: appends to $work/NAME the seconds in all, and those until the first QEMU starts: what comes before the boot
timed() {
    local into=$1 start=${EPOCHREALTIME/[.,]/}
    shift
    "$devbox" "$@" --json > "$work/out" 2>&1 || { cat "$work/out" >&2; exit 1; }
    awk -v us=$((${EPOCHREALTIME/[.,]/} - start)) -v start="$start" -v at="$(jq -rR 'fromjson?
        | select(.event == "phase" and (.text | test("^(Starting|Making a template) "))) | .time
        | capture("(?<s>.*)[.](?<f>[0-9]+)Z") | "\(.s + "Z" | fromdateiso8601) 0.\(.f)"' "$work/out" | head -n 1)" \
        'BEGIN { split(at, t, " "); printf "%.2f %.2f\n", us / 1e6, t[1] + t[2] - start / 1e6 }' | tee -a "$work/$into" \
        | sed "s/^/   $into: /"
}
quiet() { "$devbox" "$@" > "$work/out" 2>&1 || { cat "$work/out" >&2; exit 1; }; }
gone() { quiet destroy -f; }
# on VERSION: a running machine has to be on it, as its own guest says.
on() { [ "$("$devbox" status --json | jq -r '.. | .box? // empty' | head -n 1)" = "$name:$1" ] || { echo "not on $1" >&2; exit 1; }; }
# used: what the guest holds back when it is stopped
used() { [ -z "${DATA:-}" ] || quiet ssh -c 'echo precious | sudo tee /data/file > /dev/null'; }
stayed() { [ -z "${DATA:-}" ] || quiet ssh -c 'grep -q precious /data/file'; }

# all KIND BEFORE: plain starts of both versions, a change to the new one and back; BEFORE runs before each start
all() {
    local kind=$1 before=$2
    old; $before; timed "$kind-old" up; gone
    new; $before; timed "$kind-new" up; gone
    old; quiet up; used
    new; $before; timed "$kind-forward" up --forward; on 999.0.0-bench; stayed
    $before; timed "$kind-rollback" rollback -f; on "$version"; stayed
    gone
}
forget() { quiet box prune --templates; }

echo "== the newer version"
new
quiet build
echo "== cold"
all cold forget
old; quiet up; gone
new; quiet up; gone
echo "== warm"
for ((run = 0; run < runs; run++)); do all warm true; done

median() { sort -n -k"$2,$2" "$work/$1" | awk -v f="$2" '{ v[NR] = $f } END { print v[int((NR + 1) / 2)] }'; }
for kind in cold warm; do
    for pair in 'forward new' 'rollback old'; do
        read -r change plain <<< "$pair"
        awk -v kind="$kind" -v change="$change" -v a="$(median "$kind-$change" 1)" -v b="$(median "$kind-$plain" 1)" \
            -v c="$(median "$kind-$change" 2)" -v d="$(median "$kind-$plain" 2)" 'BEGIN {
            printf "%s: %-8s %6.2f s, a plain up of that version %6.2f s; before QEMU starts %.2f s and %.2f s: %+.2f s\n",
                kind, change, a, b, c, d, c - d
        }'
    done
done
