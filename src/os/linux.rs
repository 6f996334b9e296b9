//! Linux: pidfds, `/proc`, and programs of util-linux that become the program that is meant.

use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Bond;

/// A Unix socket's path holds so many bytes (unix(7)).
pub const SOCKET_PATH: usize = 107;

/// One process, held by a pidfd: its id cannot come to mean another one.
#[derive(Debug)]
pub struct Watched {
    pid: Pid,
    pidfd: OwnedFd,
    start: u64,
}

impl Watched {
    /// Opens the live process `pid`; `None` if there is none.
    #[must_use]
    pub fn open(pid: i32) -> Option<Self> {
        // A negative number names a group, and rustix panics on it.
        let pid = if pid > 0 { Pid::from_raw(pid)? } else { return None };
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let start = start_time(pid)?;
        let process = Watched { pid, pidfd, start };
        process.alive().then_some(process)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// When it started, in clock ticks since the host's boot (proc(5), `starttime`).
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether it runs still. A dead process that nobody has waited for is not alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// The words of its command line; `None` if it is gone, or another one has its id.
    #[must_use]
    pub fn words(&self) -> Option<Vec<Vec<u8>>> {
        // Read after the pidfd was opened, and the process lives still: it is the same one.
        let words = std::fs::read(format!("/proc/{}/cmdline", self.pid())).ok()?;
        let same = self.alive() && start_time(self.pid) == Some(self.start);
        same.then(|| words.split(|b| *b == 0).map(<[u8]>::to_vec).collect())
    }

    /// Kills it; no fault if it is gone.
    ///
    /// # Errors
    /// The kernel refuses the signal.
    pub fn kill(&self) -> std::io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// `starttime` of proc(5): field 22; the fields are counted after the last `)`, since the name
/// before it may hold anything.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The words in front of a program that starts it under this bond, in a session of its own or in a
/// group of its own. They replace themselves by it: the process id stays.
#[must_use]
pub fn in_front(bond: Bond) -> &'static [&'static str] {
    match bond {
        // A session of its own: neither Ctrl-C nor the end of a terminal reaches it.
        Bond::None => &["setsid"],
        Bond::Starter => &["setpriv", "--pdeathsig", "KILL", "--"],
    }
}

/// What ends a program with devbox while it is held.
#[derive(Debug)]
pub struct Tie;

/// Ties a program that was started to devbox; the words of [`in_front`] have done it here.
///
/// # Errors
/// None.
pub fn tie(_child: &Child) -> std::io::Result<Tie> {
    Ok(Tie)
}

/// What the kernel calls this boot of the host; empty if it says nothing.
#[must_use]
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The host's first processor: its model and its features, one line each (proc(5), `/proc/cpuinfo`).
#[must_use]
pub fn processor() -> (String, String) {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key));
        line.and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim()).to_owned()
    };
    (of("model name"), of("flags"))
}
