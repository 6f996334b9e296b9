//! One function a parser: it takes any input, and must neither panic, nor hang, nor take more memory
//! than [`crate::MEMORY`].

mod catalog;
mod checks;
mod chunks;
mod images;
mod packages;
mod texts;
mod whole;

pub use catalog::catalog;
pub use chunks::chunks;
pub use images::*;
pub use packages::packages;
pub use texts::*;
