//! Finds, reads and parses a devbox.toml.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use toml::de::DeTable;

use crate::error::{Context as _, Error, Result};
use crate::spec::decode;
use crate::spec::keys::LONGEST_FILE;
use crate::spec::problem::{Problem, Problems};
use crate::spec::reader::Collector;
use crate::spec::syntax;
use crate::spec::types::Spec;

/// The name of the file.
pub const FILE_NAME: &str = "devbox.toml";

/// The spec at `path` (a file, or a folder with a devbox.toml), or the devbox.toml of the current
/// folder or the nearest folder above it.
///
/// # Errors
/// There is none, it cannot be read, or something in it is wrong: then the message holds every
/// problem with its place (kind `Usage`).
pub fn load(path: Option<&Path>) -> Result<Spec> {
    let file = find(path)?;
    Ok(read(&file)??)
}

/// The devbox.toml that [`load`] would read.
///
/// # Errors
/// There is none.
pub fn find(path: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = path {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        if !file.exists() {
            return Err(Error::usage(format!("there is no `{}`", file.display()))
                .hint("Write one with `devbox init`, or name another file."));
        }
        return Ok(file);
    }
    let here = std::env::current_dir()
        .map_err(Error::from)
        .context(|| "cannot find the current folder".to_owned())?;
    match here.ancestors().map(|dir| dir.join(FILE_NAME)).find(|file| file.is_file()) {
        // A short name for messages where the file is right here.
        Some(file) if file.parent() == Some(here.as_path()) => Ok(PathBuf::from(FILE_NAME)),
        Some(file) => Ok(file),
        None => Err(Error::usage(format!(
            "there is no `{FILE_NAME}` in `{}` or a folder above it",
            here.display()
        ))
        .hint("Write one with `devbox init`, or change to the folder of your project.")),
    }
}

/// Reads and parses one file; the inner result is what is wrong in it.
///
/// # Errors
/// The file cannot be read, or is larger than [`LONGEST_FILE`].
pub fn read(file: &Path) -> Result<Result<Spec, Problems>> {
    let dir =
        std::path::absolute(file)?.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    Ok(text_of(file)?.and_then(|text| parse(&text, file, &dir)))
}

/// The text of a file; the inner error is that it is none.
pub(super) fn text_of(file: &Path) -> Result<Result<String, Problems>> {
    let mut bytes = vec![];
    let usage = |e: std::io::Error| Error::from(e).with_kind(crate::error::Kind::Usage);
    if fs::metadata(file).map_err(usage)?.is_dir() {
        return Err(
            Error::usage(format!("`{}` is a folder", file.display())).hint("Name a devbox.toml.")
        );
    }
    let reader = fs::File::open(file).map_err(usage)?;
    reader.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(usage)?;
    if u64::try_from(bytes.len()).is_ok_and(|n| n > LONGEST_FILE) {
        return Err(Error::usage(format!(
            "`{}` is larger than 1 MiB, so it is no spec",
            file.display()
        ))
        .hint("Put long scripts into files of their own and name them with `script`."));
    }
    Ok(String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let bytes = e.into_bytes();
        let problem = Problem {
            path: String::new(),
            span: at..at + 1,
            what: format!("byte 0x{:02x} is not UTF-8", bytes[at]),
            expected: None,
            hint: Some("Save the file as UTF-8.".to_owned()),
        };
        Problems::new(file, &String::from_utf8_lossy(&bytes), vec![problem])
    }))
}

/// Parses `text`, which was read from `file` (for messages); relative paths in it start at `dir`,
/// which is absolute. Looks whether the files that it names are there.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn parse(text: &str, file: &Path, dir: &Path) -> Result<Spec, Problems> {
    parse_as(text, file, |table, c| decode::spec(table, dir, c))
}

/// Parses `text` with a decoder of its own.
pub(super) fn parse_as<T>(
    text: &str,
    file: &Path,
    decode: impl FnOnce(&DeTable<'_>, &mut Collector) -> Option<T>,
) -> Result<T, Problems> {
    let (table, syntax) = syntax::parse(text);
    let mut c = Collector::default();
    let found = decode(&table, &mut c);
    if !syntax.is_empty() {
        // What follows from broken syntax would be noise: a key that seems to be missing, or a value
        // on a line that could not be read.
        let lines = |span: &std::ops::Range<usize>| {
            let upto = |i: usize| {
                text.as_bytes()[..i.min(text.len())].iter().filter(|b| **b == b'\n').count()
            };
            upto(span.start)..=upto(span.end)
        };
        let broken: Vec<_> = syntax.iter().map(|p| lines(&p.span)).collect();
        c.problems.retain(|p| {
            let here = lines(&p.span);
            !p.what.ends_with("is missing")
                && !broken.iter().any(|b| b.start() <= here.end() && here.start() <= b.end())
        });
        c.problems.extend(syntax);
    }
    match found {
        Some(found) if c.problems.is_empty() => Ok(found),
        _ => Err(Problems::new(file, text, c.problems)),
    }
}
