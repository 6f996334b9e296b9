//! One filesystem of a disk, held against the seal's table.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rayon::prelude::*;

use super::table::{ABSENT, EMPTY, HOLLOW};
use super::{Expected, Findings, agent};
use crate::build::seal::search::Search;
use crate::error::{Error, Result};
use crate::image::tree::{Filesystem, Node, NodeId, NodeKind, Tree};

/// Files that list accounts; none may know the build's.
const ACCOUNTS: &[&str] =
    &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];
/// Largest file that is read for what it says, in bytes.
const MAX_TEXT: u64 = 16 << 20;
/// Where units stand.
pub(super) const UNITS: &[&str] =
    &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) struct Volume<'a> {
    fs: &'a dyn Filesystem,
    tree: &'a Tree,
    /// The patterns of [`ABSENT`], and the step of each.
    absent: GlobSet,
    steps: Vec<&'static str>,
}

impl<'a> Volume<'a> {
    pub(super) fn new(fs: &'a dyn Filesystem, tree: &'a Tree) -> Result<Self> {
        let wrong = |e: globset::Error| Error::failed("the seal's table is wrong").cause(e);
        let (mut absent, mut steps) = (GlobSetBuilder::new(), vec![]);
        for (step, paths) in ABSENT {
            for path in *paths {
                let glob = GlobBuilder::new(path).literal_separator(true).build().map_err(wrong)?;
                absent.add(glob);
                steps.push(*step);
            }
        }
        Ok(Volume { fs, tree, absent: absent.build().map_err(wrong)?, steps })
    }

    /// Whether it holds a system.
    pub(super) fn is_root(&self) -> bool {
        self.at("/etc/passwd").is_some()
    }

    fn at(&self, path: &str) -> Option<NodeId> {
        self.tree.lookup(path.as_bytes())
    }

    pub(super) fn node(&self, path: &str) -> Option<&Node> {
        self.tree.nodes.get(self.at(path)? as usize)
    }

    pub(super) fn children(&self, path: &str) -> impl Iterator<Item = &Node> {
        let children = match self.node(path).map(|node| &node.kind) {
            Some(NodeKind::Directory { children }) => &children[..],
            _ => &[],
        };
        children.iter().filter_map(|id| self.tree.nodes.get(*id as usize))
    }

    /// Whether something is at `path`, links followed.
    pub(super) fn there(&self, path: &str) -> bool {
        self.tree.resolve(path.as_bytes()).is_some()
    }

    pub(super) fn text(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(node) = self.node(path) else { return Ok(None) };
        let NodeKind::File { size, .. } = node.kind else { return Ok(None) };
        if size > MAX_TEXT {
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
    pub(super) fn everywhere(
        &self,
        expected: &Expected<'_>,
        kind: &str,
        found: &mut Findings,
    ) -> Result<()> {
        let mut todo: Vec<(NodeId, Vec<u8>)> = vec![(0, vec![])];
        let mut files = vec![];
        while let Some((id, path)) = todo.pop() {
            let Some(node) = self.tree.nodes.get(id as usize) else { continue };
            let shown = String::from_utf8_lossy(if path.is_empty() { b"/" } else { &path });
            // vfat counts in local time and by two seconds; its times are not part of any digest.
            if kind != "vfat" && expected.epoch.is_some_and(|epoch| node.mtime > epoch) {
                found.add("times", format!("{shown} has a time after the epoch"));
            }
            let of = self.absent.matches(&*shown);
            if let Some(step) = of.first().and_then(|at| self.steps.get(*at)) {
                found.add(step, format!("{shown} is there"));
            }
            match &node.kind {
                NodeKind::Socket => found.add("state", format!("{shown} is a socket")),
                NodeKind::Directory { children } => {
                    for child in children {
                        let name = self.tree.nodes.get(*child as usize).map(|n| &n.name[..]);
                        let path = [&path, &b"/"[..], name.unwrap_or_default()].concat();
                        todo.push((*child, path));
                    }
                }
                NodeKind::File { size, inode, .. } if *size > 0 => {
                    files.push((*inode, node, shown.into_owned()));
                }
                _ => {}
            }
        }
        let Expected { keys, forbidden, secrets, .. } = expected;
        let texts = keys.iter().chain(*forbidden).chain(secrets.iter().map(|trace| &trace.text));
        let needles: Vec<&[u8]> = texts.map(String::as_bytes).filter(|n| !n.is_empty()).collect();
        if needles.is_empty() {
            return Ok(());
        }
        // Inodes are near the contents, mostly.
        files.sort_unstable_by_key(|(inode, ..)| *inode);
        let search = |(_, node, shown): &(u64, &Node, String)| {
            let mut search = Search::new(&needles);
            self.fs.read_file(node, &mut |piece| {
                search.feed(piece);
                Ok(())
            })?;
            let all: Vec<Vec<u8>> = search.found().map(<[u8]>::to_vec).collect();
            Ok((!all.is_empty()).then(|| (shown.clone(), all)))
        };
        let mut hits: Vec<_> =
            files.par_iter().filter_map(|file| search(file).transpose()).collect::<Result<_>>()?;
        hits.sort_unstable();
        for (shown, all) in hits {
            Self::contents(&shown, &all, expected, found);
        }
        Ok(())
    }

    /// What no file may hold, and this one does.
    fn contents(shown: &str, all: &[Vec<u8>], expected: &Expected<'_>, found: &mut Findings) {
        let Expected { keys, secrets, .. } = expected;
        let mut names = BTreeSet::new();
        for needle in all {
            if let Some(secret) = secrets.iter().find(|t| t.text.as_bytes() == *needle) {
                names.insert(&secret.name);
            } else if keys.iter().any(|key| *needle == key.as_bytes()) {
                found.add("account", format!("{shown} holds the build's ssh key"));
            } else {
                found.add("packages", format!("{shown} names the mirror that served the build"));
            }
        }
        for name in names {
            found.secret(name, &format!("{shown} holds"));
        }
    }

    /// What holds on the root filesystem.
    pub(super) fn root(&self, expected: &Expected<'_>, found: &mut Findings) -> Result<()> {
        for (step, paths) in HOLLOW {
            for path in *paths {
                if let Some(node) = self.children(path).next() {
                    let name = String::from_utf8_lossy(&node.name);
                    found.add(step, format!("{path} is not empty: `{name}`"));
                }
            }
        }
        self.files_of("/var/lib/apt/lists", &["lock"], &mut |path, _| {
            found.add("packages", format!("{path} is there"));
        });
        self.files_of("/var/log", &[], &mut |path, node| match node.kind {
            // Programs expect some to be there, with nothing in them.
            _ if !EMPTY.iter().any(|name| name.as_bytes() == node.name) => {
                found.add("logs", format!("{path} is there"));
            }
            NodeKind::File { size, .. } if size > 0 => {
                found.add("logs", format!("{path} is not empty"));
            }
            _ => {}
        });
        self.identity(expected, found)?;
        if expected.by_agent
            && let Some(why) = agent::missing(self)?
        {
            found.add("agent", why);
        }
        if !self.makes_host_keys()? {
            found.add("ssh", "nothing in the image would make ssh host keys at first boot");
        }
        self.accounts(expected, found)
    }

    /// The files directly below a folder, and in its folders; not those of these names.
    fn files_of(&self, folder: &str, but: &[&str], each: &mut dyn FnMut(&str, &Node)) {
        let mut todo: Vec<(String, &Node)> =
            self.children(folder).map(|node| (format!("{folder}/"), node)).collect();
        while let Some((folder, node)) = todo.pop() {
            let name = String::from_utf8_lossy(&node.name);
            let path = format!("{folder}{name}");
            match &node.kind {
                NodeKind::Directory { children } => {
                    let below = children.iter().filter_map(|id| self.tree.nodes.get(*id as usize));
                    todo.extend(below.map(|node| (format!("{path}/"), node)));
                }
                NodeKind::File { .. } if !but.contains(&&*name) => each(&path, node),
                _ => {}
            }
        }
    }

    fn identity(&self, expected: &Expected<'_>, found: &mut Findings) -> Result<()> {
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/resolv.conf"] {
            if let Some(NodeKind::File { size, .. }) = self.node(path).map(|node| &node.kind)
                && *size > 0
            {
                found.add("identity", format!("{path} is not empty"));
            }
        }
        if let Some(hostname) = expected.hostname
            && self.text("/etc/hostname")? != Some(format!("{hostname}\n").into_bytes())
        {
            found.add("identity", format!("/etc/hostname is not `{hostname}`"));
        }
        Ok(())
    }

    /// Whether a machine of the image gets ssh host keys, or needs none.
    fn makes_host_keys(&self) -> Result<bool> {
        if !self.there("/usr/sbin/sshd") || self.there("/usr/bin/cloud-init") {
            return Ok(true);
        }
        for folder in UNITS {
            for unit in self.children(folder) {
                let name = String::from_utf8_lossy(&unit.name);
                if !name.ends_with(".service") {
                    continue;
                }
                let text = self.text(&format!("{folder}/{name}"))?.unwrap_or_default();
                let makes = |line: &[u8]| {
                    memchr::memmem::find(line, b"ssh-keygen")
                        .is_some_and(|at| memchr::memmem::find(&line[at..], b" -A").is_some())
                };
                if text.split(|&b| b == b'\n').any(makes) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn accounts(&self, expected: &Expected<'_>, found: &mut Findings) -> Result<()> {
        let user = expected.user;
        if self.at(&format!("/home/{user}")).is_some() {
            found.add("account", format!("/home/{user} is there"));
        }
        let day = expected.epoch.map(|epoch| epoch / 86_400);
        for path in ACCOUNTS {
            let Some(text) = self.text(path)? else { continue };
            for line in text.split(|&b| b == b'\n') {
                let mut fields = line.split(|&b| b == b':');
                let is_user = |name: &[u8]| name == user.as_bytes();
                let members = line.rsplit(|&b| b == b':').next().unwrap_or_default();
                if fields.next().is_some_and(is_user) || members.split(|&b| b == b',').any(is_user)
                {
                    found.add("account", format!("{path} knows the build's account `{user}`"));
                }
                let changed =
                    fields.nth(1).and_then(|f| std::str::from_utf8(f).ok()?.parse::<i64>().ok());
                let late = day.zip(changed).is_some_and(|(day, changed)| changed > day);
                if *path == "/etc/shadow" && late {
                    found.add("account", format!("{path} has a password date after the epoch"));
                }
            }
        }
        Ok(())
    }
}
