//! Where the log starts and ends, and whether it was left empty, as the kernel finds it. Linux,
//! fs/xfs/xfs_log_recover.c `xlog_find_head`, `xlog_find_tail`.

use super::super::field::Fields as _;
use super::record::{Header, LONGEST, Log, MAGIC, bad, cycle};
use crate::error::Result;

/// Most records that are written at the same time (`XLOG_MAX_ICLOGS`): so many may be torn.
pub(super) const IN_FLIGHT: u32 = 8;
/// Flag of an operation: all was written, and nothing uses the filesystem any more.
const UNMOUNT: u8 = 0x20;
/// Blocks that are searched at a time.
const WINDOW: u32 = 512;

/// What there is to replay: the records from the block `tail` to before the block `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) tail: u32,
    pub(super) head: u32,
}

/// What of the log has to be replayed; `None` if it was left empty.
///
/// # Errors
/// Damage.
pub(super) fn find(log: &Log<'_>) -> Result<Option<Span>> {
    let Some(mut head) = head(log)? else { return Ok(None) };
    let last = before(log, head, head, 1)?.ok_or_else(|| bad("it has no record"))?;
    let mut tail = last.tail;
    if unmounted(log, &last, head)? {
        return Ok(None);
    }
    if let Some(torn) = torn(log, Span { tail, head })? {
        let last = before(log, torn, tail, 1)?.ok_or_else(|| bad("all of its records are torn"))?;
        (head, tail) = (torn, last.tail);
        if unmounted(log, &last, head)? {
            return Ok(None);
        }
        if head == tail {
            return Err(bad("the oldest record that is needed is torn"));
        }
    }
    if tail >= log.blocks {
        return Err(bad(format_args!("its oldest record is said to be at block {tail}")));
    }
    Ok((head != tail).then_some(Span { tail, head }))
}

/// Whether the record before `head` says that all was written.
fn unmounted(log: &Log<'_>, last: &Header, head: u32) -> Result<bool> {
    if log.end(last) != head || last.operations != 1 {
        return Ok(false);
    }
    let data = log.read(log.after(last.at, last.blocks), 1)?;
    Ok(data.u8_at(9)? & UNMOUNT != 0)
}

/// The first of the last records before the head that is not what its checksum is of.
fn torn(log: &Log<'_>, span: Span) -> Result<Option<u32>> {
    let Some(first) = before(log, span.head, span.tail, IN_FLIGHT)? else { return Ok(None) };
    let mut at = first.at;
    let mut left = log.blocks;
    while at != span.head {
        let Ok(header) = log.header(at) else { return Ok(Some(at)) };
        let length = header.blocks + header.length.div_ceil(512);
        // A record that goes beyond the head was not written to its end.
        let to_head = log.after(span.head, log.blocks - at);
        let whole = length <= if to_head == 0 { log.blocks } else { to_head };
        if !whole || log.contents(&header)?.is_none() {
            return Ok(Some(at));
        }
        left = left.checked_sub(length).ok_or_else(|| bad("its records go round in circles"))?;
        at = log.end(&header);
    }
    Ok(None)
}

/// The `count`-th header before block `head`, or the first one not before block `tail`; all around
/// the log where both are the same. `None` if there is none.
fn before(log: &Log<'_>, head: u32, tail: u32, count: u32) -> Result<Option<Header>> {
    let mut left = match log.after(head, log.blocks.saturating_sub(tail)) {
        0 => log.blocks,
        distance => distance,
    };
    let (mut end, mut found, mut seen) = (head, None, 0);
    while left > 0 && seen < count {
        let window = WINDOW.min(left);
        let start = log.after(end, log.blocks - window);
        let blocks = log.read(start, window)?;
        for (i, block) in (0..window).zip(blocks.chunks(512)).rev() {
            if block.u32_at(0)? == MAGIC {
                found = Some(log.after(start, i));
                seen += 1;
                if seen == count {
                    break;
                }
            }
        }
        left -= window;
        end = start;
    }
    found.map(|at| log.header(at)).transpose()
}

/// The block behind the last whole record; `None` for a log that was never written to.
fn head(log: &Log<'_>) -> Result<Option<u32>> {
    let n = log.blocks;
    let most = if log.volume.sb.log_v2 { LONGEST } else { 32 << 10 } / 512;
    let (first, last) = (log.cycle(0)?, log.cycle(n - 1)?);
    if first == 0 {
        return Ok(None);
    }
    let in_flight = (most * IN_FLIGHT).min(n);
    if last == 0 {
        // Written to for the first time: zeros behind the head.
        if first != 1 {
            return Err(bad(format_args!("it starts in cycle {first} and ends in none")));
        }
        let end = boundary(log, 0)?;
        let start = end.saturating_sub(in_flight);
        let end = search(log, start, end - start, 0)?.unwrap_or(end);
        return match record_end(log, start, end, 0)? {
            Some(head) => Ok(Some(head)),
            None => Err(bad("it has no record")),
        };
    }
    let (mut end, stop) = match first == last {
        true => (n, last.wrapping_sub(1)),
        false => (boundary(log, last)?, last),
    };
    // Of records that were written at the same time, a later one may be whole and an earlier not.
    let hole = if end >= in_flight {
        search(log, end - in_flight, in_flight, stop)?
    } else {
        let behind = in_flight - end;
        match search(log, n - behind, behind, stop.wrapping_sub(1))? {
            Some(hole) => Some(hole),
            None => search(log, 0, end, stop)?,
        }
    };
    end = hole.unwrap_or(end);
    // A last record that is not whole does not count.
    let head = if end >= most {
        record_end(log, end - most, end, 0)?
    } else {
        match record_end(log, 0, end, 0)? {
            Some(head) => Some(head),
            None => {
                let around = record_end(log, n - (most - end).min(n), n, end)?;
                around.map(|head| if head == n { end } else { head })
            }
        }
    };
    head.map(|head| Some(head % n)).ok_or_else(|| bad("it has no record before its end"))
}

/// The first block of `cycle`, which is that of the last block, by halving.
fn boundary(log: &Log<'_>, cycle: u32) -> Result<u32> {
    let (mut low, mut high) = (0, log.blocks - 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if log.cycle(middle)? == cycle {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

/// The first of `count` blocks from `start` on that was written in cycle `wanted`.
fn search(log: &Log<'_>, start: u32, count: u32, wanted: u32) -> Result<Option<u32>> {
    let mut done = 0;
    while done < count {
        let window = WINDOW.min(count - done);
        let blocks = log.read(start + done, window)?;
        for (i, block) in (0..).zip(blocks.chunks(512)) {
            if cycle(block)? == wanted {
                return Ok(Some(start + done + i));
            }
        }
        done += window;
    }
    Ok(None)
}

/// `end`, or the start of the last record before it if that is not whole; `extra` of its blocks were
/// around the end of the log. `None` if no record starts from `start` on.
fn record_end(log: &Log<'_>, start: u32, end: u32, extra: u32) -> Result<Option<u32>> {
    let blocks = if end > start { log.read(start, end - start)? } else { Vec::new() };
    let headers = (start..end).zip(blocks.chunks(512)).rev();
    for (at, block) in headers {
        if block.u32_at(0)? != MAGIC {
            continue;
        }
        let header = log.header(at)?;
        let length = header.blocks + header.length.div_ceil(512);
        return Ok(Some(if end - at + extra == length { end } else { at }));
    }
    Ok(None)
}
