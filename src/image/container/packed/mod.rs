//! What is wrapped around a container: compression and archives, found by content.
//!
//! gzip, xz and zstd around anything, and a tar archive with one disk in it (an OVA, a cloud's
//! `disk.raw`, a Vagrant box, a containerDisk), also in each other. A member of a plain tar archive is a range of
//! the file, and nothing is copied. A compressed stream has no random access: it is unpacked once,
//! into a [`scratch`] file without a name.

mod archive;
mod compression;
mod manifest;
mod oci;
mod scratch;
mod tar;

use std::fmt::Write as _;

use self::compression::Compression;
use self::scratch::Budget;
use super::Options;
use super::source::Source;
use crate::error::{Error, Result};
use crate::image::ReadAt as _;

/// Most layers around one disk. A compressed disk in a compressed archive is three.
const LAYERS: usize = 4;

/// What was inside.
pub(super) struct Unpacked {
    /// The container.
    pub(super) source: Source,
    /// What it was wrapped in; none if it was not.
    pub(super) wrapping: Option<String>,
    /// What a person should know about the layers.
    pub(super) notes: Vec<String>,
}

/// One layer.
enum Layer {
    Compressed(Compression),
    Archive { member: String, kind: &'static str },
}

/// Takes all layers off `file`.
///
/// # Errors
/// Kind `Undetermined`: a layer is damaged, cut short or followed by other bytes, holds not exactly
/// one disk, or goes beyond a limit.
pub(super) fn unpack(file: Source, options: &Options) -> Result<Unpacked> {
    let mut budget = Budget::new(file.size(), options);
    let mut layers = vec![];
    let mut notes = vec![];
    let mut source = file;
    loop {
        let head = source.read_up_to(0, tar::BLOCK)?;
        let compression = Compression::of(&head);
        let archive = compression.is_none() && tar::is_tar(&head);
        if compression.is_none() && !archive {
            let wrapping = (!layers.is_empty()).then(|| describe(&layers));
            return Ok(Unpacked { source, wrapping, notes });
        }
        // The end of a tar header is padding; no archiver writes a boot sector's mark there.
        if archive && head.ends_with(&[0x55, 0xaa]) {
            return Err(Error::undetermined(format!(
                "`{}` is both a tar archive and a disk with a boot sector",
                source.name()
            ))
            .hint("Check where it comes from: it shows one thing to one program and another to the next."));
        }
        if layers.len() >= LAYERS {
            return Err(Error::undetermined(format!(
                "`{}` is wrapped in more than {LAYERS} layers of archives and compression",
                source.path().display()
            ))
            .cause(format!("the outer ones are {}", describe(&layers)))
            .hint("Unpack it by hand, and use the disk image that is inside."));
        }
        if let Some(compression) = compression {
            let bytes = compression::unpack(&source, compression, &mut budget)?;
            source = source.inside(compression.as_str(), bytes);
            layers.push(Layer::Compressed(compression));
        } else {
            let found = archive::disk(&source, &options.limits)?;
            notes.extend(found.notes);
            source = found.source;
            layers.push(Layer::Archive { member: found.member, kind: found.kind });
        }
    }
}

/// What the outermost layer of `file` is, by its first bytes; nothing is unpacked.
pub(super) fn outermost(file: &Source) -> Result<Option<String>> {
    let head = file.read_up_to(0, tar::BLOCK)?;
    Ok(match Compression::of(&head) {
        Some(compression) => {
            Some(with_article(&format!("{}-compressed file", compression.as_str())))
        }
        None => tar::is_tar(&head).then(|| "a tar archive".to_owned()),
    })
}

/// The layers as words: ``disk.raw` in a gzip-compressed tar archive`.
fn describe(layers: &[Layer]) -> String {
    let mut outer = String::new();
    let mut squeezed = String::new();
    for layer in layers {
        match layer {
            Layer::Compressed(compression) => {
                let _ = write!(squeezed, "{}-compressed ", compression.as_str());
            }
            Layer::Archive { member, kind } => {
                let inside = if outer.is_empty() { String::new() } else { format!(" of {outer}") };
                outer =
                    format!("`{member}` in {}{inside}", with_article(&(squeezed.clone() + kind)));
                squeezed.clear();
            }
        }
    }
    match (squeezed.trim_end(), outer.is_empty()) {
        ("", _) => outer,
        (squeezed, true) => with_article(&format!("{squeezed} file")),
        (squeezed, false) => format!("{squeezed} {outer}"),
    }
}

fn with_article(what: &str) -> String {
    // "an OVA", "an xz-compressed file".
    let article = if what.starts_with(['O', 'x']) { "an" } else { "a" };
    format!("{article} {what}")
}

#[cfg(test)]
mod tests;
