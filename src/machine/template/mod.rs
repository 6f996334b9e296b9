//! A template: a guest that has booted and is ready, saved with its memory, its devices' state and its
//! disk. A machine that is restored from it skips the boot.
//!
//! One folder a template, named by its [`Key`]. The memory is a file that restored machines map
//! privately, so they share the pages that none of them has written; it is never written again, and
//! removed by unlinking only, which a machine that uses it does not notice. The disk layer is copied
//! for each machine: nothing depends on a template once a machine has started.

mod key;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use qapi::qmp as schema;
use serde::{Deserialize, Serialize};

pub use key::{Key, seed};

use super::Machine;
use super::lock::Lock;
use super::migrate::{self, Scope};
use super::stamp::Stamp;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::guest::folder::Ids;
use crate::guest::identity::Account;
use crate::host;
use crate::os;

/// How long a machine that was saved may take to end.
const QUIT_WAIT: Duration = Duration::from_secs(10);

/// `template.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    key: Key,
    /// `name:version` of the box.
    reference: String,
    /// Seconds since 1970.
    made: i64,
    /// cloud-init's name of this instance: a restored machine goes on as it.
    instance_id: String,
    contents: Contents,
}

/// What making it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Contents {
    /// Machines can be restored; `home` and `ids` are those of the account in the guest.
    Saved {
        home: String,
        ids: Ids,
        memory: Stamp,
        disk: Stamp,
        state: Stamp,
        state_sha256: FileDigest,
    },
    /// This box cannot be a template, and why; not tried again until something in the key changes.
    Impossible { reason: String },
}

/// One template on disk.
#[derive(Debug, Clone)]
pub struct Template {
    dir: PathBuf,
    record: Record,
}

/// What there is for a key.
#[derive(Debug)]
pub enum Found {
    /// A template that is whole.
    Template(Box<Template>),
    /// It was tried, and this box cannot be one.
    Impossible(String),
    /// None, or one that is damaged, in these words.
    Missing(Option<String>),
}

/// The templates of one user.
#[derive(Debug, Clone)]
pub struct Templates {
    root: PathBuf,
}

impl Templates {
    /// The templates below this folder; touches nothing.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Templates { root: root.to_owned() }
    }

    fn dir(&self, key: &Key) -> PathBuf {
        self.root.join(key.id())
    }

    /// Looks for the template with this key, and whether it is whole.
    #[must_use]
    pub fn find(&self, key: &Key) -> Found {
        let dir = self.dir(key);
        match Template::read(&dir) {
            Ok(None) => Found::Missing(None),
            Ok(Some(template)) if template.record.key != *key => {
                Found::Missing(Some("its folder belongs to another one".to_owned()))
            }
            Ok(Some(template)) => match template.damage() {
                None => match &template.record.contents {
                    Contents::Impossible { reason } => Found::Impossible(reason.clone()),
                    Contents::Saved { .. } => Found::Template(Box::new(template)),
                },
                Some(why) => Found::Missing(Some(why)),
            },
            Err(e) => Found::Missing(Some(e.what().to_owned())),
        }
    }

    /// Held while a template with this key is made, so that two `up` at once make one.
    ///
    /// # Errors
    /// Another devbox makes it now; the message names it.
    pub fn lock(&self, key: &Key, command: &str) -> Result<Lock> {
        Lock::acquire(&self.root.join(format!("{}.lock", key.id())), command)
    }

    /// Who makes the template with this key now; `None` if nobody does.
    #[must_use]
    pub fn maker(&self, key: &Key) -> Option<String> {
        Lock::holder(&self.root.join(format!("{}.lock", key.id())))
    }

    /// A folder to make a template in; what an earlier try left there is removed. The lock is held.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn staging(&self, key: &Key) -> Result<PathBuf> {
        let dir = self.root.join(format!("{}.new", key.id()));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        host::private_dir(&dir)?;
        Ok(dir)
    }

    /// Makes the finished template in `staging` visible, in place of a damaged one. The lock is held.
    ///
    /// # Errors
    /// Its files cannot be read, synced or renamed.
    pub fn publish(&self, staging: &Path, made: Made, account: Account) -> Result<Template> {
        let files = Parts::new(staging);
        for file in [&files.memory, &files.disk, &files.state] {
            // QEMU and `cat` made them by the umask.
            os::make_private(file)?;
            fs::File::open(file)?.sync_all()?;
        }
        let state = fs::read(&files.state)?;
        let contents = Contents::Saved {
            home: account.home,
            ids: account.ids,
            memory: Stamp::of(&files.memory)?,
            disk: Stamp::of(&files.disk)?,
            state: Stamp::of(&files.state)?,
            state_sha256: FileDigest::of(&state),
        };
        for entry in fs::read_dir(staging)? {
            let path = entry?.path();
            if ![&files.memory, &files.disk, &files.state].contains(&&path) {
                if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
            }
        }
        self.put(staging, made, contents)
    }

    /// Remembers that this box cannot be a template. The lock is held.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn refuse(&self, staging: &Path, made: Made, reason: &str) -> Result<()> {
        fs::remove_dir_all(staging)?;
        host::private_dir(staging)?;
        self.put(staging, made, Contents::Impossible { reason: reason.to_owned() })?;
        Ok(())
    }

    fn put(&self, staging: &Path, made: Made, contents: Contents) -> Result<Template> {
        let dir = self.dir(&made.key);
        let record = Record {
            key: made.key,
            reference: made.reference,
            made: jiff::Timestamp::now().as_second(),
            instance_id: made.instance_id,
            contents,
        };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = os::private_file(&mut options).open(record_of(staging))?;
        serde_json::to_writer_pretty(&mut file, &record)
            .map_err(|e| Error::failed("cannot write the template's record").cause(e))?;
        writeln!(file)?;
        file.sync_all()?;
        crate::crash::point("template.staged");
        remove(&dir)?;
        fs::rename(staging, &dir)?;
        os::sync_dir(&self.root)?;
        Ok(Template { dir, record })
    }

    /// All templates that can be read, by reference and age.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Template>> {
        let mut all = vec![];
        for path in self.entries()? {
            if let Ok(Some(template)) = Template::read(&path) {
                all.push(template);
            }
        }
        all.sort_by(|a, b| {
            (&a.record.reference, a.record.made).cmp(&(&b.record.reference, b.record.made))
        });
        Ok(all)
    }

    /// Removes the templates that `keep` does not want, and what a crash left; machines that were
    /// restored from them go on. Returns what was removed, with its bytes on disk.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn prune(
        &self,
        dry_run: bool,
        keep: impl Fn(&Template) -> bool,
    ) -> Result<Vec<(PathBuf, u64)>> {
        let mut removed = vec![];
        for path in self.entries()? {
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = id.split('.').next().unwrap_or_default();
            let lock = self.root.join(format!("{id}.lock"));
            // Its maker, or nobody, decides what happens to it.
            let Ok(_lock) = Lock::acquire(&lock, "devbox box prune") else { continue };
            match Template::read(&path) {
                Ok(Some(template)) if template.damage().is_none() && keep(&template) => continue,
                _ => {}
            }
            let bytes = host::stored_bytes(&path);
            if !dry_run {
                remove(&path)?;
                let _ = fs::remove_file(&lock);
            }
            removed.push((path, bytes));
        }
        Ok(removed)
    }

    /// Removes the template with this key, as one that QEMU refused. The lock is held.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn discard(&self, key: &Key) -> Result<()> {
        remove(&self.dir(key))
    }

    /// The folders of templates, finished or not.
    fn entries(&self) -> Result<Vec<PathBuf>> {
        if !self.root.exists() {
            return Ok(vec![]);
        }
        let mut paths = vec![];
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// What is known about a template that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its key.
    pub key: Key,
    /// `name:version` of the box.
    pub reference: String,
    /// cloud-init's name of the instance that was saved.
    pub instance_id: String,
}

/// The files that a machine is restored from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The guest's memory.
    pub memory: PathBuf,
    /// The disk layer over the sealed image.
    pub disk: PathBuf,
    /// The state of the devices.
    pub state: PathBuf,
}

impl Parts {
    /// Names the files below `dir`; touches nothing.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Parts { memory: dir.join("memory"), disk: dir.join("disk.qcow2"), state: dir.join("state") }
    }
}

impl Template {
    fn read(dir: &Path) -> Result<Option<Self>> {
        let file = record_of(dir);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let record = serde_json::from_slice(&bytes).map_err(|e| {
            Error::failed(format!("the template's record `{}` is damaged", file.display())).cause(e)
        })?;
        Ok(Some(Template { dir: dir.to_owned(), record }))
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.record.key
    }

    /// `name:version` of the box.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.record.reference
    }

    /// cloud-init's name of the instance that was saved.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.record.instance_id
    }

    /// Why it is none, where its box cannot be one.
    #[must_use]
    pub fn impossible(&self) -> Option<&str> {
        match &self.record.contents {
            Contents::Impossible { reason } => Some(reason),
            Contents::Saved { .. } => None,
        }
    }

    /// The home of the account in the guest.
    #[must_use]
    pub fn home(&self) -> &str {
        match &self.record.contents {
            Contents::Saved { home, .. } => home,
            Contents::Impossible { .. } => "",
        }
    }

    /// The numbers of the account in the guest.
    #[must_use]
    pub fn ids(&self) -> Option<Ids> {
        match &self.record.contents {
            Contents::Saved { ids, .. } => Some(*ids),
            Contents::Impossible { .. } => None,
        }
    }

    /// The files that a machine is restored from.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts::new(&self.dir)
    }

    /// Bytes that it takes on the host's disk.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        host::stored_bytes(&self.dir)
    }

    /// What is wrong with its files; `None` if they are as they were saved. The state is hashed (0.6
    /// MB); of memory and disk, size, inode and time of change are compared.
    fn damage(&self) -> Option<String> {
        let Contents::Saved { memory, disk, state, state_sha256, .. } = &self.record.contents
        else {
            return None;
        };
        let parts = self.parts();
        for (what, path, stamp) in [
            ("memory", &parts.memory, memory),
            ("disk layer", &parts.disk, disk),
            ("device state", &parts.state, state),
        ] {
            match Stamp::of(path) {
                Ok(now) if now == *stamp => {}
                Ok(_) => return Some(format!("its {what} was changed")),
                Err(_) => return Some(format!("its {what} is gone")),
            }
        }
        match fs::read(&parts.state) {
            Ok(bytes) if FileDigest::of(&bytes) == *state_sha256 => None,
            _ => Some("its device state is damaged".to_owned()),
        }
    }
}

impl Machine {
    /// Saves a guest that is ready as a template's device state, and ends QEMU. Its memory is a file that
    /// is written through; the guest has synced its disk.
    ///
    /// # Errors
    /// QEMU refuses. It is ended in any case.
    pub async fn save(mut self, state: &Path) -> Result<()> {
        let saved = self.stop_and_save(state).await;
        // `quit` writes the disk's own tables; a machine that is killed leaves them marked dirty.
        let _ = self.qmp.execute(schema::quit {}).await;
        if tokio::time::timeout(QUIT_WAIT, self.process.ended()).await.is_err() {
            self.kill().await?;
            return Err(Error::failed("QEMU did not end after the template was saved"));
        }
        self.files.remove_run_files();
        saved
    }

    async fn stop_and_save(&self, state: &Path) -> Result<()> {
        self.qmp.execute(schema::stop {}).await.map_err(|e| e.of("cannot pause the machine"))?;
        migrate::save(&self.qmp, Scope::Devices, state).await
    }
}

fn record_of(dir: &Path) -> PathBuf {
    dir.join("template.json")
}

/// Removes a template: its record first, so that what is left counts for nothing.
fn remove(dir: &Path) -> Result<()> {
    if record_of(dir).exists() {
        fs::remove_file(record_of(dir))?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}
