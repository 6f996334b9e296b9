//! Machines start while their box arrives: a process for each such disk serves it to QEMU, chunk by chunk, what is read first, and
//! puts the box into the store when all is here.
//!
//! `nbd` is the protocol, [`connection`] one client; `map` says which chunks hold which bytes, `queue` what is fetched next, `disk`
//! lets reads wait for it. `server` is the process, `machines` the QEMUs that it serves: one that waited too long stands still
//! and is let go on, and all are moved over to the file once it is whole. `recording` sees what a boot reads.

mod connection;
mod disk;
mod machines;
mod map;
#[doc(hidden)]
pub mod nbd;
mod queue;
mod recording;
mod server;

pub use recording::Recording;
pub use server::serve;
