//! How a file was when it was whole.

use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::os;

/// Size, inode and time of change of a file that is too large to be hashed each time. A machine that crashed or a
/// program that copied files about leaves another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// That of a file as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path)?;
        let (inode, modified) = os::fingerprint(&meta);
        Ok(Stamp { size: meta.len(), inode, modified })
    }
}
