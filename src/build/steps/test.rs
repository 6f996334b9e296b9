//! `type = "test"`: what must hold in the guest. One script tries all of it.

use std::ffi::OsStr;

use fs_err as fs;

use super::Running;
use super::tree::TREE;
use crate::error::Result;
use crate::exec::quote;
use crate::spec::Checks;

/// What every check is tried by: `holds TITLE COMMAND...`, and at the end all that did not hold.
const HEAD: &str = r#"failed=
count=0
holds() {
    title=$1
    shift
    count=$((count + 1))
    if "$@"; then echo "holds: $title"; else
        failed="${failed}does not hold: $title
"
    fi
}
package() {
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2> /dev/null) in installed) return 0 ;; esac
    rpm --query --quiet "$1" 2> /dev/null
}
service() {
    if command -v systemctl > /dev/null; then systemctl is-enabled --quiet "$1" 2> /dev/null
    else ls /etc/runlevels/*/"$1" /etc/rc[2-5].d/S*"$1" 2> /dev/null | grep -q .; fi
}
listens() {
    for table in /proc/net/"$2" /proc/net/"$2"6; do
        [ -r "$table" ] || continue
        while read -r _ local _ state _; do
            case $local:$state in *:$1:"$3") return 0 ;; esac
        done < "$table"
    done
    return 1
}
"#;
const TAIL: &str = r#"[ -z "$failed" ] || { printf %s "$failed"; exit 1; }
echo "all $count hold"
"#;
/// States of a socket in /proc/net: that of TCP that listens, and the one that UDP has
/// (include/net/tcp_states.h).
const STATES: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];

impl Running<'_> {
    pub(super) async fn test(&self, checks: &Checks) -> Result<()> {
        if let Some(goss) = &checks.goss {
            self.program(&["goss"], "Install goss in the guest by an earlier step, or write the checks as `commands`, `files`, `packages`, `services` and `ports`.").await?;
            self.make_tree(&[]).await?;
            self.write_tree("goss.yaml", fs::read(goss)?).await?;
        }
        let tried = self.script(script(checks).into_bytes()).await;
        if checks.goss.is_some() {
            self.remove_tree().await?;
        }
        tried.map_err(|e| e.hint("Correct the step that should have made it so, or the check."))
    }
}

fn script(checks: &Checks) -> String {
    let word = |text: &str| quote(OsStr::new(text));
    let mut text = HEAD.to_owned();
    let mut add = |title: &str, command: &str| {
        text.push_str(&format!("holds {} {command}\n", word(title)));
    };
    for path in &checks.files {
        add(&format!("{path} is there"), &format!("test -e {}", word(path)));
    }
    for name in &checks.packages {
        add(&format!("the package {name} is installed"), &format!("package {}", word(name)));
    }
    for name in &checks.services {
        add(&format!("the service {name} is enabled"), &format!("service {}", word(name)));
    }
    for port in &checks.ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().unwrap_or(0);
        let state = STATES.iter().find(|(name, _)| *name == protocol).map_or("", |(_, s)| s);
        let title = format!("something listens on port {number} ({protocol})");
        add(&title, &format!("listens {number:04X} {protocol} {state}"));
    }
    for command in &checks.commands {
        let line = command.trim().replace('\n', " ");
        add(&format!("`{line}`"), &format!("sh -c {}", word(command)));
    }
    if checks.goss.is_some() {
        add("goss validate", &format!("goss --gossfile {TREE}/goss.yaml validate --no-color"));
    }
    text.push_str(TAIL);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(checks: &Checks) -> (bool, String) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("s");
        std::fs::write(&path, script(checks)).expect("written");
        let out = std::process::Command::new("sh").arg("-eu").arg(&path).output().expect("runs");
        let text = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn everything_that_does_not_hold_is_said_at_once() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let port = socket.local_addr().expect("an address").port();
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut checks = Checks {
            commands: names(&["test 1 = 1", "echo it\\'s | grep -q \"it's\""]),
            files: names(&["/proc/self"]),
            ports: vec![port.to_string()],
            ..Checks::default()
        };
        let (good, said) = run(&checks);
        assert!(good, "{said}");
        assert!(said.ends_with("all 4 hold\n"), "{said}");
        drop(socket);
        checks.files.push("/no/such file".to_owned());
        checks.packages.push("no-such-package".to_owned());
        checks.services.push("no-such-service".to_owned());
        let (good, said) = run(&checks);
        assert!(!good);
        for line in [
            "does not hold: /no/such file is there",
            "does not hold: the package no-such-package is installed",
            "does not hold: the service no-such-service is enabled",
            &format!("does not hold: something listens on port {port} (tcp)"),
        ] {
            assert!(said.lines().any(|l| l == line), "{line}:\n{said}");
        }
        assert_eq!(said.matches("does not hold").count(), 4, "{said}");
    }
}
