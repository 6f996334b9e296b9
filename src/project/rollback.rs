//! A machine goes back to the box that it ran on before, and stays there until somebody says otherwise.

use std::time::{Duration, Instant};

use crate::crash;
use crate::delta;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::machine::history::{Held, History};
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::project::stop::stop;
use crate::project::suspend::{not_made, now};
use crate::project::up::{self, Options};
use crate::project::{Project, Run, snapshot};
use crate::spec::Spec;
use crate::store::{BoxRef, Store};

/// How long a guest with data disks may take to write to them what it holds back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts the machine on the box that it ran on before, or on the one that `to` names (a version, `name:version`, or the
/// digest of a manifest), and brings it up. Its own disk goes, its data disks stay. It is held there: `up` does not go forward
/// by itself.
///
/// # Errors
/// It never ran on another box; that one is not in the store any more; the machine cannot be stopped or does not come up.
pub async fn rollback(
    project: &Project,
    spec: &Spec,
    instance: &Instance,
    to: Option<&str>,
    options: &Options,
    run: Run<'_>,
) -> Result<()> {
    let (begun, name) = (Instant::now(), instance.name());
    let lock = instance.lock("devbox rollback")?;
    let record = instance.record()?.ok_or_else(|| not_made(name))?;
    let history = instance.history()?;
    let store = Store::open(&run.paths.store)?;
    let image = {
        // Nothing is removed from the store between finding the box and writing down that it is needed.
        let _hold = store.hold()?;
        let image = target(&store, &history, &record, to)?;
        hold(instance, &image)?;
        image
    };
    let reference = image.config().reference();
    if image.manifest_digest().to_string() == record.base.manifest {
        run.events.note(format!("`{name}` runs on {reference} already, and stays there"));
    } else {
        crash::point("rollback.held");
        run.events.phase(format!("Going back with `{name}` to {reference}"));
        // What it needs is put together while the machine still runs.
        let ready = delta::whole(&store, image, run.events, run.cancel).await;
        let cleared = match ready {
            Ok(_) => clear(instance, &record, run).await,
            Err(e) => Err(e),
        };
        if let Err(e) = cleared {
            instance.change_history(|new| {
                new.held = history.held;
                true
            })?;
            return Err(e);
        }
        crash::point("rollback.cleared");
        for disk in record.disks.iter().filter(|disk| disk.path.exists()) {
            run.events.note(format!("its disk `{}` stays", disk.name));
        }
    }
    drop(lock);
    up::up(project, spec, &[name], options, run).await?;
    run.events.done(format!("`{name}` is back on {reference}"), begun.elapsed());
    Ok(())
}

/// Stops the machine and throws its own disk away; its data disks stay. Its lock is held.
pub(super) async fn clear(instance: &Instance, record: &Record, run: Run<'_>) -> Result<()> {
    // What the guest has not written to a disk that stays would be lost.
    let patience = (!record.disks.is_empty()).then_some(PATIENCE);
    stop(instance, record, patience, run).await?;
    snapshot::forget_on_data_disks(record);
    instance.clear_for_reset()?;
    instance.change_history(|history| {
        history.ended(now());
        true
    })
}

/// Writes down that the machine is to be made of `image`, whatever the spec says.
fn hold(instance: &Instance, image: &BoxRef) -> Result<()> {
    let held = Held {
        reference: image.config().reference(),
        manifest: image.manifest_digest().to_string(),
        since: now(),
    };
    instance.change_history(|history| {
        history.held = Some(held);
        true
    })
}

/// The box to go back to.
fn target(store: &Store, history: &History, record: &Record, to: Option<&str>) -> Result<BoxRef> {
    let (name, runs) = (&record.name, &record.base);
    let Some(to) = to else {
        let before = history.before(&runs.manifest).ok_or_else(|| {
            Error::failed(format!("`{name}` ran on no other box than {}", runs.reference))
                .hint("Name a version that is in the store, as in `devbox rollback --to 1.0.0`; `devbox box list` says which there are.")
        })?;
        return get(store, &before.reference, &before.manifest);
    };
    let is_meant = |reference: &str, manifest: &str| {
        let version = reference.rsplit_once(':').map_or("", |(_, version)| version);
        [reference, version, manifest].contains(&to)
    };
    if let Some(ran) = history.ran.iter().rev().find(|ran| is_meant(&ran.reference, &ran.manifest))
    {
        return get(store, &ran.reference, &ran.manifest);
    }
    // One that it never ran on, of the same name.
    let box_name = runs.reference.split(':').next().unwrap_or_default();
    let version = to.strip_prefix(&format!("{box_name}:")).unwrap_or(to);
    if let Some(image) = store.find(box_name, version)? {
        return Ok(image);
    }
    let mut ran: Vec<&str> = history.ran.iter().map(|ran| &*ran.reference).collect();
    ran.dedup();
    let ran = match ran.is_empty() {
        true => runs.reference.clone(),
        false => ran.join(", "),
    };
    Err(Error::failed(format!("there is no box `{box_name}:{version}` to go back to"))
        .detail(format!("`{name}` ran on {ran}"))
        .hint("Pull it with `devbox box pull`, or name one that `devbox box list` has."))
}

fn get(store: &Store, reference: &str, manifest: &str) -> Result<BoxRef> {
    let gone = |e: Error| {
        e.context(format!("the box {reference} ({manifest}) is not in the store any more"))
            .hint("Pull it again with `devbox box pull`, or name another one with `--to`.")
    };
    let digest: FileDigest =
        manifest.parse().map_err(|e| Error::failed("a damaged digest").cause(e))?;
    let image = store.get(digest).map_err(gone)?;
    match image.delta().is_some() || image.disk_path().exists() {
        true => Ok(image),
        false => Err(gone(Error::failed("its disk is gone"))),
    }
}
