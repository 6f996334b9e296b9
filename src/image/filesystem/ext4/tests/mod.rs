//! Images made by `mke2fs` and written by the kernel, compared with what the kernel shows of them.

mod hostile;
mod kernel;
mod large;
mod made;
mod oracle;
mod replay;
mod workshop;
