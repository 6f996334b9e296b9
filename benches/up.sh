#!/usr/bin/env bash
# How long a warm `devbox up` takes, beside the same restore by hand:
#
#   benches/up.sh [RUNS] [DEVBOX]      in a project of one machine whose box is built; its machine is destroyed
#
# With VAGRANT_PROJECT=DIR, `vagrant up` of that project too, once: a folder with a Vagrantfile for the same image.
# In one run, medians; ratios at the end.
set -euo pipefail
runs=${1:-5}
devbox=${2:-devbox}
here=$(cd "$(dirname "$0")" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

seconds() { local start=${EPOCHREALTIME/[.,]/}; "$@" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
    awk -v us=$((${EPOCHREALTIME/[.,]/} - start)) 'BEGIN { printf "%.3f\n", us / 1e6 }'; }
median() { sort -n | sed -n "$(((runs + 1) / 2))p"; }
fresh() { "$devbox" destroy -f > /dev/null 2>&1; }
to_ssh() { "$devbox" up && "$devbox" ssh -c true; }

fresh
"$devbox" up
files=$(dirname "$("$devbox" status --json | sed -n 's/^ *"qemu_log": "\(.*\)",*$/\1/p')")
cp "$files/qemu.command" "$log.command"
template=$(sed -n 's/.*"mem-path":"\([^"]*\)\/memory".*/\1/p' "$log.command")
[ -n "$template" ] || { echo "error: the machine did not start from a template" >&2; exit 1; }
ssh=$(for ((n = 0; n < runs; n++)); do seconds "$devbox" ssh -c true; done | median)

# Turn by turn, so that what else the host does meets both.
for ((n = 0; n < runs; n++)); do
    "$devbox" halt -f > /dev/null 2>&1
    python3 "$here/restore.py" "$files/qemu.command" "$template" >> "$log.hand"
    fresh
    seconds "$devbox" up --wait=boot >> "$log.boot"
    fresh
    seconds to_ssh >> "$log.ssh"
done
hand=$(median < "$log.hand") boot=$(median < "$log.boot") first=$(median < "$log.ssh")
rm -f "$log".*
fresh

printf 'restore and identity by hand          %s s\n' "$hand"
printf 'devbox up --wait=boot                 %s s\n' "$boot"
printf 'devbox up, and the first ssh command  %s s\n' "$first"
printf 'devbox ssh -c true, once connected    %s s\n' "$ssh"
awk -v a="$boot" -v b="$hand" 'BEGIN { printf "up / by hand: %.2f\n", a / b }'
if [ -n "${VAGRANT_PROJECT:-}" ]; then
    cd "$VAGRANT_PROJECT"
    vagrant=$(seconds vagrant up --no-provision)
    vagrant destroy -f > /dev/null
    printf 'vagrant up                            %s s\n' "$vagrant"
    awk -v a="$vagrant" -v b="$boot" 'BEGIN { printf "vagrant up / devbox up: %.1f\n", a / b }'
fi
