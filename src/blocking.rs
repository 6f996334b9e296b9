//! Work that fills a core or waits for a disk, beside the runtime.

use crate::error::{Error, Result};

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
