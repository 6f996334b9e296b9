//! Where two file trees differ: from the root down, equal subtrees skipped.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::canonical;
use super::difference::{Change, Differences, Kind, Place, note};
use super::hashed::Hashed;
use super::spelling::spell;
use crate::image::disk::Holder;
use crate::image::tree::{Node, NodeId, NodeKind};

/// What is compared of two trees besides all that `tree1` covers.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// What holds the trees.
    pub holder: Option<Holder>,
    /// The root directory's own owner, mode, attributes and flags.
    pub root: bool,
    /// Modification times.
    pub times: bool,
}

/// Adds all differences of the trees `a` and `b`.
pub fn compare(a: &Hashed, b: &Hashed, scope: Scope, out: &mut Differences) {
    let mut walk = Walk { a, b, scope, out };
    if walk.scope.root {
        let changes = metadata(a.node(0), b.node(0));
        walk.push(vec![], changes);
    }
    let mut todo = vec![(0, 0)];
    while let Some((left, right)) = todo.pop() {
        // Equal digests say nothing about times.
        if walk.scope.times || a.leaf(left) != b.leaf(right) {
            walk.children(left, right, &mut todo);
        }
    }
    walk.links();
}

struct Walk<'a> {
    a: &'a Hashed,
    b: &'a Hashed,
    scope: Scope,
    out: &'a mut Differences,
}

impl Walk<'_> {
    fn push(&mut self, path: Vec<u8>, changes: Vec<Change>) {
        self.out.push(Place::Path(self.scope.holder.clone(), path), changes);
    }

    /// Merges two sorted lists of children; pairs of directories are left for later.
    fn children(&mut self, left: NodeId, right: NodeId, todo: &mut Vec<(NodeId, NodeId)>) {
        let (a, b) = (self.a, self.b);
        let (mut xs, mut ys) = (a.children(left), b.children(right));
        loop {
            let order = match (xs.first(), ys.first()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => a.node(*x).name.cmp(&b.node(*y).name),
            };
            if order.is_le()
                && let Some((x, rest)) = xs.split_first()
            {
                xs = rest;
                match ys.split_first() {
                    Some((y, rest)) if order.is_eq() => {
                        ys = rest;
                        self.pair(*x, *y, todo);
                    }
                    _ => self.only(a, *x, Kind::Removed),
                }
            } else if let Some((y, rest)) = ys.split_first() {
                ys = rest;
                self.only(b, *y, Kind::Added);
            }
        }
    }

    /// A node that one side alone has, with all below it.
    fn only(&mut self, side: &Hashed, id: NodeId, kind: Kind) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let word = type_name(&side.node(id).kind).to_owned();
            let (old, new) = match kind {
                Kind::Removed => (Some(word), None),
                _ => (None, Some(word)),
            };
            self.push(side.path(id), vec![Change { kind, key: None, old, new }]);
            todo.extend(side.children(id));
        }
    }

    /// Two nodes of one name.
    fn pair(&mut self, x: NodeId, y: NodeId, todo: &mut Vec<(NodeId, NodeId)>) {
        let (left, right) = (self.a.node(x), self.b.node(y));
        let mut changes = metadata(left, right);
        match (&left.kind, &right.kind) {
            (NodeKind::Directory { .. }, NodeKind::Directory { .. }) => todo.push((x, y)),
            (NodeKind::File { size: old, .. }, NodeKind::File { size: new, .. }) => {
                if self.a.leaf(x) != self.b.leaf(y) {
                    changes.insert(0, Change::of(Kind::Content));
                    note(&mut changes, Kind::Size, *old, *new);
                }
            }
            (NodeKind::Symlink { target: old }, NodeKind::Symlink { target: new }) => {
                // A link's mode is not covered.
                changes.retain(|change| change.kind != Kind::Mode);
                note(&mut changes, Kind::Target, spell(old), spell(new));
            }
            (
                NodeKind::CharDevice { major: a, minor: b },
                NodeKind::CharDevice { major: c, minor: d },
            )
            | (
                NodeKind::BlockDevice { major: a, minor: b },
                NodeKind::BlockDevice { major: c, minor: d },
            ) => note(&mut changes, Kind::Device, format!("{a},{b}"), format!("{c},{d}")),
            (old, new) if type_name(old) == type_name(new) => {}
            (old, new) => {
                changes.insert(0, Change::values(Kind::Type, type_name(old), type_name(new)));
                for (side, id, kind) in [(self.a, x, Kind::Removed), (self.b, y, Kind::Added)] {
                    for child in side.children(id) {
                        self.only(side, *child, kind);
                    }
                }
            }
        }
        if self.scope.times {
            note(&mut changes, Kind::Mtime, left.mtime, right.mtime);
        }
        self.push(self.a.path(x), changes);
    }

    /// Groups of hard links that one side alone has.
    fn links(&mut self) {
        let groups =
            |side: &Hashed| -> BTreeSet<Vec<Vec<u8>>> { side.links.iter().cloned().collect() };
        let (old, new) = (groups(self.a), groups(self.b));
        let mut by_first: BTreeMap<Vec<u8>, [Option<String>; 2]> = BTreeMap::new();
        for (i, groups) in [old.difference(&new), new.difference(&old)].into_iter().enumerate() {
            for group in groups {
                let names: Vec<_> = group.iter().map(|path| spell(path)).collect();
                let first = group.first().cloned().unwrap_or_default();
                by_first.entry(first).or_default()[i] = Some(names.join(" = "));
            }
        }
        for (first, [old, new]) in by_first {
            let none = || Some("none".to_owned());
            let (old, new) = (old.or_else(none), new.or_else(none));
            self.push(first, vec![Change { kind: Kind::HardLinks, key: None, old, new }]);
        }
    }
}

/// Owner, mode, attributes, flags.
fn metadata(a: &Node, b: &Node) -> Vec<Change> {
    let mut changes = vec![];
    note(&mut changes, Kind::Mode, format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    let owner = |node: &Node| format!("{}:{}", node.uid, node.gid);
    note(&mut changes, Kind::Owner, owner(a), owner(b));
    let keys: BTreeSet<_> = a.xattrs.iter().chain(&b.xattrs).map(|(key, _)| key).collect();
    for key in keys {
        let value =
            |node: &Node| node.xattrs.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let word = match (value(a), value(b)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            _ => "added",
        };
        changes.push(Change {
            kind: Kind::Xattr,
            key: Some(spell(key)),
            old: None,
            new: Some(word.to_owned()),
        });
    }
    let flags = |node: &Node| match canonical::flags(node) {
        "" => "none",
        flags => flags,
    };
    note(&mut changes, Kind::Flags, flags(a), flags(b));
    changes
}

fn type_name(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File { .. } => "file",
        NodeKind::Directory { .. } => "directory",
        NodeKind::Symlink { .. } => "link",
        NodeKind::CharDevice { .. } => "character device",
        NodeKind::BlockDevice { .. } => "block device",
        NodeKind::Fifo => "pipe",
        NodeKind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Limits;
    use crate::parity::hashed::tests::{Memory, example};

    /// The lines of a comparison of the example with a changed copy.
    fn lines(change: impl FnOnce(&mut Memory)) -> Vec<String> {
        let mut fs = example();
        let a = Hashed::read(&fs, &Limits::default()).expect("hash");
        change(&mut fs);
        let b = Hashed::read(&fs, &Limits::default()).expect("hash");
        let mut out = Differences::default();
        compare(&a, &b, Scope { root: true, ..Scope::default() }, &mut out);
        out.sorted().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_trees_have_no_difference() {
        assert_eq!(lines(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn times_are_compared_only_where_they_are_asked_for() {
        let mut fs = example();
        let a = Hashed::read(&fs, &Limits::default()).expect("hash");
        for (name, mtime) in [("l", -1), ("b", 5), ("", 7)] {
            fs.named(name).mtime = mtime;
        }
        let b = Hashed::read(&fs, &Limits::default()).expect("hash");
        let lines = |times| {
            let mut out = Differences::default();
            compare(&a, &b, Scope { root: true, times, holder: None }, &mut out);
            out.sorted().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(lines(false), Vec::<String>::new());
        assert_eq!(lines(true), ["/b: mtime 0 -> 5", "/b/l: mtime 0 -> -1"]);
    }

    #[test]
    fn each_kind_of_change_is_named_with_its_values() {
        let got = lines(|fs| {
            fs.named("ping").mode = 0o4755;
            fs.named("ping").xattrs = vec![(b"user.a b".to_vec(), b"1".to_vec())];
            fs.named("tmp").uid = 1000;
            fs.named("p").immutable = true;
            fs.named("l").kind = NodeKind::Symlink { target: b"/etc/a b".to_vec() };
            fs.named("").mode = 0o700;
        });
        assert_eq!(
            got,
            [
                "/: mode 0755 -> 0700",
                r"/b/l: target ../a -> /etc/a\x20b",
                "/b/p: flags none -> i",
                r"/b/ping: mode 0755 -> 4755, xattr user.a\x20b added",
                "/tmp: owner 0:0 -> 1000:0",
            ]
        );
    }

    #[test]
    fn content_added_and_removed_paths_are_listed_to_the_leaves() {
        let got = lines(|fs| {
            fs.write("ping", b"hi!\n");
            let dir = fs.dir(0, b"new", 0o755);
            fs.file(dir, b"x", 0o644, b"");
            fs.remove("tmp");
            fs.remove("l");
        });
        assert_eq!(
            got,
            [
                "/b/l: removed link",
                "/b/ping: content, size 3 -> 4",
                "/new: added directory",
                "/new/x: added file",
                "/tmp: removed directory",
            ]
        );
    }

    #[test]
    fn a_directory_that_became_a_file_loses_its_children() {
        let got = lines(|fs| {
            for name in ["l", "p", "ping"] {
                fs.remove(name);
            }
            fs.remove("é =x");
            fs.named("b").kind = NodeKind::Fifo;
        });
        assert_eq!(
            got,
            [
                "/b: type directory -> pipe",
                "/b/l: removed link",
                "/b/p: removed pipe",
                "/b/ping: removed file",
                r"/b/\xc3\xa9\x20\x3dx: removed file",
            ]
        );
    }

    #[test]
    fn a_broken_hard_link_is_said_though_the_contents_are_equal() {
        let got = lines(|fs| {
            let NodeKind::File { inode, shared, .. } = &mut fs.named("c").kind else { return };
            (*inode, *shared) = (4, false);
            fs.contents.insert(4, b"hi\n".to_vec());
        });
        assert_eq!(got, ["/a: hard links a = c -> none"]);
    }
}
