//! The machine's own TPM 2.0: `swtpm` emulates it, in a process beside QEMU.
//!
//! The two talk over a pair of connected sockets, each the standard input of one of them. So there is no
//! socket that anybody else could find, and none that stays; and each end is closed when its process ends,
//! however that happens. QEMU is started first: it waits for the emulator, and fails if that never comes,
//! while an emulator without a QEMU would wait for ever.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::config::Lifetime;
use super::files::Files;
use super::process::{self, Process};
use crate::error::{Error, Result};
use crate::exec::tools;
use crate::{host, os};

/// The emulator ends within milliseconds of its QEMU.
const END_WAIT: Duration = Duration::from_secs(2);

/// Both sides, before anything is started.
pub(super) struct Tpm {
    /// The standard input of QEMU.
    pub(super) qemu: Stdio,
    /// The other side.
    pub(super) emulator: Emulator,
}

/// The emulator, not started yet.
pub(super) struct Emulator {
    command: Command,
    stdin: Stdio,
    log: std::path::PathBuf,
}

impl Tpm {
    /// Prepares the emulator for the machine with these files: its TPM is as its last run left it, or new.
    ///
    /// # Errors
    /// `swtpm` is not installed; or the emulator of an earlier QEMU is still there.
    pub(super) async fn prepare(files: &Files) -> Result<Tpm> {
        let program = tools::SWTPM.find()?;
        let pid_file = format!("file={}", files.tpm_pid_file().display());
        if let Some(old) = Process::find_with(&files.tpm_pid_file(), "--pid", pid_file.as_ref())
            && tokio::time::timeout(END_WAIT, old.ended()).await.is_err()
        {
            old.kill().await?;
        }
        let state = files.tpm();
        if state.to_string_lossy().contains(',') {
            return Err(Error::failed(format!(
                "`swtpm` takes no comma in the path of a TPM: `{}`",
                state.display()
            ))
            .hint("Set `DEVBOX_HOME` to a folder without one, or remove `tpm` from `[machine]`."));
        }
        host::private_dir(&state)?;
        let mut command = Command::new(program);
        command.args(["socket", "--tpm2", "--terminate", "--ctrl", "type=unixio,clientfd=0"]);
        command.arg("--tpmstate").arg(format!("dir={},mode=0600", state.display()));
        command.arg("--pid").arg(pid_file);
        let (qemu, stdin) = os::socket_pair()
            .map_err(|e| Error::failed("cannot make a pair of sockets").cause(e))?;
        Ok(Tpm { qemu, emulator: Emulator { command, stdin, log: files.tpm_log() } })
    }
}

impl Emulator {
    /// Starts it; it ends when QEMU does.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) async fn start(self, lifetime: Lifetime) -> Result<()> {
        let started = process::start(self.command, self.stdin, lifetime, &self.log).await;
        started.map_err(|e| e.context("cannot start the machine's TPM"))?;
        Ok(())
    }
}
