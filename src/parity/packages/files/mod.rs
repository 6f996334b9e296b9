//! Which package brought which file, and with which checksum, as the package manager's database says.

mod apk;
mod dpkg;
mod rpm;

use std::collections::HashMap;

use super::super::lookup::Files;
use crate::error::Result;
use crate::image::boot::Files as _;
use crate::image::tree::NodeKind;

/// Most bytes of all lists of files together.
const MAX_LISTS: u64 = 256 << 20;
/// Most names in all lists together.
const MAX_NAMES: usize = 5_000_000;

/// A package by its place in [`Owners::packages`].
pub type Index = u32;

/// The checksum of a file as the package manager wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// dpkg's `md5sums`, and its list of configuration files; old packages of rpm.
    Md5([u8; 16]),
    /// apk's `Q1`.
    Sha1([u8; 20]),
    /// rpm's.
    Sha256([u8; 32]),
}

/// What packages say of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Those that have it in their lists, in the order of these; a directory often has several.
    pub by: Vec<Index>,
    /// Of a regular file, if the database says it.
    pub checksum: Option<Checksum>,
    /// Whether the administrator is expected to change it.
    pub is_config: bool,
}

/// The files of all packages of one system.
#[derive(Debug, Default)]
pub struct Owners {
    /// The packages' names and architectures.
    packages: Vec<(Vec<u8>, Vec<u8>)>,
    /// By path from the root without a leading `/`, as the file tree spells it.
    files: HashMap<Vec<u8>, Owned>,
    /// Folders of the root that are links: `bin` to `usr/bin`.
    merged: Vec<(Vec<u8>, Vec<u8>)>,
    names: usize,
    read: u64,
}

impl Owners {
    /// Reads the lists of every package manager in `files`; no packages where there is none.
    ///
    /// # Errors
    /// Damage of the filesystem, or a limit. A list that makes no sense is left out.
    pub fn read(files: Files<'_>) -> Result<Self> {
        let mut owners = Owners { merged: merged(files), ..Owners::default() };
        dpkg::read(files, &mut owners)?;
        apk::read(files, &mut owners)?;
        rpm::read(files, &mut owners)?;
        Ok(owners)
    }

    /// What is known of a path, given as the file tree has it, without a leading `/`.
    #[must_use]
    pub fn of(&self, path: &[u8]) -> Option<&Owned> {
        self.files.get(path)
    }

    /// Name and architecture of a package.
    #[must_use]
    pub fn package(&self, index: Index) -> Option<&(Vec<u8>, Vec<u8>)> {
        self.packages.get(index as usize)
    }

    /// The paths that this package alone has in its list.
    pub fn only_of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let is_its =
            move |index: &Index| self.package(*index).is_some_and(|(package, _)| package == name);
        self.files
            .iter()
            .filter(move |(_, owned)| !owned.by.is_empty() && owned.by.iter().all(is_its))
            .map(|(path, _)| path.as_slice())
    }

    /// Whether any file is known of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn add_package(&mut self, name: &[u8], arch: &[u8]) -> Index {
        self.packages.push((name.to_vec(), arch.to_vec()));
        (self.packages.len() - 1) as Index
    }

    /// The entry of a path as a database spells it; `None` if there are too many.
    fn entry(&mut self, path: &[u8]) -> Option<&mut Owned> {
        self.names += 1;
        if self.names > MAX_NAMES {
            return None;
        }
        let path = self.spelled(path);
        Some(self.files.entry(path).or_default())
    }

    fn own(&mut self, path: &[u8], package: Index) {
        if let Some(owned) = self.entry(path)
            && owned.by.last() != Some(&package)
        {
            owned.by.push(package);
        }
    }

    /// A path as the file tree has it: without slashes around it, and through `/usr` where `/bin` is a link.
    fn spelled(&self, path: &[u8]) -> Vec<u8> {
        let path = path.strip_prefix(b".").filter(|p| p.starts_with(b"/")).unwrap_or(path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        for (link, target) in &self.merged {
            if let Some(rest) = path.strip_prefix(link.as_slice())
                && rest.starts_with(b"/")
            {
                return [target.as_slice(), rest].concat();
            }
        }
        path.to_vec()
    }

    /// Counts bytes of paths that are no part of a list as it was read; false if there are too many.
    fn spend(&mut self, bytes: usize) -> bool {
        self.read += bytes as u64;
        self.read <= MAX_LISTS
    }

    /// A file of at most what is left of [`MAX_LISTS`].
    fn list(&mut self, files: Files<'_>, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let text = files.read(path, MAX_LISTS.saturating_sub(self.read))?;
        self.read += text.as_ref().map_or(0, |text| text.len() as u64);
        Ok(text)
    }
}

/// Links in the root folder that lead to a folder, as a merged `/usr` has them.
fn merged(files: Files<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = vec![];
    for id in files.tree.children(0) {
        let node = files.tree.node(*id);
        if let NodeKind::Symlink { target } = &node.kind {
            let target = target.strip_prefix(b"/").unwrap_or(target);
            let plain = !target.is_empty() && !target.starts_with(b".");
            if plain && files.find(target).is_some() {
                found.push((node.name.clone(), target.to_vec()));
            }
        }
    }
    found
}

/// The bytes of hexadecimal digits.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests;
