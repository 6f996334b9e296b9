//! Starts a machine, and finds one that runs already.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use qapi::qmp as schema;
use tokio_util::sync::CancellationToken;

use super::argv::{self, FirmwareImages};
use super::board::Board;
use super::config::{Config, Firmware, Incoming, Network};
use super::files::Files;
use super::migrate::{self, Scope};
use super::process::{self, Process, Started};
use super::qmp::Qmp;
use super::tpm::Tpm;
use super::{Machine, data_disk, firmware, ports, snapshot};
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::host;
use crate::os::SOCKET_PATH;
use std::path::Path;

/// Until QEMU's monitor answers: 60 ms on an idle host; a host that swaps can take long.
const MONITOR_WAIT: Duration = Duration::from_secs(30);
/// Between two looks for the monitor's socket.
const MONITOR_PAUSE: Duration = Duration::from_millis(10);

/// Why a machine does not go on from a saved state.
#[derive(Debug)]
pub enum Unrestored {
    /// QEMU does not take the state: a boot may do.
    Refused(Error),
    /// A boot would not do either.
    Failed(Error),
}

impl Unrestored {
    /// The failure, whatever it means.
    #[must_use]
    pub fn into_inner(self) -> Error {
        match self {
            Unrestored::Refused(e) | Unrestored::Failed(e) => e,
        }
    }
}

impl Machine {
    /// Starts the machine: process, monitor, forwards, and only then the guest.
    ///
    /// `dir` keeps the machine's lasting files, `runtime` its sockets (short path, private). The
    /// caller holds the machine's lock.
    ///
    /// # Errors
    /// QEMU is missing or refuses to start (its own words are the evidence), a port is taken, the
    /// machine runs already, or the start was cancelled. Nothing is left running.
    pub async fn launch(
        config: Config,
        dir: &Path,
        runtime: &Path,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Machine> {
        Self::start(config, dir, runtime, events, cancel, &AtomicBool::new(false)).await
    }

    /// The same for a config with a saved state: tells whether it is the state that is no good.
    ///
    /// # Errors
    /// As [`Machine::launch`].
    pub async fn restore(
        config: Config,
        dir: &Path,
        runtime: &Path,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Machine, Unrestored> {
        let reading = AtomicBool::new(false);
        let started = Self::start(config, dir, runtime, events, cancel, &reading).await;
        started.map_err(|e| match e.kind() {
            Kind::Interrupted => Unrestored::Failed(e),
            _ if reading.load(Ordering::Relaxed) => Unrestored::Refused(e),
            _ => Unrestored::Failed(e),
        })
    }

    /// `reading` is true from the start of QEMU until it has taken the saved state.
    async fn start(
        config: Config,
        dir: &Path,
        runtime: &Path,
        events: &Events,
        cancel: &CancellationToken,
        reading: &AtomicBool,
    ) -> Result<Machine> {
        let qemu = tools::qemu(config.arch).find()?;
        let (dir, runtime) = (std::path::absolute(dir)?, std::path::absolute(runtime)?);
        host::private_dir(&dir)?;
        host::private_dir(&runtime)?;
        let files = Files::new(&dir, &runtime);
        if let Some(process) = Process::find(&files.pid_file(), &config.uuid) {
            return Err(Error::failed(format!(
                "`{}` runs already (QEMU pid {})",
                config.name,
                process.pid()
            )));
        }
        clear_leftovers(&files)?;
        let tpm = if config.tpm { Some(Tpm::prepare(&files).await?) } else { None };
        let uefi = prepare_uefi(&config, &files)?;
        let mut command = match config.owner {
            None => Command::new(qemu),
            // Becomes QEMU: the process id stays.
            Some(owner) => {
                let mut command = Command::new(tools::UNSHARE.find()?);
                command.args(exec::as_owner(owner.uid, owner.gid)).arg("--").arg(qemu);
                command
            }
        };
        command.args(argv::argv(&config, &files, uefi.as_ref()));
        fs::write(files.command_line(), exec::line(&command) + "\n")?;
        reading.store(config.incoming.is_some(), Ordering::Relaxed);
        let (stdin, tpm) = match tpm {
            Some(Tpm { qemu, emulator }) => (qemu, Some(emulator)),
            None => (Stdio::null(), None),
        };
        let log = files.qemu_log();
        let started = process::start(command, stdin, config.lifetime, &log).await?;
        // From here on a failure must not leave QEMU behind; the TPM's emulator ends with it.
        let work = async {
            if let Some(emulator) = tpm {
                emulator.start(config.lifetime).await?;
            }
            let qmp = monitor(&files, &started, &config).await?;
            if let Some(state) = &config.incoming {
                restore(&qmp, state, &files).await?;
            }
            reading.store(false, Ordering::Relaxed);
            let forwards = match &config.network {
                Network::User { forwards, .. } => ports::bind(&qmp, forwards, events).await?,
                Network::None => vec![],
            };
            crate::crash::point("machine.before-cont");
            let going = qmp.execute(schema::cont {}).await;
            going.map_err(|e| e.of(format!("cannot start the guest of `{}`", config.name)))?;
            if matches!(config.incoming, Some(Incoming::Template(_))) {
                data_disk::plug(&qmp, &config.data).await?;
            }
            Ok((qmp, forwards))
        };
        let result = tokio::select! {
            result = work => result,
            () = cancel.cancelled() => {
                Err(Error::interrupted(format!("interrupted while `{}` started", config.name)))
            }
        };
        let disk_may_wait = config.disks.iter().any(|disk| disk.below.is_some());
        match result {
            Ok((qmp, forwards)) => Ok(Machine {
                name: config.name,
                serial_log: files.serial_log(),
                files,
                process: started.process,
                exit: Some(started.exit),
                qmp,
                forwards,
                events: events.clone(),
                disk_may_wait,
            }),
            Err(error) => {
                started.process.kill().await?;
                files.remove_run_files();
                Err(error)
            }
        }
    }

    /// Connects to a machine that runs already; `None` if it does not run.
    ///
    /// # Errors
    /// QEMU runs and its monitor does not answer, or answers with another UUID.
    pub async fn attach(
        name: &str,
        uuid: &str,
        dir: &Path,
        runtime: &Path,
        events: &Events,
    ) -> Result<Option<Machine>> {
        let files = Files::new(dir, runtime);
        let Some(process) = Process::find(&files.pid_file(), uuid) else { return Ok(None) };
        let answers = async {
            let qmp = Qmp::connect(&files.qmp_socket(), MONITOR_WAIT).await?;
            check_uuid(&qmp, uuid).await?;
            Ok(qmp)
        };
        let qmp = match answers.await {
            Ok(qmp) => qmp,
            // It ended meanwhile.
            Err(_) if process.has_ended().await => return Ok(None),
            Err(e) => return Err(e),
        };
        let machine = Machine {
            name: name.to_owned(),
            serial_log: files.serial_log(),
            files,
            process,
            exit: None,
            qmp,
            forwards: vec![],
            events: events.clone(),
            disk_may_wait: false,
        };
        machine.go_on_if_left().await?;
        Ok(Some(machine))
    }
}

/// Removes what an earlier QEMU left: sockets and the process id. Keeps its serial log under
/// another name.
fn clear_leftovers(files: &Files) -> Result<()> {
    files.remove_run_files();
    if files.serial_log().exists() {
        fs::rename(files.serial_log(), files.serial_log_before())?;
    }
    let _ = fs::remove_file(files.screenshot());
    for socket in files.sockets() {
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(Error::failed(format!(
                "the path of the socket `{}` is longer than {SOCKET_PATH} bytes",
                socket.display()
            ))
            .hint("Set `XDG_RUNTIME_DIR` to a folder with a shorter path."));
        }
    }
    Ok(())
}

/// The firmware's images; the machine's variable store is made once and kept.
fn prepare_uefi(config: &Config, files: &Files) -> Result<Option<FirmwareImages>> {
    if config.firmware == Firmware::Bios {
        return Ok(None);
    }
    let uefi = firmware::find(config.arch, config.firmware == Firmware::SecureBoot)?;
    let vars = files.uefi_vars(config.firmware);
    if !vars.exists() {
        let mut new = tempfile::NamedTempFile::new_in(files.dir())?;
        std::io::copy(&mut fs::File::open(&uefi.vars_template)?, &mut new)?;
        new.persist(&vars).map_err(|e| Error::from(e.error))?;
    }
    Ok(Some(FirmwareImages { code: uefi.code, vars, smm: uefi.smm }))
}

/// Connects to the monitor as soon as QEMU has made it, or reports QEMU's end.
async fn monitor(files: &Files, started: &Started, config: &Config) -> Result<Qmp> {
    let socket = files.qmp_socket();
    let start = Instant::now();
    loop {
        if !started.process.alive() {
            return Err(refused(files, started, config).await);
        }
        // The socket exists before QEMU listens on it, so the connection itself is the test.
        match Qmp::connect(&socket, MONITOR_WAIT).await {
            Ok(qmp) => {
                check_uuid(&qmp, &config.uuid).await?;
                return Ok(qmp);
            }
            Err(e) if start.elapsed() > MONITOR_WAIT => return Err(e),
            Err(_) => tokio::time::sleep(MONITOR_PAUSE).await,
        }
    }
}

async fn check_uuid(qmp: &Qmp, uuid: &str) -> Result<()> {
    let answer = qmp.execute(schema::query_uuid {}).await;
    let answer = answer.map_err(|e| e.of("cannot ask QEMU for its UUID"))?;
    if answer.UUID.eq_ignore_ascii_case(uuid) {
        return Ok(());
    }
    Err(Error::failed(format!("the monitor belongs to another machine (UUID {})", answer.UUID)))
}

/// Reads the saved state; QEMU's own words say why it does not fit.
async fn restore(qmp: &Qmp, state: &Incoming, files: &Files) -> Result<()> {
    let restored = match state {
        Incoming::Template(file) => migrate::restore(qmp, Scope::Devices, file).await,
        Incoming::Memory(file) => migrate::restore(qmp, Scope::All, file).await,
        Incoming::Snapshot(tag) => {
            snapshot::load(qmp, tag).await.map_err(|e| e.of("cannot restore the machine's memory"))
        }
    };
    restored.map_err(|mut error| {
        let log = std::fs::read(files.qemu_log()).unwrap_or_default();
        for line in exec::last_lines(&log, 3) {
            error = error.detail(line);
        }
        error
    })
}

/// QEMU's own words about why it did not start.
async fn refused(files: &Files, started: &Started, config: &Config) -> Error {
    let mut exit = started.exit.clone();
    let _ = exit.wait_for(Option::is_some).await;
    let mut error = Error::failed(format!("QEMU did not start `{}`", config.name));
    let log = std::fs::read(files.qemu_log()).unwrap_or_default();
    let lines = exec::last_lines(&log, 10);
    if lines.iter().any(|l| l.contains("unsupported machine type")) {
        error = error.hint(format!(
            "This QEMU is older than devbox needs: it must know the machine type {}.",
            Board::of(config.arch).machine
        ));
    }
    if lines.iter().any(|l| l.contains("Failed to get \"write\" lock")) {
        error = error.hint("Another QEMU uses the same disk; stop it first.");
    }
    if lines.is_empty()
        && let Some(status) = *exit.borrow()
    {
        error = error.cause(status);
    }
    for line in lines {
        error = error.detail(line);
    }
    error.detail(format!("command line: {}", files.command_line().display()))
}
