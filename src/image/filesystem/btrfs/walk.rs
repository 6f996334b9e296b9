//! Walks the items of a tree in the order of their keys.
//!
//! No loop of blocks is possible: the level falls by one on each step down, a child starts with the
//! key that its parent has for it, and the keys of leaves only rise.

use std::sync::Arc;

use super::key::Key;
use super::node::{self, Node};
use super::superblock::Root;
use super::volume::{Expected, Volume};
use crate::error::Result;

/// A place in a tree.
pub(super) struct Cursor<'a> {
    volume: &'a Volume,
    owner: u64,
    /// Blocks from the root to a leaf, each with the entry that was taken; empty at the end.
    path: Vec<(Arc<Node>, usize)>,
    /// Whether leaves are kept for others.
    keep: bool,
}

impl<'a> Cursor<'a> {
    /// The first item whose key is at least `key`.
    ///
    /// # Errors
    /// Damage, or the reader's.
    pub(super) fn seek(volume: &'a Volume, root: Root, key: Key) -> Result<Self> {
        let mut cursor = Cursor { volume, owner: root.owner, path: Vec::new(), keep: true };
        cursor.descend(&root.into(), Some(key))?;
        // The leaf was chosen by the last key that is not larger, so at most it is skipped whole.
        while cursor.item()?.is_some_and(|(found, _)| found < key) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The last item whose key is at most `key`, or the first item of all.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub(super) fn seek_before(volume: &'a Volume, root: Root, key: Key) -> Result<Self> {
        let mut cursor = Cursor { volume, owner: root.owner, path: Vec::new(), keep: true };
        cursor.descend(&root.into(), Some(key))?;
        Ok(cursor)
    }

    /// The first item of a tree that is walked once from start to end.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub(super) fn once(volume: &'a Volume, root: Root) -> Result<Self> {
        let mut cursor = Cursor { volume, owner: root.owner, path: Vec::new(), keep: false };
        cursor.descend(&root.into(), None)?;
        Ok(cursor)
    }

    /// Goes down from `top` to the last entry that is at most `key`, or to the first one.
    fn descend(&mut self, top: &Expected, key: Option<Key>) -> Result<()> {
        let mut expected = *top;
        loop {
            let keep = self.keep || expected.level > 0;
            let node = match keep {
                true => self.volume.node(&expected)?,
                false => self.volume.node_once(&expected)?,
            };
            let slot = match key {
                Some(key) => node.up_to(key)?.saturating_sub(1),
                None => 0,
            };
            if node.level == 0 {
                // An empty leaf is a whole empty tree.
                if node.count == 0 {
                    self.path.clear();
                } else {
                    self.path.push((node, slot));
                }
                return Ok(());
            }
            expected = below(&node, slot, self.owner)?;
            self.path.push((node, slot));
        }
    }

    /// The item here; `None` behind the last one.
    pub(super) fn item(&self) -> Result<Option<(Key, &[u8])>> {
        match self.path.last() {
            Some((leaf, slot)) => Ok(Some((leaf.key(*slot)?, leaf.data(*slot)?))),
            None => Ok(None),
        }
    }

    /// Goes to the next item.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub(super) fn advance(&mut self) -> Result<()> {
        let Some((leaf, slot)) = self.path.last_mut() else { return Ok(()) };
        *slot += 1;
        if *slot < leaf.count {
            return Ok(());
        }
        let last = leaf.key(leaf.count.saturating_sub(1))?;
        self.path.pop();
        while let Some((node, slot)) = self.path.last_mut() {
            *slot += 1;
            if *slot < node.count {
                let expected = below(node, *slot, self.owner)?;
                if expected.first <= Some(last) {
                    return Err(node::fault(node.address, &"its children overlap"));
                }
                return self.descend(&expected, None);
            }
            self.path.pop();
        }
        Ok(())
    }
}

fn below(node: &Node, slot: usize, owner: u64) -> Result<Expected> {
    let child = node.child(slot)?;
    Ok(Expected {
        address: child.address,
        level: node.level.saturating_sub(1),
        generation: child.generation,
        owner,
        first: Some(child.key),
    })
}
