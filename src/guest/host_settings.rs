//! What a guest takes over from its host where that is wanted: proxies, and certificates of authorities
//! that were added to the host. One script writes all of it, and removes what is not wanted any more.

use std::ffi::OsStr;
use std::fmt::Write as _;

use crate::exec::quote;

/// The variables that programs look for, without those in capitals (curl(1), wget(1), apt-transport-http(1)).
pub const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];

/// The host as a guest behind user-mode NAT sees it (QEMU's documentation, "Using the user mode
/// network stack").
const HOST: &str = "10.0.2.2";

/// The settings of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Variables of [`PROXY_VARIABLES`] and their values, as the guest needs them: see [`seen_by_guest`].
    pub proxies: Vec<(&'static str, String)>,
    /// Certificates in PEM, each with a name that is a file's.
    pub certificates: Vec<(String, String)>,
}

/// A proxy's address as a guest reaches it: one on the host's loopback is at another address from there.
/// `None` if it is no address that could stand in a configuration file.
#[must_use]
pub fn seen_by_guest(variable: &str, value: &str) -> Option<String> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\$`".contains(&b))
    {
        return None;
    }
    if variable == "no_proxy" {
        return Some(format!("localhost,127.0.0.1,{value}"));
    }
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (format!("{user}@"), place),
        None => (String::new(), authority),
    };
    let bracket = place.find(']').map_or(0, |at| at + 1);
    let end = place[bracket..].find(':').map_or(place.len(), |at| bracket + at);
    let (host, port) = place.split_at(end);
    let loopback =
        host.eq_ignore_ascii_case("localhost") || host.starts_with("127.") || host == "[::1]";
    let host = if loopback { HOST } else { host };
    Some(format!("{scheme}://{user}{host}{port}/{path}"))
}

/// The script for the guest's root. It leaves the guest with exactly these settings of devbox's.
#[must_use]
pub fn script(settings: &HostSettings) -> String {
    let mut text = String::from("set -eu\numask 022\n");
    // `write` cannot fail on a string.
    let mut add = |part: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(part);
    };
    let mut lines = String::new();
    let mut apt = String::new();
    for (name, value) in &settings.proxies {
        let _ = write!(lines, "{name}={value}\n{}={value}\n", name.to_ascii_uppercase());
        if let Some(scheme) = name.strip_suffix("_proxy").filter(|scheme| *scheme != "no") {
            let _ = writeln!(apt, "Acquire::{scheme}::Proxy \"{value}\";");
        }
    }
    let exports: String = lines.lines().map(|line| format!("export {line}\n")).collect();
    let quoted = |text: &str| quote(OsStr::new(text));
    add(format_args!(
        "lines={}\nexports={}\napt={}\n{PROXY}",
        quoted(&lines),
        quoted(&exports),
        quoted(&apt)
    ));
    add(format_args!("{CERTIFICATES_BEFORE}"));
    for (name, pem) in &settings.certificates {
        add(format_args!("certificate {} {}\n", quoted(name), quoted(pem)));
    }
    add(format_args!("{CERTIFICATES_AFTER}"));
    text
}

/// `/etc/environment` is read at each login (pam_env(8)), also at one that runs a single command.
const PROXY: &str = r#"begin='# devbox: the proxies of the host' end='# devbox: end'
kept=
skip=
if [ -f /etc/environment ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$begin") skip=1 ;;
            "$end") skip= ;;
            *) if [ -z "$skip" ]; then kept="$kept$line
"; fi ;;
        esac
    done < /etc/environment
fi
if [ -n "$lines" ]; then
    printf '%s%s\n%s%s\n' "$kept" "$begin" "$lines" "$end" > /etc/environment
    mkdir -p /etc/profile.d
    printf '%s' "$exports" > /etc/profile.d/devbox-proxy.sh
    if [ -d /etc/apt/apt.conf.d ]; then printf '%s' "$apt" > /etc/apt/apt.conf.d/90devbox-proxy; fi
else
    if [ -f /etc/environment ]; then printf '%s' "$kept" > /etc/environment; fi
    rm -f /etc/profile.d/devbox-proxy.sh /etc/apt/apt.conf.d/90devbox-proxy
fi
"#;

/// Debian and Alpine have one program for it, the RHEL family another (update-ca-certificates(8),
/// update-ca-trust(8)).
const CERTIFICATES_BEFORE: &str = r#"changed= folder= update=
if command -v update-ca-certificates > /dev/null; then
    folder=/usr/local/share/ca-certificates update=update-ca-certificates
elif command -v update-ca-trust > /dev/null; then
    folder=/etc/pki/ca-trust/source/anchors update=update-ca-trust
fi
if [ -n "$folder" ]; then
    for old in "$folder"/devbox-*.crt; do
        if [ -f "$old" ]; then rm -f "$old"; changed=1; fi
    done
fi
certificate() {
    if [ -z "$folder" ]; then
        echo 'the guest has no program that adds certificates; its package is `ca-certificates`' >&2
        exit 1
    fi
    mkdir -p "$folder"
    printf '%s' "$2" > "$folder/devbox-$1.crt"
    changed=1
}
"#;
const CERTIFICATES_AFTER: &str = r#"if [ -n "$changed" ]; then "$update" > /dev/null; fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_the_hosts_loopback_is_reached_by_another_address() {
        for (variable, value, seen) in [
            ("http_proxy", "http://localhost:3128", Some("http://10.0.2.2:3128/")),
            ("http_proxy", "127.0.0.1:3128", Some("http://10.0.2.2:3128/")),
            (
                "https_proxy",
                "http://me:secret@[::1]:8080/",
                Some("http://me:secret@10.0.2.2:8080/"),
            ),
            ("https_proxy", "http://proxy.example:8080", Some("http://proxy.example:8080/")),
            ("http_proxy", "socks5h://[2001:db8::1]:1080", Some("socks5h://[2001:db8::1]:1080/")),
            ("no_proxy", ".corp,10.0.0.0/8", Some("localhost,127.0.0.1,.corp,10.0.0.0/8")),
            ("http_proxy", "", None),
            ("http_proxy", "http://a b", None),
            ("http_proxy", "http://a\"; evil", None),
        ] {
            assert_eq!(seen_by_guest(variable, value).as_deref(), seen, "{variable}={value}");
        }
    }

    /// Runs the script with all its paths below `root`.
    fn run(root: &std::path::Path, settings: &HostSettings) {
        let at = |path: &str| root.join(path).display().to_string();
        let script = script(settings)
            .replace("/etc/", &(at("etc") + "/"))
            .replace("/usr/local/share/ca-certificates", &at("certificates"));
        let path = format!("{}:{}", at("bin"), std::env::var("PATH").unwrap_or_default());
        let status =
            std::process::Command::new("sh").env("PATH", path).arg("-c").arg(script).status();
        assert!(status.expect("sh runs").success());
    }

    #[test]
    fn the_guest_has_the_settings_and_loses_them_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path();
        for folder in ["etc/apt/apt.conf.d", "bin"] {
            std::fs::create_dir_all(root.join(folder)).expect("made");
        }
        // Counts how often it is called.
        let update = root.join("bin/update-ca-certificates");
        let count = format!("#!/bin/sh\necho >> {}\n", root.join("updates").display());
        std::fs::write(&update, count).expect("written");
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&update, all).expect("allowed");
        std::fs::write(root.join("etc/environment"), "LANG=C").expect("written");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let wanted = HostSettings {
            proxies: vec![("http_proxy", "http://10.0.2.2:3128/".to_owned())],
            certificates: vec![("corp".to_owned(), "-----BEGIN\nit's\n".to_owned())],
        };
        for _ in 0..2 {
            run(root, &wanted);
            let value = "http://10.0.2.2:3128/";
            assert_eq!(
                read("etc/environment"),
                format!(
                    "LANG=C\n# devbox: the proxies of the host\nhttp_proxy={value}\nHTTP_PROXY={value}\n# devbox: end\n"
                )
            );
            assert!(read("etc/profile.d/devbox-proxy.sh").contains("export HTTP_PROXY=http"));
            let apt = read("etc/apt/apt.conf.d/90devbox-proxy");
            assert_eq!(apt, format!("Acquire::http::Proxy \"{value}\";\n"));
            assert_eq!(read("certificates/devbox-corp.crt"), "-----BEGIN\nit's\n");
        }
        run(root, &HostSettings::default());
        assert_eq!(read("etc/environment"), "LANG=C\n");
        assert!(!root.join("etc/profile.d/devbox-proxy.sh").exists());
        assert!(!root.join("etc/apt/apt.conf.d/90devbox-proxy").exists());
        assert!(!root.join("certificates/devbox-corp.crt").exists());
        assert_eq!(read("updates").lines().count(), 3);
        run(root, &HostSettings::default());
        assert_eq!(read("updates").lines().count(), 3, "nothing changed");
    }
}
