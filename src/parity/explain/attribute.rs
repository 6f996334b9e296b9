//! Which cause a difference has. What the package managers' databases say is checked against the bytes:
//! a change is a package's only if the file is what that package brought.

use md5::{Digest as _, Md5};
use rayon::prelude::*;
use sha1::Sha1;

use super::cause::Cause;
use super::installed::Installed;
use super::rules::{self, KERNELS, LOADERS, Rule};
use super::side::{Found, Side};
use crate::error::Result;
use crate::image::Limits;
use crate::image::tree::{Node, NodeKind};
use crate::parity::difference::{Change, Difference, Kind, Place};
use crate::parity::packages::files::{Checksum, Owned};
use crate::parity::spelling::spell;

const CAPABILITY: &str = "security.capability";
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Partition types that hold a boot loader's code and no filesystem: BIOS boot of GPT (GRUB manual, section
/// 3.4), PReP.
const BOOT_CODE: [&str; 2] =
    ["21686148-6449-6e6f-744e-656564454649", "9e1a2d38-c612-4316-aa26-8b49521e5a8b"];

/// The cause of one difference.
#[derive(Debug, Clone)]
pub(in crate::parity) struct Attribution {
    pub(in crate::parity) cause: Cause,
    /// The package that the object belongs to.
    pub(in crate::parity) package: Option<String>,
    /// Whether the change of a package explains it: an index into the changes, or all of them together.
    pub(in crate::parity) by_package: bool,
    /// The path in the system, without a leading `/`.
    pub(in crate::parity) path: Option<Vec<u8>>,
    /// Which sides have the file as its package brought it; `None` where that is not known.
    pub(in crate::parity) as_packaged: [Option<bool>; 2],
}

impl Attribution {
    fn of(cause: Cause) -> Self {
        Attribution { cause, package: None, by_package: false, path: None, as_packaged: [None; 2] }
    }
}

/// All that is known of a path before it is judged.
struct Looked<'a> {
    path: Vec<u8>,
    rule: Option<&'static Rule>,
    found: [Option<Found<'a>>; 2],
    owned: [Option<&'a Owned>; 2],
    /// The package that owns it, and the index of its change.
    owner: Option<(String, Option<usize>)>,
    as_packaged: [Option<bool>; 2],
}

/// Two sides, and what differs between their packages.
pub(in crate::parity) struct Sides<'a> {
    pub(in crate::parity) sides: [&'a Side<'a>; 2],
    pub(in crate::parity) installed: &'a Installed,
    /// Types of partitions that hold bytes alone, by number.
    pub(in crate::parity) partition_types: &'a [(u32, String)],
}

impl<'a> Sides<'a> {
    /// The cause of each difference, in the same order.
    ///
    /// # Errors
    /// A file cannot be read; [`Limits::deadline`] passed.
    pub(in crate::parity) fn attribute(
        &self,
        differences: &'a [Difference],
        limits: &Limits,
    ) -> Result<Vec<Attribution>> {
        let each = differences.par_iter().with_max_len(64).map(|difference| {
            limits.check_time()?;
            match &difference.place {
                Place::Path(holder, path) => {
                    let path =
                        self.sides.iter().find_map(|side| side.in_system(holder.as_ref(), path));
                    let Some(path) = path else {
                        return Ok(Attribution::of(elsewhere(&difference.changes)));
                    };
                    let mut looked = self.look(path, &difference.place);
                    self.check(&mut looked, &difference.changes)?;
                    Ok(self.judge(&looked, &difference.changes))
                }
                place => {
                    let by_package = matches!(place, Place::Package(..));
                    let cause = self.above_files(place, &difference.changes);
                    Ok(Attribution { by_package, ..Attribution::of(cause) })
                }
            }
        });
        each.collect()
    }

    fn look(&self, path: Vec<u8>, place: &Place) -> Looked<'a> {
        let found = self.sides.map(|side| side.find(place));
        let owned = self.sides.map(|side| side.owners.of(&path));
        let mut looked = Looked {
            rule: rules::of(&path),
            found,
            owned,
            owner: self.owner(owned, found),
            path,
            as_packaged: [None; 2],
        };
        if looked.owner.is_none() {
            looked.owner = self.made_from(&looked);
        }
        looked
    }

    /// The owner of a path; of several the one that changed.
    fn owner(
        &self,
        owned: [Option<&Owned>; 2],
        found: [Option<Found<'_>>; 2],
    ) -> Option<(String, Option<usize>)> {
        let mut unchanged = None;
        for (side, (owned, found)) in self.sides.iter().zip(owned.into_iter().zip(found)) {
            // What is not there any more belongs to nobody on this side.
            let (Some(owned), Some(_)) = (owned, found) else { continue };
            for index in &owned.by {
                let Some((name, _)) = side.owners.package(*index) else { continue };
                match self.installed.of(name) {
                    Some(change) => return Some((spell(name), Some(change))),
                    None => unchanged = unchanged.or_else(|| Some(spell(name))),
                }
            }
        }
        unchanged.map(|name| (name, None))
    }

    /// The owner of what an unowned path was made from: a link's target, the source of compiled Python.
    fn made_from(&self, looked: &Looked<'_>) -> Option<(String, Option<usize>)> {
        for (side, found) in self.sides.iter().zip(looked.found) {
            let Some(found) = found else { continue };
            let from = side.target(found, &looked.path).or_else(|| {
                python_source(&looked.path, matches!(found.node.kind, NodeKind::Directory { .. }))
            });
            let Some(from) = from else { continue };
            let from = side.owners.of(&from)?;
            let changed = from.by.iter().find_map(|index| {
                let (name, _) = side.owners.package(*index)?;
                Some((spell(name), Some(self.installed.of(name)?)))
            });
            if changed.is_some() {
                return changed;
            }
        }
        None
    }

    /// Compares the file with what its packages wrote down of it, where a change of content is to be explained.
    fn check(&self, looked: &mut Looked<'_>, changes: &[Change]) -> Result<()> {
        let of_content = [Kind::Content, Kind::Added, Kind::Removed, Kind::Type];
        if !changes.iter().any(|change| of_content.contains(&change.kind)) {
            return Ok(());
        }
        for (i, side) in self.sides.iter().enumerate() {
            if let (Some(found), Some(sum)) =
                (looked.found[i], looked.owned[i].and_then(|owned| owned.checksum))
            {
                looked.as_packaged[i] = matches(side, found, sum)?;
            }
        }
        Ok(())
    }

    fn judge(&self, looked: &Looked<'_>, changes: &[Change]) -> Attribution {
        let (package, change) = match &looked.owner {
            Some((name, change)) => (Some(name.clone()), *change),
            None => (None, None),
        };
        let made = |cause: Cause, by_package: bool| Attribution {
            cause,
            package: package.clone(),
            by_package,
            path: Some(looked.path.clone()),
            as_packaged: looked.as_packaged,
        };
        let only = |kinds: &[Kind]| changes.iter().all(|change| kinds.contains(&change.kind));
        if only(&[Kind::Mtime]) {
            return made(Cause::Times, false);
        }
        if only(&[Kind::HardLinks, Kind::Mtime]) {
            return made(Cause::HardLinks, false);
        }
        let nodes = looked.found.map(|found| found.map(|found| found.node));
        let is_state = looked.rule.is_some_and(|rule| rule.cause == Cause::State);
        if let Some(cause) = privilege(nodes, changes, change.is_some() || is_state) {
            return made(cause, false);
        }
        let rule = looked.rule.map(|rule| match rule.cause {
            Cause::ServiceUnits if is_enabling(&looked.path, nodes) => Cause::ServicesEnabled,
            cause => cause,
        });
        let is_config = looked.owned.iter().flatten().any(|owned| owned.is_config);
        let tampered = looked.as_packaged.contains(&Some(false));
        if is_state {
            return made(Cause::State, false);
        }
        if change.is_some() && !tampered {
            let name = package.as_deref().unwrap_or_default().as_bytes();
            let cause = if rules::is_one_of(name, KERNELS) {
                Cause::Kernel
            } else if rules::is_one_of(name, LOADERS) {
                Cause::BootLoader
            } else {
                Cause::Packages
            };
            return made(cause, true);
        }
        if let Some(cause) = self.follows(looked) {
            return made(cause, true);
        }
        let content = !only(&[Kind::Mode, Kind::Xattr, Kind::Flags, Kind::Owner, Kind::Mtime]);
        // What a package brought and nobody is expected to touch.
        let important = rule.filter(|rule| rule.about().rank <= 4);
        if package.is_some() && content && !is_config && important.is_none() {
            return made(Cause::PackageModified, false);
        }
        match rule {
            Some(rule) if content || rule.about().rank <= 3 => made(rule, false),
            _ if !content => made(metadata(changes), false),
            // Without lists of files, whatever lies where packages put things is theirs.
            None if self.knows_no_owner() && looked.path.starts_with(b"usr/") => {
                made(Cause::Packages, true)
            }
            None if self.is_program(looked) => made(Cause::Programs, false),
            _ => made(Cause::Data, false),
        }
    }

    /// The cause by the change of another package: a cache that any package changes, what a kernel's makes.
    fn follows(&self, looked: &Looked<'_>) -> Option<Cause> {
        let rule = looked.rule.filter(|rule| !rule.follows.is_empty())?;
        let changed = self
            .installed
            .changes
            .iter()
            .find(|change| rules::is_one_of(change.name.as_bytes(), rule.follows))?;
        if rules::is_one_of(changed.name.as_bytes(), KERNELS) && rule.follows != ["*"] {
            return Some(Cause::Kernel);
        }
        Some(Cause::Packages)
    }

    /// Whether packages differ and no side says which files are whose.
    pub(in crate::parity) fn knows_no_owner(&self) -> bool {
        !self.installed.changes.is_empty() && self.sides.iter().all(|side| side.owners.is_empty())
    }

    fn is_program(&self, looked: &Looked<'_>) -> bool {
        let executable =
            |node: &Node| matches!(node.kind, NodeKind::File { .. }) && node.mode & 0o111 != 0;
        rules::is_program(&looked.path)
            || looked.found.iter().flatten().any(|found| executable(found.node))
    }

    fn above_files(&self, place: &Place, changes: &[Change]) -> Cause {
        let has = |kinds: &[Kind]| changes.iter().any(|change| kinds.contains(&change.kind));
        match place {
            Place::System if has(&[Kind::Order]) => Cause::CommandLine,
            Place::System => Cause::Platform,
            Place::BootEntry(_) if has(&[Kind::CommandLine]) => Cause::CommandLine,
            Place::BootEntry(_) => Cause::Kernel,
            Place::Package(name, _) if rules::is_one_of(name, KERNELS) => Cause::Kernel,
            Place::Package(..) => Cause::Packages,
            Place::Disk if has(&[Kind::BootCode, Kind::Gap]) => Cause::BootLoader,
            Place::Partition(_) if has(&[Kind::BootCode]) => Cause::BootLoader,
            Place::Partition(number) if has(&[Kind::Content]) => {
                let code = |(n, kind): &(u32, String)| {
                    n == number && BOOT_CODE.contains(&kind.to_ascii_lowercase().as_str())
                };
                if self.partition_types.iter().any(code) { Cause::BootLoader } else { Cause::Bytes }
            }
            Place::File | Place::Bytes(..) => Cause::Bytes,
            Place::Volume(..) if has(&[Kind::Content]) => Cause::Bytes,
            _ => Cause::Layout,
        }
    }
}

/// What became of rights that a file gives or of who may write to it. `expected`: a package's change, or
/// instance state, explains other owners and modes.
fn privilege(nodes: [Option<&Node>; 2], changes: &[Change], expected: bool) -> Option<Cause> {
    let bits = |node: Option<&Node>| match node {
        Some(node) if matches!(node.kind, NodeKind::File { .. }) => node.mode & 0o6000,
        // A folder's setgid bit hands its group on, and gives no right.
        _ => 0,
    };
    let has = |kind: Kind| changes.iter().any(|change| change.kind == kind);
    let replaced = has(Kind::Content) && nodes.iter().all(|node| bits(*node) != 0) && !expected;
    if bits(nodes[0]) != bits(nodes[1]) || replaced {
        return Some(Cause::Setuid);
    }
    let capability = |node: Option<&Node>| {
        node.and_then(|node| {
            node.xattrs.iter().find(|(key, _)| key == CAPABILITY.as_bytes()).map(|(_, v)| v.clone())
        })
    };
    if capability(nodes[0]) != capability(nodes[1]) {
        return Some(Cause::Capabilities);
    }
    if expected {
        return None;
    }
    let open = |node: Option<&Node>| {
        node.is_some_and(|node| match node.kind {
            NodeKind::Symlink { .. } => false,
            NodeKind::Directory { .. } => node.mode & 0o1002 == 0o002,
            _ => node.mode & 0o002 != 0,
        })
    };
    if open(nodes[0]) != open(nodes[1]) {
        return Some(Cause::WorldWritable);
    }
    has(Kind::Owner).then_some(Cause::Ownership)
}

/// Whether it is a link that `systemctl enable` or `mask` makes: an alias, or `/dev/null` in place of a unit
/// (systemd.unit(5)).
fn is_enabling(path: &[u8], nodes: [Option<&Node>; 2]) -> bool {
    let is_link = |node: &&Node| matches!(node.kind, NodeKind::Symlink { .. });
    path.starts_with(b"etc/systemd/") && nodes.iter().flatten().any(is_link)
}

/// Nothing but metadata differs.
fn metadata(changes: &[Change]) -> Cause {
    let acl = |change: &Change| {
        change.kind == Kind::Xattr && change.key.as_deref().is_some_and(|key| ACLS.contains(&key))
    };
    let of_mode = |change: &Change| matches!(change.kind, Kind::Mode | Kind::Mtime);
    if changes.iter().any(acl) && changes.iter().all(|change| acl(change) || of_mode(change)) {
        return Cause::AccessLists;
    }
    Cause::Metadata
}

/// A path of a filesystem that is mounted nowhere known.
fn elsewhere(changes: &[Change]) -> Cause {
    match changes {
        [only] if only.kind == Kind::Mtime => Cause::Times,
        [only] if only.kind == Kind::HardLinks => Cause::HardLinks,
        _ => Cause::Data,
    }
}

/// The source of `x/__pycache__/name.cpython-311.pyc` is `x/name.py` (PEP 3147); that of the folder is `x`.
fn python_source(path: &[u8], is_folder: bool) -> Option<Vec<u8>> {
    const CACHE: &[u8] = b"/__pycache__";
    if is_folder {
        return Some(path.strip_suffix(CACHE)?.to_vec());
    }
    let mut parts = path.rsplitn(2, |b| *b == b'/');
    let (name, folder) = (parts.next()?, parts.next()?.strip_suffix(CACHE)?);
    let stem = name.strip_suffix(b".pyc")?.split(|b| *b == b'.').next()?;
    Some([folder, b"/", stem, b".py"].concat())
}

/// Whether a file has this checksum; `None` if it cannot be read here.
fn matches(side: &Side<'_>, found: Found<'_>, sum: Checksum) -> Result<Option<bool>> {
    if !matches!(found.node.kind, NodeKind::File { .. }) {
        return Ok(None);
    }
    match sum {
        Checksum::Sha256(sum) => Ok(side.sha256(found)?.map(|found| found == sum)),
        Checksum::Md5(sum) => {
            let mut hash = Md5::new();
            let read = side.read(found, &mut |piece| {
                hash.update(piece);
                Ok(())
            })?;
            Ok(read.then(|| hash.finalize()[..] == sum))
        }
        Checksum::Sha1(sum) => {
            let mut hash = Sha1::new();
            let read = side.read(found, &mut |piece| {
                hash.update(piece);
                Ok(())
            })?;
            Ok(read.then(|| hash.finalize()[..] == sum))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_python_has_its_source_beside_its_folder() {
        let of = |path: &str, is_folder| {
            python_source(path.as_bytes(), is_folder).map(|p| String::from_utf8(p).expect("text"))
        };
        let source = of("usr/lib/python3/x/__pycache__/a.cpython-311.opt-1.pyc", false);
        assert_eq!(source.as_deref(), Some("usr/lib/python3/x/a.py"));
        assert_eq!(of("usr/lib/python3/x/__pycache__", true).as_deref(), Some("usr/lib/python3/x"));
        assert_eq!(of("usr/lib/a.pyc", false), None);
    }
}
