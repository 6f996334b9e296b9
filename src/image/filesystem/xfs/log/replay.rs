//! What a mount would write from the log, kept in memory. Linux, fs/xfs/xfs_log_recover.c
//! `xlog_do_log_recovery`: one pass finds what was cancelled, the next one replays the rest.
//!
//! What a mount does after that (freeing blocks and files without names, counting references) changes
//! nothing that a tree shows, with exceptions that are refused by name.

use std::collections::{HashMap, HashSet};

use super::super::fault::unsupported;
use super::super::volume::Volume;
use super::head::Span;
use super::place::Places;
use super::record::Log;
use super::transaction::{self, Item, Transaction, le16, le64};
use super::{buffer, create, inode};
use crate::error::Result;

/// Kinds of items (`XFS_LI_*`).
const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const CREATE: u16 = 0x123f;
/// Quotas: of inodes that no name leads to.
const QUOTAS: [u16; 2] = [0x123d, 0x123e];
/// Intents to free blocks and to count references, and that they were carried out.
const COUNTING: [u16; 6] = [0x1236, 0x1237, 0x1240, 0x1241, 0x1242, 0x1243];
/// Intents that change what a tree shows: the intent, that it was carried out, its name.
const INTENTS: [(u16, u16, &str); 3] = [
    (0x1244, 0x1245, "an unfinished change of a file's block map in the log"),
    (0x1246, 0x1247, "an unfinished change of an attribute in the log"),
    (0x1248, 0x1249, "an unfinished exchange of files' contents in the log"),
];

/// Buffers by disk address and length in sectors.
pub(super) type Cancelled = HashMap<(u64, u32), u32>;

/// What was replayed.
pub(super) struct Replayed {
    pub(super) transactions: u64,
}

/// Replays `span` of the log of `volume`, whose overlay it fills.
///
/// # Errors
/// Damage, a limit, or something that is not replayed here, by name.
pub(super) fn replay(volume: &mut Volume, span: Span) -> Result<Replayed> {
    let mut cancelled = Cancelled::new();
    let mut intents = HashSet::new();
    let mut transactions = 0;
    {
        let log = Log::new(volume)?;
        transaction::each(&log, span, &mut |transaction| {
            transactions += 1;
            transaction.items.iter().try_for_each(|item| {
                let intent = |entry: &&(u16, u16, &str)| [entry.0, entry.1].contains(&item.kind());
                let id = le64(item.description(), 8);
                match (item.kind(), INTENTS.iter().find(intent)) {
                    (BUFFER, _) => buffer::cancel(item, &mut cancelled)?,
                    (kind, Some((start, _, name))) if kind == *start => {
                        intents.insert((*name, id));
                    }
                    (_, Some((_, _, name))) => {
                        intents.remove(&(*name, id));
                    }
                    _ => {}
                }
                Ok(())
            })
        })?;
    }
    if let Some((name, _)) = intents.iter().next() {
        return Err(unsupported(name));
    }
    let mut places = Places::new(volume);
    let log = Log::new(volume)?;
    transaction::each(&log, span, &mut |transaction| {
        places.begin(transaction.lsn)?;
        one(&mut places, transaction, &mut cancelled)
    })?;
    volume.overlay = places.finish()?;
    Ok(Replayed { transactions })
}

/// Replays one transaction in the order of `xlog_recover_reorder_trans`: buffers and new inodes,
/// then what is neither, then the lists of unlinked inodes, then cancellations.
fn one(places: &mut Places<'_>, transaction: Transaction, cancelled: &mut Cancelled) -> Result<()> {
    let mut items = transaction.items;
    items.sort_by_key(order);
    for item in &items {
        match item.kind() {
            BUFFER => buffer::replay(places, item, cancelled)?,
            INODE => inode::replay(places, item, cancelled, transaction.lsn)?,
            CREATE => create::replay(places, item, cancelled)?,
            kind if QUOTAS.contains(&kind) || COUNTING.contains(&kind) => {}
            kind if INTENTS.iter().any(|intent| [intent.0, intent.1].contains(&kind)) => {}
            kind => return Err(unsupported(format_args!("log item {kind:#x}"))),
        }
    }
    Ok(())
}

fn order(item: &Item) -> u8 {
    match item.kind() {
        BUFFER => match le16(item.description(), 4) {
            flags if flags & buffer::CANCEL != 0 => 3,
            flags if flags & buffer::INODES != 0 => 2,
            _ => 0,
        },
        CREATE => 0,
        _ => 1,
    }
}
