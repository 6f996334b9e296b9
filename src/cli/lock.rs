//! `devbox lock`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::build::{self, Keep, Options, Pinned};
use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::exec::sandbox::Policy;
use crate::lock::{self, Difference, FILE_NAME, Lock};
use crate::source::fetch::hash_file;
use crate::spec::{self, Location, Spec};
use crate::ui;

/// Write down in `devbox.lock` what the spec comes to now: digests, package versions, hosts, tools.
///
/// Makes what `devbox build` starts from and runs the steps that are not in its cache, since only that tells what they
/// bring; no box is made. `devbox build --locked` keeps to the lock.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The spec, or its folder; found from the current folder upwards if absent.
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Say whether the lock fits the spec and the files that it names, and change nothing.
    ///
    /// Uses no network. Ends with 1 if anything differs.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Find this anew and keep the rest: a package, `packages`, `source`, `hosts` or a step. May be given several times.
    #[arg(long, value_name = "NAME")]
    update: Vec<String>,
    /// Let `qemu-img` read disks with all your rights where this host cannot isolate it.
    #[arg(long)]
    allow_unsandboxed: bool,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let spec = spec::load(args.path.as_deref())?;
    if args.check {
        return check(&spec, ctx);
    }
    let loose: BTreeSet<String> = args.update.into_iter().collect();
    write(&spec, loose, Policy::from_flag(args.allow_unsandboxed), ctx)
}

/// Finds what is `loose` anew, or everything if nothing is, and writes it down.
pub(super) fn write(
    spec: &Spec,
    loose: BTreeSet<String>,
    sandbox: Policy,
    ctx: &Context,
) -> Result<u8> {
    let old = match (Lock::of(spec), loose.is_empty()) {
        (Ok(old), _) => old,
        (Err(e), false) => return Err(e),
        // It is made anew whatever it was.
        (Err(e), true) => {
            let why = [&[e.what().to_owned()], e.causes()].concat().join(": ");
            ctx.events.warn(format!("{why}; it is made anew"));
            None
        }
    };
    let lock = match (&old, loose.is_empty()) {
        (_, true) => None,
        (None, false) => return Err(Pinned::missing(spec)),
        (Some(old), false) => {
            refuse_unknown(&loose, old, spec)?;
            Some(Pinned { lock: old.clone(), loose: loose.clone(), keep: Keep::Exactly })
        }
    };
    Lock::may_write(spec)?;
    let options = Options { lock, sandbox, ..Options::default() };
    let new = ctx.block_on(async |cancel| {
        build::lock::resolve(spec, &ctx.paths, &options, &ctx.events, &cancel).await
    })?;
    let changes = old.as_ref().map(|old| old.changed(&new)).unwrap_or_default();
    if !loose.is_empty() {
        refuse_others(&changes, &loose)?;
    }
    if old.as_ref() == Some(&new) {
        ui::line(&format!("`{}` is up to date", lock::path(spec).display()))?;
        return Ok(exit::OK);
    }
    new.write(spec)?;
    if !changes.is_empty() {
        ui::line("since the lock before:")?;
    }
    for change in &changes {
        ui::line(&format!("  {}", change.what))?;
    }
    ui::line(&format!("`{}` was written: {}", lock::path(spec).display(), summary(&new)))?;
    Ok(exit::OK)
}

fn check(spec: &Spec, ctx: &Context) -> Result<u8> {
    let Some(lock) = Lock::of(spec)? else { return Err(Pinned::missing(spec)) };
    let mut unfit = lock.unfit(spec)?;
    if unfit.is_empty() {
        unfit.extend(other_image(&lock, spec, ctx)?);
    }
    for difference in &unfit {
        ui::line(&difference.what)?;
    }
    if !unfit.is_empty() {
        return Ok(exit::FAILED);
    }
    ui::line(&format!("`{}` fits: {}", lock::path(spec).display(), summary(&lock)))?;
    Ok(exit::OK)
}

/// An image that lies on this host is hashed.
fn other_image(lock: &Lock, spec: &Spec, ctx: &Context) -> Result<Option<Difference>> {
    let (Some((Location::Path(path), _)), Some(locked)) =
        (spec.source.file(), lock.input(lock::SOURCE))
    else {
        return Ok(None);
    };
    let found = ctx.block_on(async |cancel| hash_file(path, &ctx.events, &cancel).await)?;
    let found = format!("sha256:{found}");
    Ok((found != locked).then(|| Difference {
        name: lock::SOURCE.to_owned(),
        what: format!("`{}` is {found}, and {locked} is locked", path.display()),
    }))
}

/// A name that is nothing of the lock or the spec is a typing error.
fn refuse_unknown(loose: &BTreeSet<String>, lock: &Lock, spec: &Spec) -> Result<()> {
    let known = |name: &str| {
        [lock::SOURCE, lock::HOSTS, "packages"].contains(&name)
            || lock.inputs.iter().any(|input| input.name == name)
            || lock.packages.iter().chain(&lock.replaced).any(|p| p.name == name)
            || spec.steps.iter().any(|step| step.name == name)
    };
    match loose.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("`{name}` is nothing that `{FILE_NAME}` has"))
            .hint("Name a package, `packages`, `source`, `hosts` or a step; `devbox lock` alone finds everything anew.")),
    }
}

/// What changed besides what was asked for is not taken.
fn refuse_others(changes: &[Difference], loose: &BTreeSet<String>) -> Result<()> {
    let asked = |change: &Difference| {
        // A new version may need other packages than the old one.
        let package = !change.name.contains([' ', ':'])
            && ![lock::SOURCE, lock::HOSTS].contains(&&*change.name);
        let step = loose.iter().any(|name| {
            let title =
                if name.starts_with("step ") { name.clone() } else { format!("step {name}") };
            change.name == title || change.name.starts_with(&format!("{title}: "))
        });
        loose.contains(&change.name) || package || step
    };
    let others: Vec<_> = changes.iter().filter(|change| !asked(change)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let what = format!("more changed than what was asked for; `{FILE_NAME}` is as it was");
    let error = others.iter().fold(Error::failed(what), |e, change| e.detail(change.what.clone()));
    Err(error.hint("Name these with `--update` too, or find everything anew with `devbox lock`."))
}

/// `3 inputs, 1 host, 212 packages`.
fn summary(lock: &Lock) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    [
        count(lock.inputs.len(), "input"),
        count(lock.hosts.len(), "host"),
        count(lock.packages.len(), "package"),
    ]
    .join(", ")
}
