#!/usr/bin/env python3
"""Restores a template by hand, as little as can be: QEMU, its monitor, the guest agent, one script.

    benches/restore.py COMMAND_FILE TEMPLATE [--keep]

COMMAND_FILE is the `qemu.command` of a machine that `devbox up` started from TEMPLATE (a folder with `memory`, `state`
and `disk.qcow2`). Prints the seconds from the start of QEMU until the guest shows the machine id that it was given.
Standard library only.
"""
import base64, json, os, shlex, shutil, socket, subprocess, sys, tempfile, time, uuid

SCRIPT = """set -eu
umask 077
if [ -x /usr/bin/perl ]; then
/usr/bin/perl -e 'my ($s, $hex) = split " ", <STDIN>; my $d = pack("H*", $hex); my $f;
    syscall(227, 0, pack("q q", $s, 0)) == 0 or die; open($f, "+<", "/dev/urandom") or die;
    ioctl($f, 0x40085203, pack("ii", 8 * length $d, length $d) . $d) or die; ioctl($f, 0x5207, 0) or die' << END
%(now)d %(entropy)s
END
else date -u -s @%(now)d > /dev/null; fi
printf '%%s\\n' %(id)s > /etc/machine-id
printf 'by-hand\\n' > /proc/sys/kernel/hostname
printf 'by-hand\\n' > /etc/hostname
if [ -s /run/sshd.pid ]; then read -r pid < /run/sshd.pid; kill -HUP "$pid"; fi
read -r id < /etc/machine-id
printf '%%s\\n' "$id"
"""


class Lines:
    """A socket that speaks JSON, one value a line."""

    def __init__(self, path):
        end = time.monotonic() + 30
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)
        self.socket.settimeout(60)
        self.file = self.socket.makefile("rb")

    def ask(self, command, arguments=None, first=b""):
        request = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        self.socket.sendall(first + json.dumps(request).encode() + b"\n")
        while True:
            line = self.file.readline()
            if not line:
                raise SystemExit(f"error: the connection ended after {command}")
            value = json.loads(line[line.rfind(b"\xff") + 1:])
            # The byte in front of a first command makes the agent drop what it holds, and say so.
            if "error" in value and not first:
                raise SystemExit(f"error: {command}: {value['error']['desc']}")
            if "return" in value:
                return value["return"]


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    words = shlex.split(open(sys.argv[1]).read())
    template = os.path.abspath(sys.argv[2])
    machine = os.path.dirname(os.path.abspath(sys.argv[1]))
    place = tempfile.mkdtemp(prefix="restore-")
    sockets = next(w for w in words if "id=qmp," in w).split("path=")[1].rsplit("/", 1)[0]
    words = [w.replace(sockets, place).replace(machine, place) for w in words]
    words[words.index("-uuid") + 1] = str(uuid.uuid4())
    if "-incoming" not in words:
        words += ["-incoming", "defer"]
    try:
        began = time.monotonic()
        shutil.copyfile(f"{template}/disk.qcow2", f"{place}/overlay.qcow2")
        shutil.copyfile(f"{machine}/seed.iso", f"{place}/seed.iso")
        qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            print(f"{restore(place, template, began):.3f}")
        finally:
            qemu.kill()
            qemu.wait()
    finally:
        shutil.rmtree(place)


def restore(place, template, began):
    monitor = Lines(f"{place}/qmp.sock")
    monitor.file.readline()
    monitor.ask("qmp_capabilities")
    shared = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    monitor.ask("migrate-set-capabilities", shared)
    monitor.ask("migrate-incoming", {"uri": f"exec:cat {shlex.quote(template)}/state"})
    while monitor.ask("query-migrate").get("status") != "completed":
        time.sleep(0.002)
    monitor.ask("cont")
    agent = Lines(f"{place}/agent.sock")
    agent.ask("guest-sync-delimited", {"id": 1}, b"\xff")
    own = uuid.uuid4().hex
    values = {"now": time.time(), "entropy": os.urandom(64).hex(), "id": own}
    script = base64.b64encode((SCRIPT % values).encode()).decode()
    run = {"path": "/bin/sh", "arg": ["-s"], "capture-output": True, "input-data": script}
    pid = agent.ask("guest-exec", run)["pid"]
    while True:
        status = agent.ask("guest-exec-status", {"pid": pid})
        if status["exited"]:
            break
        time.sleep(0.01)
    took = time.monotonic() - began
    shown = base64.b64decode(status.get("out-data", "")).decode().strip()
    if shown != own:
        words = base64.b64decode(status.get("err-data", "")).decode().strip()
        raise SystemExit(f"error: the guest shows `{shown}`, not `{own}`: {words}")
    return took


if __name__ == "__main__":
    main()
