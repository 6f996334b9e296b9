//! The private network's switch: frames between the machines of one project, and nobody else.
//!
//! A machine's card is a Unix datagram socket in its folder, its port one in the helper's: only this user
//! can reach either. Which machine has which address is known beforehand, so nothing is learned: a frame
//! that claims another machine's address is dropped, one to an address that nobody has goes nowhere,
//! and the table is as long as the project has machines. Nothing is kept: a frame that its receiver
//! has no room for is dropped, as on any network.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustix::net::{SendFlags, SocketAddrUnix, sendto};
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use super::log::Log;
use super::place::bind;

/// Both addresses and the type (IEEE 802.3).
const HEADER: usize = 14;
/// With a VLAN tag and 1500 bytes of content, which is the card's MTU.
const LARGEST: usize = HEADER + 4 + 1500;
/// After a port's socket failed, which it does not.
const PAUSE: Duration = Duration::from_millis(100);

/// All ports.
#[derive(Debug, Default)]
pub(super) struct Switch {
    table: Arc<Table>,
    tasks: Vec<Task>,
}

type Table = RwLock<Vec<Arc<Port>>>;

/// One machine's port.
#[derive(Debug)]
struct Port {
    name: String,
    mac: [u8; 6],
    socket: UnixDatagram,
    /// Where the machine's frames come from and go to.
    peer: PathBuf,
    address: SocketAddrUnix,
    /// Frames that claimed another source, or had a size that no frame has.
    refused: AtomicU64,
    /// What of them was reported.
    reported: AtomicU64,
}

/// The work of a port; ends with it.
#[derive(Debug)]
struct Task {
    name: String,
    at: PathBuf,
    /// Which file the socket is, so that one that was removed is noticed.
    inode: u64,
    work: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Switch {
    pub(super) fn new() -> Self {
        Switch::default()
    }

    /// Takes frames of the machine `name` at the socket `at`, from and to its card's socket `peer`. False
    /// if that is so already.
    pub(super) fn serve(
        &mut self,
        name: &str,
        mac: [u8; 6],
        at: &Path,
        peer: &Path,
    ) -> std::io::Result<bool> {
        if self.tasks.iter().any(|t| t.name == name && inode(at) == Some(t.inode)) {
            return Ok(false);
        }
        self.remove(|other| other == name);
        let port = Arc::new(Port {
            name: name.to_owned(),
            mac,
            socket: bind(at)?,
            peer: peer.to_owned(),
            address: SocketAddrUnix::new(peer)?,
            refused: AtomicU64::new(0),
            reported: AtomicU64::new(0),
        });
        let inode = inode(at).ok_or(std::io::ErrorKind::NotFound)?;
        self.table.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&port));
        let work = tokio::spawn(forward(port, Arc::clone(&self.table)));
        self.tasks.push(Task { name: name.to_owned(), at: at.to_owned(), inode, work });
        Ok(true)
    }

    /// Closes the ports of all machines but these.
    pub(super) fn retain(&mut self, names: &[&str]) {
        self.remove(|name| !names.contains(&name));
    }

    fn remove(&mut self, gone: impl Fn(&str) -> bool) {
        for task in self.tasks.iter().filter(|task| gone(&task.name)) {
            if inode(&task.at) == Some(task.inode) {
                let _ = std::fs::remove_file(&task.at);
            }
        }
        self.tasks.retain(|task| !gone(&task.name));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.retain(|port| !gone(&port.name));
    }

    /// Says once that a machine sends what it may not; a machine cannot fill the log with it.
    pub(super) fn report(&self, log: &Log) {
        for port in self.table.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let refused = port.refused.load(Ordering::Relaxed);
            let reported = port.reported.swap(refused, Ordering::Relaxed);
            if reported == 0 && refused > 0 {
                log.line(format_args!(
                    "`{}` sends frames that are not its own or too large; they are dropped",
                    port.name
                ));
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

/// Passes the frames of one machine on, for ever.
async fn forward(port: Arc<Port>, table: Arc<Table>) {
    // One byte more shows a frame that is too large, which the kernel would cut.
    let mut buffer = [0; LARGEST + 1];
    loop {
        let Ok((length, from)) = port.socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if from.as_pathname() != Some(port.peer.as_path()) {
            continue;
        }
        let Some((target, frame)) = accepted(&buffer[..length], port.mac) else {
            port.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let ports = table.read().unwrap_or_else(PoisonError::into_inner);
        let others = ports.iter().filter(|other| other.name != port.name);
        for other in others.filter(|other| target.is_none_or(|mac| mac == other.mac)) {
            // From the receiver's own port: the kernel counts what waits against the socket that sends, so one
            // machine that stands still takes no room from the others. Not through tokio, which waits for
            // room in the wrong socket.
            let _ = sendto(&other.socket, frame, SendFlags::DONTWAIT, &other.address);
        }
    }
}

/// Whom a frame is for (`None`: all), if it may come from the machine with the address `mac`.
fn accepted(frame: &[u8], mac: [u8; 6]) -> Option<(Option<[u8; 6]>, &[u8])> {
    let target: [u8; 6] = frame.get(..6)?.try_into().ok()?;
    let source = frame.get(6..12)?;
    if source != mac || !(HEADER..=LARGEST).contains(&frame.len()) {
        return None;
    }
    // The group bit (IEEE 802, 8.2).
    let group = target[0] & 1 == 1;
    Some(((!group).then_some(target), frame))
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
