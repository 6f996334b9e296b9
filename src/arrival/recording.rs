//! Sees what a boot reads: a whole disk is served to one QEMU, and its reads are written down.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::connection::{self, Export, NotHere};
use super::disk::Disk;
use crate::error::{Error, Result};

/// Most reads that are written down; a boot of Debian has some thousands.
const MOST_READS: usize = 1 << 18;

/// A disk that is served, and what was read of it.
#[derive(Debug)]
pub struct Recording {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    disk: Disk,
    reads: Mutex<Vec<Range<u64>>>,
}

impl Recording {
    /// Serves the disk in the file `disk` at `socket`, which is to be in a private folder.
    ///
    /// # Errors
    /// The disk cannot be read, or there can be no such socket.
    pub fn start(disk: &Path, socket: &Path) -> Result<Self> {
        let file = fs_err::File::open(disk)?.into_parts().0;
        let size = file.metadata()?.len();
        let seen = Arc::new(Seen { disk: Disk::whole(file, size), reads: Mutex::default() });
        let listener = UnixListener::bind(socket).map_err(|e| {
            Error::failed(format!("cannot listen on `{}`", socket.display())).cause(e)
        })?;
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // Why a client goes is its own affair.
                    let _ = connection::serve(stream, shared).await;
                });
            }
        });
        Ok(Recording { seen, task })
    }

    /// What was read, in order.
    #[must_use]
    pub fn reads(&self) -> Vec<Range<u64>> {
        self.seen.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Export for Seen {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    async fn ready(&self, range: Range<u64>) -> Result<(), NotHere> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() < MOST_READS {
            reads.push(range);
        }
        Ok(())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read(at, into)
    }
}
