//! Images that were made to mislead, to exhaust or to reach the host. Each ends in one clear error and
//! exit code 3, or is read as what it is; either way within ten seconds of processor time and 256 MiB,
//! with no file of the host opened besides the input, none written that has a name, and no socket
//! (`watch.rs`).
//!
//! All of them are made here, by the programs that make such images and by changed bytes.

mod boot;
mod btrfs;
mod containers;
mod ext;
mod fat;
mod lvm;
mod packed;
mod partitions;
mod vhd;
mod vhdx;
mod vmdk;
mod watch;
mod workshop;
mod xfs;
