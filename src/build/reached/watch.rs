//! The record while it is written: QEMU writes into a pipe, and nothing of it is kept.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use tokio::sync::{Mutex as Turn, mpsc};

use super::flows::{Flows, Names, Taken};
use super::pcap::{self, Record};
use crate::error::{Error, Result};
use crate::machine::Machine;

/// Most bytes of a frame that are recorded: with its head less than what a pipe takes as a whole (POSIX, `PIPE_BUF`: 4096
/// on Linux), so that a mark never falls into the middle of one. No frame of this network is longer.
const FRAME: u32 = 4000;
/// For what was recorded to be read; a busy host takes a second.
const READ: Duration = Duration::from_secs(60);
/// The guest's hardware address, as QEMU's option has it.
const MAC: &str = crate::machine::config::NAT_MAC;

/// The number of a mark, and what is known then.
type Answer = (u32, Taken, Names);

/// A record of what a guest reaches.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    pipe: Mutex<File>,
    marks: Turn<(u32, mpsc::UnboundedReceiver<Answer>)>,
}

impl Watch {
    /// Lets a guest's network be recorded from now on; `names` are those that it knows already. `dir` takes the pipe.
    ///
    /// # Errors
    /// The pipe cannot be made, or QEMU refuses it.
    pub(crate) async fn begin(machine: &Machine, dir: &Path, names: Names) -> Result<Self> {
        let path = dir.join("network");
        let cannot =
            |e: std::io::Error| Error::failed("cannot record what the guest reaches").cause(e);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|e| cannot(e.into()))?;
        // Neither side can open it for itself alone without waiting for the other one.
        let mut options = File::options();
        let reader = options.read(true).custom_flags(nonblocking()).open(&path).map_err(cannot)?;
        let flags = rustix::fs::fcntl_getfl(&reader).map_err(|e| cannot(e.into()))?;
        rustix::fs::fcntl_setfl(&reader, flags - OFlags::NONBLOCK).map_err(|e| cannot(e.into()))?;
        let writer = File::options().write(true).open(&path).map_err(cannot)?;
        machine.record_network(&path, FRAME).await?;
        let (send, marks) = mpsc::unbounded_channel();
        let mac = mac()?;
        // A thread of its own: it waits for the guest, and ends with QEMU and this record.
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                let mut flows = Flows::new(mac, names);
                let _ = pcap::read(std::io::BufReader::new(reader), |record| match record {
                    Record::Frame(frame) => {
                        flows.frame(frame);
                        true
                    }
                    Record::Mark(number) => {
                        let taken = flows.take();
                        send.send((number, taken, flows.names().clone())).is_ok()
                    }
                });
            })
            .map_err(cannot)?;
        Ok(Watch { path, pipe: Mutex::new(writer), marks: Turn::new((0, marks)) })
    }

    /// What was reached since the last time, or since the beginning.
    ///
    /// # Errors
    /// The record broke off, or there is more than is told apart.
    pub(crate) async fn taken(&self) -> Result<Taken> {
        Ok(self.look().await?.0)
    }

    /// The names that the guest knows. What was reached is forgotten, as by [`Watch::taken`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn names(&self) -> Result<Names> {
        Ok(self.look().await?.1)
    }

    async fn look(&self) -> Result<(Taken, Names)> {
        let broken = || {
            Error::failed("the record of what the guest reaches broke off")
                .hint("Run the same command again.")
        };
        let mut turn = self.marks.lock().await;
        turn.0 = turn.0.wrapping_add(1);
        let number = turn.0;
        {
            let mut pipe = self.pipe.lock().map_err(|_| broken())?;
            pipe.write_all(&pcap::mark(number)).map_err(|e| broken().cause(e))?;
        }
        let next = async {
            while let Some((found, taken, names)) = turn.1.recv().await {
                if found == number {
                    return Some((taken, names));
                }
            }
            None
        };
        let found = tokio::time::timeout(READ, next).await.ok().flatten().ok_or_else(broken)?;
        if found.0.lost {
            return Err(Error::failed("the guest reaches too many hosts to record them all"));
        }
        Ok(found)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn nonblocking() -> i32 {
    i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default()
}

fn mac() -> Result<[u8; 6]> {
    let bytes: Vec<u8> =
        MAC.split(':').filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes.try_into().map_err(|_| Error::failed("the guest's hardware address has no six bytes"))
}
