//! What a machine changed on its disk, while it runs or not.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::host::Paths;
use crate::image::Limits;
use crate::image::container::qcow2::{Capture, Layers};
use crate::image::container::{Backing, Options};
use crate::machine::Machine;
use crate::machine::instance::Instance;
use crate::machine::lock::Lock;
use crate::machine::record::Record;
use crate::machine::still::Stood;
use crate::parity::drift::classes::{Classified, Own, classify};
use crate::parity::drift::{Drift, Found};
use crate::parity::explain::Explanation;
use crate::project::Run;
use crate::project::suspend::{attached, not_made};

/// Most bytes of a layer that are copied while its machine stands still: about half a second, and all
/// of it in memory.
const LARGEST: u64 = 1 << 30;

/// How the machine's disk was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// The machine was off: its disk as it was left, with the journal replayed in memory.
    Off,
    /// It was held still for a moment, in which its disk's layer was copied.
    Still(Stood),
}

/// What was found of one machine.
#[derive(Debug)]
pub struct Report {
    /// The machine.
    pub machine: String,
    /// The box that it was made of.
    pub reference: String,
    /// The digest of that box.
    pub manifest: String,
    /// How its disk was read.
    pub stand: Stand,
    /// Every change with its class, drift first.
    pub changes: Vec<Classified>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// How long it took to compare, without waiting for the machine.
    pub took: Duration,
    /// Both sides.
    pub drift: Drift,
    /// What was found, to look into.
    pub found: Found,
    /// As long as somebody looks into it, nobody else starts the machine or takes it away.
    _lock: Option<Lock>,
}

impl Report {
    /// Why the machine drifted.
    ///
    /// # Errors
    /// A file that tells it cannot be read.
    pub fn explain(&self) -> Result<Explanation> {
        self.found.explain(&self.drift, &self.changes)
    }
}

/// Compares a machine with its sealed image.
///
/// # Errors
/// Something cannot be read, or the machine runs and cannot be made to stand still.
pub async fn look(instance: &Instance, own: &Own, limits: &Limits, run: Run<'_>) -> Result<Report> {
    let lock = instance.lock("devbox drift")?;
    let report = locked(instance, own, limits, run).await?;
    Ok(Report { _lock: Some(lock), ..report })
}

async fn locked(instance: &Instance, own: &Own, limits: &Limits, run: Run<'_>) -> Result<Report> {
    let record = instance.record()?.ok_or_else(|| not_made(instance.name()))?;
    record.refuse_arriving()?;
    let options = options(instance, &record, run.paths, limits);
    if let Some(machine) = attached(instance, &record, run.events).await? {
        return running(&machine, instance, &record, own, &options).await;
    }
    let start = Instant::now();
    let layers = Layers::open(&instance.files().overlay(), &options)?;
    compare(instance, &record, own, &layers, &options, start, Stand::Off)
}

/// The layer of a machine that runs is copied while the machine stands still, and read then.
async fn running(
    machine: &Machine,
    instance: &Instance,
    record: &Record,
    own: &Own,
    options: &Options,
) -> Result<Report> {
    let overlay = instance.files().overlay();
    let limits = options.limits;
    let copy = move || Capture::of(&overlay, &limits, LARGEST);
    let (capture, stood) = machine.stand_still(copy).await?;
    let start = Instant::now();
    let layers = Layers::captured(capture, options)?;
    let mut notes = vec![];
    if let Some(why) = &stood.why_not {
        notes.push(format!(
            "the guest's filesystems were not frozen ({why}): what it had not written to its disk yet is \
             not seen"
        ));
    }
    let mut report = compare(instance, record, own, &layers, options, start, Stand::Still(stood))?;
    report.notes.extend(notes);
    Ok(report)
}

fn compare(
    instance: &Instance,
    record: &Record,
    own: &Own,
    layers: &Layers,
    options: &Options,
    start: Instant,
    stand: Stand,
) -> Result<Report> {
    let drift = Drift::open(&record.base.disk, layers, options)?;
    let found = drift.find()?;
    let own = Own {
        user: record.user.clone(),
        work: own
            .work
            .iter()
            .cloned()
            .chain(record.folders.iter().map(|f| f.target.clone()))
            .collect(),
    };
    let changes = classify(&drift, &found, &own)?;
    Ok(Report {
        machine: instance.name().to_owned(),
        reference: record.base.reference.clone(),
        manifest: record.base.manifest.clone(),
        stand,
        changes,
        notes: drift.now.notes(),
        took: start.elapsed(),
        drift,
        found,
        _lock: None,
    })
}

/// The machine's layers may stand on each other, on its template's and on its image.
fn options(instance: &Instance, record: &Record, paths: &Paths, limits: &Limits) -> Options {
    let image = record.base.disk.parent().map(std::path::Path::to_path_buf);
    let own = [instance.files().dir().to_path_buf(), paths.templates.clone(), paths.store.clone()];
    let folders = own.into_iter().chain(image).collect();
    Options { limits: *limits, backing: Backing::Within(folders), ..Options::default() }
}
