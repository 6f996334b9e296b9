//! What one second-level entry means, and how a compressed cluster is unpacked.

use flate2::{Decompress, FlushDecompress, Status};

use super::header::{Compression, Header};

/// Bits 9 to 55 of an L1 or L2 entry: a cluster's place in the file.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63: the cluster's reference count is one. Of no use for reading.
pub(super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Where the bytes of one guest cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// In the backing file, or zeros.
    Unallocated,
    /// Zeros, whatever the backing file holds.
    Zero,
    /// As they are, at this byte of the file.
    Data(u64),
    /// Compressed, at this byte of the file, in at most so many bytes.
    Compressed { host: u64, len: usize },
}

/// Decodes an entry (sections "Standard Cluster Descriptor", "Compressed Clusters Descriptor").
pub(super) fn decode_entry(entry: u64, header: &Header) -> Result<Entry, String> {
    if entry & COMPRESSED != 0 {
        // x = 62 - (cluster_bits - 8): below it the offset, from it to bit 61 the number of
        // further sectors of 512 bytes.
        let x = 62 - (header.cluster_bits - 8);
        let host = entry & ((1 << x) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> x;
        let len = (sectors + 1) * 512 - (host & 511);
        let len = usize::try_from(len).map_err(|_| "has an impossible length".to_owned())?;
        return Ok(Entry::Compressed { host, len });
    }
    let reserved = !(OFFSET_MASK | COPIED | if header.version >= 3 { ZERO } else { 0 });
    if entry & reserved != 0 {
        return Err("has reserved bits set".to_owned());
    }
    let host = entry & OFFSET_MASK;
    if host & ((1 << header.cluster_bits) - 1) != 0 {
        return Err("is not on a cluster boundary".to_owned());
    }
    Ok(match (entry & ZERO != 0, host) {
        (true, _) => Entry::Zero,
        (false, 0) => Entry::Unallocated,
        (false, host) => Entry::Data(host),
    })
}

/// What a subcluster's two bits say (section "Extended L2 Entries"): bit `n` of the low half of the
/// bitmap says that subcluster `n` is allocated, bit `n` of the high half that it reads as zeros.
pub(super) fn decode_subcluster(entry: Entry, bitmap: u64, n: u32) -> Result<Entry, String> {
    let allocated = bitmap & (1 << n) != 0;
    let zero = bitmap & (1 << (n + 32)) != 0;
    match (entry, allocated, zero) {
        (Entry::Compressed { .. }, _, _) if bitmap != 0 => {
            Err("is compressed and has a map of subclusters".to_owned())
        }
        (Entry::Compressed { .. }, _, _) => Ok(entry),
        (Entry::Zero, _, _) => Err("has reserved bits set".to_owned()),
        (_, true, true) => Err(format!("says that subcluster {n} is both data and zeros")),
        (_, false, true) => Ok(Entry::Zero),
        (_, false, false) => Ok(Entry::Unallocated),
        (Entry::Data(_), true, false) => Ok(entry),
        (Entry::Unallocated, true, false) => {
            Err(format!("says that subcluster {n} is data, but has no place for it"))
        }
    }
}

/// The state of a decompressor, which is costly to make and can be used again and again.
pub(super) struct Unpacker {
    inflate: Decompress,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        // Raw deflate: no zlib header (section "Compressed Clusters Descriptor").
        Unpacker { inflate: Decompress::new(false), zstd: None }
    }

    /// Fills `out`, a whole cluster, from its compressed form, which may be followed by padding.
    pub(super) fn unpack(
        &mut self,
        packed: &[u8],
        compression: Compression,
        out: &mut [u8],
    ) -> Result<(), String> {
        match compression {
            Compression::Zlib => {
                self.inflate.reset(false);
                let status = self
                    .inflate
                    .decompress(packed, out, FlushDecompress::Finish)
                    .map_err(|e| e.to_string())?;
                let full = self.inflate.total_out() == out.len() as u64;
                if !full || !matches!(status, Status::StreamEnd | Status::BufError | Status::Ok) {
                    return Err("the deflate stream ends too early".to_owned());
                }
            }
            Compression::Zstd => {
                let code = |code| zstd::zstd_safe::get_error_name(code).to_owned();
                let len = zstd::zstd_safe::find_frame_compressed_size(packed).map_err(code)?;
                let frame = packed.get(..len).ok_or("the zstd frame ends too early")?;
                if self.zstd.is_none() {
                    let made = zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?;
                    self.zstd = Some(made);
                }
                let Some(zstd) = &mut self.zstd else { return Ok(()) };
                // In one call, into memory that is there: a frame's window costs nothing.
                let len = zstd.decompress_to_buffer(frame, out).map_err(|e| e.to_string())?;
                if len != out.len() {
                    return Err("the zstd frame ends too early".to_owned());
                }
            }
        }
        Ok(())
    }
}
