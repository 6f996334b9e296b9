//! Boxes go to a registry and come back: Debian's `docker-registry` on loopback, with a proxy before it that damages, delays
//! and refuses.
#![expect(
    clippy::print_stderr,
    reason = "what was measured explains a failed run, and what did not run has to be said"
)]

mod access;
mod arriving;
mod attached;
mod boxes;
mod clock;
mod deltas;
mod faults;
mod full;
mod import;
mod platforms;
mod proxy;
mod redirects;
mod server;
mod slow;
mod transfer;
mod trust;
mod versions;
