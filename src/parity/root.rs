//! Which directory of a filesystem is the root of a system: where subvolumes are, not always the
//! filesystem's own (`docs/identity.md`, "Which subvolume is the root").

use std::collections::HashMap;

use super::canonical::Subvolume;
use super::difference::{Change, Kind};
use super::hashed::Hashed;
use super::listed::Listed;
use super::spelling::spell;
use crate::error::{Error, Result};
use crate::image::tree::{self, NodeId, NodeKind, Tree};

impl Listed {
    /// The subvolumes, sorted by path.
    #[must_use]
    pub fn subvolumes(&self) -> Vec<Subvolume> {
        let of = |one: &tree::Subvolume| {
            let (read_only, default) = (one.read_only, one.default);
            Subvolume { path: self.path(one.node), read_only, default }
        };
        let mut all: Vec<_> = self.tree.subvolumes.iter().map(of).collect();
        all.sort_unstable();
        all
    }

    /// Whether the tree, or a subvolume of it, says which system it holds.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.starts().iter().any(|start| self.says_system(*start))
    }

    fn says_system(&self, root: NodeId) -> bool {
        ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .any(|path| self.find_below(root, path.as_bytes()).is_some())
    }

    /// Where a system could start: one directory, or several if nothing says which.
    fn starts(&self) -> Vec<NodeId> {
        let all = &self.tree.subvolumes;
        let default = all.iter().find(|one| one.default);
        if let Some(default) = default.filter(|one| self.says_system(one.node)) {
            return vec![default.node];
        }
        let systems: Vec<_> = all.iter().filter(|one| self.says_system(one.node)).collect();
        // Snapshots that were taken to go back to are read-only; what runs is not.
        let writable: Vec<_> = systems.iter().filter(|one| !one.read_only).collect();
        match (systems.as_slice(), writable.as_slice()) {
            ([], _) => vec![0],
            (_, [only]) => vec![only.node],
            (_, []) => systems.iter().map(|one| one.node).collect(),
            (_, several) => several.iter().map(|one| one.node).collect(),
        }
    }

    /// Notes where the system starts; the filesystem's own root if nothing says which subvolume.
    pub(super) fn find_start(&mut self) {
        self.start = match self.starts().as_slice() {
            [only] => *only,
            _ => 0,
        };
    }

    /// The tree from the system's root down, with the former number of each of its nodes.
    ///
    /// # Errors
    /// Kind `Undetermined`: several subvolumes could be the root.
    pub fn rooted(self) -> Result<(Self, Vec<NodeId>)> {
        let starts = self.starts();
        if starts.len() > 1 {
            let mut names: Vec<_> = starts.iter().map(|start| spell(&self.path(*start))).collect();
            names.sort_unstable();
            return Err(Error::undetermined("several subvolumes could be the root")
                .detail(names.join(", "))
                .hint("Make the one that is booted the default (`btrfs subvolume set-default`), or compare at `--level content`."));
        }
        if self.start == 0 {
            let all = (0..self.tree.nodes.len()).map(|id| id as NodeId).collect();
            return Ok((self, all));
        }
        let mut old = vec![self.start];
        let mut nodes = vec![];
        while let Some(id) = old.get(nodes.len()).copied() {
            let mut node = self.node(id).clone();
            if let NodeKind::Directory { children } = &mut node.kind {
                let first = old.len();
                old.append(children);
                *children = (first..old.len()).map(|id| id as NodeId).collect();
            }
            nodes.push(node);
        }
        nodes[0].name.clear();
        let new: HashMap<NodeId, usize> =
            old.iter().enumerate().map(|(new, id)| (*id, new)).collect();
        let below = |one: &tree::Subvolume| {
            let node = *new.get(&one.node)? as NodeId;
            Some(tree::Subvolume { node, ..*one })
        };
        let subvolumes = self.tree.subvolumes.iter().filter_map(below).collect();
        let mut listed = Listed::of(self.identity, Tree { nodes, subvolumes })?;
        listed.start = 0;
        Ok((listed, old))
    }
}

impl Hashed {
    /// The tree from the system's root down.
    ///
    /// # Errors
    /// As [`Listed::rooted`].
    pub fn rooted(self) -> Result<Self> {
        let (listed, leaves) = self.into_parts();
        let (listed, old) = listed.rooted()?;
        let leaves = old.iter().map(|id| leaves[*id as usize]).collect();
        Hashed::with_leaves(listed, leaves)
    }

    /// Says which directories are subvolumes; `None` if one of them is not there.
    pub(super) fn set_subvolumes(&mut self, all: &[Subvolume]) -> Option<()> {
        let mut found = vec![];
        for one in all {
            let names = one.path.split(|b| *b == b'/').filter(|name| !name.is_empty());
            let mut node = 0;
            for name in names {
                node = self.child(node, name)?;
            }
            if !matches!(self.node(node).kind, NodeKind::Directory { .. }) {
                return None;
            }
            let (read_only, default) = (one.read_only, one.default);
            found.push(tree::Subvolume { node, read_only, default });
        }
        let listed = self.listed_mut();
        listed.tree.subvolumes = found;
        listed.find_start();
        Some(())
    }
}

/// A subvolume that one side alone has.
pub(super) fn change(one: &Subvolume, side: Kind) -> Change {
    let mut words = vec![if one.read_only { "read-only" } else { "writable" }];
    if one.default {
        words.push("default");
    }
    let words = Some(words.join(", "));
    let (old, new) = if side == Kind::Removed { (words, None) } else { (None, words) };
    Change { kind: Kind::Subvolumes, key: Some(spell(&one.path)), old, new }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Limits;
    use crate::image::tree::Filesystem as _;
    use crate::parity::hashed::tests::Memory;

    /// Name, read-only, default, system.
    type Folder = (&'static str, bool, bool, bool);

    /// Folders of which each is a subvolume, with an `os-release` in those that are a system.
    fn filesystem(all: &[Folder]) -> Memory {
        let mut fs = Memory::new();
        let (read_only, default) = (false, all.iter().all(|(_, _, default, _)| !default));
        fs.tree.subvolumes.push(tree::Subvolume { node: 0, read_only, default });
        for &(name, read_only, default, system) in all {
            let node = fs.dir(0, name.as_bytes(), 0o755);
            fs.tree.subvolumes.push(tree::Subvolume { node, read_only, default });
            if system {
                let usr = fs.dir(node, b"usr", 0o755);
                let lib = fs.dir(usr, b"lib", 0o755);
                fs.file(lib, b"os-release", 0o644, b"ID=debian\n");
                let etc = fs.dir(node, b"etc", 0o755);
                fs.symlink(etc, b"os-release", b"/usr/lib/os-release");
            }
        }
        fs
    }

    fn start(all: &[Folder]) -> Result<String> {
        let fs = filesystem(all);
        let listed = Listed::read(&fs, &Limits::default())?;
        let (path, same) = (listed.path(listed.start), fs.tree()?.nodes.len());
        let (rooted, old) = listed.rooted()?;
        assert_eq!(rooted.tree.nodes.len(), old.len());
        assert_eq!(rooted.tree.nodes.len() == same, path.is_empty());
        Ok(String::from_utf8(path).expect("ASCII"))
    }

    #[test]
    fn the_root_is_the_default_system_then_the_only_one_that_can_be_written() {
        let (ro, default, system) = (true, true, true);
        let cases: &[(&[Folder], &str)] = &[
            (&[], ""),
            (&[("data", false, default, false)], ""),
            (&[("@", false, false, system)], "@"),
            (&[("@", false, false, system), ("old", ro, false, system)], "@"),
            (&[("@", false, false, system), ("new", false, default, system)], "new"),
            (&[("@", false, false, system), ("new", ro, default, system)], "new"),
            (&[("@", false, false, system), ("home", false, default, false)], "@"),
            (&[("only", ro, false, system)], "only"),
        ];
        for (all, expected) in cases {
            assert_eq!(start(all).expect("one root"), *expected, "{all:?}");
        }
    }

    #[test]
    fn several_possible_roots_are_an_error_that_names_them() {
        let e = start(&[("a", false, false, true), ("b", false, false, true)]).expect_err("two");
        assert!(e.what().contains("several subvolumes"), "{e}");
        assert_eq!(e.details(), ["a, b"]);
        let e = start(&[("a", true, false, true), ("b", true, false, true)]).expect_err("two");
        assert_eq!(e.details(), ["a, b"]);
    }

    #[test]
    fn what_is_below_the_root_hashes_as_if_it_were_alone() {
        let fs = filesystem(&[("@", false, false, true), ("data", false, false, false)]);
        let whole = Hashed::read(&fs, &Limits::default()).expect("hash");
        let at = whole.child(0, b"@").expect("there");
        let below = whole.leaf(at);
        let alone = whole.rooted().expect("one root");
        assert_eq!(super::super::canonical::Leaf::Directory(alone.tree1()), below);
        assert!(alone.find(b"/etc/os-release").is_some());
        assert_eq!(
            alone.path(alone.find(b"/etc/os-release").expect("there")),
            b"usr/lib/os-release"
        );
    }
}
