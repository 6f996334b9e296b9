//! Images made by `mkfs.btrfs` and written by the kernel, compared with what the kernel shows of them.

mod fill;
mod hostile;
mod kernel;
mod workshop;
