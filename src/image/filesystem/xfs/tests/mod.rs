//! Images made by `mkfs.xfs` and written by the kernel, compared with what the kernel shows of them.

mod hostile;
mod kernel;
mod large;
mod made;
mod oracle;
mod populate;
mod replay;
mod workshop;
