//! The header of an installed package, as rpm keeps it (rpm, lib/header.c): two counts, an index of
//! tags, and the data that the index points into; all numbers big-endian.

use crate::image::field::be32;

/// Tags (rpm, include/rpm/rpmtag.h).
pub(in super::super) mod tag {
    pub(in super::super::super) const NAME: u32 = 1000;
    pub(in super::super::super) const VERSION: u32 = 1001;
    pub(in super::super::super) const RELEASE: u32 = 1002;
    pub(in super::super::super) const EPOCH: u32 = 1003;
    pub(in super::super::super) const ARCH: u32 = 1022;
    pub(in super::super::super) const FILE_STATES: u32 = 1029;
    pub(in super::super::super) const FILE_DIGESTS: u32 = 1035;
    pub(in super::super::super) const FILE_FLAGS: u32 = 1037;
    pub(in super::super::super) const FILE_VERIFY_FLAGS: u32 = 1045;
    pub(in super::super::super) const DIR_INDEXES: u32 = 1116;
    pub(in super::super::super) const BASE_NAMES: u32 = 1117;
    pub(in super::super::super) const DIR_NAMES: u32 = 1118;
    pub(in super::super::super) const FILE_DIGEST_ALGORITHM: u32 = 5011;
}

/// Most tags of a header (`HEADER_TAGS_MAX`).
const MAX_TAGS: usize = 0xffff;
/// Most bytes of a name or a version; theirs are some dozens.
const MAX_TEXT: usize = 4096;
/// Most files of a package; the largest ones have some 100,000.
const MAX_FILES: usize = 1_000_000;
/// Bytes of an entry of the index: tag, type, offset, count.
const ENTRY: usize = 16;

/// Types of data (rpm, include/rpm/rpmtag.h).
const CHAR: u32 = 1;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;

/// What a header lacks or has wrong, for people.
pub(in super::super) type Damage = &'static str;

/// A header in memory.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    /// Takes index and data apart.
    ///
    /// # Errors
    /// The counts are not those of the bytes.
    pub(in super::super) fn of(blob: &'a [u8]) -> Result<Self, Damage> {
        let (counts, rest) = blob.split_at_checked(8).ok_or("the header is cut off")?;
        let (tags, bytes) = (be32(counts, 0) as usize, be32(counts, 4) as usize);
        if tags > MAX_TAGS {
            return Err("the header has too many tags");
        }
        let split = rest.split_at_checked(tags * ENTRY);
        let (index, data) = split.ok_or("the index of the header is cut off")?;
        if data.len() != bytes {
            return Err("the header has another size than it says");
        }
        Ok(Header { index, data })
    }

    /// The data of a tag from its beginning on, and its count. Of equal tags the last one counts: what
    /// the installation adds stands behind what was signed.
    fn find(&self, tag: u32, kind: u32) -> Result<Option<(&'a [u8], usize)>, Damage> {
        let mut entries = self.index.chunks_exact(ENTRY).rev();
        let Some(entry) = entries.find(|entry| be32(entry, 0) == tag) else { return Ok(None) };
        if be32(entry, 4) != kind {
            return Err("a tag of the header has another type than it should");
        }
        let data = self.data.get(be32(entry, 8) as usize..);
        Ok(Some((data.ok_or("a tag lies outside the header")?, be32(entry, 12) as usize)))
    }

    /// A short text.
    pub(in super::super) fn string(&self, tag: u32) -> Result<Option<&'a [u8]>, Damage> {
        let Some((data, _)) = self.find(tag, STRING)? else { return Ok(None) };
        let (text, _) = split(data).ok_or("a text of the header has no end")?;
        if text.len() > MAX_TEXT { Err("a text of the header is too long") } else { Ok(Some(text)) }
    }

    /// Several texts; none where the tag is not there.
    pub(in super::super) fn strings(&self, tag: u32) -> Result<Vec<&'a [u8]>, Damage> {
        let (mut data, count) = self.find(tag, STRINGS)?.unwrap_or_default();
        if count > MAX_FILES {
            return Err("a list of the header is too long");
        }
        let mut all = vec![];
        for _ in 0..count {
            let (text, rest) = split(data).ok_or("a text of the header has no end")?;
            all.push(text);
            data = rest;
        }
        Ok(all)
    }

    /// Numbers of 32 bits; none where the tag is not there.
    pub(in super::super) fn numbers(&self, tag: u32) -> Result<Vec<u32>, Damage> {
        let (data, count) = self.find(tag, INT32)?.unwrap_or_default();
        let bytes = count.checked_mul(4).and_then(|len| data.get(..len));
        let bytes = bytes.ok_or("a list of the header is longer than the header")?;
        Ok(bytes.chunks_exact(4).map(|number| be32(number, 0)).collect())
    }

    /// Small numbers; none where the tag is not there.
    pub(in super::super) fn chars(&self, tag: u32) -> Result<&'a [u8], Damage> {
        let (data, count) = self.find(tag, CHAR)?.unwrap_or_default();
        data.get(..count).ok_or("a list of the header is longer than the header")
    }
}

/// A text and what is behind the NUL that ends it.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..end], &data[end + 1..]))
}
