//! An image in memory that costs only its data, and the file that keeps one.
//!
//! The file is zstd over: the size in bytes (64 bits), then per page that is not all zeros its number
//! (64 bits) and its [`PAGE`] bytes; all numbers little-endian, pages in order. An XFS of 300 MiB is
//! some kilobytes.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::image::ReadAt;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// An image; pages that are not here are zeros. A clone shares all pages until it is written to.
#[derive(Debug, Clone, Default)]
pub struct Sparse {
    size: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Sparse {
    /// All that `reader` holds.
    ///
    /// # Errors
    /// The reader's.
    pub fn of(reader: &dyn ReadAt) -> Result<Self> {
        let mut image = Sparse { size: reader.size(), pages: BTreeMap::new() };
        let mut at = 0;
        while let Some(data) = reader.next_data(at)? {
            for number in data.start / PAGE as u64..data.end.div_ceil(PAGE as u64) {
                let from = number * PAGE as u64;
                let len = (image.size - from).min(PAGE as u64) as usize;
                let mut page = [0; PAGE];
                reader.read_at(&mut page[..len], from)?;
                if page.iter().any(|byte| *byte != 0) {
                    image.pages.insert(number, Arc::new(page));
                }
            }
            at = data.end;
        }
        Ok(image)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// zstd's.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        let mut plain = self.size.to_le_bytes().to_vec();
        for (number, page) in &self.pages {
            plain.extend_from_slice(&number.to_le_bytes());
            plain.extend_from_slice(&**page);
        }
        zstd::bulk::compress(&plain, 19)
    }

    /// The image of a file.
    ///
    /// # Errors
    /// It is no such file.
    pub fn unpack(file: &[u8]) -> io::Result<Self> {
        let plain = zstd::stream::decode_all(file)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no sparse image");
        let (size, rest) = plain.split_first_chunk().ok_or_else(bad)?;
        let mut pages = BTreeMap::new();
        for record in rest.chunks(8 + PAGE) {
            let (number, page) = record.split_first_chunk().ok_or_else(bad)?;
            let page: [u8; PAGE] = page.try_into().map_err(|_| bad())?;
            pages.insert(u64::from_le_bytes(*number), Arc::new(page));
        }
        Ok(Sparse { size: u64::from_le_bytes(*size), pages })
    }

    /// Writes `bytes` at `offset`; what is beyond the end is left out.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..self.size).zip(bytes) {
            let page = self.pages.entry(at / PAGE as u64);
            let page = page.or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[(at % PAGE as u64) as usize] = *byte;
        }
    }

    /// Lets the image end at `size`, or go on with zeros until there.
    pub fn resize(&mut self, size: u64) {
        self.size = size;
        self.pages.split_off(&size.div_ceil(PAGE as u64));
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        crate::image::slice::check_range(buf.len(), offset, self.size)?;
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let len = rest.len().min(PAGE - within);
            let (now, later) = rest.split_at_mut(len);
            match self.pages.get(&(offset / PAGE as u64)) {
                Some(page) => now.copy_from_slice(&page[within..within + len]),
                None => now.fill(0),
            }
            offset += len as u64;
            rest = later;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let first = offset / PAGE as u64;
        let Some((number, _)) = self.pages.range(first..).next() else { return Ok(None) };
        let start = (number * PAGE as u64).max(offset);
        let end = ((number + 1) * PAGE as u64).min(self.size);
        Ok((start < end).then_some(start..end))
    }
}
