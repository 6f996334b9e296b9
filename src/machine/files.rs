//! Every file that a machine's two folders may hold.

use std::path::{Path, PathBuf};

use super::config::Firmware;

/// A machine's folders: `dir` keeps what lasts, `runtime` holds the sockets of a running machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    dir: PathBuf,
    runtime: PathBuf,
}

impl Files {
    /// Names the files below these two folders; touches nothing.
    #[must_use]
    pub fn new(dir: &Path, runtime: &Path) -> Self {
        Files { dir: dir.to_owned(), runtime: runtime.to_owned() }
    }

    /// The lasting folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the sockets.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// What devbox knows about the machine.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.dir.join("machine.json")
    }

    /// On which images it ran; outlives what the machine is made of.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.dir.join("history.json")
    }

    /// Held by the devbox that works on the machine.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The machine's own disk layer over the sealed image.
    #[must_use]
    pub fn overlay(&self) -> PathBuf {
        self.dir.join("overlay.qcow2")
    }

    /// There while the machine's data disks wait for it to be made anew.
    #[must_use]
    pub fn reset(&self) -> PathBuf {
        self.dir.join("reset")
    }

    /// The cloud-init seed.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.dir.join("seed.iso")
    }

    /// Keys, known hosts and configuration of ssh.
    #[must_use]
    pub fn ssh_dir(&self) -> PathBuf {
        self.dir.join("ssh")
    }

    /// What the guest wrote on its serial console since the last start.
    #[must_use]
    pub fn serial_log(&self) -> PathBuf {
        self.dir.join("serial.log")
    }

    /// The serial console of the start before: still there after an unexpected end.
    #[must_use]
    pub fn serial_log_before(&self) -> PathBuf {
        self.dir.join("serial.log.1")
    }

    /// QEMU's standard output and error.
    #[must_use]
    pub fn qemu_log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    /// QEMU's command line, for people.
    #[must_use]
    pub fn command_line(&self) -> PathBuf {
        self.dir.join("qemu.command")
    }

    /// QEMU's process id, written by QEMU itself; stays behind when QEMU is killed.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("qemu.pid")
    }

    /// The machine's own UEFI variables.
    #[must_use]
    pub fn uefi_vars(&self, firmware: Firmware) -> PathBuf {
        // The variables of one are no use to the other: with Secure Boot there are keys in them.
        self.dir.join(match firmware {
            Firmware::SecureBoot => "uefi-vars-secure-boot.fd",
            Firmware::Bios | Firmware::Uefi => "uefi-vars.fd",
        })
    }

    /// What the machine's TPM keeps.
    #[must_use]
    pub fn tpm(&self) -> PathBuf {
        self.dir.join("tpm")
    }

    /// What the emulator of its TPM says.
    #[must_use]
    pub fn tpm_log(&self) -> PathBuf {
        self.dir.join("tpm.log")
    }

    /// The process id of that emulator.
    #[must_use]
    pub fn tpm_pid_file(&self) -> PathBuf {
        self.dir.join("tpm.pid")
    }

    /// The guest's screen when a wait failed.
    #[must_use]
    pub fn screenshot(&self) -> PathBuf {
        self.dir.join("screen.png")
    }

    /// The evidence of the last wait that failed, in one file.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle.tar.gz")
    }

    /// QEMU's monitor for the devbox that holds the lock; QEMU serves one client at a time.
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.runtime.join("qmp.sock")
    }

    /// A second monitor for short questions, so that `status` never waits for `up`.
    #[must_use]
    pub fn watch_socket(&self) -> PathBuf {
        self.runtime.join("watch.sock")
    }

    /// The guest agent's port.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.runtime.join("agent.sock")
    }

    /// Where frames of the private network arrive.
    #[must_use]
    pub fn card_socket(&self) -> PathBuf {
        self.runtime.join("card.sock")
    }

    /// What the servers of folders (virtiofsd) wrote.
    #[must_use]
    pub fn folders_log(&self) -> PathBuf {
        self.dir.join("folders.log")
    }

    /// Where a server of a folder is reached, for the moment until it is.
    #[must_use]
    pub fn folder_socket(&self) -> PathBuf {
        self.runtime.join("folder.sock")
    }

    /// The serial console, for typing.
    #[must_use]
    pub fn serial_socket(&self) -> PathBuf {
        self.runtime.join("serial.sock")
    }

    /// Held by the devbox whose terminal is the serial console.
    #[must_use]
    pub fn console_lock(&self) -> PathBuf {
        self.runtime.join("console.lock")
    }

    /// There while the machine is held still for a moment.
    #[must_use]
    pub fn still(&self) -> PathBuf {
        self.runtime.join("still")
    }

    /// There once the machine reads its box from the store, where it was started on a box that arrived.
    #[must_use]
    pub fn on_file(&self) -> PathBuf {
        self.runtime.join("on-file")
    }

    /// ssh's control connection.
    #[must_use]
    pub fn ssh_control(&self) -> PathBuf {
        self.runtime.join("ssh.sock")
    }

    /// All sockets: removed before a start, since QEMU does not remove them when it is killed.
    #[must_use]
    pub fn sockets(&self) -> [PathBuf; 7] {
        [
            self.qmp_socket(),
            self.watch_socket(),
            self.agent_socket(),
            self.serial_socket(),
            self.ssh_control(),
            self.card_socket(),
            self.folder_socket(),
        ]
    }

    /// Removes what only means something while QEMU runs. A file that is not there is no fault.
    pub fn remove_run_files(&self) {
        let others = [self.pid_file(), self.still(), self.on_file()];
        for file in self.sockets().into_iter().chain(others) {
            let _ = fs_err::remove_file(file);
        }
    }
}
