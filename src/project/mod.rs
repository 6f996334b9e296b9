//! The machines of one project: which there are, which of them a verb is about, and how they come
//! up and go down together.
//!
//! A machine is known from the spec, from its folder, or from both. A spec that is broken or that no
//! longer names a machine does not hide it.

mod addresses;
mod arriving;
mod as_root;
pub mod boot_record;
mod boxes;
pub mod bundle;
pub mod clone;
pub mod compact;
pub(crate) mod disks;
pub mod drift;
mod folders;
mod hardware;
mod hooks;
mod host_settings;
mod network;
pub mod newer;
mod order;
pub mod outdated;
pub mod promote;
pub mod provision;
mod reconcile;
pub mod reset;
pub mod rollback;
pub mod select;
pub mod snapshot;
mod start;
pub mod status;
pub mod stop;
pub mod suspend;
pub mod sync;
pub mod up;
mod warm;

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::event::Events;
use crate::host::Paths;
use crate::machine::instance::Instance;
use crate::spec::{self, Spec};

/// The folder of a devbox.toml, and its machines.
#[derive(Debug)]
pub struct Project {
    dir: PathBuf,
    spec: Option<Spec>,
    members: Vec<Member>,
}

/// One machine of a project.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its folders, which need not be there.
    pub instance: Instance,
    /// Whether the spec names it; `None` where the spec cannot be read.
    pub in_spec: Option<bool>,
    /// Names of the machines that must be ready before it starts.
    pub depends_on: Vec<String>,
}

impl Member {
    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.instance.name()
    }
}

/// What all work on machines needs from outside.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The user's folders.
    pub paths: &'a Paths,
    /// Where the work says what it does.
    pub events: &'a Events,
    /// Cancelled by Ctrl-C.
    pub cancel: &'a CancellationToken,
    /// The project's spec, for its hooks; none run without.
    pub spec: Option<&'a Spec>,
}

impl<'a> Run<'a> {
    /// The same, with the hooks of this project.
    #[must_use]
    pub fn of(self, project: &'a Project) -> Self {
        Run { spec: project.spec(), ..self }
    }
}

impl Project {
    /// The project of the current folder: that of the nearest devbox.toml, which may be broken.
    ///
    /// # Errors
    /// There is no devbox.toml, or the folders of machines cannot be read.
    pub fn here(paths: &Paths) -> Result<Self> {
        let file = spec::find(None)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::open(dir, spec::read(&file).ok().and_then(|read| read.ok()), paths)
    }

    /// The project in the folder `dir`, which may be gone, with its machines.
    ///
    /// # Errors
    /// The folders of machines cannot be read.
    pub fn at(dir: &Path, paths: &Paths) -> Result<Self> {
        let spec = spec::read(&dir.join(spec::FILE_NAME));
        Self::open(dir, spec.ok().and_then(|read| read.ok()), paths)
    }

    /// The project in `dir` with this spec, if it has one that can be read.
    ///
    /// # Errors
    /// The folders of machines cannot be read.
    pub fn open(dir: &Path, spec: Option<Spec>, paths: &Paths) -> Result<Self> {
        let mut members = vec![];
        for machine in spec.iter().flat_map(|spec| &spec.machines) {
            members.push(Member {
                instance: Instance::of_project(paths, &machine.name, dir)?,
                in_spec: Some(true),
                depends_on: machine.depends_on.clone(),
            });
        }
        for instance in Instance::of_folder(paths, dir)? {
            if members.iter().all(|member| member.name() != instance.name()) {
                let in_spec = spec.is_some().then_some(false);
                members.push(Member { instance, in_spec, depends_on: vec![] });
            }
        }
        Ok(Project { dir: dir.to_owned(), spec, members })
    }

    /// The folder of the devbox.toml.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The spec, if it can be read and nothing in it is wrong.
    #[must_use]
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// All machines: those of the spec in its order, then others by name. A machine of the spec may
    /// not be made yet, and a folder may hold the rest of an interrupted making.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The machines that were made: they have a record, which may be damaged.
    pub fn existing(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.instance.exists())
    }
}

#[cfg(test)]
mod tests;
