//! Inputs to verified bytes: a disk made from a distribution's packages.

pub mod address;
pub mod checksum;
pub mod disk;
pub mod fetch;
pub mod image;
pub mod medium;
pub mod packages;
pub mod seed;
pub mod signature;

use std::path::PathBuf;

use crate::spec::types::InputFormat;

/// What a source hands to the build: a disk that nobody writes to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDisk {
    /// The disk: sparse, read-only, in the cache.
    pub path: PathBuf,
    /// How its bytes are packed.
    pub format: InputFormat,
    /// Guest-visible size in bytes.
    pub size: u64,
    /// Seconds since 1970 UTC: the date of the packages; no file time on the disk is later.
    pub epoch: i64,
    /// 64 hex digits: the same inputs have the same key.
    pub key: String,
}
