//! Reads a sealed disk and proves that it is sealed: each value of the seal's table, no file time
//! after the epoch, a clean journal, the build's key and the host's mirror in no file, and no secret
//! of the steps anywhere on the disk.

use std::collections::BTreeSet;

use super::search::Search;
use super::{Values, planted};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::image::disk::Disk;
use crate::image::tree::{Filesystem, NodeId, NodeKind, Tree};

/// Most findings that an error shows; the rest is counted.
const SHOWN: usize = 12;

/// Folders that have to be empty, where they are there.
const HOLLOW: &[&str] = &[
    "/var/lib/cloud",
    "/var/log/journal",
    "/var/cache/apt/archives/partial",
    "/var/backups",
    "/var/lib/systemd/timers",
    "/var/lib/systemd/timesync",
    "/var/lib/dhcp",
    "/tmp",
    "/var/tmp",
    "/run",
    "/dev",
    "/proc",
    "/sys",
];
/// Paths that must not be there.
const ABSENT: &[&str] = &[
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/cache/ldconfig/aux-cache",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/sudoers.d/90-cloud-init-users",
    "/root/.bash_history",
    "/etc/netplan/50-cloud-init.yaml",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/lib/dpkg/status-old",
];
/// Files that list accounts; none may know the build's.
const ACCOUNTS: &[&str] =
    &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];
/// Largest account file that is read, in bytes.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// Checks a disk.
///
/// # Errors
/// The disk cannot be read, or it is not sealed: every finding is named, up to a dozen.
pub fn check(disk: &Disk, values: &Values) -> Result<()> {
    let mut found = Findings::default();
    let mut roots = 0;
    for at in disk.filesystems() {
        let fs = at.filesystem;
        if fs.identity().kind.starts_with("ext") && !cleanly_unmounted(&**at.reader)? {
            found.add(format!("{} was not cleanly unmounted", at.holder));
        }
        let tree = fs.tree()?;
        let volume = Volume { fs: &**fs, tree: &tree };
        volume.everywhere(values, fs.identity().kind, &mut found)?;
        if volume.at("/etc/passwd").is_some() {
            roots += 1;
            volume.root(values, &mut found)?;
        }
    }
    if roots == 0 {
        found.add("no filesystem has an /etc/passwd".to_owned());
    }
    planted::search(&*disk.container.reader, &values.secrets, &mut found)?;
    found.verdict()
}

/// Whether an ext filesystem's journal is empty and its state clean (kernel documentation,
/// "ext4 Data Structures and Algorithms", section "Super Block").
fn cleanly_unmounted(reader: &dyn ReadAt) -> Result<bool> {
    const NEEDS_RECOVERY: u8 = 0x4;
    const CLEAN: u8 = 0x1;
    let mut superblock = [0; 0x64];
    reader.read_at(&mut superblock, 1024)?;
    Ok(superblock[0x60] & NEEDS_RECOVERY == 0 && superblock[0x3a] & CLEAN != 0)
}

#[derive(Default)]
pub(super) struct Findings {
    shown: Vec<String>,
    more: usize,
    /// Names of secrets of the steps that are in a file.
    pub(super) secrets: BTreeSet<String>,
}

impl Findings {
    pub(super) fn add(&mut self, what: String) {
        if self.shown.len() < SHOWN {
            self.shown.push(what);
        } else {
            self.more += 1;
        }
    }

    /// A secret of the steps is somewhere.
    pub(super) fn secret(&mut self, name: &str, holder: &str) {
        self.secrets.insert(name.to_owned());
        self.add(format!("{holder} the secret `{name}`"));
    }

    fn verdict(self) -> Result<()> {
        if self.shown.is_empty() {
            return Ok(());
        }
        if let Some(name) = self.secrets.first() {
            let mut error = Error::failed(format!(
                "the image holds the secret `{name}` of its steps; it is not kept"
            ));
            for what in self.shown {
                error = error.detail(what);
            }
            return Err(error.hint("Let the step take the secret from its environment without writing it to a file, or remove what it wrote."));
        }
        let mut error = Error::failed(
            "the image is not sealed: reading it again found what the seal should have removed",
        );
        for what in self.shown {
            error = error.detail(what);
        }
        if self.more > 0 {
            error = error.detail(format!("and {} more", self.more));
        }
        Err(error.hint("Remove it in the last step of the spec; if the spec has nothing to do with it, this is a fault of devbox."))
    }
}

struct Volume<'a> {
    fs: &'a dyn Filesystem,
    tree: &'a Tree,
}

impl Volume<'_> {
    fn at(&self, path: &str) -> Option<NodeId> {
        self.tree.lookup(path.as_bytes())
    }

    fn kind(&self, path: &str) -> Option<&NodeKind> {
        Some(&self.tree.nodes.get(self.at(path)? as usize)?.kind)
    }

    fn names(&self, path: &str) -> Vec<(String, &NodeKind)> {
        let Some(NodeKind::Directory { children }) = self.kind(path) else { return vec![] };
        let nodes = children.iter().filter_map(|id| self.tree.nodes.get(*id as usize));
        nodes.map(|n| (String::from_utf8_lossy(&n.name).into_owned(), &n.kind)).collect()
    }

    fn text(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(id) = self.at(path) else { return Ok(None) };
        let Some(node) = self.tree.nodes.get(id as usize) else { return Ok(None) };
        let NodeKind::File { size, .. } = node.kind else { return Ok(None) };
        if size > MAX_ACCOUNTS {
            return Err(Error::undetermined(format!("`{path}` in the image has {size} bytes")));
        }
        let mut bytes = vec![];
        self.fs.read_file(node, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// What holds on every filesystem of the image.
    fn everywhere(&self, values: &Values, kind: &str, found: &mut Findings) -> Result<()> {
        let needles: Vec<&[u8]> = values
            .keys
            .iter()
            .chain(&values.forbidden)
            .chain(values.secrets.iter().map(|trace| &trace.text))
            .map(String::as_bytes)
            .filter(|n| !n.is_empty())
            .collect();
        let mut todo: Vec<(NodeId, Vec<u8>)> = vec![(0, vec![])];
        while let Some((id, path)) = todo.pop() {
            let Some(node) = self.tree.nodes.get(id as usize) else { continue };
            let shown =
                || String::from_utf8_lossy(if path.is_empty() { b"/" } else { &path }).into_owned();
            // vfat counts in local time and by two seconds; its times are not part of any digest.
            if kind != "vfat" && node.mtime > values.epoch {
                found.add(format!("{} has a time after the epoch", shown()));
            }
            match &node.kind {
                NodeKind::Socket => found.add(format!("{} is a socket", shown())),
                NodeKind::Directory { children } => {
                    for child in children {
                        let name = self.tree.nodes.get(*child as usize).map(|n| &n.name[..]);
                        let path = [&path, &b"/"[..], name.unwrap_or_default()].concat();
                        todo.push((*child, path));
                    }
                }
                NodeKind::File { size, .. } if *size > 0 => {
                    let mut search = Search::new(&needles);
                    self.fs.read_file(node, &mut |piece| {
                        search.feed(piece);
                        Ok(())
                    })?;
                    let mut names = BTreeSet::new();
                    for needle in search.found() {
                        let secret = values.secrets.iter().find(|t| t.text.as_bytes() == needle);
                        if let Some(secret) = secret {
                            names.insert(&secret.name);
                        } else if values.keys.iter().any(|key| needle == key.as_bytes()) {
                            found.add(format!("{} holds the build's ssh key", shown()));
                        } else {
                            found
                                .add(format!("{} names the mirror that served the build", shown()));
                        }
                    }
                    for name in names {
                        found.secret(name, &format!("{} holds", shown()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What holds on the root filesystem.
    fn root(&self, values: &Values, found: &mut Findings) -> Result<()> {
        for path in ABSENT {
            if self.at(path).is_some() {
                found.add(format!("{path} is there"));
            }
        }
        for path in HOLLOW {
            if let Some((name, _)) = self.names(path).first() {
                found.add(format!("{path} is not empty: `{name}`"));
            }
        }
        for (name, _) in self.names("/etc/ssh") {
            if name.starts_with("ssh_host_") {
                found.add(format!("/etc/ssh/{name} is there"));
            }
        }
        for (name, kind) in self.names("/var/lib/apt/lists") {
            if matches!(kind, NodeKind::File { .. }) && name != "lock" {
                found.add(format!("/var/lib/apt/lists/{name} is there"));
            }
        }
        for (name, kind) in self.names("/var/log") {
            if matches!(kind, NodeKind::File { size, .. } if *size > 0) {
                found.add(format!("/var/log/{name} is not empty"));
            }
        }
        if let Some(NodeKind::File { size, .. }) = self.kind("/etc/machine-id")
            && *size > 0
        {
            found.add("/etc/machine-id is not empty".to_owned());
        }
        if self.text("/etc/hostname")? != Some(format!("{}\n", values.hostname).into_bytes()) {
            found.add(format!("/etc/hostname is not `{}`", values.hostname));
        }
        if self.at(&format!("/home/{}", values.user)).is_some() {
            found.add(format!("/home/{} is there", values.user));
        }
        let day = values.epoch / 86_400;
        for path in ACCOUNTS {
            let Some(text) = self.text(path)? else { continue };
            for line in text.split(|&b| b == b'\n') {
                let mut fields = line.split(|&b| b == b':');
                let is_user = |name: &[u8]| name == values.user.as_bytes();
                if fields.next().is_some_and(is_user)
                    || line
                        .rsplit(|&b| b == b':')
                        .next()
                        .is_some_and(|l| l.split(|&b| b == b',').any(is_user))
                {
                    found.add(format!("{path} knows the build's account `{}`", values.user));
                }
                let changed =
                    fields.nth(1).and_then(|f| std::str::from_utf8(f).ok()?.parse::<i64>().ok());
                if *path == "/etc/shadow" && changed.is_some_and(|changed| changed > day) {
                    found.add(format!("{path} has a password date after the epoch"));
                }
            }
        }
        Ok(())
    }
}
