#!/usr/bin/env bash
# How long `devbox drift` takes on a machine of the current project that runs, after 50 MB of it were changed in
# many files, and how long the guest stands still for it; then the same of the machine stopped:
#
#   benches/drift.sh MACHINE [RUNS] [DEVBOX]      run it in a project's folder, with the machine up
#
# The machine keeps the changes, and is stopped at the end.
set -euo pipefail
machine=${1:?usage: benches/drift.sh MACHINE [RUNS] [DEVBOX]}
runs=${2:-5}
devbox=${3:-devbox}

# 400 files of 100 KB that are new, and 10 MB in files that are there and that nothing runs.
"$devbox" ssh "$machine" -c 'sudo sh -ec "
    mkdir -p /opt/bench
    n=0
    while [ \$n -lt 400 ]; do head -c 102400 /dev/urandom > /opt/bench/\$n; n=\$((n + 1)); done
    find /usr/share/locale /usr/share/i18n /usr/share/zoneinfo /usr/share/perl /usr/share/vim /usr/share/grub \
        -xdev -type f -size +16k 2> /dev/null | sort | head -n 600 > /opt/bench/list
    while read -r file; do
        head -c 16384 /dev/urandom | dd of=\"\$file\" bs=16384 conv=notrunc status=none
    done < /opt/bench/list
    sync
"'

# value KEY: of the last answer
value() { sed -n "s/^  \"$1\": \([0-9.]*\|null\),*\$/\1/p" "$answer"; }

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
measure() {
    local n start
    printf '%-10s %10s %10s %10s %10s %10s\n' "$1" 'all ms' 'compare ms' 'paused ms' 'frozen ms' 'changed MB'
    for ((n = 0; n < runs; n++)); do
        start=${EPOCHREALTIME/[.,]/}
        "$devbox" drift "$machine" --json > "$answer" || [ $? = 1 ]
        printf '%-10s %10s %10s %10s %10s %10s\n' '' "$(((${EPOCHREALTIME/[.,]/} - start) / 1000))" \
            "$(value milliseconds)" "$(value paused_milliseconds)" "$(value frozen_milliseconds)" \
            "$(($(value changed_bytes) / 1000000))"
    done
}

measure running
"$devbox" halt "$machine"
measure stopped
