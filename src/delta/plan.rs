//! Which disks are worth keeping as deltas.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::store::{BoxRef, Live, Store};

/// A change.
#[derive(Debug, Clone)]
pub enum Task {
    /// Keep the first one as its difference from the second one.
    Fold(Box<BoxRef>, Box<BoxRef>),
    /// Make it whole.
    Unfold(Box<BoxRef>),
}

/// What is to be done: of each name the newest version, and what machines use, is whole; all else is a delta of the newest.
/// Those that are differences from a disk that is to be one itself come first.
///
/// # Errors
/// The store is damaged.
pub fn plan(store: &Store, live: &Live) -> Result<Vec<Task>> {
    let used = store.disks_of(live)?;
    let mut names: BTreeMap<(String, String), Vec<BoxRef>> = BTreeMap::new();
    for image in store.list()? {
        let key = (image.config().name.clone(), image.config().arch.clone());
        names.entry(key).or_default().push(image);
    }
    let (mut whole, mut again, mut first) = (vec![], vec![], vec![]);
    for mut versions in names.into_values() {
        versions.sort_by_cached_key(age);
        let Some(newest) = versions.pop() else { continue };
        let mut seen = vec![newest.disk_digest()];
        if newest.delta().is_some() {
            whole.push(Task::Unfold(Box::new(newest.clone())));
        }
        for image in versions {
            if seen.contains(&image.disk_digest()) {
                continue;
            }
            seen.push(image.disk_digest());
            let task = Task::Fold(Box::new(image.clone()), Box::new(newest.clone()));
            match image.delta() {
                Some(_) if used.contains(&image.disk_digest()) => {
                    whole.push(Task::Unfold(Box::new(image)));
                }
                Some(kept) if kept.base == newest.disk_digest() => {}
                Some(_) => again.push(task),
                None if used.contains(&image.disk_digest()) => {}
                None => first.push(task),
            }
        }
    }
    whole.append(&mut again);
    whole.append(&mut first);
    Ok(whole)
}

/// Versions by their numbers, the others before them by their text.
fn age(image: &BoxRef) -> (Option<semver::Version>, String) {
    let version = &image.config().version;
    (semver::Version::parse(version).ok(), version.clone())
}
