//! Processes by what the system lists of them, where nothing holds one: macOS and Windows.
//!
//! An id can come to mean another process, so a process is its id, the second of its start and the
//! words of its command line, all looked up again before anything is done to it.

use std::sync::Mutex;

use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

/// One process, known by its id and its start.
#[derive(Debug)]
pub struct Watched {
    pid: i32,
    start: u64,
    /// Kept, so that a look asks for one process and no more.
    system: Mutex<Box<System>>,
}

impl Watched {
    /// Opens the live process `pid`; `None` if there is none.
    #[must_use]
    pub fn open(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        let system = Mutex::new(Box::new(System::new().ok()?));
        let mut process = Watched { pid, start: 0, system };
        process.start = process.look(|process| {
            let lives = !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead);
            lives.then(|| process.start_time())
        })?;
        Some(process)
    }

    /// Looks the id up now.
    fn look<T>(&self, seen: impl FnOnce(&sysinfo::Process) -> Option<T>) -> Option<T> {
        let pid = Pid::from_u32(u32::try_from(self.pid).ok()?);
        let mut system = self.system.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let what = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
        system.process(pid).and_then(seen)
    }

    /// Looks the id up now; `None` if this process has ended, whoever has its id.
    fn look_again<T>(&self, seen: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
        self.look(|process| {
            let lives = !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead);
            (lives && process.start_time() == self.start).then(|| seen(process))
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in seconds since 1970.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether it runs still. A dead process that nobody has waited for is not alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.look_again(|_| ()).is_some()
    }

    /// The words of its command line; `None` if it is gone, or another one has its id.
    #[must_use]
    pub fn words(&self) -> Option<Vec<Vec<u8>>> {
        let bytes = |word: &std::ffi::OsString| word.as_encoded_bytes().to_vec();
        self.look_again(|process| process.cmd().iter().map(bytes).collect())
    }

    /// Kills it; no fault if it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&self) -> std::io::Result<()> {
        match self.look_again(sysinfo::Process::kill) {
            None | Some(true) => Ok(()),
            Some(false) if !self.alive() => Ok(()),
            Some(false) => Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied)),
        }
    }
}

/// This boot of the host, by its second; another one where the clock was set.
#[must_use]
pub fn boot_id() -> String {
    System::boot_time().map(|seconds| format!("since {seconds}")).unwrap_or_default()
}

/// The host's first processor: its model, and nothing about its features, which no safe call tells.
#[must_use]
pub fn processor() -> (String, String) {
    let Ok(mut system) = System::new() else { return Default::default() };
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    (system.cpus().first().map(|cpu| cpu.brand().to_owned()).unwrap_or_default(), String::new())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_id_and_start_and_gone_when_it_is_killed() {
        let mut child = Command::new("sleep").arg("61").spawn().expect("sleep runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        let process = Watched::open(pid).expect("it lives");
        assert_eq!(process.pid(), pid);
        assert_ne!(process.start(), 0);
        // The kernel wakes the parent before the child's arguments are in place.
        while process.words().expect("it lives") != [b"sleep".to_vec(), b"61".to_vec()] {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut another = Watched::open(pid).expect("it lives");
        another.start += 1;
        assert!(!another.alive() && another.words().is_none(), "another one has its id now");
        another.kill().expect("none of its business");
        assert!(process.alive());
        process.kill().expect("killed");
        while process.alive() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(process.words().is_none(), "dead, though nobody has waited for it");
        process.kill().expect("no fault");
        child.wait().expect("reaped");
        assert!(Watched::open(pid).is_none());
        assert!(Watched::open(0).is_none() && Watched::open(-1).is_none());
    }

    #[test]
    fn the_host_says_when_it_booted_and_what_it_runs_on() {
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().starts_with("since "), "{}", boot_id());
        assert!(!processor().0.is_empty());
    }
}
