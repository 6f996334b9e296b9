//! Unpacks compressed extents, at most 128 KiB each.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::extent::Compression;
use super::lzo;

/// Largest window of btrfs's zstd streams as a power of two (`ZSTD_BTRFS_MAX_WINDOWLOG`); a stream
/// that claims a larger one would make us allocate it.
const WINDOW: u32 = 17;

/// Fills `out` with the contents of `packed`; zeros behind them if they are shorter, as in the last
/// sector of a file. `None` if it is damaged.
pub(super) fn unpack(
    kind: Compression,
    packed: &[u8],
    sector: u32,
    out: &mut Vec<u8>,
    size: usize,
) -> Option<()> {
    out.clear();
    match kind {
        Compression::Zlib => {
            out.resize(size, 0);
            zlib(packed, out)
        }
        Compression::Zstd => {
            out.resize(size, 0);
            zstd(packed, out)
        }
        Compression::Lzo => {
            lzo::extent(packed, sector as usize, out, size)?;
            out.resize(size, 0);
            Some(())
        }
    }
}

fn zlib(packed: &[u8], out: &mut [u8]) -> Option<()> {
    let mut stream = Decompress::new(true);
    let status = stream.decompress(packed, out, FlushDecompress::Finish).ok()?;
    let full = stream.total_out() == out.len() as u64;
    (status == Status::StreamEnd || full).then_some(())
}

fn zstd(packed: &[u8], out: &mut [u8]) -> Option<()> {
    let mut stream = Decoder::new().ok()?;
    stream.set_parameter(DParameter::WindowLogMax(WINDOW)).ok()?;
    let mut input = InBuffer::around(packed);
    let mut output = OutBuffer::around(out);
    loop {
        let before = (input.pos(), output.pos());
        let more = stream.run(&mut input, &mut output).ok()?;
        if more == 0 || output.pos() == output.capacity() {
            return Some(());
        }
        if (input.pos(), output.pos()) == before {
            return None;
        }
    }
}
