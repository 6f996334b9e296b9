//! Transactions out of the operations of records. Linux, fs/xfs/xfs_log_recover.c
//! `xlog_recover_process_data`, `xlog_recover_add_to_trans`.

use std::collections::HashMap;

use super::super::fault::fixed_limit;
use super::super::field::Fields as _;
use super::head::Span;
use super::record::{Log, bad};
use crate::error::Result;

/// Bytes before the data of an operation.
const OPERATION: usize = 12;
/// Who may have written an operation: a transaction, or the log itself.
const CLIENTS: [u8; 2] = [0x69, 0xaa];
/// Flags of an operation.
const START: u8 = 0x1;
const COMMIT: u8 = 0x2;
const CONTINUED: u8 = 0x4;
const WAS_CONTINUED: u8 = 0x8;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;

/// Starts a transaction; native like all of it, and the system is little-endian.
const MAGIC: u32 = 0x5452_414e;
/// Bytes of its header.
const HEADER: usize = 16;
/// Most regions of an item (`XLOG_MAX_REGIONS_IN_ITEM`).
const REGIONS: u16 = 257;
/// Most bytes of transactions that are not committed yet.
const OPEN: usize = 256 << 20;

/// What a transaction changes in one place: a description, then data.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// How many regions there have to be; 0 until the first one is there.
    total: u16,
    pub(super) regions: Vec<Vec<u8>>,
}

impl Item {
    /// What the item is about (`XFS_LI_*`).
    pub(super) fn kind(&self) -> u16 {
        le16(self.description(), 0)
    }

    /// The first region.
    pub(super) fn description(&self) -> &[u8] {
        self.regions.first().map_or(&[], Vec::as_slice)
    }
}

/// Little-endian 16 bits; 0 beyond the end.
pub(super) fn le16(from: &[u8], at: usize) -> u16 {
    from.array_at(at).map_or(0, u16::from_le_bytes)
}

/// Little-endian 32 bits; 0 beyond the end.
pub(super) fn le32(from: &[u8], at: usize) -> u32 {
    from.array_at(at).map_or(0, u32::from_le_bytes)
}

/// Little-endian 64 bits; 0 beyond the end.
pub(super) fn le64(from: &[u8], at: usize) -> u64 {
    from.array_at(at).map_or(0, u64::from_le_bytes)
}

/// A transaction that was committed.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Sequence number of the record where it started.
    pub(super) lsn: u64,
    pub(super) items: Vec<Item>,
}

struct Open {
    lsn: u64,
    header: Vec<u8>,
    items: Vec<Item>,
}

/// Shows all committed transactions of `span` to `commit`, in the order of their commits.
///
/// # Errors
/// Damage, a limit, or what `commit` says.
pub(super) fn each(
    log: &Log<'_>,
    span: Span,
    commit: &mut dyn FnMut(Transaction) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader { open: HashMap::new(), bytes: 0, commit };
    let mut left = log.blocks;
    let mut at = span.tail;
    while at != span.head {
        let header = log.header(at)?;
        log.check_origin(&header)?;
        let length = header.blocks + header.length.div_ceil(512);
        let goes_on = || bad("its records do not end where it ends");
        left = left.checked_sub(length).ok_or_else(goes_on)?;
        let data = log.contents(&header)?;
        let data = data.ok_or_else(|| {
            bad(format_args!("the record at block {at} is not what its checksum is of"))
        })?;
        reader.record(header.lsn, header.operations, &data)?;
        at = log.end(&header);
    }
    Ok(())
}

struct Reader<'a> {
    open: HashMap<u32, Open>,
    /// Bytes in open transactions.
    bytes: usize,
    commit: &'a mut dyn FnMut(Transaction) -> Result<()>,
}

impl Reader<'_> {
    fn record(&mut self, lsn: u64, operations: u32, data: &[u8]) -> Result<()> {
        let mut at = 0;
        for _ in 0..operations {
            if at >= data.len() {
                break;
            }
            let head = data.bytes_at(at, OPERATION)?;
            let (id, length) = (head.u32_at(0)?, head.u32_at(4)? as usize);
            let (client, flags) = (head.u8_at(8)?, head.u8_at(9)?);
            if !CLIENTS.contains(&client) {
                return Err(bad(format_args!("an operation is of unknown kind {client:#x}")));
            }
            let region = data.bytes_at(at + OPERATION, length)?;
            self.operation(lsn, id, flags, region)?;
            at += OPERATION + length;
        }
        Ok(())
    }

    fn operation(&mut self, lsn: u64, id: u32, flags: u8, region: &[u8]) -> Result<()> {
        let Some(open) = self.open.get_mut(&id) else {
            // What started before the oldest record was written to its place.
            if flags & START != 0 {
                self.open.insert(id, Open { lsn, header: Vec::new(), items: Vec::new() });
            }
            return Ok(());
        };
        let mut flags = flags & !END;
        if flags & WAS_CONTINUED != 0 {
            flags &= !CONTINUED;
        }
        match flags {
            0 | CONTINUED => open.add(region)?,
            WAS_CONTINUED => open.go_on(region)?,
            COMMIT => {
                if let Some(open) = self.open.remove(&id) {
                    self.bytes -= open.bytes();
                    return (self.commit)(Transaction { lsn: open.lsn, items: open.items });
                }
            }
            UNMOUNT => {
                if let Some(open) = self.open.remove(&id) {
                    self.bytes -= open.bytes();
                }
                return Ok(());
            }
            _ => return Err(bad(format_args!("an operation has the flags {flags:#x}"))),
        }
        self.bytes += region.len();
        if self.bytes > OPEN {
            return Err(fixed_limit("bytes in transactions of its log", OPEN));
        }
        Ok(())
    }
}

impl Open {
    fn bytes(&self) -> usize {
        let regions = self.items.iter().flat_map(|item| &item.regions);
        self.header.len() + regions.map(Vec::len).sum::<usize>()
    }

    fn add(&mut self, region: &[u8]) -> Result<()> {
        if region.is_empty() {
            return Ok(());
        }
        if self.header.is_empty() {
            if le32(region, 0) != MAGIC || region.len() > HEADER {
                return Err(bad("a transaction has no start"));
            }
            self.header = region.to_vec();
            return Ok(());
        }
        if self.header.len() < HEADER {
            return Err(bad("the start of a transaction does not go on"));
        }
        let full = |item: &Item| item.regions.len() >= usize::from(item.total);
        if self.items.last().is_none_or(full) {
            self.items.push(Item::default());
        }
        let Some(item) = self.items.last_mut() else { return Ok(()) };
        if item.regions.is_empty() {
            item.total = le16(region, 2);
            if item.total == 0 || item.total > REGIONS {
                return Err(bad(format_args!("an item has {} regions", item.total)));
            }
        }
        item.regions.push(region.to_vec());
        Ok(())
    }

    /// The rest of what an earlier record could not hold.
    fn go_on(&mut self, region: &[u8]) -> Result<()> {
        if self.items.is_empty() && self.header.len() < HEADER {
            self.header.extend_from_slice(region);
            if self.header.len() != HEADER {
                return Err(bad("the start of a transaction is too long"));
            }
            return Ok(());
        }
        match self.items.last_mut().and_then(|item| item.regions.last_mut()) {
            Some(last) => last.extend_from_slice(region),
            None => return Err(bad("a region goes on that was not started")),
        }
        Ok(())
    }
}
