//! Fuzz targets, one a parser.
//!
//! The parsers' own files are compiled in here, without the rest of devbox: no network, no async, and
//! a target sees what the crate keeps to itself.

#[path = "../../src/guest/copy/tar.rs"]
pub mod archive;
#[path = "../../src/source/checksum/mod.rs"]
pub mod checksum;
#[path = "../../src/chunks/mod.rs"]
pub mod chunks;
#[path = "../../src/digest.rs"]
pub mod digest;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/image/mod.rs"]
pub mod image;
#[path = "../../src/arrival/nbd.rs"]
pub mod nbd;
#[path = "../../src/parity/mod.rs"]
pub mod parity;
#[path = "../../src/build/seal/report.rs"]
pub mod report;
#[path = "../../src/machine/serial.rs"]
pub mod serial;
#[path = "../../src/spec/mod.rs"]
pub mod spec;

/// The record of a guest's network, without what starts it.
#[path = "."]
pub mod reached {
    #[path = "../../src/build/reached/dns.rs"]
    pub mod dns;
    #[path = "../../src/build/reached/flows/mod.rs"]
    pub mod flows;
    #[path = "../../src/build/reached/hello.rs"]
    pub mod hello;
    #[path = "../../src/build/reached/packet.rs"]
    pub mod packet;
    #[path = "../../src/build/reached/pcap.rs"]
    pub mod pcap;
}

/// JSON in which no member is there twice, without the keys and signatures.
#[path = "."]
pub mod attest {
    #[path = "../../src/attest/json.rs"]
    pub mod json;
}

/// Vagrant's catalogs, in and out, without what is fetched for them.
#[path = "."]
pub mod import {
    #[path = "../../src/import/catalog.rs"]
    pub mod catalog;
    #[path = "../../src/import/offer.rs"]
    pub mod offer;
    #[path = "../../src/import/version.rs"]
    pub mod version;
}

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
