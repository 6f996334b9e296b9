//! Microsoft VHD: fixed and dynamic disks.
//!
//! Source: Virtual Hard Disk Image Format Specification, version 1.0.

mod dynamic;
mod fixed;
mod footer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::footer::{COOKIE, Footer, Kind, LENGTH};
use super::damaged;
use super::source::Source;
use crate::error::{Error, Result};
use crate::image::{Limits, ReadAt};

/// What [`open`] gives.
pub(super) struct Opened {
    pub(super) reader: Arc<dyn ReadAt>,
    pub(super) notes: Vec<String>,
}

/// Whether the file is a VHD, with notes; none if nothing of it looks like one.
///
/// # Errors
/// It ends like a fixed VHD and is not one: then it is damaged, or a raw disk whose last sector
/// happens to hold an old footer, and nobody can tell.
pub(super) fn probe(file: &Source) -> Result<Option<Vec<String>>> {
    if file.read_up_to(0, COOKIE.len())? == COOKIE {
        return Ok(Some(vec![]));
    }
    let tail = tail(file)?;
    if tail.get(1..).is_some_and(|old| old.starts_with(COOKIE)) {
        return Err(refused(file, "a footer of 511 bytes, as before Virtual PC 2004"));
    }
    if !tail.starts_with(COOKIE) {
        return Ok(None);
    }
    let either = |why: String| {
        Error::undetermined(format!(
            "`{}` is a damaged VHD, or a raw disk that ends with a VHD footer",
            file.name()
        ))
        .cause(why)
        .hint("Give its format, `raw` or `vhd`, or fetch or build the image again.")
    };
    let footer = Footer::parse(&tail).map_err(|why| either(format!("the footer {why}")))?;
    let there = file.size() - LENGTH as u64;
    match footer.kind {
        Kind::Fixed if footer.current_size == there => Ok(Some(vec![
            "its last 512 bytes are a VHD footer and not part of the disk; if they are, give its format as `raw`".to_owned(),
        ])),
        Kind::Fixed => Err(either(format!(
            "the footer says a disk of {} bytes; there are {there} before it",
            footer.current_size
        ))),
        Kind::Dynamic | Kind::Differencing => Err(either(
            "the footer is that of a dynamic disk, and its copy at the start is not there".to_owned(),
        )),
    }
}

/// Whether the file ends with the footer of a fixed disk of just its size.
pub(super) fn ends_as_fixed(file: &Source) -> Result<bool> {
    let footer = Footer::parse(&tail(file)?);
    Ok(footer.is_ok_and(|footer| {
        let size = footer.current_size.checked_add(LENGTH as u64);
        footer.kind == Kind::Fixed && size == Some(file.size())
    }))
}

/// Opens a disk by its footer.
pub(super) fn open(file: Source, limits: &Limits) -> Result<Opened> {
    let tail = tail(&file)?;
    let head = file.read_up_to(0, LENGTH)?;
    // A dynamic disk has a copy at the start; a fixed one has the guest's first sector there.
    let copy = head.starts_with(COOKIE).then(|| Footer::parse(&head));
    let mut notes = vec![];
    let footer = match (Footer::parse(&tail), copy) {
        (Ok(footer), None) => footer,
        (Ok(footer), Some(_)) if footer.kind == Kind::Fixed => {
            return Err(bad(&file, "it begins as a dynamic VHD does and ends as a fixed one"));
        }
        (Ok(footer), Some(Ok(copy))) if footer == copy => footer,
        (Ok(_), Some(Ok(_))) => {
            return Err(bad(&file, "its footer and the copy at the start disagree"));
        }
        (Ok(footer), Some(Err(why))) => {
            notes.push(format!("the copy of the footer at the start {why}; the footer was used"));
            footer
        }
        (Err(why), Some(Ok(copy))) if copy.kind != Kind::Fixed => {
            notes.push(format!("the VHD footer {why}; its copy at the start was used"));
            copy
        }
        (Err(why), Some(_)) => {
            let cause = "it begins as a dynamic VHD does";
            return Err(no_footer(&file, &why)
                .cause(cause)
                .hint("Fetch or build the image again."));
        }
        (Err(why), None) => {
            let hint =
                "Fetch or build the image again, or give `raw` as its format if it is a raw disk.";
            return Err(no_footer(&file, &why).hint(hint));
        }
    };
    if footer.suspended {
        notes.push(
            "a machine with this disk was suspended; its memory may hold newer data".to_owned(),
        );
    }
    let opened = match footer.kind {
        Kind::Fixed => fixed::open(file, &footer)?,
        Kind::Dynamic => dynamic::open(file, &footer, limits.disk_size)?,
        Kind::Differencing => {
            return Err(refused(&file, "a parent disk: it is a differencing disk"));
        }
    };
    notes.extend(opened.notes);
    Ok(Opened { reader: opened.reader, notes })
}

/// The last 512 bytes, or as many as there are.
fn tail(file: &Source) -> Result<Vec<u8>> {
    file.read_up_to(file.size().saturating_sub(LENGTH as u64), LENGTH)
}

fn no_footer(file: &Source, why: &str) -> Error {
    Error::undetermined(format!("the VHD footer of `{}` {why}", file.name()))
}

fn bad(file: &Source, why: impl std::fmt::Display) -> Error {
    damaged(file, why)
}

fn cut_short(file: &Source, why: String) -> Error {
    Error::undetermined(format!("`{}` was cut short", file.name()))
        .cause(why)
        .hint("Fetch or build the image again.")
}

fn refused(file: &Source, feature: &str) -> Error {
    Error::undetermined(format!("`{}` uses a VHD feature that is not read: {feature}", file.name()))
        .hint("Convert it with `qemu-img convert -f vpc -O qcow2`, if you trust it, and use the result.")
}
