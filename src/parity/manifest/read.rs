//! Reads a manifest: every digest is computed again from the lines, and what differs is refused.

use std::io::BufRead;

use super::entry;
use super::growing::{Growing, join};
use super::lines::{Fields, Lines, wrong};
use super::possible;
use super::preimage::{self, Text};
use super::write::{volume_place, words};
use super::{Held, MAGIC, Manifest, NOT_CANONICAL, VERSION};
use crate::digest::{
    BoxDigest, BytesDigest, DiskDigest, FsDigest, GroupDigest, LinksDigest, PackagesDigest,
    TimedTreeDigest, TreeDigest,
};
use crate::error::Result;
use crate::image::Limits;
use crate::image::field::sum_holds;
use crate::image::limits::Limit;
use crate::image::tree::{Identity, Node, NodeId, NodeKind, Tree};
use crate::parity::bytes::{CHUNK, Chunks, Sums};
use crate::parity::canonical::{self, Content as Leaf, Leaf as Below, Package};
use crate::parity::content::{self, Content, Volumes};
use crate::parity::hashed::Hashed;
use crate::parity::listed::Listed;
use crate::parity::packages::Packages;
use crate::parity::spelling::spell;

/// Most partitions; a GPT has 128 on most disks.
const MAX_PARTITIONS: usize = 1024;

impl Manifest {
    /// Reads and verifies a manifest.
    ///
    /// # Errors
    /// Kind `Undetermined`, with the number of the line: it is not canonical, contradicts another
    /// line, is missing, or goes beyond `limits`.
    pub fn read(input: impl BufRead, limits: &Limits) -> Result<Self> {
        Reader { lines: Lines::new(input, limits)?, limits }.manifest()
    }
}

struct Reader<'a, R> {
    lines: Lines<R>,
    limits: &'a Limits,
}

impl<R: BufRead> Reader<'_, R> {
    fn manifest(mut self) -> Result<Manifest> {
        let first = self.lines.take()?;
        match first.strip_prefix(MAGIC) {
            Some(VERSION) => {}
            Some(other) => {
                let why = format!("manifests of version {} are not read", spell(other));
                return Err(wrong(1, why).hint("Read it with a newer devbox."));
            }
            None => return Err(wrong(1, "no manifest begins so")),
        }
        let mut notes = vec![];
        while self.starts(b"note ") {
            notes.push(self.sentence(1)?);
        }
        let bytes = if self.starts(b"bytes1:") { Some(self.bytes()?) } else { None };
        let held = match bytes.is_some() || self.starts(b"box1:") {
            true => Held::System(Box::new(self.system()?)),
            false => {
                let identity = Identity { kind: "directory", label: vec![], uuid: String::new() };
                Held::Tree(Box::new(self.tree(identity, preimage::bare_root())?))
            }
        };
        let packages = self.packages()?;
        let sum = self.lines.sum();
        let number = self.lines.number();
        if !sum_holds(self.lines.take()?, format!("end {sum}").into_bytes()) {
            return Err(wrong(number, "the lines above are not those that were written"));
        }
        if self.lines.peek().is_some() {
            return Err(self.lines.wrong("nothing can follow the end"));
        }
        Ok(Manifest { notes, bytes, held, packages })
    }

    fn starts(&self, with: &[u8]) -> bool {
        self.lines.peek().is_some_and(|line| line.starts_with(with))
    }

    /// The sentence behind the first fields of the next line.
    fn sentence(&mut self, skip: usize) -> Result<String> {
        let number = self.lines.number();
        let line = self.lines.take()?;
        let mut fields = Fields::of(&line);
        let mut head = vec![];
        for _ in 0..skip {
            head.extend_from_slice(fields.raw().unwrap_or_default());
            head.push(b' ');
        }
        let sentence = fields.sentence();
        let again = sentence.as_ref().map(|s| [&head, words(s).as_bytes()].concat());
        match sentence {
            Some(sentence) if again == Some(line) => Ok(sentence),
            _ => Err(wrong(number, NOT_CANONICAL)),
        }
    }

    /// The next line as the header of a block.
    fn header<T>(
        &mut self,
        parse: impl FnOnce(&mut Fields<'_>) -> Option<T>,
        name: &str,
    ) -> Result<(u64, T)> {
        let number = self.lines.number();
        let line = self.lines.take()?;
        let mut fields = Fields::of(&line);
        let parsed = parse(&mut fields).filter(|_| fields.end().is_some());
        Ok((number, parsed.ok_or_else(|| wrong(number, format!("`{name}` is expected here")))?))
    }

    /// A block whose text is read, written again and hashed.
    fn checked<T, D: PartialEq>(
        &mut self,
        (number, digest): (u64, D),
        tag: &[u8],
        parse: impl FnOnce(&mut Text<'_>) -> Option<T>,
        write: impl FnOnce(&T) -> Vec<u8>,
        hash: impl FnOnce(&[u8]) -> D,
    ) -> Result<T> {
        let block = self.lines.block(tag)?;
        let mut text = Text { rest: block.get(tag.len()..).unwrap_or_default(), number };
        let parsed = parse(&mut text).ok_or_else(|| wrong(text.number, NOT_CANONICAL))?;
        let again = write(&parsed);
        if again != block {
            let same = again.split(|b| *b == b'\n').zip(block.split(|b| *b == b'\n'));
            let at = same.take_while(|(a, b)| a == b).count() as u64;
            return Err(wrong(number + at, NOT_CANONICAL));
        }
        if !sum_holds(hash(&block), digest) {
            return Err(wrong(number, "the digest is not that of the lines below"));
        }
        Ok(parsed)
    }

    fn bytes(&mut self) -> Result<Chunks> {
        let (number, digest) = self.header(|fields| fields.parsed::<BytesDigest>(), "bytes1")?;
        let size = self.lines.indented().and_then(|line| {
            let mut fields = Fields::of(line);
            fields.word("size")?;
            fields.parsed::<u64>()
        });
        let size = size.ok_or_else(|| self.lines.wrong(NOT_CANONICAL))?;
        if size > self.limits.disk_size {
            let what = format!("line {}: the disk has {size} bytes", number + 1);
            return Err(Limit::DiskSize.exceeded(what, self.limits.disk_size));
        }
        self.expect(&format!("size {size}"))?;
        self.expect(&format!("chunk {CHUNK}"))?;
        // As long as the file is: nothing is reserved for what `size` claims.
        let mut chunks = Chunks { size, chunks: Sums::default(), padded: None };
        for _ in 0..size.div_ceil(CHUNK) {
            let line = self.lines.indented().and_then(preimage::sum);
            chunks.chunks.push(line.ok_or_else(|| self.lines.wrong(NOT_CANONICAL))?);
            self.lines.advance()?;
        }
        if size % CHUNK != 0 {
            let line = self
                .lines
                .indented()
                .and_then(|line| preimage::sum(line.strip_prefix(b"padded ")?));
            chunks.padded = Some(line.ok_or_else(|| self.lines.wrong(NOT_CANONICAL))?);
            if !chunks.padding_is_possible() {
                return Err(self
                    .lines
                    .wrong("it contradicts the line above: zeros are followed by zeros"));
            }
            self.lines.advance()?;
        }
        if !sum_holds(chunks.digest(), digest) {
            return Err(wrong(number, "the digest is not that of the lines below"));
        }
        Ok(chunks)
    }

    /// The next line of a block, which says exactly this.
    fn expect(&mut self, text: &str) -> Result<()> {
        if self.lines.indented() != Some(text.as_bytes()) {
            return Err(self.lines.wrong(NOT_CANONICAL));
        }
        self.lines.advance()
    }

    fn system(&mut self) -> Result<Content> {
        let head = self.header(|fields| fields.parsed::<BoxDigest>(), "box1")?;
        let head_number = head.0;
        let (tag, write) = (b"devbox/box/1\n", canonical::system);
        let system = self.checked(head, tag, preimage::system, write, BoxDigest::of)?;
        let (number, digest) = self.header(|fields| fields.parsed::<DiskDigest>(), "disk1")?;
        possible::system(&system).map_err(|why| wrong(head_number, why))?;
        if system.disks != [digest] {
            return Err(wrong(number, "`box1` names another disk"));
        }
        let (tag, write) = (b"devbox/disk/1\n", canonical::disk);
        let disk = self.checked((number, digest), tag, preimage::disk, write, DiskDigest::of)?;
        if disk.partitions.len() > MAX_PARTITIONS {
            let why = format!("more than {MAX_PARTITIONS} partitions");
            return Err(wrong(number, why));
        }
        possible::disk(&disk).map_err(|why| wrong(number, why))?;
        let mut held = vec![];
        let mut groups: Vec<(GroupDigest, Volumes)> = vec![];
        for part in &disk.partitions {
            held.push(match part.content {
                Leaf::Bytes(_) => content::Held::Bytes,
                Leaf::Filesystem(digest) => self.filesystem(digest, &part.number.to_string())?,
                Leaf::Group(digest) => {
                    match groups.iter().position(|(known, _)| *known == digest) {
                        Some(index) => content::Held::Group(index),
                        None => {
                            let names = groups.iter().map(|(_, group)| &group.line.name);
                            let names: Vec<_> = names.cloned().collect();
                            groups.push((digest, self.volumes(digest, &names)?));
                            content::Held::Group(groups.len() - 1)
                        }
                    }
                }
            });
        }
        let groups = groups.into_iter().map(|(_, group)| group).collect();
        let content = Content { system, disk, held, groups };
        possible::content(&content).map_err(|why| wrong(head_number, why))?;
        Ok(content)
    }

    /// The block of a volume group, and those of the filesystems in its volumes.
    fn volumes(&mut self, expected: GroupDigest, others: &[String]) -> Result<Volumes> {
        let (number, digest) = self.header(|fields| fields.parsed::<GroupDigest>(), "vg1")?;
        if digest != expected {
            return Err(wrong(number, "`disk1` names another volume group"));
        }
        let (tag, write) = (b"devbox/vg/1\n", canonical::group);
        let line = self.checked((number, digest), tag, preimage::group, write, GroupDigest::of)?;
        if others.contains(&line.name) {
            return Err(wrong(number, "two volume groups have one name"));
        }
        let mut names: Vec<_> = line.volumes.iter().map(|volume| &volume.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(wrong(number, "two volumes have one name"));
        }
        let mut held = vec![];
        for volume in &line.volumes {
            held.push(match volume.content {
                Leaf::Bytes(_) => content::Held::Bytes,
                Leaf::Filesystem(digest) => {
                    self.filesystem(digest, &volume_place(&line.name, &volume.name))?
                }
                Leaf::Group(_) => return Err(wrong(number, "a volume cannot hold a group")),
            });
        }
        Ok(Volumes { line, held })
    }

    /// The blocks of the filesystem in a partition, by its number, or in a volume.
    fn filesystem(&mut self, expected: FsDigest, place: &str) -> Result<content::Held> {
        let parse = |fields: &mut Fields<'_>| {
            let digest: FsDigest = fields.parsed()?;
            fields.word(place)?;
            Some(digest)
        };
        let what = match place.contains('/') {
            true => format!("fs1 of volume {place}"),
            false => format!("fs1 of partition {place}"),
        };
        let (number, digest) = self.header(parse, &what)?;
        if digest != expected {
            return Err(wrong(number, "`disk1` or `vg1` names another filesystem"));
        }
        let tag = b"devbox/fs/1\n";
        let block = self.lines.block(tag)?;
        let mut text = Text { rest: block.get(tag.len()..).unwrap_or_default(), number };
        let (identity, boot, root) =
            preimage::filesystem(&mut text).ok_or_else(|| wrong(text.number, NOT_CANONICAL))?;
        let subvolumes =
            preimage::subvolumes(&mut text).ok_or_else(|| wrong(text.number, NOT_CANONICAL))?;
        let mut tree = self.tree(identity, root)?;
        tree.set_subvolumes(&subvolumes)
            .ok_or_else(|| wrong(number, "a subvolume is no directory of the tree"))?;
        let again = tree.fs1_preimage(boot);
        if again != block {
            let same = again.split(|b| *b == b'\n').zip(block.split(|b| *b == b'\n'));
            let at = same.take_while(|(a, b)| a == b).count() as u64;
            let why = "it is not what the blocks below make it";
            return Err(wrong(number + at, why));
        }
        if !sum_holds(tree.fs1(boot), digest) {
            return Err(wrong(number, "the digest is not that of the lines below"));
        }
        possible::filesystem(&tree, boot).map_err(|why| wrong(number, why))?;
        Ok(content::Held::Filesystem { tree: Box::new(tree), boot })
    }

    /// The blocks `tree1` and `links1`.
    fn tree(&mut self, identity: Identity, root: Node) -> Result<Hashed> {
        let parse = |fields: &mut Fields<'_>| {
            Some((fields.parsed::<TreeDigest>()?, fields.parsed::<TimedTreeDigest>()?))
        };
        let (number, (plain, timed)) = self.header(parse, "tree1")?;
        let mut growing = Growing::new(root);
        while let Some(line) = self.lines.indented() {
            if growing.nodes.len() as u64 >= self.limits.entries {
                let what = format!("line {}: one entry more", self.lines.number());
                return Err(Limit::Entries.exceeded(what, self.limits.entries));
            }
            let entry = entry::parse(line, growing.nodes.len() as u64);
            let entry = entry.ok_or_else(|| self.lines.wrong(NOT_CANONICAL))?;
            possible::entry(&entry.node, entry.leaf).map_err(|why| self.lines.wrong(why))?;
            growing.add(entry, self.lines.number())?;
            self.lines.advance()?;
        }
        let Growing { nodes, leaves, .. } = growing;
        let names = nodes.len();
        let mut listed = Listed::of(identity, Tree { nodes, ..Tree::default() })
            .map_err(|e| e.context(format!("line {number}: no tree has these entries")))?;
        if listed.directories().iter().map(|id| listed.children(*id).len()).sum::<usize>() + 1
            != names
        {
            return Err(wrong(number, "an unused `lost+found` is not part of a tree"));
        }
        let (links_number, links) =
            self.header(|fields| fields.parsed::<LinksDigest>(), "links1")?;
        let mut groups = vec![];
        while let Some(line) = self.lines.indented() {
            let paths = join(&mut listed, &leaves, line).map_err(|why| self.lines.wrong(why))?;
            groups.push(paths);
            self.lines.advance()?;
        }
        self.limits
            .check_tree(&listed.tree)
            .map_err(|e| e.context(format!("line {number}: it goes beyond a limit")))?;
        let is_directory = |leaf: &&Below| matches!(leaf, Below::Directory(_));
        let claims: Vec<Below> = leaves.iter().filter(is_directory).copied().collect();
        let tree = Hashed::with_leaves(listed, leaves)?;
        let mut claims = claims.into_iter();
        for (id, node) in tree.tree.nodes.iter().enumerate().skip(1) {
            if matches!(node.kind, NodeKind::Directory { .. })
                && claims.next() != Some(tree.leaf(id as NodeId))
            {
                // Entries follow the header one a line, in the order of their numbers.
                let why = "the digest is not that of the entries below";
                return Err(wrong(number + id as u64, why));
            }
        }
        if !sum_holds(tree.tree1(), plain) || !sum_holds(tree.tree1t(), timed) {
            return Err(wrong(number, "a digest is not that of the entries below"));
        }
        if tree.links != groups {
            return Err(wrong(
                links_number,
                "the lines below, or the names in one, are not sorted",
            ));
        }
        if !sum_holds(tree.links1(), links) {
            return Err(wrong(links_number, "the digest is not that of the lines below"));
        }
        Ok(tree)
    }

    fn packages(&mut self) -> Result<Result<Packages, String>> {
        if self.starts(b"without pkgs1 ") {
            return Ok(Err(self.sentence(2)?));
        }
        let head = self.header(|fields| fields.parsed::<PackagesDigest>(), "pkgs1")?;
        let number = head.0;
        let (tag, hash) = (b"devbox/pkgs/1\n", PackagesDigest::of);
        let write = |list: &Vec<Package>| canonical::packages(list);
        let list = self.checked(head, tag, preimage::packages, write, hash)?;
        let sorted = Packages::of(list.clone())
            .map_err(|e| e.context(format!("line {number}: no list has these packages")))?;
        if sorted.list() != list {
            return Err(wrong(number, "the packages are not sorted"));
        }
        Ok(Ok(sorted))
    }
}
