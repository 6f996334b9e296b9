#!/usr/bin/env bash
# How long `devbox status` takes in the current project, beside a program that does nothing:
#
#   benches/status.sh [RUNS] [DEVBOX]      run it in a project's folder, best while its machine runs
set -euo pipefail
runs=${1:-50}
devbox=${2:-devbox}

# median COMMAND...: of the wall times of all runs, in microseconds
median() {
    local n start
    for ((n = 0; n < runs; n++)); do
        start=${EPOCHREALTIME/[.,]/}
        "$@" > /dev/null
        echo $((${EPOCHREALTIME/[.,]/} - start))
    done | sort -n | sed -n "$(((runs + 1) / 2))p"
}

"$devbox" status
nothing=$(median "$(type -P true)")
status=$(median "$devbox" status)
printf 'status  median %s us of %s runs\ntrue    median %s us\n' "$status" "$runs" "$nothing"
