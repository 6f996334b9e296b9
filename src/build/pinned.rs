//! Which lock a build keeps to, and how.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::lock::{self, Difference, Lock};
use crate::source::packages::Locked;
use crate::spec::{Source, Spec};

/// A lock that a build keeps to.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The lock.
    pub lock: Lock,
    /// What is found anew all the same: `source`, `packages`, `hosts` or the name of a package.
    pub loose: BTreeSet<String>,
    /// How far it keeps to it.
    pub keep: Keep,
}

/// How far a build keeps to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It starts from what is locked, and fails where its steps bring or reach something else.
    Exactly,
    /// It starts from what is locked, and tells where its steps bring or reach something else.
    Inputs,
    /// The lock is about another spec, but for the box that it starts from.
    Box,
}

impl Pinned {
    /// The lock of a spec, for a build that is to keep to it exactly (`locked`), or as far as it fits: then `None` is that
    /// there is none, or one that does not fit, which is told.
    ///
    /// # Errors
    /// Kind `Usage`: the file is no lock; with `locked`, there is none, or it does not fit the spec.
    pub fn of(spec: &Spec, locked: bool, events: &Events) -> Result<Option<Self>> {
        let Some(lock) = Lock::of(spec)? else {
            return if locked { Err(Self::missing(spec)) } else { Ok(None) };
        };
        let unfit = lock.unfit(spec)?;
        let pinned = |keep| Some(Pinned { lock: lock.clone(), loose: BTreeSet::new(), keep });
        match (locked, unfit.first()) {
            (true, None) => Ok(pinned(Keep::Exactly)),
            (false, None) => Ok(pinned(Keep::Inputs)),
            (true, Some(_)) => Err(refused(spec, unfit)),
            (false, Some(first)) => {
                let same = matches!(&spec.source, Source::Box(source) if lock.pinned_box(source).is_some());
                let kept = if same { ", but for the source's box" } else { "" };
                events.warn(format!(
                    "`{}` is stale: {}{}; it is not kept to{kept}; `devbox lock` makes it anew",
                    lock::path(spec).display(),
                    first.what,
                    more(unfit.len()),
                ));
                Ok(pinned(Keep::Box).filter(|_| same))
            }
        }
    }

    /// What is said where there is none.
    #[must_use]
    pub fn missing(spec: &Spec) -> Error {
        Error::usage(format!("there is no `{}`", lock::path(spec).display()))
            .hint("Make it with `devbox lock`, and keep it in git.")
    }

    /// The spec with what is locked of its source.
    #[must_use]
    pub fn pin(&self, spec: &Spec) -> Spec {
        if self.keep != Keep::Box {
            return self.lock.without(&self.loose).pin(spec);
        }
        let mut spec = spec.clone();
        if let Source::Box(source) = &mut spec.source {
            source.pinned = self.lock.pinned_box(source);
        }
        spec
    }

    /// Whether the source's packages are all to be the locked ones.
    pub(super) fn is_strict(&self) -> bool {
        self.loose.is_empty()
    }

    /// Whether packages after the steps are compared with the locked ones.
    pub(super) fn keeps_packages(&self) -> bool {
        self.is_strict() && self.keep != Keep::Box
    }

    /// Whether hosts that the guest reaches are compared with the locked ones.
    pub(super) fn keeps_hosts(&self) -> bool {
        !self.loose.contains(lock::HOSTS) && self.keep != Keep::Box
    }

    /// What the source has to have installed, and its date; none where the lock has none.
    pub(super) fn locked(&self) -> Result<Option<Locked>> {
        let lock = self.lock.without(&self.loose);
        let Some(snapshot) = &lock.snapshot else { return Ok(None) };
        let date: jiff::Timestamp = snapshot
            .parse()
            .map_err(|e| Error::usage("the lock's `snapshot` is no time").cause(e))?;
        Ok(Some(Locked {
            packages: lock.source_packages(),
            epoch: self.is_strict().then(|| date.as_second()),
            only: self.is_strict(),
        }))
    }
}

fn refused(spec: &Spec, unfit: Vec<Difference>) -> Error {
    let what = format!("`{}` does not fit the spec", lock::path(spec).display());
    let error = unfit.into_iter().fold(Error::usage(what), |e, d| e.detail(d.what));
    error.hint("Look at what changed, then take it with `devbox lock`, or with `devbox lock --update NAME` alone.")
}

/// ` and 2 more`, behind the first of so many.
pub(super) fn more(all: usize) -> String {
    match all.saturating_sub(1) {
        0 => String::new(),
        n => format!(", and {n} more"),
    }
}
