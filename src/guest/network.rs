//! The inside of the private network: a guest's own address on its card, and the names of the others.
//!
//! Written by the shell alone as far as that goes, since each program that is started costs a tenth of a
//! second under emulation. The script stays in the guest (`/etc/devbox-network`), and where systemd
//! starts the guest it runs at each boot, so that a restart from inside keeps the network. The card is
//! found by its address: its name depends on the guest.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::agent::Agent;
use crate::error::{Error, Result};
use crate::exec::last_lines;

/// Until the agent answers; a guest without one is asked over ssh.
pub const AGENT_WAIT: Duration = Duration::from_secs(3);
/// For the script: half a second under emulation; a loaded host takes many times as long.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// One machine of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A label (RFC 1123).
    pub name: String,
    /// Another name, of letters, digits, `-`, `_` and `.`; none if empty.
    pub alias: String,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// The script that puts a guest on the network: its card has the address `mac`, it itself gets `ip`, and it
/// knows `hosts` by name.
#[must_use]
pub fn script(mac: &str, ip: Ipv4Addr, prefix: u8, hosts: &[Host]) -> String {
    let mut names = String::new();
    for Host { name, alias, ip } in hosts {
        let alias = if alias.is_empty() { String::new() } else { format!(" {alias}") };
        // `write` cannot fail on a string.
        let _ = writeln!(names, "{ip} {name}{alias}");
    }
    let setup = format!(
        "#!/bin/sh\n# The private network of devbox; written anew by `devbox up`.\n\
         mac={mac} address={ip}/{prefix}\nnames='{names}'\n{SETUP}"
    );
    // No value holds a quote but those that stand here.
    let quoted = setup.replace('\'', r"'\''");
    format!("set -eu\numask 022\nsetup='{quoted}'\n{KEEP}")
}

/// Runs a [`script`] in the guest.
///
/// # Errors
/// The agent refuses to run programs, or the script failed: its own words are the cause.
pub async fn configure(agent: &mut Agent, script: &str) -> Result<()> {
    let ran = agent.run("/bin/sh", &["-s"], script.as_bytes(), TIMEOUT).await?;
    if ran.code == 0 {
        return Ok(());
    }
    let why = last_lines(&ran.err, 1).pop().unwrap_or_default();
    Err(Error::failed("the guest's network cannot be set up")
        .cause(format!("the script in the guest ended with {}: {why}", ran.code)))
}

/// Keeps the script, has it run at each boot, runs it. A boot without the card is no failed unit: the
/// network may be unwanted by then, or the disk that of a clone, whose card is another one.
const KEEP: &str = r#"printf '%s' "$setup" > /etc/devbox-network
wants=/etc/systemd/system/multi-user.target.wants
if [ -d /run/systemd/system ] && [ ! -e "$wants/devbox-network.service" ]; then
    printf '%s\n' '[Unit]' 'Description=Private network of devbox' 'After=systemd-udev-settle.service' \
        'Before=network-online.target' '[Service]' 'Type=oneshot' 'RemainAfterExit=yes' 'SuccessExitStatus=1' \
        'ExecStart=/bin/sh /etc/devbox-network' > /etc/systemd/system/devbox-network.service
    [ -d "$wants" ] || mkdir -p "$wants"
    ln -sf ../devbox-network.service "$wants/devbox-network.service"
fi
if [ -d /etc/NetworkManager/conf.d ] && [ ! -e /etc/NetworkManager/conf.d/devbox.conf ]; then
    mac=${setup#*mac=}
    printf '[keyfile]\nunmanaged-devices=mac:%s\n' "${mac%% *}" > /etc/NetworkManager/conf.d/devbox.conf
    nmcli general reload > /dev/null 2>&1 || :
fi
. /etc/devbox-network
"#;

/// The names, then the card, which can take a moment to appear. Others on this network are no routers:
/// what they say about routes is not heard.
const SETUP: &str = r#"begin='# begin: private network of devbox' end='# end: private network of devbox'
old= new= inside=
while IFS= read -r line || [ -n "$line" ]; do
    old="$old$line
"
    case $line in
        "$begin") inside=yes ;;
        "$end") inside= ;;
        *) [ -n "$inside" ] || new="$new$line
" ;;
    esac
done < /etc/hosts
new="$new$begin
$names$end
"
[ "$new" = "$old" ] || printf '%s' "$new" > /etc/hosts
tries=0 card=
while [ -z "$card" ] && [ "$tries" -lt 50 ]; do
    for at in /sys/class/net/*; do
        found=
        if [ -e "$at/device" ]; then read -r found < "$at/address" || :; fi
        [ "$found" = "$mac" ] || continue
        name=${at##*/}
        if [ -e "/proc/sys/net/ipv6/conf/$name/accept_ra" ]; then
            echo 0 > "/proc/sys/net/ipv6/conf/$name/accept_ra"
        fi
        # It may get another name at this very moment.
        if ip link set "$name" up && { ip address add "$address" dev "$name" 2> /dev/null ||
            ip address show dev "$name" | grep -qF " $address "; }; then card=$name; fi
    done
    [ -n "$card" ] || sleep 0.1
    tries=$((tries + 1))
done
if [ -z "$card" ]; then
    echo "no card with the address $mac took $address" >&2
    exit 1
fi
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn hosts() -> Vec<Host> {
        let host = |name: &str, alias: &str, n| Host {
            name: name.to_owned(),
            alias: alias.to_owned(),
            ip: Ipv4Addr::new(10, 77, 0, n),
        };
        vec![host("web", "web.shop", 1), host("db", "", 2)]
    }

    /// The script with the guest's files in `dir`, run by the host's shell; where no card is found.
    fn names_after(dir: &std::path::Path, before: &str) -> String {
        let file = dir.join("hosts");
        std::fs::write(&file, before).expect("written");
        let text = script("02:00:00:00:00:01", Ipv4Addr::new(10, 77, 0, 1), 24, &hosts())
            .replace("/etc/hosts", &file.display().to_string())
            .replace("/etc/devbox-network", &dir.join("setup").display().to_string())
            .replace("/run/systemd", "/nowhere")
            .replace("/etc/NetworkManager", "/nowhere")
            .replace("/sys/class/net", "/nowhere")
            .replace("-lt 50", "-lt 1");
        let mut sh = Command::new("sh");
        sh.arg("-s").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = sh.spawn().expect("sh runs");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let out = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert_eq!(said, "no card with the address 02:00:00:00:00:01 took 10.77.0.1/24\n");
        std::fs::read_to_string(&file).expect("there")
    }

    #[test]
    fn names_stand_between_two_marks_and_all_else_stays() {
        let dir = tempfile::tempdir().expect("dir");
        let block = "# begin: private network of devbox\n10.77.0.1 web web.shop\n10.77.0.2 db\n\
             # end: private network of devbox\n";
        let own = "127.0.0.1 localhost\n# it's \\mine\n";
        let once = names_after(dir.path(), own);
        assert_eq!(once, format!("{own}{block}"));
        assert_eq!(names_after(dir.path(), &once), once);
        let older = once.replace("10.77.0.2 db", "10.77.0.9 gone") + "::1 ip6\n";
        assert_eq!(names_after(dir.path(), &older), format!("{own}::1 ip6\n{block}"));
        // A file without its last line end.
        assert_eq!(names_after(dir.path(), own.trim_end()), once);
        // What is kept in the guest is a script of its own.
        let kept = std::fs::read_to_string(dir.path().join("setup")).expect("kept");
        assert!(kept.starts_with("#!/bin/sh\n") && kept.contains("# It may get"), "{kept}");
    }
}
