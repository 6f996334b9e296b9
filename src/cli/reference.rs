//! What a person names as an image: a path, `dir:PATH`, a manifest, or a box of the store.

use std::ffi::OsStr;
use std::path::Path;

use crate::cli::Context;
use crate::error::{Error, Result};
use crate::parity::subject::Reference;
use crate::spec::grammar;
use crate::store::Store;

/// In front of a box where a file has the same name.
const BOX: &str = "box:";

/// Finds what `text` names. `NAME:VERSION` is a box of the store unless a file has that name; then
/// it has to be said which of the two is meant.
///
/// # Errors
/// Kind `Usage`: both are there, or the box is not. The store cannot be read.
pub(super) fn parse(text: &OsStr, ctx: &Context) -> Result<Reference> {
    let Some(name) = text.to_str() else { return Ok(Reference::parse(text)) };
    if let Some(name) = name.strip_prefix(BOX) {
        return stored(name, ctx)?.ok_or_else(|| {
            Error::usage(format!("there is no box `{name}` in the store"))
                .hint("Run `devbox box list` to see what is there.")
        });
    }
    let file = std::fs::symlink_metadata(Path::new(text)).is_ok();
    match (stored(name, ctx)?, file) {
        (Some(_), true) => Err(Error::usage(format!("`{name}` is a file and a box"))
            .hint(format!("Write `./{name}` for the file, or `{BOX}{name}` for the box."))),
        (Some(found), false) => Ok(found),
        (None, false) if is_name(name) => {
            Err(Error::usage(format!("there is no box and no file `{name}`"))
                .hint("Run `devbox box list` to see which boxes are there."))
        }
        (None, _) => Ok(Reference::parse(text)),
    }
}

/// Whether a box could have this name.
fn is_name(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, version)| {
        grammar::LABEL.accepts(name) && grammar::VERSION.accepts(version)
    })
}

/// The box of that name.
fn stored(text: &str, ctx: &Context) -> Result<Option<Reference>> {
    // To ask a question makes no store.
    if !is_name(text) || !ctx.paths.store.exists() {
        return Ok(None);
    }
    let Some((name, version)) = text.split_once(':') else { return Ok(None) };
    let store = Store::open(&ctx.paths.store)?;
    let Some(image) = store.find(name, version)? else { return Ok(None) };
    let image = super::boxes::whole(&store, image, ctx)?;
    Ok(Some(Reference::Stored { name: text.to_owned(), path: image.disk_path().to_owned() }))
}
