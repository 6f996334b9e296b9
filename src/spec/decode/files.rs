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
    /// A folder.
    Folder,
}

/// The path against the spec's folder; reports it if nothing fitting stands there.
pub(super) fn resolve(at: &At<String>, dir: &Path, expect: Expect, c: &mut Collector) -> PathBuf {
    let path = dir.join(&at.value);
    let shown = path.display();
    let (what, hint) = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() && expect != Expect::Folder => return path,
        Ok(meta) if meta.is_dir() && expect != Expect::File => return path,
        Ok(meta) if meta.is_dir() => (format!("`{shown}` is a folder"), "Name a file."),
        Ok(_) if expect == Expect::Folder => (format!("`{shown}` is no folder"), "Name a folder."),
        Ok(_) => (format!("`{shown}` is neither a file nor a folder"), "Name a file."),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (
            format!("there is no `{shown}`"),
            match expect {
                Expect::Folder => {
                    "Make the folder, or correct the path; it is relative to the folder of devbox.toml."
                }
                _ => {
                    "Make the file, or correct the path; it is relative to the folder of devbox.toml."
                }
            },
        ),
        Err(e) => (format!("cannot read `{shown}`: {e}"), "Make it readable for you."),
    };
    c.report(&at.path, at.span.clone(), what).hint = Some(hint.to_owned());
    path
}
