//! What of a project is older than what there is: the box that it starts from, and those that its machines run on.

use semver::Version;
use serde::Serialize;

use crate::build::base;
use crate::error::{Kind, Result};
use crate::lock;
use crate::project::boxes;
use crate::project::newer::{Newest, Question};
use crate::project::{Project, Run};
use crate::registry::{Options, Policy};
use crate::spec::{BoxPlace, BoxSource, Source, Spec, Wish};
use crate::store::Store;

/// One box that a project has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Has {
    /// `source`, or `machine`.
    pub kind: &'static str,
    /// The machine; none of a source.
    pub machine: Option<String>,
    /// The version that it has; none of a source that is not locked.
    pub version: Option<String>,
    /// Where it was asked.
    pub place: String,
    /// The newest version there that fits.
    pub newest: Option<String>,
    /// Whether that is a newer one.
    pub outdated: bool,
}

impl Has {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let has = match (&self.machine, &self.version) {
            (Some(machine), Some(version)) => format!("`{machine}` runs on {version}"),
            (_, Some(version)) => format!("`{}` has {version} of the source", lock::FILE_NAME),
            (_, None) => "the source is not locked".to_owned(),
        };
        match &self.newest {
            Some(newest) => format!("{has}; {} has {newest}", self.place),
            None => format!("{has}; {} has none that fits", self.place),
        }
    }
}

/// All boxes of a project that a registry can be asked about.
///
/// # Errors
/// Kind `Undetermined`: one cannot be asked.
pub async fn look(project: &Project, spec: &Spec, run: Run<'_>) -> Result<Vec<Has>> {
    let mut all = vec![];
    let mut of_machines = None;
    if let Source::Box(source) = &spec.source
        && let Some((place, newest)) = newest_source(spec, source, run).await?
    {
        let pinned = boxes::pinned(spec, source)?.pinned;
        let newer = |newest: &Newest| match &pinned {
            Some(pinned) => newest.is_newer(&pinned.version, Some(pinned.manifest)),
            None => false,
        };
        all.push(Has {
            kind: "source",
            machine: None,
            version: pinned.as_ref().map(|pinned| pinned.version.clone()),
            place: place.clone(),
            outdated: newest.as_ref().is_some_and(newer),
            newest: newest.as_ref().map(|newest| newest.version.clone()),
        });
        if spec.is_box().is_some() {
            of_machines = Some((place, newest));
        }
    }
    if spec.is_box().is_none()
        && let Some(question) = Question::of_home(spec)?
    {
        let newest = ask(&question, run).await?;
        of_machines = Some((question.place.to_string(), newest));
    }
    let Some((place, newest)) = of_machines else { return Ok(all) };
    for member in project.existing() {
        // What is damaged, `status` says.
        let Ok(Some(record)) = member.instance.record() else { continue };
        let runs = &record.base.reference;
        let version = runs.rsplit_once(':').map_or(&**runs, |(_, version)| version);
        // In the store a box has another manifest: versions tell.
        let newer =
            |newest: &Newest| match (Version::parse(&newest.version), Version::parse(version)) {
                (Ok(newest), Ok(has)) => newest > has,
                _ => false,
            };
        all.push(Has {
            kind: "machine",
            machine: Some(record.name.clone()),
            version: Some(version.to_owned()),
            place: place.clone(),
            outdated: newest.as_ref().is_some_and(newer),
            newest: newest.as_ref().map(|newest| newest.version.clone()),
        });
    }
    Ok(all)
}

/// The newest box that fits a source, and where that is; none where there can be no other one.
async fn newest_source(
    spec: &Spec,
    source: &BoxSource,
    run: Run<'_>,
) -> Result<Option<(String, Option<Newest>)>> {
    if let (BoxPlace::Store(name), Wish::Range(_)) = (&source.from, &source.wish) {
        let boxes = base::in_store(&Store::open(&run.paths.store)?, name, spec.arch.as_str())?;
        let newest = boxes.into_iter().find(|(version, _)| source.wish.fits(version));
        let newest =
            newest.map(|(version, _)| Newest { version: version.to_string(), manifest: None });
        return Ok(Some(("the store".to_owned(), newest)));
    }
    let Some(question) = Question::of_source(source, spec.arch)? else { return Ok(None) };
    let newest = ask(&question, run).await?;
    Ok(Some((question.place.to_string(), newest)))
}

async fn ask(question: &Question, run: Run<'_>) -> Result<Option<Newest>> {
    let asked = question.ask(&Options::new(Policy::none()), run.events, run.cancel).await;
    asked.map_err(|e| match e.kind() {
        Kind::Failed => e.with_kind(Kind::Undetermined),
        _ => e,
    })
}
