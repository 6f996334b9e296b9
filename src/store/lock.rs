//! The store's lock: a kernel lock on an open file, so a killed process frees it.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

fn open(root: &Path) -> Result<File> {
    let path = root.join("lock");
    File::options().create(true).truncate(false).write(true).read(true).open(&path).map_err(|e| {
        Error::failed(format!("cannot open the store's lock `{}`", path.display())).cause(e)
    })
}

/// Waits for the others; writers hold it for the time of a few renames.
pub(crate) fn exclusive(root: &Path) -> Result<Guard> {
    let file = open(root)?;
    file.lock().map_err(|e| Error::failed("cannot lock the store").cause(e))?;
    Ok(Guard { _file: file })
}

/// As [`exclusive`], together with other shared holders.
pub(super) fn shared(root: &Path) -> Result<Guard> {
    let file = open(root)?;
    file.lock_shared().map_err(|e| Error::failed("cannot lock the store").cause(e))?;
    Ok(Guard { _file: file })
}

/// `None` if somebody holds it.
pub(super) fn try_exclusive(root: &Path) -> Result<Option<Guard>> {
    let file = open(root)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Guard { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::failed("cannot lock the store").cause(e)),
    }
}
