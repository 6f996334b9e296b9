//! What a registry says of a disk: its index, the table of a pack, a chunk, what a boot reads of it; and what a client says
//! that reads it while it arrives.

use super::checks;
use crate::chunks::boot;
use crate::chunks::index::{Entry, Index, PackHead, encode_table, parse_table};
use crate::chunks::pack::unpack;
use crate::chunks::plan::{numbered, requests};
use crate::chunks::{BLOCK, Strand, Weave};
use crate::digest::FileDigest;

/// The first byte says what it is; for a table, the second one how many chunks it has, for a chunk how many blocks.
pub fn chunks(data: &[u8]) {
    match data {
        [0, index @ ..] => read_index(index),
        [1, count, table @ ..] => read_table(u64::from(*count), table),
        [2, blocks, packed @ ..] => {
            let entry = Entry {
                id: FileDigest::of(b"another"),
                blocks: u64::from(*blocks),
                packed: packed.len() as u64,
            };
            // No bytes have this digest.
            checks::error(&unpack(&entry, packed).expect_err("wrong bytes"));
        }
        [4, record @ ..] => read_record(record),
        [5, said @ ..] => crate::nbd::exercise(said),
        [3, blob @ ..] => {
            if let Err(e) = Index::parse(blob) {
                checks::error(&e);
            }
        }
        _ => {}
    }
}

/// A record begins with what it is and whose; the rest is what is fuzzed.
fn read_record(bytes: &[u8]) {
    let disk = FileDigest::of(b"disk");
    let mut record = boot::encode(disk, &[]);
    // It says that there are none.
    record.pop();
    record.extend_from_slice(bytes);
    let ranges = match boot::parse(&record, disk) {
        Ok(ranges) => ranges,
        Err(e) => return checks::error(&e),
    };
    let block = BLOCK as u64;
    assert!(ranges.iter().all(|r| r.start < r.end && r.start % block == 0 && r.end % block == 0));
    let again = boot::parse(&boot::encode(disk, &ranges), disk).expect("what was read is written");
    assert!(again.iter().map(|r| r.end - r.start).sum::<u64>() <= 4 << 30);
}

fn read_index(bytes: &[u8]) {
    let index = match Index::read(bytes) {
        Ok(index) => index,
        Err(e) => return checks::error(&e),
    };
    let again = Index::parse(&index.encode().expect("encodes")).expect("what was read is written");
    assert_eq!(again, index);
    let blocks: u64 = index.weave.runs.iter().map(|run| run.blocks).sum();
    assert_eq!(blocks, index.weave.size.div_ceil(BLOCK as u64));
    for strand in Strand::ALL {
        let length = index.weave.length(strand);
        let places = index.weave.places(strand);
        let mut at = 0;
        for place in places.find(0..length) {
            assert!(place.start >= at && place.start < place.end && place.end <= index.weave.size);
            at = place.end;
        }
        for place in places.find(length / 2..length / 2 + 1) {
            assert!(place.end - place.start <= BLOCK as u64);
        }
    }
    let tables = index.tables();
    assert!(tables.windows(2).all(|pair| pair[0].end == pair[1].start));
}

fn read_table(count: u64, bytes: &[u8]) {
    let table = match parse_table(bytes, count, None) {
        Ok(table) => table,
        Err(e) => return checks::error(&e),
    };
    assert_eq!(encode_table(&table), bytes);
    let size: u64 = table.iter().map(|entry| entry.packed).sum();
    let blocks = table.iter().map(|entry| entry.blocks).sum();
    let mut weave = Weave::new(blocks * BLOCK as u64);
    weave.push(Some(Strand::Contents), blocks);
    let head = PackHead {
        strand: Strand::Contents,
        chunks: count,
        table_size: bytes.len() as u64,
        table: FileDigest::of(bytes),
    };
    let index = Index { digest: FileDigest::of(b""), weave, packs: vec![head] };
    let tables = [table];
    index.check(&tables).expect("as many blocks as it has");
    let chunks = numbered(&index, &tables);
    assert_eq!(chunks.len() as u64, count);
    // Each second one is missing.
    let missing: Vec<_> = chunks.iter().step_by(2).copied().collect();
    let requests = requests(&missing);
    let mut wanted = 0;
    for request in &requests {
        assert!(request.range.start < request.range.end && request.range.end <= size);
        for chunk in &request.chunks {
            let end = chunk.chunk.at + chunk.chunk.entry.packed;
            assert!(request.range.start <= chunk.chunk.at && end <= request.range.end);
            wanted += 1 + chunk.also.len();
        }
    }
    assert_eq!(wanted, missing.len());
}
