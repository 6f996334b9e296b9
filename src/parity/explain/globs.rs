//! Sets of patterns for paths, as a shell has them: `*` stays in one component.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The set of these patterns. One that is wrong fits nothing; the tests of each table look for such.
pub(super) fn set<'a>(patterns: impl IntoIterator<Item = &'a str>, any_case: bool) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let mut glob = GlobBuilder::new(pattern);
        let glob = glob.literal_separator(true).empty_alternates(true).case_insensitive(any_case);
        if let Ok(glob) = glob.build() {
            builder.add(glob);
        }
    }
    builder.build().unwrap_or_default()
}
