//! What the guest of an installer or of the steps reaches: names and ports, from the record of its network that QEMU writes.
//!
//! It is a record and no fence: what leaves the guest is looked at, not held back.

pub(crate) mod dns;
mod flows;
pub(crate) mod hello;
pub(crate) mod packet;
pub(crate) mod pcap;
mod watch;

pub(super) use flows::{Names, Reached, Roles, Taken};
pub(super) use watch::Watch;
