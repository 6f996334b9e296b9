#!/usr/bin/env python3
"""A second implementation of tree1, tree1t, links1 and fs1, over a mounted directory.

Written from docs/identity.md alone and sharing nothing with devbox, so that the format is a format:
what both say of one filesystem has to be equal. Needs the standard library only, and root for
`trusted.*` attributes and all files. Mount the image read-only (`mount -o loop,ro,noload`) and run

    fs1.py DIR --type ext4 --label root --uuid 0b1c... [--boot FILE | --boot-of-vfat IMAGE | --boot-sha256 HEX]

It prints one digest a line. Anything that has no rule is an error, exit code 3.
"""

import argparse
import errno
import fcntl
import hashlib
import os
import stat
import struct
import sys

PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"\\=#")
# linux/fs.h: _IOR('f', 1, long); linux/fs.h: FS_IMMUTABLE_FL, FS_APPEND_FL.
FS_IOC_GETFLAGS = 0x80000000 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
IMMUTABLE, APPEND = 0x10, 0x20
COVERED = {b"security.capability", b"security.selinux", b"security.ima"}
ACLS = {b"system.posix_acl_access", b"system.posix_acl_default"}
# XFS shows an ACL under its own name once more, to root.
TWICE = {b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"}
POLICY = {"btrfs": "flags,links,mode,owner,subvolumes,xattr", "vfat": "mode"}


class NoRule(Exception):
    """Something that the format has no place for."""

    def __init__(self, why, placed=False):
        super().__init__(why)
        self.placed = placed


def spell(data):
    """A byte string in its only spelling."""
    if not data:
        return b"\\e"
    return b"".join(bytes([b]) if b in PLAIN else b"\\x%02x" % b for b in data)


def sha256(data):
    return hashlib.sha256(data).hexdigest().encode()


def acl(value):
    """Version 2: sorted by tag, then id; entries that name nobody have the id ffffffff."""
    (version,) = struct.unpack_from("<I", value)
    if version != 2 or len(value) % 8 != 4:
        raise NoRule("not an ACL")
    entries = []
    for tag, permissions, who in struct.iter_unpack("<HHI", value[4:]):
        entries.append((tag, who if tag in (2, 8) else 0xFFFFFFFF, permissions))
    entries.sort()
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, w) for t, w, p in entries)


def capability(value):
    """Version 3 with root id 0 is version 2."""
    if len(value) == 24 and value[3] == 3 and value[20:] == bytes(4):
        return value[:3] + b"\x02" + value[4:20]
    return value


def xattrs(path):
    """The fields of all attributes that are covered, sorted by key."""
    found = []
    for name in os.listxattr(path, follow_symlinks=False):
        key = os.fsencode(name)
        value = os.getxattr(path, name, follow_symlinks=False)
        if key in (b"security.evm", b"btrfs.compression") or key in TWICE:
            continue
        if key.startswith(b"trusted.overlay."):
            raise NoRule("attribute " + name)
        if key in ACLS:
            value = acl(value)
        elif key == b"security.capability":
            value = capability(value)
        elif key not in COVERED and not key.startswith((b"user.", b"trusted.")):
            raise NoRule("attribute " + name)
        found.append((key, value))
    return [b"x:" + spell(key) + b"=" + value.hex().encode() for key, value in sorted(found)]


def flags(path, mode):
    """Append-only and immutable, of what can be opened without an effect."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return []
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        (bits,) = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))
    except OSError as e:
        # The empty directory that btrfs shows in place of a subvolume has none.
        if e.errno != errno.ENOTTY:
            raise
        return []
    finally:
        os.close(fd)
    letters = (b"a" if bits & APPEND else b"") + (b"i" if bits & IMMUTABLE else b"")
    return [b"i:" + letters] if letters else []


class Walk:
    """One filesystem."""

    def __init__(self, root, kind):
        self.vfat = kind == "vfat"
        self.btrfs = kind == "btrfs"
        self.devices = {os.lstat(root).st_dev}
        self.subvolumes = [b""]
        self.files = {}  # device, inode -> (digest, paths)

    def metadata(self, path, info):
        """Mode, owner, and the fields behind all others."""
        if self.vfat:
            mode = 0o755 if stat.S_ISDIR(info.st_mode) else 0o644
            return mode & ~(0 if info.st_mode & 0o222 else 0o222), b"0 0", []
        owner = b"%d %d" % (info.st_uid, info.st_gid)
        return info.st_mode & 0o7777, owner, xattrs(path) + flags(path, info.st_mode)

    def contents(self, path, info, place):
        """The digest of a file; each inode is read once."""
        inode = info.st_dev, info.st_ino
        if inode not in self.files:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                for piece in iter(lambda: file.read(1 << 20), b""):
                    digest.update(piece)
            self.files[inode] = (digest.hexdigest().encode(), [])
        digest, places = self.files[inode]
        places.append(place)
        return digest

    def entry(self, path, name, place):
        """The lines of one entry in tree1 and tree1t; none if it is left out."""
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        # A subvolume has a device number of its own and starts with inode 256; what stands for one in
        # a snapshot has inode 2.
        if self.btrfs and kind == stat.S_IFDIR and info.st_ino in (2, 256):
            self.devices.add(info.st_dev)
            if info.st_ino == 256:
                self.subvolumes.append(place)
        if info.st_dev not in self.devices:
            raise NoRule("a mount point")
        mode, owner, tail = self.metadata(path, info)
        device = b"%d,%d" % (os.major(info.st_rdev), os.minor(info.st_rdev))
        below = [b"", b""]
        if kind == stat.S_IFREG:
            letter, what = b"f", b"%d sha256:%s" % (info.st_size, self.contents(path, info, place))
        elif kind == stat.S_IFDIR:
            letter, what = b"d", None
            below = self.directory(path, place)
            unused = below[2] == 0 and mode == 0o700 and owner == b"0 0" and not tail
            if place == b"lost+found" and unused:
                return None
        elif kind == stat.S_IFLNK:
            letter, what = b"l", spell(os.readlink(path))
        elif kind == stat.S_IFCHR:
            letter, what = b"c", device
        elif kind == stat.S_IFBLK:
            letter, what = b"b", device
        elif kind == stat.S_IFIFO:
            letter, what = b"p", b""
        else:
            raise NoRule("a socket")
        head = [letter, spell(name)] + ([b"%04o" % mode] if letter != b"l" else []) + [owner]
        lines = []
        for digest, time in ((below[0], []), (below[1], [b"@%d" % (info.st_mtime_ns // 10**9)])):
            middle = [digest] if what is None else [what] if what else []
            lines.append(b" ".join(head + middle + tail + time) + b"\n")
        return lines

    def directory(self, path, place):
        """tree1 and tree1t of a directory, and how many entries it has."""
        plain, timed = b"devbox/tree/1\n", b"devbox/tree/1t\n"
        names = sorted(os.listdir(path))
        for name in names:
            below = place + b"/" + name if place else name
            try:
                lines = self.entry(os.path.join(path, name), name, below)
            except NoRule as e:
                raise e if e.placed else NoRule("/%s: %s" % (os.fsdecode(below), e), True) from None
            if lines:
                plain, timed = plain + lines[0], timed + lines[1]
        return b"tree1:" + sha256(plain), b"tree1t:" + sha256(timed), len(names)

    def links(self):
        groups = sorted(sorted(places) for _, places in self.files.values() if len(places) > 1)
        lines = [b" ".join(spell(path) for path in group) + b"\n" for group in groups]
        return b"links1:" + sha256(b"devbox/links/1\n" + b"".join(lines))


def boot_of_vfat(image):
    """Jump, code, and the reserved sectors behind the first 512 bytes."""
    with open(image, "rb") as file:
        first = file.read(512)
        sector, reserved = struct.unpack_from("<HxH", first, 11)
        data = bytearray(first + file.read(max(sector * reserved - 512, 0)))
    wide = struct.unpack_from("<H", first, 22) == (0,)
    if wide:
        info, backup = struct.unpack_from("<HH", first, 48)
        original = bytes(data)
        for number, is_info in ((info, True), (backup, False), (backup + info, True)):
            at = number * sector
            one = original[at:at + 512]
            if at < 512 or len(one) < 512:
                continue
            if not is_info:
                if one[:3] == first[:3] and one[90:] == first[90:]:
                    data[at:at + 512] = bytes(512)
            elif (one[:4], one[484:488], one[508:]) == (b"RRaA", b"rrAa", b"\0\0\x55\xaa"):
                for start, end in ((0, 4), (484, 496), (508, 512)):
                    data[at + start:at + end] = bytes(end - start)
    return bytes(data[:3] + data[90 if wide else 62:510] + data[512:])


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("directory", type=os.fsencode)
    options.add_argument("--type", required=True)
    options.add_argument("--label", default="", type=os.fsencode)
    options.add_argument("--uuid", default="", type=os.fsencode)
    options.add_argument("--default", default="", type=os.fsencode, help="btrfs: the default subvolume")
    options.add_argument("--read-only", action="append", default=[], type=os.fsencode,
                         help="btrfs: a read-only subvolume")
    boot = options.add_mutually_exclusive_group()
    boot.add_argument("--boot", help="a file with the boot code; trailing zeros do not count")
    boot.add_argument("--boot-sha256", type=os.fsencode)
    boot.add_argument("--boot-of-vfat", help="the image that is mounted")
    given = options.parse_args()
    sys.setrecursionlimit(20000)
    code = given.boot_sha256 or sha256(b"")
    if given.boot:
        with open(given.boot, "rb") as file:
            code = sha256(file.read().rstrip(b"\0"))
    if given.boot_of_vfat:
        code = sha256(boot_of_vfat(given.boot_of_vfat).rstrip(b"\0"))
    root = given.directory
    try:
        walk = Walk(root, given.type)
        mode, owner, tail = walk.metadata(root, os.lstat(root))
        plain, timed, _ = walk.directory(root, b"")
    except (NoRule, OSError) as e:
        print("error: %s" % e, file=sys.stderr)
        return 3
    links = walk.links()
    text = b"devbox/fs/1\n"
    for key, value in ((b"type", given.type.encode()), (b"label", given.label), (b"uuid", given.uuid)):
        text += key + b" " + spell(value or b"") + b"\n"
    text += b"boot sha256:" + code + b"\n"
    text += b"policy %s\n" % POLICY.get(given.type, "flags,links,mode,owner,xattr").encode()
    text += b" ".join([b"root", b"%04o" % mode, owner] + tail) + b"\n"
    if given.type == "btrfs":
        text += b"default " + spell(given.default) + b"\n"
        for path in sorted(walk.subvolumes):
            text += b"subvolume " + spell(path) + (b" ro\n" if path in given.read_only else b" rw\n")
    text += plain + b"\n" + links + b"\n"
    for digest in (plain, timed, links, b"fs1:" + sha256(text)):
        print(digest.decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
