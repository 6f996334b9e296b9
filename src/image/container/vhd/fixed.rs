//! A fixed disk: its plain bytes, and the footer.

use std::ops::Range;

use super::footer::{Footer, LENGTH};
use super::{Opened, cut_short};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::slice::check_range;

/// An open fixed disk.
struct Fixed {
    file: Source,
    size: u64,
}

pub(super) fn open(file: Source, footer: &Footer) -> Result<Opened> {
    let size = footer.size();
    let there = file.size() - LENGTH as u64;
    if size > there {
        return Err(cut_short(&file, format!("its footer says {size} bytes; there are {there}")));
    }
    let mut notes: Vec<String> = footer.size_note().into_iter().collect();
    if footer.current_size < there {
        notes.push(format!(
            "{} bytes between the end of the disk and the VHD footer are not part of the disk",
            there - footer.current_size
        ));
    }
    Ok(Opened { reader: std::sync::Arc::new(Fixed { file, size }), notes })
}

impl ReadAt for Fixed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(buf.len(), offset, self.size)?;
        self.file.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let Some(found) = self.file.next_data(offset)? else { return Ok(None) };
        Ok((found.start < self.size).then(|| found.start..found.end.min(self.size)))
    }
}
