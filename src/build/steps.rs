//! Runs the spec's steps in the guest, in order.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::files;
use super::guest::Guest;
use super::mirror::{self, Loan};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::quote;
use crate::guest::ssh::{Ended, Remote, Stream};
use crate::guest::work::{LAST_LINES, Work, as_root};
use crate::spec::{Action, Script, Step};

/// For the engine's own small commands in the guest, on a busy host.
const SMALL: Duration = Duration::from_secs(120);
/// Where a step's script lies in the guest; the seal empties the folder. Of the folders for
/// temporary files the one that every image has.
const SCRIPT: &str = "/tmp/.devbox-step";

/// Runs all steps.
///
/// # Errors
/// A step failed or took longer than its timeout: the message has its name, its last lines and the
/// path of the serial log.
pub(super) async fn run(
    steps: &[Step],
    epoch: i64,
    loans: &[Loan],
    guest: &Guest,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<()> {
    for (n, step) in steps.iter().enumerate() {
        let title = title(n, step);
        let start = Instant::now();
        events.phase(format!("Running {title}"));
        let work = Running { step, title: &title, epoch, guest, events, cancel };
        let ran = async {
            // Around each step: what a step adds to the sources is put back like the rest.
            if !loans.is_empty() {
                work.ask(&mirror::lend(loans)).await?;
            }
            work.run().await?;
            if !loans.is_empty() {
                work.ask(&mirror::take_back(loans)).await?;
            }
            Ok(())
        };
        ran.await.map_err(|e: Error| {
            e.detail(format!("serial log: {}", guest.serial_log().display()))
        })?;
        events.done(format!("{title} done"), start.elapsed());
    }
    Ok(())
}

/// `step 2 install`; just `step 2` where the spec gives no name.
fn title(n: usize, step: &Step) -> String {
    let numbered = format!("step {}", n + 1);
    if step.name == numbered { numbered } else { format!("{numbered} {}", step.name) }
}

struct Running<'a> {
    step: &'a Step,
    title: &'a str,
    epoch: i64,
    guest: &'a Guest,
    events: &'a Events,
    cancel: &'a CancellationToken,
}

impl Running<'_> {
    async fn run(&self) -> Result<()> {
        match &self.step.action {
            Action::Shell { script, env } => {
                let text = match script {
                    Script::Inline(text) => text.clone().into_bytes(),
                    Script::File(path) => fs::read(path)?,
                };
                let command = shell(&text, env.iter(), self.epoch);
                let put = format!(
                    "set -euC; umask 077; rm -f {SCRIPT}; cat > {SCRIPT}; chmod 0700 {SCRIPT}"
                );
                self.execute(Remote::new(as_root(&put)).stdin(text), SMALL).await?;
                self.execute(Remote::new(command), self.step.timeout).await?;
                self.execute(Remote::new(as_root(&format!("rm -f {SCRIPT}"))), SMALL).await?;
                Ok(())
            }
            Action::File { source, target, mode, owner } => {
                let ids = self.ids(owner).await?;
                if fs::metadata(source)?.is_dir() {
                    self.folder(source, target, *mode, ids).await
                } else {
                    self.file(source, target, *mode, ids).await
                }
            }
        }
    }

    /// Runs a command; its lines are events, its failure is the step's.
    async fn execute(&self, remote: Remote, timeout: Duration) -> Result<Vec<String>> {
        let Running { title, events, cancel, .. } = *self;
        Work { title, client: &self.guest.client, events, cancel }.execute(remote, timeout).await
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
            Ended::Cancelled => {
                Err(Error::interrupted(format!("interrupted while {} ran", self.title)))
            }
            _ => {
                let mut error = Error::failed(format!("{} failed", self.title));
                for line in last.iter().rev().take(LAST_LINES).rev() {
                    error = error.detail(format!("  | {line}"));
                }
                Err(error)
            }
        }
    }

    /// The numbers of an owner in the guest: names are the guest's own.
    async fn ids(&self, owner: &str) -> Result<files::Ids> {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let script = format!(
            "u={}; g={}; \
             case $u in *[!0-9]*) id -u \"$u\" ;; *) echo \"$u\" ;; esac; \
             case $g in \
             '') case $u in *[!0-9]*) id -g \"$u\" ;; *) echo \"$u\" ;; esac ;; \
             *[!0-9]*) grep \"^$g:\" /etc/group | cut -d: -f3 ;; \
             *) echo \"$g\" ;; esac",
            quote(OsStr::new(user)),
            quote(OsStr::new(group)),
        );
        let lines = self.ask(&script).await?;
        match lines.iter().map(|l| l.trim().parse()).collect::<Result<Vec<u32>, _>>().as_deref() {
            Ok([uid, gid]) => Ok(files::Ids { uid: *uid, gid: *gid }),
            _ => Err(Error::failed(format!(
                "{} failed: the guest knows no `{owner}`",
                self.title
            ))
            .hint("Make the account in an earlier step, or give `owner` as numbers (`1000:1000`).")),
        }
    }

    async fn file(
        &self,
        source: &Path,
        target: &str,
        mode: Option<u32>,
        ids: files::Ids,
    ) -> Result<()> {
        let target = files::target(source, target);
        let mode = files::mode(source, mode)?;
        let script = files::put_file(&target, mode, ids, self.epoch);
        let input = tokio::fs::File::open(source).await?;
        let mut remote = Remote::new(as_root(&script));
        remote.stdin = Some(Box::new(input));
        self.execute(remote, self.step.timeout).await?;
        self.events.note(format!("put `{}` to {target}", source.display()));
        Ok(())
    }

    async fn folder(
        &self,
        source: &Path,
        target: &str,
        mode: Option<u32>,
        ids: files::Ids,
    ) -> Result<()> {
        let mut tar = tokio::process::Command::from(files::tar(source, ids, self.epoch)?);
        let mut tar = tar
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::failed("cannot start `tar`").cause(e))?;
        let script = files::put_folder(target, mode, ids);
        let mut remote = Remote::new(as_root(&script));
        remote.stdin = tar.stdout.take().map(|out| Box::new(out) as _);
        let put = self.execute(remote, self.step.timeout).await;
        let out = tar.wait_with_output().await?;
        put?;
        if !out.status.success() {
            let mut error = Error::failed(format!("cannot read `{}`", source.display()));
            for line in crate::exec::last_lines(&out.stderr, 5) {
                error = error.cause(line);
            }
            return Err(error);
        }
        self.events.note(format!("put `{}` to {target}", source.display()));
        Ok(())
    }
}

/// The command that runs a step's script as root, in an environment that is the same everywhere
/// (PARITY: times, locale and time zone leak into what programs write).
fn shell<'a>(
    text: &[u8],
    env: impl Iterator<Item = (&'a String, &'a String)>,
    epoch: i64,
) -> String {
    let fixed = [
        ("HOME", "/root".to_owned()),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
        ("SOURCE_DATE_EPOCH", epoch.to_string()),
    ];
    let mut words = String::new();
    let own = env.map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fixed.iter().map(|(n, v)| (*n, v.as_str())).chain(own) {
        words.push_str(&format!("{name}={} ", quote(OsStr::new(value))));
    }
    let run = if text.starts_with(b"#!") { SCRIPT.to_owned() } else { format!("sh -eu {SCRIPT}") };
    as_root(&format!("cd / && umask 022 && exec env -i {words}{run} < /dev/null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_by_its_first_line_or_by_sh() {
        let none = std::iter::empty();
        assert!(shell(b"#!/usr/bin/python3\n", none.clone(), 0).contains("/tmp/.devbox-step <"));
        assert!(shell(b"echo hi\n", none, 0).contains("sh -eu /tmp/.devbox-step <"));
    }

    #[test]
    fn the_environment_reaches_the_script_through_two_shells() {
        let name = "NAME".to_owned();
        let value = "it's $HOME \"quoted\"".to_owned();
        let command = shell(b"", std::iter::once((&name, &value)), 17)
            .replace("sudo -n ", "")
            .replace(&format!("sh -eu {SCRIPT}"), "env");
        let out = std::process::Command::new("sh").arg("-c").arg(command).output().expect("runs");
        let out = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.lines().any(|l| l == format!("NAME={value}")), "{out}");
        assert!(out.lines().any(|l| l == "SOURCE_DATE_EPOCH=17"), "{out}");
        assert!(!out.lines().any(|l| l.starts_with("USER=")), "{out}");
    }
}
