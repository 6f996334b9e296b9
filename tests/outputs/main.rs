//! What `devbox build` writes from a stored box: each format by the programs of those who made it, the
//! same bytes twice, and what is left when writing fails. The box is put into the store by hand, so that
//! no guest has to boot.

mod about;
mod again;
mod desk;
mod faults;
mod formats;
#[path = "../support/lab.rs"]
mod lab;
mod vagrant;
