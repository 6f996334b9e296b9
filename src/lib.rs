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
//! | [`lock`] | `devbox.lock`: its text, whether it fits a spec |
//! | [`source`] | inputs to verified bytes: a disk from packages, or a fetched image |
//! | [`project`] | the machines of one project: which there are, how they come up and go down together |
//! | [`helper`] | the process beside a project's machines: their switch, their clocks |
//! | [`arrival`] | the process that serves a box's disk to machines while it arrives |
//! | [`build`] | runs a spec: boot, steps, seal, outputs |
//! | [`guest`] | the inside of a guest: cloud-init seed, ssh, agent |
//! | [`machine`] | one virtual machine: config, argv, process, QMP, ports, readiness, stop |
//! | [`image`] | reads disks without root: container, partition table, filesystem, file tree |
//! | [`parity`] | canonical text, digests, comparison |
//! | [`live`] | a host that runs, hashed over there by way of ssh |
//! | [`attest`] | a signed file that says two images are equal |
//! | [`store`] | boxes on disk, as an OCI image layout |
//! | [`delta`] | old versions of boxes as what they differ by from the newest one |
//! | [`chunks`] | a box's disk in pieces, so that a new version moves what changed |
//! | [`registry`] | boxes go to registries, folders and web servers, and come from there |
//! | [`import`] | what others made becomes a box |
//! | [`os`] | what differs between Linux, macOS and Windows |
//! | [`host`], [`exec`], [`digest`], [`event`], [`error`], [`ui`], [`crash`], `blocking` | leaves |
//!
//! Who may call whom: `cli` -> `project`, `import` -> `helper`, `build`, `machine`, `live`, `parity` -> `registry` -> `attest`, `delta`,
//! `chunks` -> `store`, `lock`, `spec`, `source`, `guest`, `image` -> leaves. `machine` knows no spec, store or build. `image` and `parity` start no
//! program and no machine. Only [`ui`] prints, only `main` exits, only [`exec`], [`os`], [`live`] and
//! `machine::process` start programs.

#[cfg(all(feature = "images", not(target_os = "linux")))]
compile_error!(
    "devbox runs on Linux; for other systems its library is type-checked, with `--no-default-features`"
);

// Serves what `chunks` knows.
#[cfg(feature = "images")]
pub mod arrival;
pub mod attest;
// For those below that need `image`.
#[cfg(feature = "images")]
mod blocking;
// Needs `image` and `source`.
#[cfg(feature = "images")]
pub mod build;
// Compresses, and reads what `image` reads.
#[cfg(feature = "images")]
pub mod chunks;
// The verbs are about images and projects.
#[cfg(feature = "images")]
pub mod cli;
pub mod crash;
// Compresses.
#[cfg(feature = "images")]
pub mod delta;
pub mod digest;
pub mod error;
pub mod event;
pub mod exec;
pub mod guest;
// The switch between machines works with Linux's datagram sockets.
#[cfg(target_os = "linux")]
pub mod helper;
pub mod host;
// Its decompressors compile C.
#[cfg(feature = "images")]
pub mod image;
// Gets disks from registries and gives them to `build`.
#[cfg(feature = "images")]
pub mod import;
// Gives what it sees to `parity`.
#[cfg(feature = "images")]
pub mod live;
// What it writes down is made by `build`.
#[cfg(feature = "images")]
pub mod lock;
pub mod machine;
pub mod os;
// Hashes what `image` reads.
#[cfg(feature = "images")]
pub mod parity;
// Builds its boxes, by `build`.
#[cfg(feature = "images")]
pub mod project;
// Its TLS library compiles C.
#[cfg(feature = "images")]
pub mod registry;
// Its TLS library compiles C.
#[cfg(feature = "images")]
pub mod source;
pub mod spec;
// Its blobs are read-only by their modes.
#[cfg(unix)]
pub mod store;
pub mod ui;
