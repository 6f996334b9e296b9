//! Gives a machine that was restored from a template an identity of its own, through the guest agent.
//!
//! A restored guest goes on as the guest that was saved: its time, ids, names, keys and random state
//! are those of the template until they are replaced. cloud-init does not run again (it would take
//! tens of seconds), so the same is done here, in one script.

use std::fmt::Write as _;
use std::time::Duration;

use super::agent::{Agent, Ran};
use super::folder::Ids;
use super::keys::KeyPair;
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::exec::last_lines;

/// The host name of a template: no name that a person would choose, since it is replaced wherever it
/// stands.
pub const TEMPLATE_NAME: &str = "devbox-template";
/// For the script: a second under emulation; a loaded host takes many times as long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What one machine does not share with another one of the same template.
#[derive(Debug)]
pub struct Identity<'a> {
    /// Host name: a label (RFC 1123), so that it needs no quotes.
    pub hostname: &'a str,
    /// The guest's ssh host key; without `access` only where it has one.
    pub host_key: &'a KeyPair,
    /// Who may log in by SSH; nobody if absent.
    pub access: Option<Access<'a>>,
}

/// A login by SSH.
#[derive(Debug)]
pub struct Access<'a> {
    /// The home of the account that [`Access::authorized_key`] opens, as [`prepare`] found it.
    pub home: &'a str,
    /// The public key that may log in, one line.
    pub authorized_key: &'a str,
}

/// 32 lower-case hex digits for `/etc/machine-id` (machine-id(5)).
///
/// # Errors
/// The host's random source cannot be read.
pub fn new_machine_id() -> Result<String> {
    // A version 4 UUID without its dashes, as systemd makes it.
    Ok(crate::host::new_uuid()?.replace('-', ""))
}

/// An account as the guest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its home, absolute.
    pub home: String,
    /// Its numbers.
    pub ids: Ids,
}

/// Makes a guest ready to be saved as a template: what [`give`] writes is there with its owner and mode,
/// so that one short script is left for each machine. Returns what the guest knows of `user`.
///
/// # Errors
/// The agent refuses to run programs, or the script failed.
pub async fn prepare(agent: &mut Agent, user: &str) -> Result<Account> {
    let script = format!("set -eu\nuser={user}\n{PREPARE}");
    let ran = agent.run("/bin/sh", &["-s"], script.as_bytes(), TIMEOUT).await?;
    let said = String::from_utf8_lossy(&ran.out).into_owned();
    let mut lines = said.lines();
    let home = lines.next().filter(|home| home.starts_with('/'));
    let mut number = || lines.next()?.parse::<u32>().ok();
    if let (0, Some(home), Some(uid), Some(gid)) = (ran.code, home, number(), number()) {
        return Ok(Account { home: home.to_owned(), ids: Ids { uid, gid } });
    }
    Err(failed(format!("cannot find the home of `{user}` in the guest"), &ran))
}

/// Hands `identity` to the guest behind `agent` and returns the machine id that the guest then
/// shows. It is not on the guest's disk before [`sync`].
///
/// # Errors
/// The agent refuses to run programs, or the script failed: its own words are the evidence. The
/// guest must not be used then, since it may still have parts of the template's identity.
pub async fn give(agent: &mut Agent, identity: &Identity<'_>) -> Result<String> {
    let what = || format!("cannot give `{}` its own identity", identity.hostname);
    let machine_id = new_machine_id()?;
    let script =
        script(identity, &machine_id, &crate::host::random::<64>()?, jiff::Timestamp::now());
    let ran = agent.run("/bin/sh", &["-s"], script.as_bytes(), TIMEOUT).await;
    let ran = ran.map_err(|e| e.context(what()))?;
    let shown = String::from_utf8_lossy(&ran.out).trim().to_owned();
    match ran.code {
        0 if shown == machine_id => Ok(shown),
        0 => Err(Error::failed(what())
            .cause(format!("the guest shows the machine id `{shown}`, not `{machine_id}`"))),
        _ => Err(failed(what(), &ran)),
    }
}

/// Has the guest write to its disk what it holds back, so that a crash of the host does not bring the
/// template's identity back.
///
/// # Errors
/// The agent refuses, or the guest did not finish.
pub async fn sync(agent: &mut Agent) -> Result<()> {
    let ran = agent.run("/bin/sync", &[], b"", TIMEOUT).await?;
    if ran.code == 0 {
        Ok(())
    } else {
        Err(failed("cannot sync the guest's disk".to_owned(), &ran))
    }
}

fn failed(what: String, ran: &Ran) -> Error {
    let error =
        Error::failed(what).cause(format!("the script in the guest ended with {}", ran.code));
    last_lines(&ran.err, 5).into_iter().fold(error, Error::detail)
}

/// A script for root's shell by which a guest that goes on from a saved state gets the present time, and random state
/// that no other guest of that state has.
#[must_use]
pub fn clock_and_entropy(entropy: &[u8], now: jiff::Timestamp) -> String {
    let (seconds, nanos) = (now.as_second(), now.subsec_nanosecond());
    format!("seconds={seconds}\nnanos={nanos}\nentropy={}\n{CLOCK_AND_ENTROPY}", hex(entropy))
}

/// The script. Under emulation each program that is started costs a tenth of a second, so it is written
/// with what the shell can do itself; `perl` is the one exception. Random state comes first, so that
/// whatever starts after it uses it.
fn script(
    identity: &Identity<'_>,
    machine_id: &str,
    entropy: &[u8],
    now: jiff::Timestamp,
) -> String {
    let Identity { hostname, host_key, access } = identity;
    let mut text = String::from("set -eu\numask 077\n");
    text.push_str(&clock_and_entropy(entropy, now));
    // `write` cannot fail on a string.
    let mut add = |part: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(part);
    };
    add(format_args!("id={machine_id}\n{MACHINE_ID}name={hostname}\n{HOSTNAME}"));
    if access.is_none() {
        add(format_args!("if [ -e /etc/ssh/ssh_host_ed25519_key ]; then\n"));
    }
    add(format_args!(
        "printf '%s\\n' '{}' > /etc/ssh/ssh_host_ed25519_key\n\
         printf '%s\\n' '{}' > /etc/ssh/ssh_host_ed25519_key.pub\n",
        host_key.private().trim_end(),
        host_key.public().trim_end(),
    ));
    if let Some(Access { home, authorized_key }) = access {
        let key = authorized_key.trim_end();
        add(format_args!("printf '%s\\n' '{key}' > '{home}/.ssh/authorized_keys'\n"));
    }
    add(format_args!("{RESTART_SSH}"));
    if access.is_none() {
        add(format_args!("fi\n"));
    }
    add(format_args!("{JOURNAL}read -r id < /etc/machine-id\nprintf '%s\\n' \"$id\"\n"));
    text
}

/// In the template: one kind of host key, files with their modes, `perl` in memory.
const PREPARE: &str = r#"if [ -d /etc/ssh ]; then
    cd /etc/ssh
    for key in ssh_host_*_key ssh_host_*_key.pub; do
        case $key in ssh_host_ed25519_key*) ;; *) rm -f "$key" ;; esac
    done
    touch ssh_host_ed25519_key ssh_host_ed25519_key.pub
    chmod 600 ssh_host_ed25519_key
    chmod 644 ssh_host_ed25519_key.pub
fi
line=$(grep "^$user:" /etc/passwd)
home=$(printf '%s' "$line" | cut -d: -f6)
owner=$(printf '%s' "$line" | cut -d: -f3,4)
mkdir -p "$home/.ssh"
: > "$home/.ssh/authorized_keys"
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown "$owner" "$home/.ssh" "$home/.ssh/authorized_keys"
if [ -x /usr/bin/perl ]; then /usr/bin/perl -e 1; fi
printf '%s\n' "$home" "${owner%:*}" "${owner#*:}"
"#;

/// The time, and random state: `$entropy` is mixed in, and the kernel takes new state from it at once
/// (random(4): RNDADDENTROPY, RNDRESEEDCRNG). A kernel that knows the generation id device did so already.
/// The numbers of clock_settime(2) are those of x86-64 and of the architectures that came after it.
const CLOCK_AND_ENTROPY: &str = r#"if [ -x /usr/bin/perl ]; then
    /usr/bin/perl -e 'my ($s, $n, $hex) = split " ", <STDIN>; my $d = pack("H*", $hex); my $f;
        my $call = `uname -m` =~ /^x86_64/ ? 227 : 112;
        syscall($call, 0, pack("q q", $s, $n)) == 0 or die "clock_settime: $!";
        open($f, "+<", "/dev/urandom") or die "/dev/urandom: $!";
        ioctl($f, 0x40085203, pack("ii", 8 * length $d, length $d) . $d) or die "RNDADDENTROPY: $!";
        ioctl($f, 0x5207, 0) or die "RNDRESEEDCRNG: $!";
        if (-e "/var/lib/systemd/random-seed") {
            sysread($f, my $seed, 512) == 512 or die "/dev/urandom: $!";
            open(my $to, ">", "/var/lib/systemd/random-seed") or die "random-seed: $!";
            print {$to} $seed;
        }' << END
$seconds $nanos $entropy
END
else
    date -u -s "@$seconds" > /dev/null
    printf '%s' "$entropy" > /dev/urandom
    if [ -e /var/lib/systemd/random-seed ]; then head -c 512 /dev/urandom > /var/lib/systemd/random-seed; fi
fi
"#;

/// D-Bus has a copy where it is no symbolic link.
const MACHINE_ID: &str = r#"printf '%s\n' "$id" > /etc/machine-id
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    printf '%s\n' "$id" > /var/lib/dbus/machine-id
fi
"#;

/// The template's name is replaced where cloud-init wrote it.
const HOSTNAME: &str = r#"printf '%s\n' "$name" > /proc/sys/kernel/hostname
printf '%s\n' "$name" > /etc/hostname
hosts=
while IFS= read -r line || [ -n "$line" ]; do
    while :; do
        case $line in
            *devbox-template*) hosts=$hosts${line%%devbox-template*}$name line=${line#*devbox-template} ;;
            *) break ;;
        esac
    done
    hosts="$hosts$line
"
done < /etc/hosts
printf '%s' "$hosts" > /etc/hosts
"#;

/// The server keeps its host keys in memory. SIGHUP makes it start itself anew (sshd(8)), which is
/// faster than a restart of its unit. One that a socket starts reads them for each connection; that
/// the new key is the one that is shown, the login proves.
const RESTART_SSH: &str = r#"pid=
if [ -s /run/sshd.pid ]; then read -r pid < /run/sshd.pid; fi
if [ -z "$pid" ] || ! kill -HUP "$pid"; then
    if command -v systemctl > /dev/null; then
        for unit in ssh sshd; do systemctl try-restart "$unit.service" >&2 || :; done
    elif command -v rc-service > /dev/null; then
        rc-service sshd restart >&2
    fi
fi
"#;

/// The journal's folder is named by the machine id; nobody waits for its restart.
const JOURNAL: &str = r#"if [ -d /run/systemd/journal ]; then
    (sleep 2; systemctl restart systemd-journald.service) > /dev/null 2>&1 < /dev/null &
fi
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn example() -> String {
        let host_key = KeyPair::generate("web host key").expect("a key");
        let identity = Identity {
            hostname: "web",
            host_key: &host_key,
            access: Some(Access {
                home: "/home/dev",
                authorized_key: "ssh-ed25519 AAAA devbox web",
            }),
        };
        let now = jiff::Timestamp::from_second(1_700_000_000).expect("a time");
        script(&identity, &"0123456789abcdef".repeat(2), &[7; 64], now)
    }

    #[test]
    fn the_script_is_one_that_a_shell_reads_to_its_end() {
        let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().expect("sh");
        sh.stdin.take().expect("a pipe").write_all(example().as_bytes()).expect("written");
        assert!(sh.wait().expect("it ends").success());
    }

    #[test]
    fn random_state_comes_before_what_could_use_it() {
        let text = example();
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no `{what}` in {text}"));
        assert!(at("RNDADDENTROPY") < at("/etc/machine-id"));
        assert!(at("PRIVATE KEY") < at("kill -HUP"));
        assert!(text.contains("seconds=1700000000\nnanos=0\n"), "{text}");
        assert!(text.ends_with("printf '%s\\n' \"$id\"\n"), "{text}");
    }

    #[test]
    fn where_nobody_logs_in_a_host_key_is_replaced_and_none_is_made() {
        let host_key = KeyPair::generate("web").expect("a key");
        let identity = Identity { hostname: "web", host_key: &host_key, access: None };
        let now = jiff::Timestamp::from_second(1_700_000_000).expect("a time");
        let text = script(&identity, &"0123456789abcdef".repeat(2), &[7; 64], now);
        assert!(!text.contains("authorized_keys"), "{text}");
        let at = text.find("if [ -e /etc/ssh/").expect("a question");
        let part = &text[at..text.find("if [ -d /run/systemd/journal").expect("what follows")];
        let dir = tempfile::tempdir().expect("dir");
        let place = dir.path().display().to_string();
        let part =
            part.replace("/etc/ssh/", &format!("{place}/")).replace("/run/sshd.pid", "/nothing");
        // No server of this host is started anew.
        let part = part.replace("command -v", "false");
        let run = || {
            let status = Command::new("sh").arg("-euc").arg(&part).status();
            assert!(status.expect("sh runs").success(), "{part}");
        };
        run();
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
        std::fs::write(dir.path().join("ssh_host_ed25519_key"), "the template's").expect("written");
        run();
        let now = std::fs::read_to_string(dir.path().join("ssh_host_ed25519_key")).expect("there");
        assert!(now.contains("PRIVATE KEY"), "{now}");
    }

    #[test]
    fn the_name_is_replaced_wherever_it_stands_in_the_hosts_file_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("dir");
        let hosts = dir.path().join("hosts");
        let old =
            "127.0.1.1\tdevbox-template.localdomain devbox-template\n\n# \\a  b\n::1 localhost";
        for name in ["web", TEMPLATE_NAME] {
            std::fs::write(&hosts, old).expect("written");
            let script = HOSTNAME
                .replace("/etc/hosts", &hosts.display().to_string())
                .replace("/proc/sys/kernel/hostname", "/dev/null")
                .replace("/etc/hostname", &dir.path().join("hostname").display().to_string());
            let status =
                Command::new("sh").arg("-euc").arg(format!("name={name}\n{script}")).status();
            assert!(status.expect("sh runs").success());
            let new = std::fs::read_to_string(&hosts).expect("there");
            assert_eq!(new, old.replace(TEMPLATE_NAME, name) + "\n");
        }
        let name = std::fs::read_to_string(dir.path().join("hostname")).expect("there");
        assert_eq!(name, "devbox-template\n");
    }
}
