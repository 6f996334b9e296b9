//! `[[hooks]]`: scripts before and after what is done with a machine, on the host or in its guest.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::group;
use crate::machine::instance::{Instance, State};
use crate::project::Run;
use crate::project::provision::{GuestScript, text_of};
use crate::spec::{Hook, Spec};

/// Runs the hooks of this moment (`before-up`, …) for one machine, in the order of the spec.
///
/// # Errors
/// One failed whose failure counts.
pub(super) async fn hooks(
    when: &str,
    instance: &Instance,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let Some(spec) = run.spec else { return Ok(()) };
    let name = instance.name();
    let here = |hook: &&Hook| {
        let chosen = hook.machines.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
        hook.when == when && chosen
    };
    for hook in spec.hooks.iter().filter(here) {
        let done = match hook.in_guest {
            true => in_guest(hook, instance, run, events).await,
            false => on_host(hook, spec, name, run, events).await,
        };
        match done {
            Err(e) if !hook.stops && e.kind() != Kind::Interrupted => {
                events
                    .warn(format!("the hook `{when}` of `{name}` failed: {}; going on", e.what()));
            }
            done => done.map_err(|e| match e.kind() {
                Kind::Interrupted => e,
                _ => e
                    .context(format!("the hook `{when}` of `{name}` failed"))
                    .hint("Correct it in devbox.toml, or give it `on_error = \"continue\"`."),
            })?,
        }
    }
    Ok(())
}

async fn in_guest(hook: &Hook, instance: &Instance, run: Run<'_>, events: &Events) -> Result<()> {
    let Some(record) = instance.record()? else { return Ok(()) };
    if !matches!(instance.state(&record), State::Running(_)) {
        events.note(format!("the hook `{}` is left out: the guest does not run", hook.when));
        return Ok(());
    }
    let client = instance.client(&record)?;
    let mut env = hook.env.clone();
    env.insert("DEVBOX_MACHINE".to_owned(), record.name.clone());
    env.insert("DEVBOX_WHEN".to_owned(), hook.when.clone());
    let title = format!("hook `{}`", hook.when);
    let (title, text, timeout) = (title.as_str(), text_of(&hook.script)?, hook.timeout);
    let script = GuestScript { title, text, env: &env, privileged: true, timeout };
    script.run(&client, run, events).await
}

/// In the folder of the spec, with the environment that devbox has.
async fn on_host(
    hook: &Hook,
    spec: &Spec,
    machine: &str,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let text = text_of(&hook.script)?;
    let file = tempfile::Builder::new().prefix("devbox-hook-").tempfile()?;
    std::fs::write(file.path(), &text)?;
    // Closed, since a file that is open for writing cannot be run (execve(2), ETXTBSY).
    let file = file.into_temp_path();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700))?;
    let mut command = Command::new("sh");
    // Both outputs as one, in their order.
    command.args(["-c", "exec \"$@\" >&2", "sh"]);
    if !text.starts_with(b"#!") {
        command.args(["sh", "-eu"]);
    }
    command.arg(&file);
    command.current_dir(&spec.dir).stdin(Stdio::null()).envs(&hook.env);
    command.env("DEVBOX_MACHINE", machine).env("DEVBOX_WHEN", &hook.when);
    let title = format!("hook `{}`", hook.when);
    // Ends with the whole, and earlier when its time is over.
    let stop: CancellationToken = run.cancel.child_token();
    let work = group::run(command, |line| events.output(&title, line), &stop);
    tokio::pin!(work);
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = tokio::time::sleep(hook.timeout) => {
            stop.cancel();
            let _ = work.await;
            let seconds = hook.timeout.as_secs();
            return Err(Error::failed(format!("{title} took longer than {seconds} s and was stopped"))
                .hint("Give it a longer `timeout`."));
        }
    };
    ended.map(|_| ())
}
