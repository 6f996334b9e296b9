//! The commented devbox.toml that `devbox init` writes.

/// The text for a box of this name, which has to be a valid one.
#[must_use]
pub fn template(name: &str) -> String {
    TEMPLATE.replace("@NAME@", name)
}

const TEMPLATE: &str = r#"# One box: what its image is made of, and how a dev box runs it.
# `devbox validate` checks this file. Reference: docs/spec.md of devbox, or `devbox schema`.

name = "@NAME@"
version = "0.1.0"
arch = "amd64"

# Formats that `devbox build` writes from the stored box: qcow2, raw, vmdk, ova, vhd, gce, vagrant, ...
outputs = ["qcow2"]

# What the image starts from: a distribution's packages ...
[source]
type = "packages"
suite = "bookworm"
packages = ["curl"]
disk = "2GiB"

# ... or an image that exists already.
# [source]
# type = "image"
# url = "https://images.example/debian.qcow2"
# sha256 = "<64 hex digits>"

# What is done in the guest, in this order. Paths start at the folder of this file.
[[steps]]
type = "shell"
name = "say hello"
inline = """
echo "hello from @NAME@" > /etc/motd
"""

# [[steps]]
# type = "file"
# source = "files/app.conf"
# target = "/etc/app.conf"
# mode = "0644"

# How `devbox up` runs the image. Nothing here changes the image.
[machine]
cpus = 2
memory = "1GiB"

# [[machine.ports]]
# guest = 80
# host = 8080

# Several machines on the same image; what one does not say itself stands in [machine].
# [machines.web]
# depends_on = ["db"]
# [machines.db]
# memory = "2GiB"

# What only the dev box needs, done when it comes up: once, on-change or always.
# [[provision]]
# name = "test data"
# run = "once"
# script = "scripts/test-data.sh"
"#;
