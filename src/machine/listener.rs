//! Who listens on a port of this host, as far as `/proc` shows it to this user.

use super::config::Protocol;

/// The listener's name and process id (`nginx, pid 812`); `None` if the host does not show it.
#[must_use]
pub(super) fn owner(protocol: Protocol, port: u16) -> Option<String> {
    let inodes = inodes(protocol, port);
    if inodes.is_empty() {
        return None;
    }
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        for fd in std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            if wanted.iter().any(|w| target.as_os_str() == w.as_str()) {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(format!("{}, pid {pid}", name.trim()));
            }
        }
    }
    None
}

/// Socket inodes bound to `port`: proc(5), `/proc/net/tcp`, columns `local_address`, `st`, `inode`.
fn inodes(protocol: Protocol, port: u16) -> Vec<String> {
    // A UDP socket that is bound is in state 07 (TCP_CLOSE), a listening TCP socket in 0A.
    let (files, state) = match protocol {
        Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
        Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], "07"),
    };
    let suffix = format!(":{port:04X}");
    let mut found = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(file).unwrap_or_default().lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, st, _, _, _, _, _, inode, ..] = words[..]
                && local.ends_with(&suffix)
                && st == state
            {
                found.push(inode.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found_and_a_closed_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let found = owner(Protocol::Tcp, port).expect("our own listener");
        assert!(found.ends_with(&format!("pid {}", std::process::id())), "{found}");
        drop(listener);
        assert_eq!(owner(Protocol::Tcp, port), None);
    }
}
