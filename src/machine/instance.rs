//! One machine of a project: its folder, what is recorded about it, and what it does right now.
//!
//! The record says what the machine is made of; whether it runs is never recorded but looked up.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::files::Files;
use super::history::History;
use super::lock::Lock;
use super::process::Process;
use super::record::{Arriving, BaseImage, FORMAT, Login, Record};
use super::template::Template;
use super::{config, data_disk};
use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::guest::seed::{Seed, instance_id};
use crate::guest::ssh::{Client, Target};
use crate::host::Paths;
use crate::os;

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

    /// What no other machine of this user is called: the name of its folder.
    #[must_use]
    pub fn id(&self) -> String {
        self.files.dir().file_name().unwrap_or_default().to_string_lossy().into_owned()
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
        Lock::acquire(&self.files.lock(), command)
    }

    /// What the machine is made of; `None` if there is none, or its making was not finished.
    ///
    /// # Errors
    /// The record is damaged or of a newer devbox.
    pub fn record(&self) -> Result<Option<Record>> {
        Record::read(&self.files.record())
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
        os::sync_dir(self.files.dir())?;
        // An unfinished machine can be thrown away, and what it found here is not.
        if !record.unfinished && self.files.reset().exists() {
            fs::remove_file(self.files.reset())?;
        }
        Ok(())
    }

    /// On which images it ran.
    ///
    /// # Errors
    /// The file is damaged or of a newer devbox.
    pub fn history(&self) -> Result<History> {
        History::read(&self.files.history())
    }

    /// Changes what is known of the images that it ran on, if `change` says that there is something to write.
    ///
    /// # Errors
    /// The file is damaged or cannot be written.
    pub fn change_history(&self, change: impl FnOnce(&mut History) -> bool) -> Result<()> {
        let mut history = self.history()?;
        match change(&mut history) {
            true => history.write(&self.files.history()),
            false => Ok(()),
        }
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
    /// of the template's layer. With `arriving` the image need not be there. The record comes last, so that an interrupted making leaves nothing
    /// that counts. The lock is held.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(
        &self,
        base: BaseImage,
        disk: u64,
        user: &str,
        login: Login,
        template: Option<&Template>,
        arriving: Option<Arriving>,
    ) -> Result<Record> {
        self.clear()?;
        let uuid = crate::host::new_uuid()?;
        // cloud-init has run in the template and does not run again for the same instance.
        let id = template
            .map_or_else(|| instance_id(&base.manifest, &uuid), |t| t.instance_id().to_owned());
        self.write_seed(id, user, login)?;
        match template {
            Some(template) => {
                fs::copy(template.parts().disk, self.files.overlay())?;
            }
            None if arriving.is_some() => {
                layer_over(&base.disk, Looked::Later, &self.files.overlay(), disk)?;
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
            login,
            base,
            arriving,
            forwards: vec![],
            added: vec![],
            ready: None,
            unfinished: template.is_some(),
            identity_of: None,
            address: None,
            shape: None,
            overrides: vec![],
            provisioned: std::collections::BTreeMap::new(),
            disks: vec![],
            host_settings: None,
            folders: vec![],
            account: None,
            suspended: None,
            snapshots: std::collections::BTreeMap::new(),
        };
        self.save(&record)?;
        Ok(record)
    }

    /// The seed of the guest which takes itself for the instance `id`, with new keys where it is entered by
    /// its SSH server.
    pub(super) fn write_seed(&self, id: String, user: &str, login: Login) -> Result<()> {
        let keys = match login {
            Login::Ssh => Some(Client::keys(&self.files.ssh_dir(), &self.name)?),
            Login::Agent => None,
        };
        let seed = Seed {
            instance_id: id,
            hostname: &self.name,
            user,
            authorized_key: keys.as_ref().map(|(user_key, _)| user_key.public()),
            host_key: keys.as_ref().map(|(_, host_key)| host_key),
            mac: Some(config::NAT_MAC),
        };
        seed.write(&self.files.seed())
    }

    /// `web.shop`: its name with that of the project's folder, as far as ssh's configuration takes it; empty
    /// if that is nothing.
    #[must_use]
    pub fn alias(&self) -> String {
        let folder = self.project.file_name().unwrap_or_default().to_string_lossy();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let folder: String = folder.chars().filter(|c| fits(*c)).collect();
        if folder.is_empty() { String::new() } else { format!("{}.{folder}", self.name) }
    }

    /// The ssh client of a machine that was started once.
    ///
    /// # Errors
    /// It is entered by its guest agent alone, it was never started, or its files cannot be written.
    pub fn client(&self, record: &Record) -> Result<Client> {
        if record.login == Login::Agent {
            return Err(no_ssh(&self.name));
        }
        let port = record.ssh_port().ok_or_else(|| {
            Error::failed(format!("`{}` was never started", self.name))
                .hint("Start it with `devbox up`.")
        })?;
        let ssh = self.files.ssh_dir();
        let (_, host_key) = Client::keys(&ssh, &self.name)?;
        let target = Target {
            name: self.name.clone(),
            alias: self.alias(),
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
        if self.files.reset().exists() {
            fs::remove_file(self.files.reset())?;
        }
        self.clear()?;
        // The lock file last: who waits for it finds an empty folder, not half a machine.
        fs::remove_dir_all(self.files.dir())?;
        Ok(())
    }

    /// Removes everything but the lock and the data disks, which the next machine made here has. The lock
    /// is held, and QEMU is gone.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear_for_reset(&self) -> Result<()> {
        fs::write(self.files.reset(), "")?;
        os::sync_dir(self.files.dir())?;
        self.clear()
    }

    /// Removes everything but the lock, the history, and the data disks of a machine that is reset; the record first,
    /// so that what is left counts for nothing.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let (lock, history) = (self.files.lock(), self.files.history());
        let mark = self.files.reset();
        let reset = mark.exists();
        let stays = |path: &Path| reset && (path == mark || data_disk::is_one(path));
        if self.files.record().exists() {
            fs::remove_file(self.files.record())?;
        }
        for entry in fs::read_dir(self.files.dir())? {
            let path = entry?.path();
            if path == lock || path == history || stays(&path) {
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

/// What goes through SSH, of a machine that is entered by its guest agent alone.
#[must_use]
pub fn no_ssh(name: &str) -> Error {
    Error::failed(format!("`{name}` is not entered by SSH"))
        .cause("it has `login = \"agent\"`: devbox reaches it through its guest agent alone")
        .hint(format!("Run a program in it with `devbox exec {name} -- PROGRAM`; files go through its input and output (`tee FILE`, `cat FILE`)."))
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
    layer_over(base, Looked::Now, layer, size)
}

/// What `qemu-img` is to be told for a layer without what is below it, which it does not need and which need not be here.
#[must_use]
pub fn alone(layer: &Path) -> std::ffi::OsString {
    let file = serde_json::json!({"driver": "file", "filename": layer.to_string_lossy()});
    let layer = serde_json::json!({"driver": "qcow2", "file": file, "backing": null});
    format!("json:{layer}").into()
}

/// Whether the image below a new layer is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// It is here.
    Now,
    /// It comes later.
    Later,
}

fn layer_over(base: &Path, looked: Looked, layer: &Path, size: u64) -> Result<()> {
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2"]);
    if looked == Looked::Later {
        command.arg("-u");
    }
    command.arg("-b").arg(base).arg(layer).arg(size.to_string());
    exec::output(&mut command)?;
    Ok(())
}

/// Eight hex digits.
fn short_hash(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..4])
}
