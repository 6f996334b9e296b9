//! The machines that run on a disk that arrives, as they are now: their records, their locks, their QEMUs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::digest::FileDigest;
use crate::helper::arriving::Begun;
use crate::host::Paths;
use crate::machine::backing;
use crate::machine::instance::{Instance, State};
use crate::machine::lock::Lock;

/// Until a QEMU that could not be moved over is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// It is looked whether machines stand still for so long after they may have come to.
const LOOKS: Duration = Duration::from_secs(30);

/// A machine that goes on.
pub(super) struct Continued(pub(super) String);

/// The machines of one disk.
pub(super) struct Users {
    paths: Paths,
    disk: FileDigest,
    /// The disk's file, once it is whole.
    blob: PathBuf,
    running: Vec<Instance>,
    starts: bool,
    /// Until when machines may stand still that could go on.
    look_until: Instant,
    /// QEMUs that could not be moved over, by their pid file, and when that was.
    refused: BTreeMap<PathBuf, Instant>,
}

impl Users {
    pub(super) fn new(paths: &Paths, disk: FileDigest, blob: PathBuf) -> Self {
        Users {
            paths: paths.clone(),
            disk,
            blob,
            running: vec![],
            starts: true,
            // The server before this one may have left machines that stand still.
            look_until: Instant::now() + LOOKS,
            refused: BTreeMap::new(),
        }
    }

    /// Looks at all machines; how many run and read from the server.
    pub(super) async fn look(&mut self) -> usize {
        let (paths, disk) = (self.paths.clone(), self.disk);
        let found = tokio::task::spawn_blocking(move || {
            let (mut running, mut starts) = (vec![], false);
            for instance in Instance::all(&paths).unwrap_or_default() {
                // One that is damaged is nobody's to serve.
                let Ok(Some(record)) = instance.record() else { continue };
                if record.arriving.as_ref().is_none_or(|arriving| arriving.disk != disk) {
                    continue;
                }
                let held = || Lock::holder(&instance.files().lock()).is_some();
                match instance.state(&record) {
                    State::Running(process) => {
                        starts |= !record.was_ready(&process) && held();
                        if !instance.files().on_file().exists() {
                            running.push(instance);
                        }
                    }
                    _ => starts |= held(),
                }
            }
            (running, starts)
        });
        if let Ok((running, starts)) = found.await {
            (self.running, self.starts) = (running, starts);
        }
        self.running.len()
    }

    /// Whether a machine is being started.
    pub(super) fn starts(&self) -> bool {
        self.starts
    }

    /// Some stand still, or may.
    pub(super) fn may_stand_still(&mut self) {
        self.look_until = Instant::now() + LOOKS;
    }

    /// Lets those go on that stand still since they could not read.
    pub(super) async fn go_on(&mut self) -> Vec<Continued> {
        let mut continued = vec![];
        if Instant::now() > self.look_until {
            return continued;
        }
        for instance in &self.running {
            if let Ok(true) = backing::go_on(instance.files()).await {
                continued.push(Continued(instance.name().to_owned()));
            }
        }
        continued
    }

    /// Has all QEMUs read from the disk's own file from now on. False if one does not.
    pub(super) async fn switch(&mut self, begun: &Begun) -> bool {
        let mut all = true;
        for instance in &self.running {
            let (files, name) = (instance.files(), instance.name());
            let pid_file = files.pid_file();
            if self.refused.get(&pid_file).is_some_and(|at| at.elapsed() < AGAIN) {
                all = false;
                continue;
            }
            match backing::switch(files, &self.blob).await {
                Ok(()) => {
                    begun.log(format_args!("`{name}` reads from the store now"));
                    self.refused.remove(&pid_file);
                    // It may have stood still meanwhile.
                    let _ = backing::go_on(files).await;
                }
                Err(e) => {
                    all = false;
                    if self.refused.insert(pid_file, Instant::now()).is_none() {
                        begun.log(format_args!("`{name}` reads from here until it ends: {e}"));
                    }
                }
            }
        }
        all
    }
}
