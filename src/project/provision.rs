//! `[[provision]]`: what is done in a machine when it comes up.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::exec::quote;
use crate::guest::ssh::{Client, Remote};
use crate::guest::work::{Work, as_root};
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::project::Run;
use crate::spec::{Provision, RunRule, Script, Spec};

/// For putting a script into the guest and removing it.
const SMALL: Duration = Duration::from_secs(120);

/// What of the spec's is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// What its `run` says: `once` where it was not done, `on-change` where it changed, `always`.
    #[default]
    Due,
    /// Nothing.
    Nothing,
    /// All of it, done before or not.
    All,
    /// Those of these names, done before or not.
    Named(Vec<String>),
}

impl Which {
    /// Fails unless the spec has all that are named.
    ///
    /// # Errors
    /// It has none of that name (kind `Usage`).
    pub fn check(&self, spec: &Spec) -> Result<()> {
        let Which::Named(names) = self else { return Ok(()) };
        for name in names {
            if spec.provision.iter().all(|p| p.name != *name) {
                let known: Vec<String> =
                    spec.provision.iter().map(|p| format!("`{}`", p.name)).collect();
                let error = Error::usage(format!("the spec has no provision `{name}`"));
                return Err(match known.is_empty() {
                    true => error.hint("Add `[[provision]]` to devbox.toml."),
                    false => error.hint(format!("Name one of {}.", known.join(", "))),
                });
            }
        }
        Ok(())
    }

    fn wants(&self, one: &Provision, done: Option<&String>, digest: &str) -> bool {
        match self {
            Which::Nothing => false,
            Which::All => true,
            Which::Named(names) => names.contains(&one.name),
            Which::Due => match one.run {
                RunRule::Once => done.is_none(),
                RunRule::OnChange => done.is_none_or(|done| done != digest),
                RunRule::Always => true,
            },
        }
    }
}

/// Does what is to be done in one machine, in the order of the spec, and records each that ended well. The
/// machine's lock is held, and a login works.
///
/// # Errors
/// A script cannot be read, failed, or took too long; what comes after it is not done.
pub(super) async fn provision(
    spec: &Spec,
    instance: &Instance,
    record: &mut Record,
    which: &Which,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    for one in &spec.provision {
        let here = one.machines.as_ref().is_none_or(|names| names.contains(&record.name));
        let text = text_of(&one.script)?;
        let digest = digest(one, &text);
        if !here || !which.wants(one, record.provisioned.get(&one.name), &digest) {
            continue;
        }
        let client = instance.client(record)?;
        let start = Instant::now();
        let title = format!("provision `{}`", one.name);
        events.phase(format!("Running {title}"));
        let (title, env, timeout) = (title.as_str(), &one.env, one.timeout);
        let script = GuestScript { title, text, env, privileged: one.privileged, timeout };
        script.run(&client, run, events).await?;
        record.provisioned.insert(one.name.clone(), digest);
        instance.save(record)?;
        events.done(format!("{title} done"), start.elapsed());
    }
    Ok(())
}

/// A script's text.
pub(super) fn text_of(script: &Script) -> Result<Vec<u8>> {
    Ok(match script {
        Script::Inline(text) => text.clone().into_bytes(),
        Script::File(path) => fs::read(path)?,
    })
}

/// Of all that decides what a script does; its file's name does not.
fn digest(one: &Provision, text: &[u8]) -> String {
    let env = serde_json::to_vec(&one.env).unwrap_or_default();
    let head = [u8::from(one.privileged)];
    hex(&sha256(&[&head[..], &sha256(&env), text].concat()))
}

/// A script for a guest.
#[derive(Debug)]
pub(super) struct GuestScript<'a> {
    /// In messages.
    pub(super) title: &'a str,
    /// Its text.
    pub(super) text: Vec<u8>,
    /// Environment variables; names are shell names.
    pub(super) env: &'a BTreeMap<String, String>,
    /// As root; else as the machine's account, in its home.
    pub(super) privileged: bool,
    /// How long it may take.
    pub(super) timeout: Duration,
}

impl GuestScript<'_> {
    /// Puts it into the guest, runs it there and removes it.
    pub(super) async fn run(self, client: &Client, run: Run<'_>, events: &Events) -> Result<()> {
        let work = Work { title: self.title, client, events, cancel: run.cancel };
        // A name that nobody in the guest can guess, and a new file.
        let file = format!("/tmp/.devbox-{}", hex(&crate::host::random::<8>()?));
        let put = format!("set -euC; umask 077; cat > {file}; chmod 0700 {file}");
        let command = self.command(&file);
        let timeout = self.timeout;
        work.execute(Remote::new(put).stdin(self.text), SMALL).await?;
        let ended = work.execute(Remote::new(command), timeout).await;
        // Also after a failure; what ended it is what counts.
        let _ = work.execute(Remote::new(format!("rm -f {file}")), SMALL).await;
        ended.map(|_| ())
    }

    /// The line that runs the script in `file`, by its first line if that names a program.
    fn command(&self, file: &str) -> String {
        let mut words = String::new();
        for (name, value) in self.env {
            words.push_str(&format!("{name}={} ", quote(OsStr::new(value))));
        }
        let has_interpreter = self.text.starts_with(b"#!");
        let run = if has_interpreter { file.to_owned() } else { format!("sh -eu {file}") };
        if self.privileged {
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            let fixed = format!("HOME=/root PATH={path} DEBIAN_FRONTEND=noninteractive ");
            return as_root(&format!(
                "cd / && umask 022 && exec env {fixed}{words}{run} < /dev/null"
            ));
        }
        format!("cd && exec env {words}{run} < /dev/null")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(run: RunRule) -> Provision {
        Provision {
            name: "db".to_owned(),
            run,
            script: Script::Inline("true".to_owned()),
            env: BTreeMap::new(),
            privileged: true,
            timeout: SMALL,
            machines: None,
        }
    }

    #[test]
    fn what_is_due_follows_from_what_was_done() {
        let (same, other) = ("same".to_owned(), "other".to_owned());
        for (rule, never, unchanged, changed) in [
            (RunRule::Once, true, false, false),
            (RunRule::OnChange, true, false, true),
            (RunRule::Always, true, true, true),
        ] {
            let wants = |done| Which::Due.wants(&one(rule), done, "same");
            let found = (wants(None), wants(Some(&same)), wants(Some(&other)));
            assert_eq!(found, (never, unchanged, changed), "{rule:?}");
        }
        let named = |name: &str| Which::Named(vec![name.to_owned()]);
        assert!(named("db").wants(&one(RunRule::Once), Some(&same), "same"));
        assert!(!named("web").wants(&one(RunRule::Always), None, "same"));
        assert!(!Which::Nothing.wants(&one(RunRule::Always), None, "same"));
    }

    #[test]
    fn another_script_variable_or_account_is_a_change() {
        let base = one(RunRule::OnChange);
        let mut env = base.clone();
        env.env.insert("A".to_owned(), "b".to_owned());
        let account = Provision { privileged: false, ..base.clone() };
        let all =
            [digest(&base, b"x"), digest(&base, b"y"), digest(&env, b"x"), digest(&account, b"x")];
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(digest(&base, b"x"), digest(&base.clone(), b"x"));
    }
}
