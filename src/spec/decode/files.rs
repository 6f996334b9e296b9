//! Files that a spec names: resolved against its folder, and there.

use std::path::{Path, PathBuf};

use crate::spec::reader::{At, Collector};

/// What must stand at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// A regular file.
    File,
    /// A regular file or a folder.
    FileOrFolder,
}

/// The path against the spec's folder; reports it if nothing fitting stands there.
pub(super) fn resolve(at: &At<String>, dir: &Path, expect: Expect, c: &mut Collector) -> PathBuf {
    let path = dir.join(&at.value);
    let shown = path.display();
    let (what, hint) = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() || (meta.is_dir() && expect == Expect::FileOrFolder) => {
            return path;
        }
        Ok(meta) if meta.is_dir() => (format!("`{shown}` is a folder"), "Name a file."),
        Ok(_) => (format!("`{shown}` is neither a file nor a folder"), "Name a file."),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (
            format!("there is no `{shown}`"),
            "Make the file, or correct the path; it is relative to the folder of devbox.toml.",
        ),
        Err(e) => (format!("cannot read `{shown}`: {e}"), "Make the file readable."),
    };
    c.report(&at.path, at.span.clone(), what).hint = Some(hint.to_owned());
    path
}
