//! A whole disk as `devbox digest` and `devbox manifest` read it: container, partitions, volume
//! groups, filesystems, boot entries, and the digests of all that.

use std::sync::Arc;

use super::checks::{self, limits};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::container::{self, Options};
use crate::image::disk::Disk;
use crate::parity::content::Content;
use crate::parity::manifest::{Held, Manifest};
use crate::parity::{Level, subject};

/// Two readings of the same bytes say the same, and so does the manifest.
pub(super) fn read(reader: Arc<dyn ReadAt>) -> Result<()> {
    let first = manifest(reader.clone());
    let second = manifest(reader);
    match (&first, &second) {
        (Ok(first), Ok(second)) => {
            let written = text(first);
            assert_eq!(written, text(second), "two readings differ");
            let known = Manifest::read(&*written, &limits());
            let known = known.unwrap_or_else(|e| panic!("its manifest is refused: {e}"));
            assert_eq!(written, text(&known), "the manifest is written otherwise");
        }
        // Files are read by several threads, so that the first error is not always the same.
        (Err(_), Err(second)) => checks::error(second),
        _ => panic!("one of two readings fails: {first:?} {second:?}"),
    }
    let digest = first?.model(Level::Content)?.digests();
    assert_eq!(digest, second?.model(Level::Content)?.digests());
    Ok(())
}

/// All but the digest of the bytes themselves, which takes long and tells nothing of a parser.
fn manifest(reader: Arc<dyn ReadAt>) -> Result<Manifest> {
    let options = Options { limits: limits(), ..Options::default() };
    let container = container::open_source(Source::memory(reader), &options)?;
    let disk = Disk::read(container, &options.limits)?;
    let held = Held::System(Box::new(Content::read(&disk)?));
    let packages = subject::packages(&disk).map_err(|e| {
        checks::error(&e);
        e.what().to_owned()
    });
    let notes = disk.notes();
    notes.iter().for_each(|note| checks::message(note));
    Ok(Manifest { notes, bytes: None, held, packages })
}

fn text(manifest: &Manifest) -> Vec<u8> {
    let mut text = vec![];
    manifest.write(&mut text).expect("it can be written");
    text
}
