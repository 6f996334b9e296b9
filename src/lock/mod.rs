//! `devbox.lock`: what a spec came to when it was resolved, so that others get the same. It holds digests, versions and
//! names, no value of a secret, and nothing of the host that made it but the versions of its tools.

mod difference;
mod input;
mod text;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::spec::{BoxPlace, BoxSource, PinnedBox, Source, Spec};

pub use difference::{Difference, packages as package_differences};
pub use input::{fingerprint, inputs};

/// The name of the file, beside devbox.toml.
pub const FILE_NAME: &str = "devbox.lock";
/// The form of the file.
pub const VERSION: u32 = 1;
/// The name of the source's image among the inputs.
pub const SOURCE: &str = "source";
/// What `--update` calls the hosts that steps reach.
pub const HOSTS: &str = "hosts";
/// How names of files begin that are to become the lock.
const UNFINISHED: &str = ".devbox.lock-";
/// Such a file that is older was left.
const LEFT: Duration = Duration::from_secs(60);
/// A file larger than this is no lock: 20,000 packages have some 4 MiB.
const LONGEST: u64 = 16 << 20;

/// All that is locked. Lists are sorted; nothing is there twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`VERSION`].
    pub version: u32,
    /// What the spec asked for, without its own version: see [`fingerprint`].
    pub spec: String,
    /// The date of the packages that the image starts from (RFC 3339, UTC); none of an `image` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The box that the image starts from; none of other sources.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub source_box: Option<LockedBox>,
    /// What is taken in from outside.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// What the guest reached while its installer and its steps ran.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// What the image has installed after all steps.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// What the source had installed and the steps changed or removed.
    #[serde(default)]
    pub replaced: Vec<Package>,
    /// Versions of the programs that made it.
    pub tools: Tools,
}

/// The box of a `box` source. The digest of its disk is the input [`SOURCE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedBox {
    /// What the spec asked for: where, and which one (`oci://registry.example/base, version ^1.2`).
    pub wanted: String,
    /// The version that this came to.
    pub version: String,
    /// The digest of its manifest where it comes from.
    pub manifest: FileDigest,
}

impl LockedBox {
    /// What `source` asks for, in words. Folders of the host are no part of it.
    #[must_use]
    pub fn wanted(source: &BoxSource) -> String {
        let from = match &source.from {
            BoxPlace::At(place) if place.starts_with("dir:") || place.starts_with("file:") => {
                "a folder".to_owned()
            }
            from => from.to_string(),
        };
        format!("{from}, {}", source.wish)
    }
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// [`SOURCE`], the name of a step, or a step's name with that of a file.
    pub name: String,
    /// Its digest with its level.
    pub digest: String,
}

/// A host that a step or the installer reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The name of the step; empty of an installer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Whether the installer of the source reached it, and no step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub installer: bool,
    /// A name, or an address where no name was asked for; [`MIRROR`] or [`BUILD_HOST`].
    pub host: String,
    /// None of a mirror, which another host may serve at another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it is UDP, and not TCP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub udp: bool,
}

/// Whoever serves the mirrors of the spec: a host's own mirror has no name here.
pub const MIRROR: &str = "mirror";
/// The host that builds, as its guest reaches it.
pub const BUILD_HOST: &str = "host";

impl Host {
    /// Who reached it, for messages.
    #[must_use]
    pub fn by(&self) -> String {
        if self.installer {
            "the installer".to_owned()
        } else {
            format!("the step `{}`", self.step)
        }
    }
}

/// `files.example:443`.
impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.udp { f.write_str(" (UDP)") } else { Ok(()) }
    }
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its version.
    pub version: String,
    /// `apk` or `rpm`; none for a deb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of its archive, where the index of the spec's own mirror lists it: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether a step brought it, and not the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub step: bool,
}

/// Versions of programs. Others may do as well; who finds a difference knows where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// This program's.
    pub devbox: String,
    /// The firmware that the guest of the steps started with.
    pub firmware: String,
    /// Of a `packages` source alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmdebstrap: Option<String>,
    /// QEMU's.
    pub qemu: String,
}

impl Package {
    /// Whether it is the same package, wherever it comes from.
    fn same(&self, other: &Package) -> bool {
        (&self.name, &self.arch, &self.version, &self.kind)
            == (&other.name, &other.arch, &other.version, &other.kind)
    }
}

impl Lock {
    /// The lock of a spec; `None` if there is none.
    ///
    /// # Errors
    /// Kind `Usage`: the file is no lock, with the place.
    pub fn of(spec: &Spec) -> Result<Option<Self>> {
        let path = path(spec);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from(e).with_kind(Kind::Usage)),
        };
        let mut text = String::new();
        let read = file.take(LONGEST + 1).read_to_string(&mut text);
        read.map_err(|e| Error::from(e).with_kind(Kind::Usage))?;
        if text.len() as u64 > LONGEST {
            return Err(Error::usage(format!("`{}` is too big for a lock", path.display())));
        }
        Self::parse(&text).map(Some).map_err(|why| {
            Error::usage(format!("`{}` is no lock that this devbox reads", path.display()))
                .cause(why)
                .hint("Take it from git again, or make it anew with `devbox lock`.")
        })
    }

    /// Writes it beside the spec, as a whole or not at all.
    ///
    /// # Errors
    /// The folder or the disk does not take it.
    pub fn write(&self, spec: &Spec) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        let path = path(spec);
        let cannot = || format!("cannot write `{}`", path.display());
        // As a program that writes a file plainly would make it.
        let mode = std::fs::Permissions::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(UNFINISHED).permissions(mode).tempfile_in(&spec.dir);
        let mut file = file.map_err(|e| Error::from(e).context(cannot()))?;
        file.write_all(self.text().as_bytes()).map_err(|e| Error::from(e).context(cannot()))?;
        file.as_file().sync_all().map_err(|e| Error::from(e).context(cannot()))?;
        file.persist(&path).map_err(|e| Error::from(e.error).context(cannot()))?;
        remove_left(&spec.dir);
        Ok(())
    }

    /// Whether it can be written there, which is known before what takes minutes.
    ///
    /// # Errors
    /// The folder takes no file.
    pub fn may_write(spec: &Spec) -> Result<()> {
        let probe = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&spec.dir);
        probe.map(drop).map_err(|e| {
            Error::from(e)
                .context(format!("cannot write `{}`", path(spec).display()))
                .hint("Let the folder be writable, or run it in a copy of the project.")
        })
    }

    /// The digest of an input.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|input| input.name == name).map(|input| &*input.digest)
    }

    /// Whether a host is locked, for any step or the installer: what a guest does beside a step comes when it likes.
    #[must_use]
    pub fn reaches(&self, host: &Host) -> bool {
        let same = |known: &Host| {
            (&known.host, known.port, known.udp) == (&host.host, host.port, host.udp)
        };
        self.hosts.iter().any(same)
    }

    /// What the source has installed before any step.
    #[must_use]
    pub fn source_packages(&self) -> Vec<Package> {
        let own = self.packages.iter().filter(|package| !package.step);
        let mut all: Vec<_> = own.chain(&self.replaced).cloned().collect();
        all.sort();
        all
    }

    /// Puts the packages of the source and those of the finished image into it.
    pub fn set_packages(&mut self, source: &[Package], image: Vec<Package>) {
        let mut image = image;
        for package in &mut image {
            package.step = !source.iter().any(|own| own.same(package));
        }
        self.replaced =
            source.iter().filter(|own| !image.iter().any(|p| p.same(own))).cloned().collect();
        self.packages = image;
        self.packages.sort();
        self.replaced.sort();
    }

    /// The lock without what is to be found anew: packages by name, or all with `packages`; the image with [`SOURCE`].
    #[must_use]
    pub fn without(&self, names: &BTreeSet<String>) -> Self {
        let mut lock = self.clone();
        let free = |name: &str| names.contains(name) || names.contains("packages");
        for list in [&mut lock.packages, &mut lock.replaced] {
            list.retain(|package| !free(&package.name));
        }
        lock.inputs.retain(|input| !names.contains(&input.name));
        if names.contains(SOURCE) {
            lock.source_box = None;
        }
        lock
    }

    /// The box that is locked, if the source is one and asks for that still.
    #[must_use]
    pub fn pinned_box(&self, source: &BoxSource) -> Option<PinnedBox> {
        let locked = self.source_box.as_ref()?;
        let disk = self.input(SOURCE)?.parse().ok()?;
        (locked.wanted == LockedBox::wanted(source)).then(|| PinnedBox {
            version: locked.version.clone(),
            manifest: locked.manifest,
            disk,
        })
    }

    /// The spec with the image or box that is locked, whatever its checksum file says or a tag means by now.
    #[must_use]
    pub fn pin(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        let digest = self.input(SOURCE).and_then(|digest| digest.strip_prefix("sha256:"));
        if let Some(digest) = digest {
            spec.source.pin(digest);
        }
        if let Source::Box(source) = &mut spec.source {
            source.pinned = self.pinned_box(source);
        }
        spec
    }
}

/// Removes what devboxes left that were killed while they wrote. Writing takes no minute; what cannot be removed stays.
fn remove_left(dir: &Path) {
    let old = |path: &Path| {
        let changed = path.metadata().and_then(|about| about.modified()).ok();
        changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LEFT)
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if name.to_string_lossy().starts_with(UNFINISHED) && old(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Where the lock of a spec is.
#[must_use]
pub fn path(spec: &Spec) -> PathBuf {
    // Short in messages where it lies right here.
    let here = std::env::current_dir().is_ok_and(|here| here == spec.dir);
    if here { PathBuf::from(FILE_NAME) } else { Path::new(&spec.dir).join(FILE_NAME) }
}

#[cfg(test)]
mod tests;
