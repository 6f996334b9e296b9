//! The files that a build's disk is made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container_format;
use crate::error::Result;
use crate::image::Limits;
use crate::image::container::{self, Container, Format};
use crate::image::disk::Disk;
use crate::image::slice::Whole;
use crate::source::SourceDisk;

/// A source's disk and the layers on it.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    base: PathBuf,
    format: Format,
    /// Qcow2 files, the lowest first.
    layers: Vec<PathBuf>,
}

impl Chain {
    pub(super) fn new(source: &SourceDisk, layers: Vec<PathBuf>) -> Self {
        Chain {
            base: std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone()),
            format: container_format(source.format),
            layers,
        }
    }

    pub(super) fn push(&mut self, layer: PathBuf) {
        self.layers.push(layer);
    }

    /// The layers, the lowest first.
    pub(super) fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// What the next layer lies on.
    pub(super) fn top(&self) -> (&Path, Format) {
        self.layers.last().map_or((&*self.base, self.format), |layer| (&**layer, Format::Qcow2))
    }

    /// All files, the source's disk last.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.layers.iter().rev().chain([&self.base]).map(|file| &**file).collect()
    }

    /// The folders that hold them.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<_> = self.files().into_iter().map(super::parent).collect();
        folders.dedup();
        folders
    }

    /// The guest-visible bytes.
    ///
    /// # Errors
    /// A file cannot be read, or lies on one that is not of the chain.
    pub(super) fn open(&self) -> Result<Container> {
        let (path, format) = self.top();
        container::open(path, &options(&self.files(), format))
    }

    /// What is on the disk. It knows its places.
    ///
    /// # Errors
    /// As [`Chain::open`]; the disk cannot be read.
    pub(super) fn disk(&self) -> Result<Disk> {
        let mut container = self.open()?;
        container.reader = Arc::new(Whole(container.reader));
        Disk::read(container, &Limits::default())
    }
}

/// How the uppermost of some files of a build, of this format, is opened.
pub(super) fn options(files: &[&Path], format: Format) -> container::Options {
    let folders = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    container::Options {
        format: Some(format),
        backing: container::Backing::Within(folders),
        ..container::Options::default()
    }
}
