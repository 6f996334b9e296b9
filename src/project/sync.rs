//! Mounts of type `rsync`: the folder of the host is copied into the guest, by rsync over the machine's ssh.

mod watch;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::{group, quote, tools};
use crate::guest::folder::{self, Folder, FolderKind};
use crate::guest::ssh::Client;
use crate::machine::instance::{Instance, State, no_ssh};
use crate::machine::process::Process;
use crate::project::order::{self, Node};
use crate::project::{Project, Run, folders};
use crate::spec::{self, Spec};
use watch::Watch;

/// Changes come in bursts (a checkout, a build): a copy waits until none came for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Names that a copy tells; further ones are counted.
const NAMES: usize = 8;

/// Copies the folders of the spec into machines that run; with `watch`, again whenever something
/// changes in them, until Ctrl-C.
///
/// # Errors
/// A machine does not run, or rsync failed; the others go on. Watching ends with kind `Interrupted`
/// after Ctrl-C, and fails when a machine stops.
pub async fn sync(
    project: &Project,
    spec: &Spec,
    names: &[&str],
    watch: bool,
    run: Run<'_>,
) -> Result<()> {
    let several = names.len() > 1;
    let mut nodes = vec![];
    for name in names {
        let copied: Vec<Folder> = copies(spec, name);
        if !copied.is_empty() {
            let instance = Instance::of_project(run.paths, name, project.dir())?;
            let item = (instance, copied);
            nodes.push(Node { name: (*name).to_owned(), after: vec![], item });
        }
    }
    if nodes.is_empty() {
        let named = |machine: &&spec::Machine| names.contains(&machine.name.as_str());
        let mut named = spec.machines.iter().filter(named);
        // Where others are meant too, it is one of them that has nothing to copy.
        if let Some(first) = named.next()
            && first.login == spec::Login::Agent
            && named.all(|machine| machine.login == spec::Login::Agent)
        {
            return Err(no_ssh(&first.name));
        }
        run.events.note("the spec has no `[[mounts]]` of `type = \"rsync\"` for these machines");
        return Ok(());
    }
    let ends = order::run(nodes, async |name, (instance, copied): (Instance, Vec<Folder>)| {
        let events = if several { run.events.part(name) } else { run.events.clone() };
        let record = instance.record()?;
        let running = record.and_then(|record| match instance.state(&record) {
            State::Running(process) => Some((record, process)),
            _ => None,
        });
        let Some((record, process)) = running else {
            return Err(Error::failed(format!("`{name}` does not run"))
                .hint(format!("Start it with `devbox up {name}`.")));
        };
        let client = instance.client(&record)?;
        // Before the copy: what changes meanwhile is copied again.
        let mut watched = watch.then(|| Watch::new(&sources(&copied))).transpose()?;
        if let Err(e) = copy_all(&client, &copied, run.cancel, &events).await {
            if e.kind() == Kind::Interrupted || !process.has_ended().await {
                return Err(e);
            }
            return Err(Error::failed(format!("`{name}` ended while its folders were copied"))
                .hint(format!("Start it with `devbox up {name}`, which copies them.")));
        }
        match &mut watched {
            Some(watched) => follow(&client, &copied, &process, watched, run, &events).await,
            None => Ok(()),
        }
    });
    order::together(ends.await, "not copied").map(|_| ())
}

/// The folders that the spec copies into a machine.
pub(super) fn copies(spec: &Spec, machine: &str) -> Vec<Folder> {
    let mut all = folders::of_spec(spec, machine);
    all.retain(|folder| folder.kind == FolderKind::Rsync);
    all
}

fn sources(copied: &[Folder]) -> Vec<PathBuf> {
    copied.iter().map(|folder| folder.source.clone()).collect()
}

/// Copies whenever something changes, until Ctrl-C or the machine's end.
async fn follow(
    client: &Client,
    copied: &[Folder],
    process: &Process,
    watched: &mut Watch,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let name = &client.target().name;
    let stopped = || Error::interrupted(format!("the folders of `{name}` are watched no more"));
    let ended = || {
        Error::failed(format!("`{name}` has stopped; its folders are watched no more"))
            .hint(format!("Start it with `devbox up {name}`, then watch again."))
    };
    events.note("watching for changes; end it with Ctrl-C");
    loop {
        tokio::select! {
            changed = watched.changed() => changed?,
            () = process.ended() => return Err(ended()),
            () = run.cancel.cancelled() => return Err(stopped()),
        }
        while let Ok(more) = tokio::time::timeout(QUIET, watched.changed()).await {
            more?;
        }
        match copy_all(client, copied, run.cancel, events).await {
            Err(_) if run.cancel.is_cancelled() => return Err(stopped()),
            Err(_) if process.has_ended().await => return Err(ended()),
            // A file that vanished while it was read, a disk that is full: the next change tries again.
            Err(e) => events.warn(e.what()),
            Ok(()) => {}
        }
    }
}

/// Copies each of them once.
///
/// # Errors
/// rsync is missing on a side, or failed.
pub(super) async fn copy_all(
    client: &Client,
    copied: &[Folder],
    cancel: &CancellationToken,
    events: &Events,
) -> Result<()> {
    for folder in copied {
        let start = Instant::now();
        folder::prepare_copy(client, folder, cancel).await?;
        let out = group::run(rsync(client, folder)?, |line| events.program("rsync", line), cancel);
        let out = out.await.map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            _ => e
                .context(format!("`{}` was not copied whole", folder.source.display()))
                .hint("Its own words are above; the next `devbox sync` goes on."),
        })?;
        let changed = Changed::of(&String::from_utf8_lossy(&out));
        if changed != Changed::default() {
            events.done(
                format!("{} to {}: {changed}", folder.source.display(), folder.target),
                start.elapsed(),
            );
        }
    }
    Ok(())
}

/// As the account, so that the copy is its own; what the host does not have goes from the guest too.
fn rsync(client: &Client, folder: &Folder) -> Result<Command> {
    let mut command = tools::RSYNC.command()?;
    command.args(["--recursive", "--links", "--perms", "--times", "--delete", "--compress"]);
    // Not who owns it: the ids of the host mean nothing in the guest.
    command.arg("--out-format=%o %n");
    command.args(folder.exclude.iter().map(|pattern| format!("--exclude={pattern}")));
    let mut ssh = OsStr::new("ssh -T -o BatchMode=yes -F ").to_owned();
    ssh.push(quote(client.config_path().as_os_str()));
    command.arg("-e").arg(ssh);
    let mut source = folder.source.clone().into_os_string();
    // The content and not the folder itself.
    source.push("/");
    // rsync hands the name to a shell only where it has no other way; `-s` keeps it from that.
    command.arg("-s").arg("--").arg(source);
    command.arg(format!("{}:{}/", client.target().name, folder.target));
    Ok(command)
}

/// What a copy changed in the guest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    sent: usize,
    deleted: usize,
    names: Vec<String>,
}

impl Changed {
    /// From lines `send NAME` and `del. NAME`; folders end with a slash, and change with what is in them.
    fn of(out: &str) -> Self {
        let mut changed = Changed::default();
        for line in out.lines() {
            let name = match line.split_once(' ') {
                Some(("send", name)) if !name.ends_with('/') => {
                    changed.sent += 1;
                    name.to_owned()
                }
                Some(("del.", name)) => {
                    changed.deleted += 1;
                    format!("-{name}")
                }
                _ => continue,
            };
            if changed.names.len() < NAMES {
                changed.names.push(name);
            }
        }
        changed
    }
}

/// `2 sent, 1 deleted (a, b, -c)`.
impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.sent + self.deleted > self.names.len() { ", …" } else { "" };
        write!(f, "{} sent", self.sent)?;
        if self.deleted > 0 {
            write!(f, ", {} deleted", self.deleted)?;
        }
        write!(f, " ({}{more})", self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rsync_did_becomes_one_line() {
        let out = "send a\nsend dir/\nsend dir/b c\ndel. old\nnoise\n";
        assert_eq!(Changed::of(out).to_string(), "2 sent, 1 deleted (a, dir/b c, -old)");
        assert_eq!(Changed::of("send ./\n"), Changed::default());
        let many: String = (0..20).map(|n| format!("send {n}\n")).collect();
        assert_eq!(Changed::of(&many).to_string(), "20 sent (0, 1, 2, 3, 4, 5, 6, 7, …)");
    }
}
