//! One machine of a project: its folder, what is recorded about it, and what it does right now.
//!
//! The record says what the machine is made of; whether it runs is never recorded but looked up.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::config::{self, Accelerator, Config, Firmware, Forward, Protocol};
use super::files::Files;
use super::lock::Lock;
use super::ports::BoundForward;
use super::process::Process;
use super::template::Template;
use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::guest::seed::{Seed, instance_id};
use crate::guest::ssh::{Client, Target};
use crate::host::{self, Paths};

/// The version of the record's shape.
const FORMAT: u32 = 2;
/// The guest's port of ssh.
pub const SSH_PORT: u16 = 22;

/// The sealed image that a machine runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// `name:version`.
    pub reference: String,
    /// The manifest's digest: which build of that version.
    pub manifest: String,
    /// The disk, a qcow2 that is never written.
    pub disk: PathBuf,
    /// Its guest-visible size in bytes.
    pub size: u64,
}

/// What a machine is made of: `machine.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(crate) format: u32,
    /// The machine's name, which is its host name.
    pub name: String,
    /// The folder of its devbox.toml.
    pub project: PathBuf,
    /// How its QEMU is recognised.
    pub uuid: String,
    /// The account in the guest.
    pub user: String,
    /// The image below its disk.
    pub base: BaseImage,
    /// The forwards of the last start, and what was added or removed since: the same ports are tried
    /// again.
    pub forwards: Vec<BoundForward>,
    /// The forwards that `devbox port add` made, which each start makes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<BoundForward>,
    /// The process that was last seen ready; means nothing for another one.
    pub ready: Option<Ready>,
    /// It is being restored from a template and has the template's identity still: what crashed
    /// then is thrown away and made anew.
    #[serde(default)]
    pub unfinished: bool,
    /// The hardware of its last start.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// In what its last start followed somebody's own settings and not the spec, in words.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Its memory is saved in its disk as [`SUSPENDED`], and it goes on from there.
    #[serde(default)]
    pub suspended: Option<Saved>,
    /// Its snapshots, by name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, Saved>,
}

/// The name of the snapshot that a suspended machine goes on from; no name that people can give.
pub const SUSPENDED: &str = "devbox suspended";

/// The part of a machine's configuration that only a restart can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Firmware.
    pub firmware: Firmware,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Empty slots for devices.
    pub spare_slots: u8,
}

impl From<&Config> for Shape {
    fn from(config: &Config) -> Self {
        Shape {
            cpus: config.cpus,
            memory: config.memory,
            firmware: config.firmware,
            accelerator: config.accelerator,
            spare_slots: config.spare_slots,
        }
    }
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Seconds since 1970.
    pub made: i64,
    /// The hardware that its memory belongs to; `None` for a snapshot of the disk alone.
    pub shape: Option<Shape>,
    /// Whether the guest had been seen ready.
    pub ready: bool,
    /// Whether `push` made it, so that `pop` takes it.
    pub pushed: bool,
}

/// A process by its id and its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pid: i32,
    start: u64,
}

impl From<&Process> for Ready {
    fn from(process: &Process) -> Self {
        Ready { pid: process.pid(), start: process.start() }
    }
}

impl Record {
    /// Whether this very process was seen ready.
    #[must_use]
    pub fn was_ready(&self, process: &Process) -> bool {
        self.ready == Some(Ready::from(process))
    }

    /// The host's port of ssh, once the machine was started.
    #[must_use]
    pub fn ssh_port(&self) -> Option<u16> {
        self.bound(SSH_PORT, Protocol::Tcp).map(|f| f.host)
    }

    fn bound(&self, guest: u16, protocol: Protocol) -> Option<&BoundForward> {
        self.forwards.iter().find(|f| f.guest == guest && f.protocol == protocol)
    }

    /// The forwards to ask for: ssh first, then `wanted`, then what was added by hand; what names no
    /// port gets the one it had.
    #[must_use]
    pub fn wishes(&self, wanted: &[Forward]) -> Vec<Forward> {
        let ssh = Forward {
            guest: SSH_PORT,
            host: None,
            host_ip: std::net::Ipv4Addr::LOCALHOST,
            protocol: Protocol::Tcp,
            auto_correct: true,
        };
        let mut all = vec![ssh];
        all.extend_from_slice(wanted);
        // One that the spec has meanwhile is asked for once.
        let missing = |added: &&BoundForward| {
            wanted.iter().all(|f| f.host != Some(added.host) || f.protocol != added.protocol)
        };
        all.extend(self.added.iter().filter(missing).map(|added| Forward {
            guest: added.guest,
            host: Some(added.host),
            host_ip: added.host_ip,
            protocol: added.protocol,
            auto_correct: true,
        }));
        for forward in all.iter_mut().filter(|f| f.host.is_none()) {
            forward.host = self.bound(forward.guest, forward.protocol).map(|f| f.host);
        }
        all
    }
}

/// What a machine does right now.
#[derive(Debug)]
pub enum State {
    /// It was shut down.
    Stopped,
    /// QEMU ended without saying goodbye: killed, crashed, or the host went down.
    Died,
    /// QEMU runs.
    Running(Process),
}

/// The folders of one machine.
#[derive(Debug, Clone)]
pub struct Instance {
    name: String,
    project: PathBuf,
    files: Files,
}

impl Instance {
    /// The machine `name` of the project in the folder `project`; touches nothing.
    ///
    /// # Errors
    /// The project's folder cannot be read.
    pub fn of_project(paths: &Paths, name: &str, project: &Path) -> Result<Self> {
        let project = canonical(project)?;
        let folder = format!("{name}-{}", short_hash(project.as_os_str().as_encoded_bytes()));
        Ok(Self::in_folder(paths, &folder, name, project))
    }

    /// All machines of the project in the folder `project` by name, whatever its spec says; also one
    /// that is damaged or half made. No record is read.
    ///
    /// # Errors
    /// The folders cannot be read.
    pub fn of_folder(paths: &Paths, project: &Path) -> Result<Vec<Self>> {
        let project = canonical(project)?;
        let suffix = format!("-{}", short_hash(project.as_os_str().as_encoded_bytes()));
        let mut found = vec![];
        for folder in folders(paths)? {
            if let Some(name) = folder.strip_suffix(&suffix) {
                found.push(Self::of_project(paths, name, &project)?);
            }
        }
        Ok(found)
    }

    /// All machines of this user, of every project, sorted by name; also those that are damaged or
    /// half made, whose project is then not known and empty here.
    ///
    /// # Errors
    /// The folders cannot be read.
    pub fn all(paths: &Paths) -> Result<Vec<Self>> {
        let mut found = vec![];
        for folder in folders(paths)? {
            // The hash that `of_project` puts behind the name; anything else is none of ours.
            let Some((name, _)) = folder.rsplit_once('-') else { continue };
            let mut instance = Self::in_folder(paths, &folder, name, PathBuf::new());
            if let Ok(Some(record)) = instance.record() {
                instance.project = record.project;
            }
            found.push(instance);
        }
        found.sort_by(|a, b| (&a.name, &a.project).cmp(&(&b.name, &b.project)));
        Ok(found)
    }

    fn in_folder(paths: &Paths, folder: &str, name: &str, project: PathBuf) -> Self {
        let dir = paths.machines.join(folder);
        // Sockets need a short path: the hash alone, of the machine's folder, which is unique.
        let runtime = paths.runtime.join(short_hash(dir.as_os_str().as_encoded_bytes()));
        Instance { name: name.to_owned(), project, files: Files::new(&dir, &runtime) }
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its devbox.toml, as the kernel names it.
    #[must_use]
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Whether it was made: it has a record, which may be damaged.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.files.record().exists()
    }

    /// The machine's files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Takes the machine's lock for `command`; makes the machine's folder if needed.
    ///
    /// # Errors
    /// Another devbox works on this machine.
    pub fn lock(&self, command: &str) -> Result<Lock> {
        host::private_dir(self.files.dir())?;
        Lock::acquire(&self.files.lock(), command)
    }

    /// What the machine is made of; `None` if there is none, or its making was not finished.
    ///
    /// # Errors
    /// The record is damaged or of a newer devbox.
    pub fn record(&self) -> Result<Option<Record>> {
        read_record(&self.files.record())
    }

    /// Writes the record, durably and at once.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, record: &Record) -> Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(self.files.dir())?;
        serde_json::to_writer_pretty(&mut new, record)
            .map_err(|e| Error::failed("cannot write the machine's record").cause(e))?;
        writeln!(new)?;
        new.as_file().sync_all()?;
        new.persist(self.files.record()).map_err(|e| Error::from(e.error))?;
        fs::File::open(self.files.dir())?.sync_all()?;
        Ok(())
    }

    /// What the machine does right now.
    #[must_use]
    pub fn state(&self, record: &Record) -> State {
        let pid_file = self.files.pid_file();
        match Process::find(&pid_file, &record.uuid) {
            Some(process) => State::Running(process),
            // QEMU removes the file when it ends by itself.
            None if pid_file.exists() => State::Died,
            None => State::Stopped,
        }
    }

    /// Makes a new machine on `base`: keys, seed, and a disk layer of `disk` bytes; with a template, a copy
    /// of the template's layer. The record comes last, so that an interrupted making leaves nothing
    /// that counts. The lock is held.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(
        &self,
        base: BaseImage,
        disk: u64,
        user: &str,
        template: Option<&Template>,
    ) -> Result<Record> {
        self.clear()?;
        let uuid = crate::host::new_uuid()?;
        let (user_key, host_key) = Client::keys(&self.files.ssh_dir(), &self.name)?;
        let seed = Seed {
            // cloud-init has run in the template and does not run again for the same instance.
            instance_id: template
                .map_or_else(|| instance_id(&base.manifest, &uuid), |t| t.instance_id().to_owned()),
            hostname: &self.name,
            user,
            authorized_key: Some(user_key.public()),
            host_key: Some(&host_key),
            mac: Some(config::NAT_MAC),
        };
        seed.write(&self.files.seed())?;
        match template {
            Some(template) => {
                fs::copy(template.parts().disk, self.files.overlay())?;
            }
            None => new_layer(&base.disk, &self.files.overlay(), disk)?,
        }
        crate::crash::point("machine.before-record");
        let record = Record {
            format: FORMAT,
            name: self.name.clone(),
            project: self.project.clone(),
            uuid,
            user: user.to_owned(),
            base,
            forwards: vec![],
            added: vec![],
            ready: None,
            unfinished: template.is_some(),
            shape: None,
            overrides: vec![],
            suspended: None,
            snapshots: BTreeMap::new(),
        };
        self.save(&record)?;
        Ok(record)
    }

    /// The ssh client of a machine that was started once.
    ///
    /// # Errors
    /// It was never started, or its files cannot be written.
    pub fn client(&self, record: &Record) -> Result<Client> {
        let port = record.ssh_port().ok_or_else(|| {
            Error::failed(format!("`{}` was never started", self.name))
                .hint("Start it with `devbox up`.")
        })?;
        let ssh = self.files.ssh_dir();
        let (_, host_key) = Client::keys(&ssh, &self.name)?;
        let target = Target {
            name: self.name.clone(),
            user: record.user.clone(),
            host: std::net::Ipv4Addr::LOCALHOST,
            port,
        };
        Client::new(&ssh, &self.files.ssh_control(), target, host_key.public())
    }

    /// Removes the machine. The lock is held, and QEMU is gone.
    ///
    /// # Errors
    /// QEMU runs, or a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        // A damaged record cannot tell which QEMU is ours; `qemu-img` and QEMU lock the disk itself.
        if let Ok(Some(record)) = self.record()
            && let State::Running(process) = self.state(&record)
        {
            return Err(Error::failed(format!(
                "`{}` runs still (QEMU pid {})",
                self.name,
                process.pid()
            )));
        }
        self.clear()?;
        // The lock file last: who waits for it finds an empty folder, not half a machine.
        fs::remove_dir_all(self.files.dir())?;
        Ok(())
    }

    /// Removes everything but the lock; the record first, so that what is left counts for nothing.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let lock = self.files.lock();
        if self.files.record().exists() {
            fs::remove_file(self.files.record())?;
        }
        for entry in fs::read_dir(self.files.dir())? {
            let path = entry?.path();
            if path == lock {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        if self.files.runtime().exists() {
            fs::remove_dir_all(self.files.runtime())?;
        }
        Ok(())
    }
}

/// A project's folder as the kernel names it. One that is gone is taken at its word: its machines are
/// there still.
fn canonical(project: &Path) -> Result<PathBuf> {
    match fs::canonicalize(project) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(std::path::absolute(project)?),
        other => Ok(other?),
    }
}

/// The names of all machines' folders, sorted.
fn folders(paths: &Paths) -> Result<Vec<String>> {
    let entries = match fs::read_dir(&paths.machines) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e.into()),
    };
    let mut names = vec![];
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes an empty qcow2 layer of `size` bytes over the image `base`, which is never written.
///
/// # Errors
/// `qemu-img` is not installed, or the file cannot be written.
pub fn new_layer(base: &Path, layer: &Path, size: u64) -> Result<()> {
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base);
    command.arg(layer).arg(size.to_string());
    exec::output(&mut command)?;
    Ok(())
}

fn read_record(path: &Path) -> Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let damaged = |why: String| {
        Error::failed(format!("the machine's record `{}` is damaged", path.display()))
            .cause(why)
            .hint("Remove the machine with `devbox destroy -f`.")
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if record.format != FORMAT {
        return Err(damaged(format!("its format is {}, not {FORMAT}", record.format)));
    }
    Ok(Some(record))
}

/// Eight hex digits.
fn short_hash(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..4])
}
