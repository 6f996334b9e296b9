//! The inside of a guest: its keys, its cloud-init seed, commands over ssh, its agent, the
//! identity of a copy.

pub mod agent;
pub mod clock;
// Works with folders by their descriptors and with names that are bytes.
#[cfg(unix)]
pub mod copy;
pub mod disks;
pub mod folder;
pub mod host_settings;
pub mod identity;
pub mod iso9660;
pub mod keys;
pub mod network;
pub mod program;
pub mod seed;
pub mod ssh;
pub mod work;
