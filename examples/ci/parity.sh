#!/bin/sh
# parity.sh A B [OPTION...]: compares two images and leaves reports for the CI in $REPORTS (./reports).
#
# A and B are paths, `NAME:VERSION` of the store, or https addresses, which are fetched. All further words are
# options of `devbox parity`, as `--level disk`. Ends as that does: 0 equal, 1 different, 3 unreadable.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 A B [OPTION...]" >&2; exit 2; }
reports=${REPORTS:-reports}
devbox=${DEVBOX:-devbox}
mkdir -p "$reports"

# side NAME ADDRESS: prints what to compare
side() {
    case $2 in
        https://*)
            curl -sSfL --retry 3 --proto '=https' -o "$reports/../$1.image" "$2" || return 3
            echo "$reports/../$1.image"
            ;;
        *) echo "$2" ;;
    esac
}

a=$(side a "$1") || exit 3
b=$(side b "$2") || exit 3
shift 2

exec "$devbox" parity "$a" "$b" "$@" \
    --format junit --output "$reports/parity.xml" \
    --format sarif --output "$reports/parity.sarif" \
    --format html --output "$reports/parity.html" \
    --format json --output "$reports/parity.json" \
    --format text
