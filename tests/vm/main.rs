//! Tests on real machines: the main job on a Debian guest, and faults on the tiny guest.
//!
//! Run with `./test vm`; slow without KVM.

mod arriving;
mod beside;
mod cloning;
#[path = "../support/containers.rs"]
mod containers;
mod died;
mod disks;
mod drifted;
mod entered;
mod faults;
mod faulty_images;
mod faulty_network;
mod folders;
mod full_disk;
mod hardware;
mod killed;
mod machines;
mod main_job;
mod mirror;
mod network;
mod people;
mod promoted;
mod provisioners;
mod provisioning;
mod remains;
mod settings;
mod stale;
mod standing;
#[path = "../support/tiny.rs"]
mod tiny;
mod verbs;
mod versions;
mod warm;
mod workbench;
mod workloads;
