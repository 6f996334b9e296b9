//! `devbox.toml`: types, parse, defaults, validate (all problems at once), schema.
//!
//! [`keys`] says once which tables and keys there are. The parser, the JSON schema and the reference
//! in `docs/spec.md` are made from it.

pub mod boot_command;
mod decode;
pub mod digest;
pub mod grammar;
pub mod keys;
mod load;
pub mod personal;
pub mod problem;
pub mod quantity;
mod reader;
pub mod reference;
pub mod schema;
pub mod shape;
pub mod subnet;
mod syntax;
pub mod template;
pub mod types;
mod values;

pub use load::{FILE_NAME, find, load, parse, read};
pub use problem::{Problem, Problems};
pub use types::*;

#[cfg(test)]
mod iso_tests;
#[cfg(test)]
mod tests;
