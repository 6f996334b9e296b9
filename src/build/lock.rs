//! What a build has to do with `devbox.lock`: it finds what belongs into one, and keeps to one.

use std::path::{Path, PathBuf};

use super::chain::Chain;
use super::guest::Guest;
use super::mirror::Loan;
use super::pinned::{Keep, Pinned, more};
use super::reached::{Reached, Roles, Taken, Watch};
use super::workspace::Workspace;
use super::{Build, Input, Options, parent};
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::host::Paths;
use crate::image::container::{self, Backing, Format};
use crate::image::disk::Disk;
use crate::lock::{self, Difference, Host, Lock, LockedBox, Package, Tools, package_differences};
use crate::machine::firmware;
use crate::parity::subject;
use crate::source::packages::{Locked, Wanted};
use crate::source::{self, SourceDisk, seed::Seed};
use crate::spec::{Firmware, Source, Spec, Step};
use crate::store::BoxRef;

use tokio_util::sync::CancellationToken;

/// Of what differs so many are named.
const NAMED: usize = 20;

/// Resolves a spec: fetches or makes what it starts from, runs its steps as far as the cache has them not, and looks
/// at what came out. Makes no box. With `options.lock` all but its `loose` stays as it is there.
///
/// # Errors
/// As [`super::run`].
pub async fn resolve(
    spec: &Spec,
    paths: &Paths,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Lock> {
    let pinned = options.lock.as_ref().map(|pinned| pinned.pin(spec));
    let spec = pinned.as_ref().unwrap_or(spec);
    let stop = cancel.child_token();
    Build::new(spec, paths, options, events, &stop).resolve().await
}

impl Build<'_> {
    async fn resolve(&self) -> Result<Lock> {
        self.check_host()?;
        let mut work = Workspace::open(self.spec, self.paths)?;
        let input = self.input().await?;
        self.verified().await?;
        let digest = input.digest()?;
        let source_box = match (&input, &self.spec.source) {
            (Input::Box(base), Source::Box(source)) => Some(LockedBox {
                wanted: LockedBox::wanted(source),
                version: base.image.config().version.clone(),
                manifest: base.manifest,
            }),
            _ => None,
        };
        let source = self.disk(input, &work).await?;
        let own = self.installed(&Chain::new(&source, vec![])).await?;
        let (installed, hosts) = if self.spec.steps.is_empty() {
            (own.clone(), vec![])
        } else {
            let accelerator = self.accelerator().await?;
            let done = self.provision(&source, &self.spec.steps, &work, accelerator).await?;
            self.remembered(done.remembering).await;
            (self.installed(&done.chain).await?, done.hosts)
        };
        let hosts = [self.installer.get().cloned().unwrap_or_default(), hosts].concat();
        let [own, installed] = self.with_archives([own, installed]).await?;
        let mut lock = Lock {
            version: lock::VERSION,
            spec: lock::fingerprint(self.spec, digest.as_ref())?,
            snapshot: self.snapshot(&source)?,
            source_box,
            inputs: lock::inputs(self.spec, digest.as_ref())?,
            // Those that were not to be found anew stay, also where one is not reached this time.
            hosts: match &self.options.lock {
                Some(pinned) if !pinned.loose.contains(lock::HOSTS) => pinned.lock.hosts.clone(),
                _ => hosts,
            },
            packages: vec![],
            replaced: vec![],
            tools: self.tools()?,
        };
        lock.set_packages(&own, installed);
        work.succeeded();
        Ok(lock)
    }

    fn snapshot(&self, source: &SourceDisk) -> Result<Option<String>> {
        if !matches!(self.spec.source, Source::Packages(_)) {
            return Ok(None);
        }
        let date = jiff::Timestamp::from_second(source.epoch)
            .map_err(|e| Error::failed("the date of the packages is out of range").cause(e))?;
        Ok(Some(date.to_string()))
    }

    fn tools(&self) -> Result<Tools> {
        let arch = super::hardware::arch(self.spec.arch);
        let code = |secure| -> Result<String> {
            let images = firmware::find(arch, secure)?;
            let digest = FileDigest::of(&fs_err::read(&images.code)?);
            let name = images.code.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(format!("{name} {digest}"))
        };
        Ok(Tools {
            devbox: env!("CARGO_PKG_VERSION").to_owned(),
            firmware: match self.spec.machine.firmware {
                Firmware::Bios => "SeaBIOS, as it comes with QEMU".to_owned(),
                Firmware::Uefi => code(false)?,
                Firmware::SecureBoot => code(true)?,
            },
            mmdebstrap: match &self.spec.source {
                Source::Packages(_) => Some(version(tools::MMDEBSTRAP)?),
                _ => None,
            },
            qemu: version(tools::qemu(arch))?,
        })
    }

    /// The packages of the spec's source as a disk: as the lock has them, if there is one.
    pub(super) async fn packages_disk(&self) -> Result<SourceDisk> {
        let Spec { name, arch, seal, source, .. } = self.spec;
        let Source::Packages(packages) = source else {
            return Err(Error::failed("the spec's source is not `packages`"));
        };
        let (seed, epoch, paths) = (Seed::from_text(name), seal.epoch, self.paths);
        let (events, cancel) = (self.events, self.cancel);
        let wanted = Wanted { spec: packages, arch: *arch, epoch, seed: &seed, locked: None };
        let build = async |locked: Option<&Locked>| {
            let wanted = Wanted { locked, ..wanted };
            source::packages::build(&wanted, paths, events, cancel).await
        };
        let Some(pinned) = &self.options.lock else { return build(None).await };
        let Some(locked) = pinned.locked()? else { return build(None).await };
        if pinned.is_strict() {
            for disk in source::packages::cached(&wanted, paths)? {
                if Some(disk.epoch) == locked.epoch
                    && self.differences(&disk, &locked).await?.is_empty()
                {
                    events.note("the locked packages have a disk already");
                    return Ok(disk);
                }
            }
        }
        let disk = build(Some(&locked)).await?;
        if pinned.is_strict() {
            refuse(self.differences(&disk, &locked).await?, "what was installed")?;
        }
        Ok(disk)
    }

    async fn differences(&self, disk: &SourceDisk, locked: &Locked) -> Result<Vec<Difference>> {
        let found = self.installed(&Chain::new(disk, vec![])).await?;
        Ok(package_differences(&locked.packages, &found))
    }

    /// The names of hosts that are roles.
    pub(super) fn roles(&self, loans: &[Loan]) -> Roles {
        let mut roles = Roles::default();
        if let Source::Packages(packages) = &self.spec.source {
            roles.add(&packages.mirror);
            roles.add(&packages.security_mirror);
        }
        loans.iter().for_each(|loan| roles.add(&loan.host));
        roles
    }

    /// What a step that has just ended reached.
    ///
    /// # Errors
    /// The lock does not have it; the record broke off.
    pub(super) async fn reached(
        &self,
        step: &Step,
        guest: &Guest,
        roles: &Roles,
    ) -> Result<Vec<Host>> {
        let taken = guest.watch.taken().await?;
        // Each step comes by the network itself.
        if taken.frames == 0 {
            return Err(Error::failed("nothing of the guest's network was recorded").detail(
                format!(
                    "QEMU's log may say why: {}",
                    guest.serial_log().with_file_name("qemu.log").display()
                ),
            ));
        }
        self.hosts_of(&taken, Some(step), |reached| roles.is_mirror(reached))
    }

    /// What the installer reached in a start that has just ended, beside the server of its answers. That it reached nothing
    /// may be: it has all on its medium.
    ///
    /// # Errors
    /// As [`Build::reached`].
    pub(super) async fn installer_reached(
        &self,
        watch: &Watch,
        answers: Option<u16>,
    ) -> Result<Vec<Host>> {
        let mut taken = watch.taken().await?;
        taken.reached.retain(|reached| {
            reached.udp || reached.host != lock::BUILD_HOST || Some(reached.port) != answers
        });
        self.hosts_of(&taken, None, |_| false)
    }

    fn hosts_of(
        &self,
        taken: &Taken,
        step: Option<&Step>,
        is_mirror: impl Fn(&Reached) -> bool,
    ) -> Result<Vec<Host>> {
        let mut hosts = vec![];
        for reached in &taken.reached {
            let is_mirror = is_mirror(reached);
            let host = Host {
                step: step.map(|step| step.name.clone()).unwrap_or_default(),
                installer: step.is_none(),
                host: if is_mirror { lock::MIRROR.to_owned() } else { reached.host.clone() },
                port: (!is_mirror).then_some(reached.port),
                udp: reached.udp,
            };
            self.refuse_other_hosts(std::slice::from_ref(&host), Some(reached))?;
            hosts.push(host);
        }
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    /// Fails at a host that the lock does not have, or tells it.
    pub(super) fn refuse_other_hosts(&self, hosts: &[Host], seen: Option<&Reached>) -> Result<()> {
        let Some(pinned) = self.options.lock.as_ref().filter(|pinned| pinned.keeps_hosts()) else {
            return Ok(());
        };
        let words = |host: &Host| {
            format!("{} reached `{host}`, which `{}` does not have", host.by(), lock::FILE_NAME)
        };
        let mut others = hosts.iter().filter(|host| !pinned.lock.reaches(host));
        if pinned.keep != Keep::Exactly {
            others.for_each(|host| self.events.warn(words(host)));
            return Ok(());
        }
        let Some(host) = others.next() else { return Ok(()) };
        let error = Error::failed(words(host));
        let error = match seen {
            Some(seen) if seen.host != lock::BUILD_HOST => error.detail(format!(
                "known by {}; its address was {}",
                seen.by.as_str(),
                seen.address
            )),
            Some(_) => error.detail("it is the host that builds, as its guest sees it"),
            None if host.installer => {
                error.detail("the installed disk is in the cache; its installer reached this")
            }
            None => error.detail("the step is in the cache; it reached this when it ran"),
        };
        Err(error.hint(match host.installer {
            true => "If the installer is meant to, take it with `devbox lock --update hosts`; if not, look at its answers.",
            false => "If the step is meant to, take it with `devbox lock --update hosts`; if not, look at what the step does.",
        }))
    }

    /// Fails where the packages after the steps are not those of the lock, or tells it.
    pub(super) async fn refuse_other_packages(&self, chain: &Chain) -> Result<()> {
        let Some(pinned) = self.options.lock.as_ref().filter(|p| p.keeps_packages()) else {
            return Ok(());
        };
        let found = self.installed(chain).await?;
        let differences = package_differences(&pinned.lock.packages, &found);
        let what = "what the image has after its steps";
        if pinned.keep == Keep::Exactly {
            return refuse(differences, what);
        }
        if let Some(first) = differences.first() {
            let more = more(differences.len());
            let file = lock::FILE_NAME;
            self.events.warn(format!(
                "{what} is not what `{file}` has: {}{more}; `devbox lock` takes what is there now",
                first.what
            ));
        }
        Ok(())
    }

    /// A stored box, if it has the packages of the lock; where there is none, any.
    pub(super) async fn as_locked(&self, stored: BoxRef) -> Result<Option<BoxRef>> {
        let Some(pinned) = &self.options.lock else { return Ok(Some(stored)) };
        let differences = match pinned.keep {
            Keep::Exactly => self.stored_differences(&stored, pinned).await?,
            // Its inputs are the locked ones; the packages of its source are no part of those.
            Keep::Inputs if matches!(self.spec.source, Source::Packages(_)) => {
                of_source(self.stored_differences(&stored, pinned).await?, &pinned.lock)
            }
            Keep::Inputs | Keep::Box => return Ok(Some(stored)),
        };
        let Some(first) = differences.first() else { return Ok(Some(stored)) };
        self.events.note(format!("the stored box is not what is locked: {}", first.what));
        Ok(None)
    }

    async fn stored_differences(
        &self,
        stored: &BoxRef,
        pinned: &Pinned,
    ) -> Result<Vec<Difference>> {
        let path = stored.disk_path().to_owned();
        let found = self.installed_on(path.clone(), Format::Qcow2, vec![parent(&path)]).await?;
        Ok(package_differences(&pinned.lock.packages, &found))
    }

    /// What the system on the top of the chain has installed.
    async fn installed(&self, chain: &Chain) -> Result<Vec<Package>> {
        let (top, format) = chain.top();
        self.installed_on(top.to_owned(), format, chain.folders()).await
    }

    async fn installed_on(
        &self,
        path: PathBuf,
        format: Format,
        within: Vec<PathBuf>,
    ) -> Result<Vec<Package>> {
        let read = tokio::task::spawn_blocking(move || packages_on(&path, format, within)).await;
        match read.map_err(|e| Error::failed("reading the packages was stopped").cause(e))? {
            Err(e) if e.kind() == Kind::Undetermined => {
                self.events.note(format!("no packages are locked: {}", e.what()));
                Ok(vec![])
            }
            read => read,
        }
    }

    /// The same packages with the digests of their archives, where the spec's mirror lists them.
    async fn with_archives(&self, lists: [Vec<Package>; 2]) -> Result<[Vec<Package>; 2]> {
        let Source::Packages(packages) = &self.spec.source else { return Ok(lists) };
        let names = lists.iter().flatten().map(|package| package.name.clone()).collect();
        let (arch, events, cancel) = (self.spec.arch, self.events, self.cancel);
        let archives = source::packages::archives(&names, packages, arch, events, cancel).await?;
        Ok(lists.map(|mut list| {
            for package in &mut list {
                let same = archives.iter().find(|a| {
                    (&a.name, &a.arch, &a.version)
                        == (&package.name, &package.arch, &package.version)
                });
                package.sha256 = same.map(|a| a.sha256.clone());
            }
            list
        }))
    }
}

/// The first of a stored box's packages that its source should have brought, and that is not as locked.
///
/// # Errors
/// The disk cannot be read.
pub fn other_package(stored: &BoxRef, lock: &Lock) -> Result<Option<String>> {
    let path = stored.disk_path();
    let found = packages_on(path, Format::Qcow2, vec![parent(path)])?;
    let all = of_source(package_differences(&lock.packages, &found), lock);
    Ok(all.into_iter().next().map(|difference| difference.what))
}

/// What differs of the packages that the source brings, and no step.
fn of_source(mut all: Vec<Difference>, lock: &Lock) -> Vec<Difference> {
    all.retain(|d| lock.packages.iter().any(|p| p.name == d.name && !p.step));
    all
}

/// Fails where anything differs, and names it.
fn refuse(differences: Vec<Difference>, what: &str) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(NAMED);
    let mut error = Error::failed(format!("{what} is not what `{}` has", lock::FILE_NAME));
    for difference in differences.into_iter().take(NAMED) {
        error = error.detail(difference.what);
    }
    if more > 0 {
        error = error.detail(format!("and {more} more"));
    }
    Err(error.hint("Take what is there now with `devbox lock`, or run the steps anew with `devbox build --locked --no-cache` where a cached step brought another version."))
}

fn packages_on(path: &Path, format: Format, within: Vec<PathBuf>) -> Result<Vec<Package>> {
    let options = container::Options {
        format: Some(format),
        backing: Backing::Within(within),
        ..container::Options::default()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = subject::packages(&Disk::open(path, &options)?)?;
    // What is remembered for its configuration alone is not installed.
    let there = found.list().iter().filter(|p| !p.status.ends_with(b",config-files"));
    let mut all: Vec<Package> = there
        .map(|p| Package {
            name: text(&p.name),
            arch: text(&p.arch),
            version: text(&p.version),
            kind: (p.kind != "deb").then(|| p.kind.to_owned()),
            sha256: None,
            step: false,
        })
        .collect();
    all.sort();
    Ok(all)
}

/// What a program says of its version, without its own name.
fn version(tool: exec::Tool) -> Result<String> {
    let out = exec::output(tool.command()?.arg("--version"))?;
    let text = String::from_utf8_lossy(&out);
    let line = text.lines().next().unwrap_or_default();
    let from = line.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
    Ok(line[from..].trim().to_owned())
}
