//! Work that fills a core or waits for a disk or another devbox, beside the runtime.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::event::Events;

/// Between two looks whether a lock is free.
const LOOK: Duration = Duration::from_millis(250);

/// Runs `work` on a thread of its own and waits for it; `what` says what it does, as in "hashing the disk".
///
/// # Errors
/// Those of `work`; it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::failed(format!("{what} was stopped")).cause(e))?
}

/// The lock of the file at `path`, once nobody else holds it; `note` is told when somebody does. Held until dropped.
///
/// # Errors
/// The file cannot be made or locked, or `cancel` was cancelled.
pub(crate) async fn exclusive(
    path: &Path,
    note: &str,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<File> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let file = file.into_file();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(e.into()),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            events.note(note);
            told = true;
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::interrupted("interrupted")),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
