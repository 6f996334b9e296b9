//! Files that are read line by line: that a machine has an account for its user, and its data disks in
//! fstab, is its own affair; any other line is drift.

use std::collections::BTreeSet;

/// The files, and whether their lines name members behind the last colon.
const FILES: &[(&str, bool)] = &[
    ("etc/passwd", false),
    ("etc/shadow", false),
    ("etc/subuid", false),
    ("etc/subgid", false),
    ("etc/group", true),
    ("etc/gshadow", true),
];
const ROOT_KEYS: &str = "root/.ssh/authorized_keys";
/// How cloud-init begins each key that lets nobody in as root (its module `cc_ssh`).
const DISABLED: &[u8] =
    b"no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as";

const FSTAB: &str = "etc/fstab";

/// A line of fstab that devbox writes for a data disk, see [`crate::guest::disks`].
fn is_data_disk(line: &[u8]) -> bool {
    line.starts_with(b"/dev/disk/by-id/virtio-") && line.ends_with(b" auto nofail,discard 0 2")
}

/// Whether what is at `path` has to be read to tell its class.
pub(super) fn concerns(path: &[u8]) -> bool {
    [ROOT_KEYS, FSTAB].map(str::as_bytes).contains(&path)
        || FILES.iter().any(|(file, _)| file.as_bytes() == path)
}

/// Whether the file at `path` differs in nothing but what the machine's `user` needs.
pub(super) fn only_of(user: &str, path: &[u8], old: &[u8], new: &[u8]) -> bool {
    if path == ROOT_KEYS.as_bytes() {
        let mut lines = new.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return lines.all(|line| line.starts_with(DISABLED) || line.starts_with(b"#"));
    }
    if path == FSTAB.as_bytes() {
        let lines = |text: &[u8]| -> Vec<Vec<u8>> {
            let all = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            all.filter(|line| !is_data_disk(line)).map(<[u8]>::to_vec).collect()
        };
        return lines(old) == lines(new);
    }
    let Some((_, members)) = FILES.iter().find(|(file, _)| file.as_bytes() == path) else {
        return false;
    };
    let lines = |text: &[u8]| -> BTreeSet<Vec<u8>> {
        let all = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        all.filter_map(|line| without(user.as_bytes(), line, *members)).collect()
    };
    lines(old) == lines(new)
}

/// A line without what it says of `user`; none if it is the user's own.
fn without(user: &[u8], line: &[u8], members: bool) -> Option<Vec<u8>> {
    if line.split(|byte| *byte == b':').next() == Some(user) {
        return None;
    }
    let Some(colon) = line.iter().rposition(|byte| *byte == b':').filter(|_| members) else {
        return Some(line.to_vec());
    };
    let (head, list) = line.split_at(colon + 1);
    let others = list[..].split(|byte| *byte == b',').filter(|member| *member != user);
    Some([head, &others.collect::<Vec<_>>().join(&b',')].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_account_is_no_drift_and_every_other_one_is() {
        let is = |path: &str, old: &str, new: &str| {
            only_of("dev", path.as_bytes(), old.as_bytes(), new.as_bytes())
        };
        let passwd = "root:x:0:0::/root:/bin/bash\n";
        let with = |line: &str| format!("{passwd}{line}\n");
        assert!(is("etc/passwd", passwd, &with("dev:x:1000:1000::/home/dev:/bin/sh")));
        assert!(!is("etc/passwd", passwd, &with("eve:x:0:0::/root:/bin/sh")));
        assert!(!is("etc/passwd", passwd, "root:x:0:0::/root:/bin/sh\n"));
        assert!(!is("etc/passwd", passwd, ""));
        assert!(is("etc/group", "sudo:x:27:\n", "sudo:x:27:dev\ndev:x:1000:\n"));
        assert!(is("etc/group", "sudo:x:27:amy\n", "sudo:x:27:amy,dev\n"));
        assert!(!is("etc/group", "sudo:x:27:\n", "sudo:x:27:dev,eve\n"));
        assert!(!is("etc/shadow", "root:*:1::::::\n", "root:$y$x:1::::::\n"));
        assert!(!is("etc/hostname", "a\n", "a\n"));
        let disk = "/dev/disk/by-id/virtio-data /srv auto nofail,discard 0 2\n";
        assert!(is("etc/fstab", "a / ext4\n", &format!("a / ext4\n{disk}")));
        assert!(!is("etc/fstab", "a / ext4\n", &format!("a / ext4 suid\n{disk}")));
    }

    #[test]
    fn a_key_that_lets_root_in_is_drift() {
        let closed = [DISABLED, b" the user \\\"dev\\\"...\" ssh-ed25519 AAAA\n"].concat();
        let is = |new: &[u8]| only_of("dev", ROOT_KEYS.as_bytes(), b"", new);
        assert!(is(&closed) && is(b""));
        assert!(!is(b"ssh-ed25519 AAAA me\n"));
        assert!(!is(&[&closed[..], b"ssh-ed25519 AAAA me\n"].concat()));
    }
}
