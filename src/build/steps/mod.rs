//! Runs one of the spec's steps in the guest: what all kinds of steps share. Each
//! kind is a file of its own.

mod ansible;
mod chef;
mod converged;
mod environment;
mod file;
mod host;
mod images;
mod puppet;
mod salt;
pub(super) mod secrets;
mod shell;
mod template;
mod test;
mod tree;

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::guest::Guest;
use super::mirror::{self, Loan};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::tools;
use crate::guest::ssh::{Ended, Remote, Stream};
use crate::guest::work::{LAST_LINES, Work, as_root};
use crate::spec::{Action, Step};
use secrets::Secrets;

/// For the engine's own small commands in the guest, on a busy host.
const SMALL: Duration = Duration::from_secs(120);

/// What can go wrong before anything boots: a tool of the host that a step needs, a template, a
/// secret. Gives the secrets.
///
/// # Errors
/// The tool is missing, the template cannot be filled in, the secret cannot be read.
pub(super) fn prepare(steps: &[Step]) -> Result<Secrets> {
    for step in steps {
        let ready = match &step.action {
            Action::Ansible(ansible) if !ansible.in_guest => tools::ANSIBLE.find().map(drop),
            Action::Template(template) => {
                template::render(&template.source, &template.vars).map(drop)
            }
            _ => Ok(()),
        };
        ready.map_err(|e| e.context(format!("{} cannot run", title(step))))?;
    }
    Secrets::read(steps)
}

/// Runs a step. No value of a secret is told to anybody, whatever the step prints.
///
/// # Errors
/// It failed or took longer than its timeout: the message has its name, its last lines and the path of the serial log.
pub(super) async fn run(
    step: &Step,
    epoch: i64,
    loans: &[Loan],
    secrets: &Secrets,
    guest: &Guest,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<()> {
    let events = &secrets.masked(events);
    let title = title(step);
    let start = Instant::now();
    events.phase(format!("Running {title}"));
    let work = Running { step, title: &title, epoch, secrets, guest, events, cancel, start };
    let ran = async {
        // Around each step: what a step adds to the sources is put back like the rest.
        if !loans.is_empty() {
            work.ask(&mirror::lend(loans)).await?;
        }
        work.tries().await?;
        if !loans.is_empty() {
            work.ask(&mirror::take_back(loans)).await?;
        }
        Ok(())
    };
    let ended: Result<()> = ran.await;
    // The log stays after a failure, of this step or of what follows, and the guest may have been told anything.
    secrets.scrub(guest.serial_log())?;
    if let Err(e) = ended {
        let e = e.detail(format!("serial log: {}", guest.serial_log().display()));
        return Err(e.with_texts(|text| secrets.hide(text)));
    }
    events.done(format!("{title} done"), start.elapsed());
    Ok(())
}

/// `step 2 install`; just `step 2` where the spec gives no name.
pub(super) fn title(step: &Step) -> String {
    let numbered = format!("step {}", step.number);
    if step.name == numbered { numbered } else { format!("{numbered} {}", step.name) }
}

#[derive(Clone, Copy)]
struct Running<'a> {
    step: &'a Step,
    title: &'a str,
    epoch: i64,
    secrets: &'a Secrets,
    guest: &'a Guest,
    events: &'a Events,
    cancel: &'a CancellationToken,
    /// When this try began.
    start: Instant,
}

impl Running<'_> {
    /// Runs the step, and again as often as the spec says when it fails.
    async fn tries(&self) -> Result<()> {
        let all = self.step.retries + 1;
        for n in 1.. {
            match (Running { start: Instant::now(), ..*self }).run().await {
                Err(e) if n < all && e.kind() != Kind::Interrupted => {
                    let pause = self.step.pause;
                    self.events.warn(format!(
                        "{}; try {} of {all} follows in {} s",
                        e.what(),
                        n + 1,
                        pause.as_secs()
                    ));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.cancel.cancelled() => return Err(self.interrupted()),
                    }
                }
                Err(e) if n > 1 => return Err(e.detail(format!("it was tried {n} times"))),
                ended => return ended,
            }
        }
        Ok(())
    }

    async fn run(&self) -> Result<()> {
        match &self.step.action {
            Action::Shell { script } => self.shell(script).await,
            Action::File { source, target, mode, owner } => {
                self.put(source, target, *mode, owner).await
            }
            Action::Template(template) => self.template(template).await,
            Action::Ansible(ansible) => self.ansible(ansible).await,
            Action::Puppet(puppet) => self.puppet(puppet).await,
            Action::Chef(chef) => self.chef(chef).await,
            Action::Salt(salt) => self.salt(salt).await,
            Action::Images(images) => self.images(images).await,
            Action::Test(checks) => self.test(checks).await,
        }
    }

    fn interrupted(&self) -> Error {
        Error::interrupted(format!("interrupted while {} ran", self.title))
    }

    /// A failure of this step.
    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::failed(format!("{} failed: {why}", self.title))
    }

    /// Runs a shell line as root in the guest, in `dir`, with the step's environment and secrets,
    /// and with `more`. Returns its last lines.
    async fn in_guest(
        &self,
        dir: &str,
        line: &str,
        more: &[(&str, String)],
    ) -> Result<Vec<String>> {
        let command = environment::command(dir, line, self.epoch);
        let remote = Remote::new(command).stdin(self.exports(more));
        self.timed(remote).await
    }

    /// How much of the step's timeout is left in this try: it holds for all that a try runs together.
    fn left(&self) -> Duration {
        self.step.timeout.saturating_sub(self.start.elapsed())
    }

    fn exports(&self, more: &[(&str, String)]) -> Vec<u8> {
        let own = self.step.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let more = more.iter().map(|(name, value)| (*name, value.as_str()));
        environment::exports(more.chain(own).chain(self.secrets.of(self.step)))
    }

    /// The first of these programs that the guest has.
    async fn program(&self, names: &[&'static str], hint: &str) -> Result<&'static str> {
        let line = format!(
            "PATH={}; for p in {}; do command -v $p > /dev/null && {{ echo $p; break; }}; done; :",
            environment::PATH,
            names.join(" ")
        );
        let found = self.ask(&line).await?;
        let found = found.first().map(String::as_str);
        names.iter().find(|name| found == Some(**name)).copied().ok_or_else(|| {
            self.failed(format!("the guest has no `{}`", names.join("` and no `"))).hint(hint)
        })
    }

    /// Runs a command; its lines are events, its failure is the step's.
    async fn execute(&self, remote: Remote, timeout: Duration) -> Result<Vec<String>> {
        self.work().execute(remote, timeout).await
    }

    /// The same for the step's own work, as long as its timeout lets it.
    async fn timed(&self, remote: Remote) -> Result<Vec<String>> {
        self.work().execute_within(remote, self.left(), self.step.timeout).await
    }

    fn work(&self) -> Work<'_> {
        let Running { title, events, cancel, .. } = *self;
        Work { title, client: &self.guest.client, events, cancel }
    }

    /// Runs a command whose output is not the step's; returns its lines.
    async fn ask(&self, script: &str) -> Result<Vec<String>> {
        let mut out = vec![];
        let mut last = vec![];
        let on_line = |stream: Stream, line: &str| match stream {
            Stream::Out => out.push(line.to_owned()),
            Stream::Err => last.push(line.to_owned()),
        };
        let remote = Remote::new(as_root(script));
        match self.guest.client.run(remote, on_line, SMALL, self.cancel).await? {
            Ended::Code(0) => Ok(out),
            Ended::Cancelled => Err(self.interrupted()),
            _ => {
                let mut error = Error::failed(format!("{} failed", self.title));
                for line in last.iter().rev().take(LAST_LINES).rev() {
                    error = error.detail(format!("  | {line}"));
                }
                Err(error)
            }
        }
    }
}
