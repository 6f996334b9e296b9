//! The host's package mirror, lent to the steps: it is in the guest's apt sources while the steps
//! run, and out of them again before the guest shuts down. The seal's check looks for its name.

use std::ffi::OsStr;

use crate::exec::quote;

/// The authorities of Debian's public mirrors.
const PUBLIC: [&str; 2] = ["deb.debian.org", "security.debian.org"];

/// A mirror of the spec and the one that serves the build in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loan {
    /// The address in the image's apt sources.
    pub own: String,
    /// The host's mirror.
    pub host: String,
}

impl Loan {
    /// A loan of `host` for `own`; `None` if they are the same. The host's own loopback address is
    /// QEMU's 10.0.2.2 in the guest.
    #[must_use]
    pub fn new(own: &str, host: &str) -> Option<Self> {
        let (own, host) = (own.trim_end_matches('/'), host.trim_end_matches('/'));
        if own == host {
            return None;
        }
        let mut host = host.to_owned();
        for loopback in ["//localhost", "//127.0.0.1", "//[::1]"] {
            if let Some(at) = host.find(loopback) {
                let end = at + loopback.len();
                if host[end..].is_empty() || host[end..].starts_with([':', '/']) {
                    host.replace_range(at..end, "//10.0.2.2");
                    break;
                }
            }
        }
        Some(Loan { own: own.to_owned(), host })
    }

    /// What must occur nowhere in the image: the mirror's authority, unless the spec names the
    /// same one. Debian's own public names are in many of its packages and say nothing about a host.
    #[must_use]
    pub fn trace(&self) -> Option<String> {
        let authority = |url: &str| {
            let rest = url.split_once("://")?.1;
            Some(rest.split('/').next()?.to_owned())
        };
        let (own, host) = (authority(&self.own)?, authority(&self.host)?);
        if PUBLIC.contains(&host.as_str()) {
            return None;
        }
        // The same host with another path: the whole address is the trace.
        Some(if own == host { self.host.clone() } else { host })
    }
}

/// The script that puts one address in the place of another in all apt sources.
fn replace(from: &str, to: &str) -> String {
    // The delimiter occurs in no address; the rest is literal for sed.
    let escape = |text: &str, special: &str| {
        let mut out = String::new();
        for c in text.chars() {
            if special.contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
        out
    };
    let program = format!(
        "s#{}\\(/\\{{0,1\\}}\\)\\([[:space:]]\\|$\\)#{}\\1\\2#g",
        escape(from, r"\.*[]^$#"),
        escape(to, r"\&#"),
    );
    format!(
        "for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do \
         [ ! -f \"$f\" ] || sed -i -e {} \"$f\" || exit 1; done; ",
        quote(OsStr::new(&program))
    )
}

/// Puts the host's mirrors in. apt's lists are in memory meanwhile: their file names hold the
/// mirror's, and a directory on disk keeps the names of removed files.
pub(super) fn lend(loans: &[Loan]) -> String {
    let replaced: String = loans.iter().map(|l| replace(&l.own, &l.host)).collect();
    format!("{LISTS_IN_MEMORY}{replaced}")
}

/// Once a boot; they are gone when the guest shuts down.
const LISTS_IN_MEMORY: &str = "l=/var/lib/apt/lists; \
     if [ -d $l ] && ! grep -q \" $l \" /proc/mounts; then mount -t tmpfs -o mode=0755 tmpfs $l || exit 1; fi; ";

/// Puts the spec's mirrors back.
pub(super) fn take_back(loans: &[Loan]) -> String {
    loans.iter().rev().map(|l| replace(&l.host, &l.own)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_the_same_after_lending_and_taking_back() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("debian.sources");
        let text = "URIs: http://deb.debian.org/debian\nURIs: http://deb.debian.org/debian-security/\n\
                    deb http://deb.debian.org/debian bookworm main\n";
        std::fs::write(&file, text).expect("written");
        let loans = [
            Loan::new("http://deb.debian.org/debian", "http://mirror.example:3142/a&b/debian"),
            Loan::new("http://deb.debian.org/debian-security", "http://localhost/security"),
        ]
        .map(|l| l.expect("differs"));
        let run = |script: String| {
            let script = script
                .replace("/etc/apt/sources.list.d/*.sources", &file.to_string_lossy())
                .replace(LISTS_IN_MEMORY, "");
            let status = std::process::Command::new("sh").arg("-c").arg(script).status();
            assert!(status.expect("runs").success());
            std::fs::read_to_string(&file).expect("reads")
        };
        assert_eq!(
            run(lend(&loans)),
            "URIs: http://mirror.example:3142/a&b/debian\nURIs: http://10.0.2.2/security/\n\
             deb http://mirror.example:3142/a&b/debian bookworm main\n"
        );
        assert_eq!(run(take_back(&loans)), text);
    }

    #[test]
    fn the_trace_is_the_mirrors_authority() {
        let trace = |own: &str, host: &str| Loan::new(own, host).and_then(|l| l.trace());
        let debian = "http://deb.debian.org/debian";
        assert_eq!(trace(debian, "http://m.example:80/x").as_deref(), Some("m.example:80"));
        assert_eq!(
            trace("http://m.example/debian", "http://m.example/other").as_deref(),
            Some("http://m.example/other")
        );
        assert_eq!(trace("http://m.example/debian", debian), None, "stands in many packages");
        assert_eq!(trace(debian, "http://deb.debian.org/debian/"), None);
    }
}
