//! The reports of `devbox parity`: each form held against its own rules, and all against each other.

#[path = "../support/lab.rs"]
mod lab;

mod browser;
mod ci;
mod forms;
mod options;
mod pair;
mod told;
