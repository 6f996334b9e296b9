//! Boxes go to registries and come from there (OCI Distribution Specification 1.1), to folders with an OCI image layout, and
//! come from web servers that show one.
//!
//! What moves is a manifest, an index and packs, see [`crate::chunks`]: a client that has a version of a box takes of a
//! new one what it lacks. Nothing is believed: the manifest is verified by its digest where one was named, all else by those in it,
//! chunk by chunk as it arrives, and the disk as a whole before anybody sees it.

pub mod address;
mod attached;
mod auth;
mod boot;
pub mod credentials;
mod described;
mod folder;
pub mod foreign;
mod http;
mod look;
pub mod manifest;
mod platforms;
mod pull;
mod push;
mod remote;
mod select;
mod signing;
mod tags;
pub mod trust;
mod upload;

use std::time::Duration;

pub use address::Address;
pub use attached::MAX_ARTIFACT;
pub use boot::attach_boot;
pub use described::Described;
pub use http::Retry;
pub use look::{Offered, look};
pub use pull::{Arriving, Begun, Known, Pulled, begin, known, pull};
pub use push::{Pushed, push};
pub use remote::{Access, Options, Remote};
pub use select::{choose, newest, versions};
pub use signing::{SignedBox, sign};
pub use trust::Policy;

/// Requests that are under way at once: each has up to 4 MiB in memory.
const AT_ONCE: usize = 8;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(200);

/// What moved over the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Requests, repeated ones too.
    pub requests: u64,
    /// Bytes that arrived, without headers.
    pub received: u64,
    /// Bytes that were sent, without headers.
    pub sent: u64,
}

impl Moved {
    fn of(remote: &Remote) -> Self {
        let (requests, received, sent) = remote.traffic();
        Moved { requests, received, sent }
    }
}
