//! The kernel as the oracle of the filesystem readers.
//!
//! An image is made, mounted on a loop device and filled; then its bytes are read by devbox, and a
//! copy of the same bytes is mounted by the kernel, read-only, and hashed as a directory. Both must
//! give the same `tree1` and `links1`. Where the filesystem was cut off instead of unmounted, the
//! kernel replays the journal of the copy, and devbox has to see what the kernel sees then.
//!
//! [`campaign`] does this for many images made by random [`operations`]; [`system`] for a whole
//! Debian with everything that a filesystem can hold. A filesystem's own module says which shapes
//! of it there are, in a list.
//!
//! [`drift`] asks what changed between two images of one filesystem, and takes our own comparison of
//! everything as its oracle; [`causes`] asks why.
//!
//! All of it needs root and loop devices; elsewhere each test says that it did not run.
//! `DEVBOX_KERNEL_SEED=17` runs the image of that seed alone.
#![expect(clippy::print_stderr, reason = "what did not run or was counted is said")]

mod btrfs;
mod campaign;
mod causes;
mod drift;
mod ext4;
mod mounted;
mod numbers;
mod operations;
mod overlay;
mod system;
mod xfs;
