//! devbox: one spec, one sealed image, a dev box that runs it, and proof by hash that dev and cloud match.
//!
//! # Layout
//!
//! The folders tell the story of an image, in this order:
//!
//! | module | what it knows |
//! |---|---|
//! | [`cli`] | the verbs; one verb, one file |
//! | [`spec`] | `devbox.toml`: types, parse, defaults, validate (all problems at once), schema |
//! | [`source`] | inputs to verified bytes: a disk from packages, or a fetched image |
//! | [`project`] | the machines of one project: which there are, how they come up and go down together |
//! | [`helper`] | the process beside a project's machines: their switch, their clocks |
//! | [`build`] | runs a spec: boot, steps, seal, outputs |
//! | [`guest`] | the inside of a guest: cloud-init seed, ssh, agent |
//! | [`machine`] | one virtual machine: config, argv, process, QMP, ports, readiness, stop |
//! | [`image`] | reads disks without root: container, partition table, filesystem, file tree |
//! | [`parity`] | canonical text, digests, comparison |
//! | [`store`] | boxes on disk, as an OCI image layout |
//! | [`host`], [`exec`], [`digest`], [`event`], [`error`], [`ui`], [`crash`] | leaves |
//!
//! Who may call whom: `cli` -> `project` -> `helper`, `build`, `machine`, `parity`, `store` -> `spec`, `source`, `guest`,
//! `image` -> leaves. `machine` knows no spec, store or build. `image` and `parity` start no program
//! and no machine. Only [`ui`] prints, only `main` exits, only [`exec`] and `machine::process` start
//! programs.

pub mod build;
pub mod cli;
pub mod crash;
pub mod digest;
pub mod error;
pub mod event;
pub mod exec;
pub mod guest;
pub mod helper;
pub mod host;
pub mod image;
pub mod machine;
pub mod parity;
pub mod project;
pub mod source;
pub mod spec;
pub mod store;
pub mod ui;
