//! Fuzz targets, one a parser.
//!
//! The parsers' own files are compiled in here, without the rest of devbox: no network, no async, and
//! a target sees what the crate keeps to itself.

#[path = "../../src/guest/copy/tar.rs"]
pub mod archive;
#[path = "../../src/source/checksum/mod.rs"]
pub mod checksum;
#[path = "../../src/digest.rs"]
pub mod digest;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/image/mod.rs"]
pub mod image;
#[path = "../../src/parity/mod.rs"]
pub mod parity;
#[path = "../../src/build/seal/report.rs"]
pub mod report;
#[path = "../../src/machine/serial.rs"]
pub mod serial;
#[path = "../../src/spec/mod.rs"]
pub mod spec;

pub mod input;
pub mod mutate;
pub mod sparse;
pub mod target;
pub mod trace;

/// Memory that one input may take together with its image; beyond it the process ends, and libFuzzer
/// keeps the input.
const MEMORY: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, MEMORY);
