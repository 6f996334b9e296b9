//! What libFuzzer hands over for an image: a base and changes to it.
//!
//! An image has too many bytes to mutate or keep as they are, and most of them are file contents. An
//! input is the number of a base (one byte) and then changes: where (48 bits, little-endian), how many
//! bytes (8 bits), the bytes. A change of 0 bytes sets the image's size. What is left over at the end
//! counts for nothing, so that every string of bytes is an input.

use crate::sparse::Sparse;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The place in the image, at most [`FARTHEST`].
    pub offset: u64,
    /// What stands there then, at most 255 bytes; none: the image ends there.
    pub bytes: Vec<u8>,
}

/// The farthest place that a change can name.
pub const FARTHEST: u64 = (1 << 48) - 1;

/// A base and changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// The number of the base; one that is not there counts round.
    pub base: u8,
    /// The changes in order.
    pub changes: Vec<Change>,
}

impl Input {
    /// Reads an input.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let Some((&base, mut rest)) = data.split_first() else { return Input::default() };
        let mut changes = vec![];
        while let Some((head, tail)) = rest.split_first_chunk::<7>() {
            let [a, b, c, d, e, f, len] = *head;
            let Some((bytes, next)) = tail.split_at_checked(len.into()) else { break };
            let offset = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
            changes.push(Change { offset, bytes: bytes.to_vec() });
            rest = next;
        }
        Input { base, changes }
    }

    /// Writes an input.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.base];
        for change in &self.changes {
            out.extend_from_slice(&change.offset.min(FARTHEST).to_le_bytes()[..6]);
            let len = u8::try_from(change.bytes.len()).unwrap_or(u8::MAX);
            out.push(len);
            out.extend_from_slice(&change.bytes[..len.into()]);
        }
        out
    }

    /// The base with the changes.
    #[must_use]
    pub fn apply(&self, base: &Sparse) -> Sparse {
        let mut image = base.clone();
        for change in &self.changes {
            if change.bytes.is_empty() {
                image.resize(change.offset);
            } else {
                image.write(change.offset, &change.bytes);
            }
        }
        image
    }
}
