//! Tests on real machines: the main job on a Debian guest, and faults on the tiny guest.
//!
//! Run with `./test vm`; slow without KVM.

mod cloning;
#[path = "../support/containers.rs"]
mod containers;
mod disks;
mod faults;
mod faulty_images;
mod faulty_network;
mod folders;
mod full_disk;
mod killed;
mod machines;
mod main_job;
mod mirror;
mod network;
mod people;
mod provisioning;
mod settings;
mod standing;
#[path = "../support/tiny.rs"]
mod tiny;
mod verbs;
mod warm;
mod workbench;
