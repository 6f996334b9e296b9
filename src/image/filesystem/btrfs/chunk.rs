//! Where logical addresses are on the device: chunks of one copy (single) or two (dup).
//!
//! Kernel header `uapi/linux/btrfs_tree.h` (`btrfs_chunk`), checks of `btrfs_check_chunk_valid`.

use std::collections::BTreeMap;

use super::fault::{damaged, fixed_limit, unsupported};
use super::field::Fields as _;
use super::key::{self, Key, kind};
use super::superblock::Device;
use crate::error::Result;

/// Bytes of a chunk item before its stripes, and of a stripe.
const BASE: usize = 48;
const STRIPE: usize = 32;
/// Most chunks: a device of 64 TiB in chunks of 64 MiB; the kernel makes them of 256 MiB and more.
const CHUNKS: usize = 1 << 20;

/// What a chunk holds: data 1, system 2, metadata 4.
const CONTENTS: u64 = 0x7;
/// Profile: two copies on one device.
const DUP: u64 = 1 << 5;
/// Profiles that need several devices, or a mapping that is not read here.
const PROFILES: &[(u64, &str)] = &[
    (1 << 3, "RAID0"),
    (1 << 4, "RAID1"),
    (1 << 6, "RAID10"),
    (1 << 7, "RAID5"),
    (1 << 8, "RAID6"),
    (1 << 9, "RAID1C3"),
    (1 << 10, "RAID1C4"),
];

/// A range of logical addresses and its place or places on the device.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    length: u64,
    first: u64,
    second: Option<u64>,
}

/// Where some bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Byte offset of the first copy on the device.
    pub(super) first: u64,
    /// Of the second copy, if there are two.
    pub(super) second: Option<u64>,
    /// How many bytes lie there in one piece.
    pub(super) length: u64,
}

impl Place {
    /// The copies in the order in which they are tried.
    pub(super) fn copies(self) -> impl Iterator<Item = u64> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

/// All chunks, by logical address.
#[derive(Debug, Default)]
pub(super) struct Chunks(BTreeMap<u64, Chunk>);

impl Chunks {
    /// The chunks of the superblock's array: enough to read the chunk tree.
    pub(super) fn bootstrap(array: &[u8], sector: u32, device: &Device) -> Result<Self> {
        let mut chunks = Chunks::default();
        let mut at = 0;
        while at < array.len() {
            let key = Key::at(array, at)?;
            let item = array.get(at + key::LENGTH..).unwrap_or_default();
            let length = BASE + STRIPE * usize::from(item.u16_at(44)?);
            if (key.object, key.kind) != (key::CHUNK_OBJECT, kind::CHUNK) {
                return Err(damaged(
                    "the array of system chunks",
                    format_args!("it has key {key}"),
                ));
            }
            chunks.add(key, item.bytes_at(0, length)?, sector, device)?;
            at += key::LENGTH + length;
        }
        Ok(chunks)
    }

    /// Adds the chunk `item` of `key`.
    ///
    /// # Errors
    /// Damage, a profile that is not read here (by name), or a limit.
    pub(super) fn add(
        &mut self,
        key: Key,
        item: &[u8],
        sector: u32,
        device: &Device,
    ) -> Result<()> {
        let start = key.offset;
        let bad = |why: String| damaged(format_args!("chunk {start}"), why);
        let (length, stripe_length) = (item.u64_at(0)?, item.u64_at(16)?);
        let (bits, stripes) = (item.u64_at(24)?, usize::from(item.u16_at(44)?));
        if let Some((_, name)) = PROFILES.iter().find(|(bit, _)| bits & bit != 0) {
            return Err(unsupported(format_args!("the profile {name}")).hint(
                "Convert it to one device with `btrfs balance start -dconvert=single -mconvert=dup`.",
            ));
        }
        if bits & !(CONTENTS | DUP) != 0 || bits & CONTENTS == 0 {
            return Err(unsupported(format_args!("a chunk of the unknown type {bits:#x}")));
        }
        let copies = if bits & DUP != 0 { 2 } else { 1 };
        let unit = u64::from(sector);
        if stripes != copies || item.len() != BASE + STRIPE * stripes {
            return Err(bad(format!("it has {stripes} stripes instead of {copies}")));
        }
        if stripe_length != 64 << 10
            || length == 0
            || !length.is_multiple_of(unit)
            || !start.is_multiple_of(unit)
        {
            return Err(bad(format!("its length is {length}, that of a stripe {stripe_length}")));
        }
        let end = start.checked_add(length).ok_or_else(|| bad("it ends nowhere".into()))?;
        let place = |number: usize| -> Result<u64> {
            let stripe = item.bytes_at(BASE + STRIPE * number, STRIPE)?;
            let offset = stripe.u64_at(8)?;
            if stripe.u64_at(0)? != device.id || stripe.array_at(16)? != device.uuid {
                return Err(bad("it lies on a device that is not here".into()));
            }
            if offset.checked_add(length).is_none_or(|end| end > device.size) {
                return Err(bad("it lies outside the device".into()));
            }
            Ok(offset)
        };
        let first = place(0)?;
        let second = if copies == 2 { Some(place(1)?) } else { None };
        let before = self.0.range(..=start).next_back();
        let overlaps = before.is_some_and(|(other, chunk)| other + chunk.length > start)
            || self.0.range(start..end).next().is_some();
        if overlaps {
            return Err(bad("it overlaps another one".into()));
        }
        if self.0.len() >= CHUNKS {
            return Err(fixed_limit("chunks", CHUNKS));
        }
        self.0.insert(start, Chunk { length, first, second });
        Ok(())
    }

    /// Where the byte of the logical address `address` is.
    ///
    /// # Errors
    /// No chunk has it.
    pub(super) fn find(&self, address: u64) -> Result<Place> {
        let found = self.0.range(..=address).next_back();
        let (start, chunk) = found
            .filter(|(start, chunk)| address - *start < chunk.length)
            .ok_or_else(|| damaged(format_args!("address {address}"), "no chunk holds it"))?;
        let within = address - start;
        Ok(Place {
            first: chunk.first + within,
            second: chunk.second.map(|second| second + within),
            length: chunk.length - within,
        })
    }
}
