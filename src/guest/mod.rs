//! The inside of a guest: its keys, its cloud-init seed, commands over ssh, its agent.

pub mod agent;
pub mod copy;
pub mod iso9660;
pub mod keys;
pub mod seed;
pub mod ssh;
