//! Waits as data: an ordered list of probes, one loop, one deadline, racing the death of QEMU.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::guest::agent::{self, Agent};
use crate::guest::ssh::{Client, Ended, Remote, Stream};

/// Between two tries of a probe.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two logins: each costs an emulated guest a handshake.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);
/// For one try of the banner: QEMU's NAT accepts at once and then says nothing until the guest does.
const BANNER_WAIT: Duration = Duration::from_secs(3);
/// For one try of the guest agent, which answers in milliseconds once it runs.
const AGENT_WAIT: Duration = Duration::from_secs(2);
/// For one login: an emulated handshake takes 3 s, on a busy host ten times as long.
const LOGIN_WAIT: Duration = Duration::from_secs(60);
/// Where cloud-init says that its last stage is over (cloud-init's documentation, "Status").
const CLOUD_INIT_RESULT: &str = "/run/cloud-init/result.json";

/// One thing that has to be true before the next one can be.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What is waited for, as a phase of the work (`the guest's kernel`).
    pub description: &'static str,
    /// How it is looked for.
    pub check: Check,
    /// What to do when it never comes; a full sentence.
    pub hint: &'static str,
}

/// How a probe looks.
#[derive(Debug, Clone)]
pub enum Check {
    /// The guest wrote something on its serial console.
    Serial,
    /// An ssh server sends its banner (`SSH-2.0`): a TCP connection alone proves nothing, since
    /// QEMU's NAT accepts it before the guest listens.
    Banner(Ipv4Addr, u16),
    /// A login works.
    Login(Client),
    /// The guest agent answers on this socket.
    Agent(PathBuf),
    /// The guest agent on this socket may run programs.
    AgentRuns(PathBuf),
    /// cloud-init has finished, or is not in the guest, or is disabled there.
    CloudInit(Client),
    /// The same, asked through the guest agent on this socket.
    AgentCloudInit(PathBuf),
}

/// What one try saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is true; what was seen.
    Ready(String),
    /// Not yet; what was seen instead.
    NotYet(String),
    /// It will not be, however long one waits; why.
    Never(String),
}

/// The probes of a guest with ssh, in their order: its banner, then a login.
#[must_use]
pub fn ssh_probes(client: &Client) -> [Probe; 2] {
    let target = client.target();
    [
        Probe {
            description: "the ssh server's banner",
            check: Check::Banner(target.host, target.port),
            hint: "The guest boots and no ssh server answers: read the serial log's end; a slow host needs a longer `--timeout`.",
        },
        Probe {
            description: "an ssh login",
            check: Check::Login(client.clone()),
            hint: "The ssh server answers and refuses the login: cloud-init may not have run. Look for its lines in the serial log.",
        },
    ]
}

/// The first probe of a guest that starts from its firmware.
#[must_use]
pub fn serial_probe() -> Probe {
    Probe {
        description: "the serial console",
        check: Check::Serial,
        hint: "Look at the screenshot: the firmware may find nothing to boot. Is it a bootable image, for this `firmware`?",
    }
}

/// The guest agent, on the machine's socket for it.
#[must_use]
pub fn agent_probe(socket: &Path) -> Probe {
    Probe {
        description: "the guest agent",
        check: Check::Agent(socket.to_owned()),
        hint: "The guest runs and its agent does not answer: is `qemu-guest-agent` started in it?",
    }
}

/// The probes of a guest that is entered by its agent alone, in their order: it answers, and it may run programs.
#[must_use]
pub fn entered_by_agent(socket: &Path) -> [Probe; 2] {
    let runs = Probe {
        description: "a program run by the guest agent",
        check: Check::AgentRuns(socket.to_owned()),
        hint: "Allow `guest-exec` in the agent's configuration in the image (`/etc/qemu/qemu-ga.conf`, `/etc/sysconfig/qemu-ga`), or set `login = \"ssh\"`.",
    };
    [agent_probe(socket), runs]
}

/// The last probe of such a guest.
#[must_use]
pub fn agent_cloud_init_probe(socket: &Path) -> Probe {
    Probe {
        description: "cloud-init's end",
        check: Check::AgentCloudInit(socket.to_owned()),
        hint: "The guest can be used, its first-boot work goes on: see it with `devbox exec -- cat /var/log/cloud-init-output.log`.",
    }
}

/// The last probe of a machine that runs cloud-init.
#[must_use]
pub fn cloud_init_probe(client: &Client) -> Probe {
    Probe {
        description: "cloud-init's end",
        check: Check::CloudInit(client.clone()),
        hint: "The guest can be used, its first-boot work goes on: see /var/log/cloud-init-output.log with `devbox ssh`.",
    }
}

/// How a wait ended without being ready.
#[derive(Debug)]
pub(super) struct Unready {
    /// The probe that was not true.
    pub(super) probe: Probe,
    /// What that probe saw last.
    pub(super) last: String,
    /// What the probes before it saw, and when.
    pub(super) seen: Vec<String>,
}

/// Where a wait stands: kept outside the future, so that it can be told when the future is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    probes: Vec<Probe>,
    current: usize,
    last: String,
    seen: Vec<String>,
    start: Instant,
}

impl Progress {
    pub(super) fn new(probes: &[Probe]) -> Self {
        Progress {
            probes: probes.to_vec(),
            current: 0,
            last: "nothing".to_owned(),
            seen: vec![],
            start: Instant::now(),
        }
    }

    /// Goes through the probes; returns when all are true, or one never will be. `on_seen` hears of each.
    pub(super) async fn run(&mut self, serial_log: &Path, mut on_seen: impl FnMut(&str)) {
        while let Some(probe) = self.probes.get(self.current) {
            match look(&probe.check, serial_log).await {
                Sight::Ready(what) => {
                    on_seen(&what);
                    let at = self.start.elapsed().as_secs_f32();
                    self.seen.push(format!("{what} (after {at:.1} s)"));
                    self.current += 1;
                    "nothing".clone_into(&mut self.last);
                }
                Sight::Never(why) => {
                    self.last = why;
                    return;
                }
                Sight::NotYet(what) => {
                    self.last = what;
                    let asks = matches!(
                        probe.check,
                        Check::Login(_) | Check::CloudInit(_) | Check::AgentCloudInit(_)
                    );
                    tokio::time::sleep(if asks { LOGIN_PAUSE } else { PAUSE }).await;
                }
            }
        }
    }

    pub(super) fn unready(self) -> Option<Unready> {
        let probe = self.probes.get(self.current)?.clone();
        Some(Unready { probe, last: self.last, seen: self.seen })
    }
}

async fn look(check: &Check, serial_log: &Path) -> Sight {
    match check {
        Check::Serial => match std::fs::metadata(serial_log) {
            Ok(meta) if meta.len() > 0 => Sight::Ready("the serial console speaks".to_owned()),
            _ => Sight::NotYet("the serial console is silent".to_owned()),
        },
        Check::Banner(host, port) => banner(*host, *port).await,
        Check::Agent(socket) => match Agent::connect(socket, AGENT_WAIT).await {
            Ok(_) => Sight::Ready("the guest agent answers".to_owned()),
            Err(e) => Sight::NotYet(e.causes().last().map_or(e.what(), |c| c).to_owned()),
        },
        Check::Login(client) => login(client).await,
        Check::AgentRuns(socket) => agent_runs(socket).await,
        Check::CloudInit(client) => cloud_init(client).await,
        Check::AgentCloudInit(socket) => agent_cloud_init(socket).await,
    }
}

/// Whether programs can be run is the agent's configuration, which nobody changes while one waits.
async fn agent_runs(socket: &Path) -> Sight {
    let asked =
        async { Agent::connect(socket, AGENT_WAIT).await?.allows(agent::RUN, AGENT_WAIT).await };
    match asked.await {
        Ok(true) => Sight::Ready("the guest agent runs programs".to_owned()),
        Ok(false) => Sight::Never(format!("the guest agent does not allow `{}`", agent::RUN)),
        Err(e) => Sight::NotYet(e.causes().last().map_or(e.what(), |c| c).to_owned()),
    }
}

async fn banner(host: Ipv4Addr, port: u16) -> Sight {
    let read = async {
        let mut line = Vec::new();
        let stream = TcpStream::connect((host, port)).await?;
        // RFC 4253, section 4.2: a line of at most 255 bytes; lines before it are allowed and not sent
        // by any server that is met here.
        BufReader::new(stream).take(255).read_until(b'\n', &mut line).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&line).trim().to_owned())
    };
    match tokio::time::timeout(BANNER_WAIT, read).await {
        Ok(Ok(line)) if line.starts_with("SSH-2.0") => Sight::Ready(format!("ssh says `{line}`")),
        Ok(Ok(line)) if line.is_empty() => Sight::NotYet(
            "the forwarded port is closed again at once: nothing listens in the guest".to_owned(),
        ),
        Ok(Ok(line)) => Sight::NotYet(format!("port {port} says `{}`", line.escape_debug())),
        Ok(Err(e)) => Sight::NotYet(format!("port {port}: {e}")),
        Err(_) => Sight::NotYet(
            "the forwarded port is open and nobody speaks: the guest has no network yet".to_owned(),
        ),
    }
}

/// Runs a short command; its output, or what stood in the way.
async fn ask(client: &Client, command: &str) -> std::result::Result<(i32, String), String> {
    let mut out = String::new();
    let take = |stream: Stream, line: &str| {
        if stream == Stream::Out {
            out.push_str(line);
            out.push('\n');
        }
    };
    // A wait that is cancelled drops this future, and the ssh process with it.
    let never = CancellationToken::new();
    let ended: Result<Ended> = client.run(Remote::new(command), take, LOGIN_WAIT, &never).await;
    match ended {
        Ok(Ended::Code(code)) => Ok((code, out)),
        Ok(_) => Err(format!("no answer within {} s", LOGIN_WAIT.as_secs())),
        Err(e) => Err(e.details().last().map_or_else(|| e.what().to_owned(), Clone::clone)),
    }
}

async fn login(client: &Client) -> Sight {
    match ask(client, "true").await {
        Ok((0, _)) => Sight::Ready(format!("`{}` can log in", client.target().user)),
        Ok((code, _)) => Sight::NotYet(format!("`true` in the guest ended with {code}")),
        Err(why) if why.contains("Host key verification failed") => Sight::NotYet(
            "the guest shows another host key than the one of its seed: it has not read its seed"
                .to_owned(),
        ),
        Err(why) => Sight::NotYet(why),
    }
}

async fn cloud_init(client: &Client) -> Sight {
    // One session that waits inside the guest: less work for an emulated one than many sessions.
    let wait = format!(
        "n=0; while [ ! -e {CLOUD_INIT_RESULT} ]; do n=$((n+1)); [ $n -gt 80 ] && exit 8; sleep 0.25; done"
    );
    match ask(client, &cloud_init_script(&wait)).await {
        Ok((code, result)) => cloud_init_said(i64::from(code), &result),
        Err(why) => Sight::NotYet(why),
    }
}

/// A look and no wait: others talk to the agent too, one after the other.
async fn agent_cloud_init(socket: &Path) -> Sight {
    let script = cloud_init_script(&format!("[ -e {CLOUD_INIT_RESULT} ] || exit 8"));
    let asked = async {
        let mut agent = Agent::connect(socket, AGENT_WAIT).await?;
        agent.run("/bin/sh", &["-c", &script], b"", LOGIN_WAIT).await
    };
    match asked.await {
        Ok(ran) => cloud_init_said(ran.code, &String::from_utf8_lossy(&ran.out)),
        Err(e) => Sight::NotYet(e.causes().last().map_or(e.what(), |c| c).to_owned()),
    }
}

/// Prints cloud-init's result once `wait` has ended.
fn cloud_init_script(wait: &str) -> String {
    format!(
        "command -v cloud-init >/dev/null 2>&1 || exit 9; \
         [ ! -e /run/cloud-init/disabled ] || exit 9; {wait}; cat {CLOUD_INIT_RESULT}"
    )
}

fn cloud_init_said(code: i64, result: &str) -> Sight {
    match code {
        0 => Sight::Ready(match cloud_init_errors(result) {
            errors if errors.is_empty() => "cloud-init has finished".to_owned(),
            errors => format!("cloud-init has finished with errors: {}", errors.join("; ")),
        }),
        9 => Sight::Ready("the guest runs no cloud-init".to_owned()),
        _ => Sight::NotYet("cloud-init still works".to_owned()),
    }
}

/// The errors in cloud-init's `result.json`: `{"v1": {"errors": […]}}`.
fn cloud_init_errors(result: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
    let errors =
        value.pointer("/v1/errors").and_then(|e| e.as_array()).cloned().unwrap_or_default();
    errors.iter().map(|e| e.as_str().map_or_else(|| e.to_string(), str::to_owned)).collect()
}
