//! One function a parser: it takes any input, and must neither panic, nor hang, nor take more memory
//! than [`crate::MEMORY`].

mod checks;
mod images;
mod texts;

pub use images::*;
pub use texts::*;
