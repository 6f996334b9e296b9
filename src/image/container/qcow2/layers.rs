//! What the layers above an image hold: all that can differ from it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Capture, Place, Qcow2, open};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::container::{Container, Format, Options};
use crate::image::slice::joined;

/// An image with layers below it.
#[derive(Debug)]
pub struct Layers {
    top: Arc<Qcow2>,
    notes: Vec<String>,
}

impl Layers {
    /// Opens the layer at `path` and those below it, as far as `options` allow.
    ///
    /// # Errors
    /// As [`crate::image::container::open`].
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        Self::of(Source::open(path)?, options)
    }

    /// The same of what a layer held when it was captured.
    ///
    /// # Errors
    /// As [`Layers::open`].
    pub fn captured(capture: Capture, options: &Options) -> Result<Self> {
        Self::of(capture.into_source(), options)
    }

    fn of(source: Source, options: &Options) -> Result<Self> {
        let opened = open(source, options)?;
        Ok(Layers { top: Arc::new(opened.reader), notes: opened.notes })
    }

    /// Ranges of guest bytes that a layer above the image at `base` holds, data or zeros, in order and
    /// apart from each other: a guest cannot write anywhere else.
    ///
    /// # Errors
    /// A layer is damaged, or `base` is none of them (kind `Undetermined`).
    pub fn above(&self, base: &Path) -> Result<Vec<Range<u64>>> {
        let mut found = vec![];
        let mut layer = &self.top;
        loop {
            layer.held(&mut found)?;
            match &layer.lower {
                Some(lower) if lower.file.path() == base => break,
                Some(lower) => layer = lower,
                None => {
                    let (top, base) = (self.top.file.path().display(), base.display());
                    return Err(Error::undetermined(format!(
                        "`{top}` does not stand on the image `{base}`"
                    )));
                }
            }
        }
        Ok(joined(found))
    }

    /// Ranges of guest bytes that the uppermost layer holds itself, data or zeros, in order and apart from each other.
    ///
    /// # Errors
    /// The layer is damaged (kind `Undetermined`).
    pub fn uppermost(&self) -> Result<Vec<Range<u64>>> {
        let mut found = vec![];
        self.top.held(&mut found)?;
        Ok(joined(found))
    }

    /// The guest-visible bytes as an open image.
    #[must_use]
    pub fn container(&self) -> Container {
        Container {
            path: self.top.file.path().to_path_buf(),
            format: Format::Qcow2,
            wrapping: None,
            reader: self.top.clone(),
            notes: self.notes.clone(),
            files: vec![],
        }
    }
}

impl Qcow2 {
    /// Adds the ranges of guest bytes that this layer holds itself.
    fn held(&self, found: &mut Vec<Range<u64>>) -> Result<()> {
        let mut at = 0;
        while at < self.size() {
            let (place, end) = self.run(at, self.size())?;
            if place != Place::Unallocated {
                found.push(at..end);
            }
            at = end;
        }
        Ok(())
    }
}
