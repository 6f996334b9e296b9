#!/usr/bin/env bash
# How long a machine takes to its first login that starts while its box arrives over a slow link, beside one whose box is here;
# and what of the box has moved by then.
#
#   benches/lazy_start.sh BOX PROJECT [MBIT] [RUNS] [DEVBOX]
#
# BOX is in the store of DEVBOX_HOME (or of the user), as in debian-12:1.0.0; PROJECT is a folder whose devbox.toml has that name
# and version, and no [[provision]]. Needs root: the registry is behind a link of MBIT (50) that `tbf` shapes, between two network
# namespaces. Both ways boot from the firmware and take turns; each start begins with an empty store of its own, or with one that
# has the box. What a boot reads is recorded first (`devbox box record`).
set -euo pipefail
usage='usage: benches/lazy_start.sh BOX PROJECT [MBIT] [RUNS] [DEVBOX]'
box=${1:?$usage} project=$(realpath "${2:?$usage}")
mbit=${3:-50} runs=${4:-3}
devbox=$(realpath "${5:-target/release/devbox}")
[ -x "$devbox" ] || { echo 'build it first: cargo build --release' >&2; exit 2; }
for program in docker-registry ip tc jq curl; do
    command -v "$program" > /dev/null || { echo "install $program" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo 'run it as root: it makes network namespaces' >&2; exit 2; }

work=$(mktemp -d)
far=lazy-far-$$ near=lazy-near-$$
registry=''
finish() {
    in_home "$work/local" destroy -f > /dev/null 2>&1 || true
    in_home "$work/lazy" destroy -f > /dev/null 2>&1 || true
    [ -z "$registry" ] || kill "$registry" 2> /dev/null || true
    ip netns del "$far" 2> /dev/null || true
    ip netns del "$near" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# in_home HOME VERB...: devbox in the project, behind the link
in_home() {
    local home=$1
    shift
    mkdir -p "$home/run"
    (cd "$project" && ip netns exec "$near" env DEVBOX_HOME="$home" XDG_RUNTIME_DIR="$home/run" "$devbox" "$@")
}

ip netns add "$far"
ip netns add "$near"
ip link add lf$$ netns "$far" type veth peer name ln$$ netns "$near"
for side in "$far lf$$ 10.94.0.1" "$near ln$$ 10.94.0.2"; do
    read -r space link address <<< "$side"
    ip -n "$space" addr add "$address/24" dev "$link"
    ip -n "$space" link set "$link" up
    ip -n "$space" link set lo up
done
# Both ways; the answers of the registry are what counts.
ip netns exec "$far" tc qdisc add dev lf$$ root tbf rate "${mbit}mbit" burst 64kb latency 50ms
ip netns exec "$near" tc qdisc add dev ln$$ root tbf rate "${mbit}mbit" burst 64kb latency 50ms

cat > "$work/config.yml" << CONFIG
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: 0.0.0.0:5000}
CONFIG
ip netns exec "$far" env OTEL_TRACES_EXPORTER=none docker-registry serve "$work/config.yml" > "$work/registry.log" 2>&1 &
registry=$!
until ip netns exec "$far" curl -fs http://127.0.0.1:5000/v2/ > /dev/null; do sleep 0.1; done

echo "== what a boot reads"
"$devbox" box record "$box"
version=${box##*:}
# From beside the registry: this way is not what is measured.
ip netns exec "$far" "$devbox" box push "$box" "oci://127.0.0.1:5000/bench/box:$version"
from=oci://10.94.0.1:5000/bench/box:$version

store=$(dirname "$(dirname "$(dirname "$("$devbox" box show "$box" --json | jq -r .disk)")")")
mkdir -p "$work/local"
cp -a --reflink=auto "$store" "$work/local/store"

received() { ip netns exec "$near" cat "/sys/class/net/ln$$/statistics/rx_bytes"; }
# login NAME HOME VERB...: appends "seconds bytes" to $work/NAME.figures
login() {
    local name=$1 home=$2 before start
    shift 2
    before=$(received) start=${EPOCHREALTIME/[.,]/}
    in_home "$home" "$@" > "$work/$name.out" 2>&1 || { cat "$work/$name.out" >&2; exit 1; }
    awk -v us=$((${EPOCHREALTIME/[.,]/} - start)) -v bytes=$(($(received) - before)) \
        'BEGIN { printf "%.1f %d\n", us / 1e6, bytes }' | tee -a "$work/$name.figures" | sed "s/^/   $name: /"
}

for ((run = 0; run < runs; run++)); do
    login local "$work/local" up --cold --wait=ssh
    in_home "$work/local" destroy -f > /dev/null 2>&1
    rm -rf "$work/lazy"
    login lazy "$work/lazy" up --cold --wait=ssh --from "$from" --plain-http
    if [ "$run" = $((runs - 1)) ]; then
        echo "== then the rest arrives"
        start=${EPOCHREALTIME/[.,]/}
        until in_home "$work/lazy" box show "$box" > /dev/null 2>&1; do sleep 1; done
        echo "   whole $(((${EPOCHREALTIME/[.,]/} - start) / 1000000)) s after the login"
        in_home "$work/lazy" box show "$box" --verify | sed -n 's/^manifest/   the manifest of the store:/p'
    fi
    in_home "$work/lazy" destroy -f > /dev/null 2>&1
done

median() { sort -n -k"$2,$2" "$work/$1.figures" | awk -v f="$2" '{ v[NR] = $f } END { print v[int((NR + 1) / 2)] }'; }
all=$(du -sb "$work/registry" | cut -f1)
awk -v here="$(median local 1)" -v lazy="$(median lazy 1)" -v moved="$(median lazy 2)" -v all="$all" -v mbit="$mbit" 'BEGIN {
    printf "the box is here:            login after %6.1f s\n", here
    printf "the box arrives, %d Mbit/s: login after %6.1f s, %.2f times that\n", mbit, lazy, lazy / here
    printf "moved by then: %.1f of %.1f MB, %.1f %%; all of it takes %.0f s at least\n",
        moved / 1e6, all / 1e6, 100 * moved / all, all * 8 / mbit / 1e6
}'
