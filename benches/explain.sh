#!/usr/bin/env bash
# "Do these two match, and if not, why?": `devbox parity` with its explanation, of two images (nothing of an earlier
# run is used) and of their manifests. `sha256sum` of both images, which tells neither, stands beside it.
#
#   benches/explain.sh A B [RUNS] [DEVBOX]
set -euo pipefail
a=$(realpath "${1:?usage: benches/explain.sh A B [RUNS] [DEVBOX]}")
b=$(realpath "${2:?usage: benches/explain.sh A B [RUNS] [DEVBOX]}")
runs=${3:-5}
devbox=$(realpath "${4:-target/release/devbox}")
[ -x "$devbox" ] || { echo 'build it first: cargo build --release' >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEVBOX_HOME=$work/home

# measure NAME COMMAND...: appends milliseconds to $work/NAME.ms; ends with what is no verdict
measure() {
    local name=$1 start=${EPOCHREALTIME/[.,]/} code=0
    shift
    "$@" > "$work/$name.out" 2> "$work/$name.err" || code=$?
    echo "$(((${EPOCHREALTIME/[.,]/} - start) / 1000))" >> "$work/$name.ms"
    [ "$code" -le 1 ] || { cat "$work/$name.err" >&2; exit "$code"; }
}
median() { sort -n "$work/$1.ms" | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }

"$devbox" manifest "$a" -o "$work/a.manifest"
"$devbox" manifest "$b" -o "$work/b.manifest"
for ((n = 0; n < runs; n++)); do
    measure images "$devbox" parity --recompute "$a" "$b"
    measure manifests "$devbox" parity "$work/a.manifest" "$work/b.manifest"
    measure sha256sum sha256sum "$a" "$b"
done
printf '%-12s %10s %12s\n' '' 'median ms' 'x sha256sum'
for name in images manifests sha256sum; do
    printf '%-12s %10s %12s\n' "$name" "$(median "$name")" \
        "$(awk "BEGIN { printf \"%.3f\", $(median "$name") / $(median sha256sum) }")"
done
echo
cat "$work/images.out"
