#!/usr/bin/env bash
# Ten machines of one template, and the verbs of every day beside what they could cost at least:
#
#   benches/machines.sh [RUNS] [DEVBOX]    in a project of one machine whose box is built; its folder is copied
#
# Memory of ten idle machines beside one that was booted (PSS, 60 s after ready), `status`, `list`, `port` and
# `ssh-config` beside a program that does nothing, `ssh -c true` beside plain ssh, each on an open connection, suspend and
# resume, and `halt` beside the guest's own power-off (HALTS times each; 0 leaves it out, as each takes a boot).
# In one run, medians; ratios at the end of each line.
set -euo pipefail
runs=${1:-15}
devbox=$(type -P "${2:-devbox}" | xargs realpath)
halts=${HALTS:-1}
idle=${IDLE:-60}
work=$(mktemp -d)
log=$work/log
trap 'cd "$work/ten" && "$devbox" destroy -f > /dev/null 2>&1; rm -rf "$work"' EXIT

now() { echo "${EPOCHREALTIME/[.,]/}"; }
quietly() { "$@" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
# microseconds COMMAND...
microseconds() { local start; start=$(now); quietly "$@"; echo $(($(now) - start)); }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
repeated() { local n; for ((n = 0; n < runs; n++)); do microseconds "$@"; done | median; }
# pss: of all QEMUs of this project, in KiB
pss() {
    "$devbox" status --json | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p' | while read -r pid; do
        sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup"
    done | awk '{ n += $1 } END { print n }'
}
say() { awk -v what="$1" -v us="$2" -v base="${3:-0}" -v of="${4:-}" 'BEGIN {
    printf "%-34s %9.1f ms", what, us / 1e3
    if (base > 0) printf "  %.2f x %s (%.1f ms)", us / base, of, base / 1e3
    print "" }'; }

cp -a . "$work/ten"
cd "$work/ten"
for n in {0..9}; do printf '\n[machines.m%s]\n' "$n"; done >> devbox.toml

quietly "$devbox" up --cold m0
sleep "$idle"
cold=$(pss)
quietly "$devbox" destroy -f
start=$(now)
quietly "$devbox" up
all=$(($(now) - start))
sleep "$idle"
ten=$(pss)
say 'up of ten machines' "$all"
awk -v ten="$ten" -v cold="$cold" 'BEGIN { printf "memory of ten (PSS)                %9.1f MiB  %.2f x one that was booted (%.1f MiB)\n",
    ten / 1024, ten / cold, cold / 1024 }'

nothing=$(repeated "$(type -P true)")
for verb in 'status' 'status --json' 'list' 'port m3' 'ssh-config m3'; do
    # The words of a verb.
    # shellcheck disable=SC2086
    say "$verb, ten machines" "$(repeated "$devbox" $verb)" "$nothing" true
done

"$devbox" ssh-config m3 > "$work/config"
quietly "$devbox" ssh m3 -c true
host=$(sed -n 's/^Host \([^ ]*\).*/\1/p' "$work/config" | head -n1)
# Turn by turn, so that what else the host does meets both.
plain=(ssh -F "$work/config" -o "ControlPath=$work/connection")
quietly "${plain[@]}" -o ControlMaster=yes -fN "$host"
for ((n = 0; n < runs; n++)); do
    microseconds "${plain[@]}" "$host" true >> "$work/plain"
    microseconds "$devbox" ssh m3 -c true >> "$work/ours"
done
quietly "${plain[@]}" -O exit "$host"
say 'ssh -c true' "$(median < "$work/ours")" "$(median < "$work/plain")" 'plain ssh'

for ((n = 0; n < 3; n++)); do
    microseconds "$devbox" suspend m3 >> "$work/suspend"
    microseconds "$devbox" resume m3 >> "$work/resume"
done
say 'suspend' "$(median < "$work/suspend")"
say 'resume, with the clock set' "$(median < "$work/resume")"
files=$(dirname "$("$devbox" status --json m3 | sed -n 's/^ *"serial_log": "\(.*\)",*$/\1/p')")
before=$(du -k "$files/overlay.qcow2" | cut -f1)
disk=$(microseconds "$devbox" suspend --to-disk m3)
after=$(du -k "$files/overlay.qcow2" | cut -f1)
say 'suspend --to-disk' "$disk"
awk -v us="$disk" -v kib=$((after - before)) 'BEGIN { printf "                                   %9.2f s per 100 MB (%.0f MB)\n",
    us / 1e6 / (kib * 1024 / 1e8), kib * 1024 / 1e6 }'
say 'resume from the disk' "$(microseconds "$devbox" resume m3)"

ended() { while kill -0 "$1" 2> /dev/null; do sleep 0.02; done; }
power_off() { local pid; pid=$("$devbox" status --json m4 | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p')
    "$devbox" ssh m4 -c 'sudo systemctl poweroff || sudo poweroff' > /dev/null 2>&1 || :; ended "$pid"; }
for ((n = 0; n < halts; n++)); do
    microseconds power_off >> "$work/own"
    quietly "$devbox" up m4
    microseconds "$devbox" halt m4 >> "$work/halt"
    [ $((n + 1)) = "$halts" ] || quietly "$devbox" up m4
done
[ "$halts" = 0 ] || say 'halt' "$(median < "$work/halt")" "$(median < "$work/own")" "the guest's own"
