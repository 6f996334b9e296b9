#!/usr/bin/env python3
"""What devbox itself adds to a boot:

    benches/cold.py [RUNS] [DEVBOX]    in a project of one machine whose box is built; the machine is destroyed

Two parts, in seconds: from the start of `devbox up` to the start of QEMU (proc(5), `starttime`, in steps of 10 ms); and
from the first banner of the guest's ssh server, which a loop here asks for every 5 ms, to the return of `devbox up
--wait=ssh`, without the time that ssh itself works in the guest: a script in front of it writes down when it was
started and when it ended. Medians; all of a run stands on its line.
"""
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
DEVBOX = sys.argv[2] if len(sys.argv) > 2 else "devbox"
TICKS = os.sysconf("SC_CLK_TCK")


# Beside ssh: seconds of the start and of the end, one login a line.
SCRIPT = """#!/bin/bash
began=$EPOCHREALTIME
{ssh} "$@"
code=$?
echo "$began $EPOCHREALTIME $code" >> {log}
exit $code
"""


def now():
    return time.time()


def devbox(*words, path=os.environ["PATH"]):
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([DEVBOX, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"error: devbox {' '.join(words)}: {done.stderr}")
    return done.stdout


def machine():
    return json.loads(devbox("status", "--json"))["machines"][0]


def started(pid):
    """When the process started."""
    with open(f"/proc/{pid}/stat") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    return now() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS


def first_banner(found, stop):
    """Not before QEMU holds the port: who connects to a free port of this host may take it by that."""
    port = None
    while not stop.is_set():
        if port is None:
            seen = machine()
            port = seen["ssh_port"] if seen["pid"] else None
            time.sleep(0.05)
            continue
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as server:
                if server.recv(4) == b"SSH-":
                    found.append(now())
                    return
        except OSError:
            pass
        time.sleep(0.005)


def once(work):
    log = f"{work}/logins"
    with open(f"{work}/ssh", "w") as script:
        script.write(SCRIPT.format(ssh=shutil.which("ssh"), log=log))
    os.chmod(f"{work}/ssh", 0o755)
    with open(log, "w"):
        pass
    found, stop = [], threading.Event()
    watcher = threading.Thread(target=first_banner, args=(found, stop))
    begin = now()
    watcher.start()
    devbox("up", "--wait=ssh", path=f"{work}:{os.environ['PATH']}")
    end = now()
    stop.set()
    watcher.join()
    before = started(machine()["pid"]) - begin
    banner = found[0]
    with open(log) as file:
        logins = [line.split() for line in file]
    # One that began before the banner counts from there.
    inside = sum(float(to) - max(float(at), banner) for at, to, _ in logins if float(to) > banner)
    after = end - banner - inside
    devbox("halt", "-f")
    print(
        f"to QEMU {before:.3f} s, banner after {banner - begin:.3f} s, {len(logins)} logins of"
        f" {inside:.3f} s, all else to the return {after:.3f} s"
    )
    return before, after


devbox("destroy", "-f")
devbox("up", "--cold")
devbox("halt")
with tempfile.TemporaryDirectory() as work:
    runs = [once(work) for _ in range(RUNS)]
devbox("destroy", "-f")
before, after = (statistics.median(part) for part in zip(*runs))
print(f"before QEMU {before:.3f} s + after the first banner {after:.3f} s = {before + after:.3f} s")
