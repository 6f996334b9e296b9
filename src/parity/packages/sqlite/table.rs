//! The b-tree of a table, and payloads that go on in overflow pages (file format, 1.6).

use super::record::{self, Value, varint};
use super::{Damage, Database, HEADER};

/// Types of pages of a table's b-tree.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// A reading; it uses each page at most once.
pub(super) struct Walk<'d> {
    of: &'d Database<'d>,
    seen: Vec<bool>,
    /// Bytes of rows that may still come: no file has more than its own, also if cells overlap.
    left: usize,
}

/// A page by its number, with the place of the b-tree's header in it.
struct Page<'d> {
    number: u32,
    bytes: &'d [u8],
    start: usize,
}

impl<'d> Walk<'d> {
    pub(super) fn of(of: &'d Database<'d>) -> Self {
        Walk { of, seen: vec![false; of.pages as usize], left: of.bytes.len() }
    }

    /// Calls `row` with the values of each row below a root page, in the order of their keys.
    pub(super) fn rows(
        &mut self,
        root: u32,
        row: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        // Pages still to read, the next one last; there are never more than pages in the file.
        let mut todo = vec![root];
        let mut last = None;
        while let Some(number) = todo.pop() {
            let bytes = self.page(number)?;
            let start = if number == 1 { HEADER } else { 0 };
            let page = Page { number, bytes, start };
            match bytes[start] {
                LEAF => {
                    for cell in page.cells(8)? {
                        self.leaf(&page, cell, &mut last, row)?;
                    }
                }
                INTERIOR => {
                    let mut children = page.children()?;
                    if todo.len() + children.len() > self.seen.len() {
                        return Err(page.fails("it has more pages below it than there are"));
                    }
                    children.reverse();
                    todo.append(&mut children);
                }
                _ => return Err(page.fails("it is no page of a table")),
            }
        }
        Ok(())
    }

    /// The used bytes of a page that was not read before.
    fn page(&mut self, number: u32) -> Result<&'d [u8], Damage> {
        let index = (number as usize).wrapping_sub(1);
        let seen = self.seen.get_mut(index).ok_or_else(|| format!("there is no page {number}"))?;
        if std::mem::replace(seen, true) {
            return Err(format!("page {number} is used twice"));
        }
        let page = self.of.bytes.chunks_exact(self.of.page).nth(index);
        page.map(|page| &page[..self.of.usable]).ok_or_else(|| format!("page {number} is cut off"))
    }

    /// Reads one cell of a leaf: sizes and key, then the record.
    fn leaf(
        &mut self,
        page: &Page<'d>,
        mut cell: &'d [u8],
        last: &mut Option<i64>,
        row: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let head = varint(&mut cell).and_then(|size| Some((size, varint(&mut cell)?)));
        let (size, key) = head.ok_or_else(|| page.fails("a cell is cut off"))?;
        let size = usize::try_from(size).ok().filter(|size| *size <= self.left);
        let size = size.ok_or_else(|| page.fails("the rows are longer than the file"))?;
        self.left -= size;
        let key = key.cast_signed();
        if last.replace(key).is_some_and(|last| last >= key) {
            return Err(page.fails("its rows are out of order"));
        }
        let local = self.local(size);
        let cut = || page.fails("a row is cut off");
        let (record, rest) = cell.split_at_checked(local).ok_or_else(cut)?;
        let mut values = vec![];
        let joined;
        let record = if local == size {
            record
        } else {
            let next = *rest.first_chunk().ok_or_else(cut)?;
            joined = self.overflow(record, u32::from_be_bytes(next), size)?;
            &joined
        };
        record::read(record, &mut values).map_err(|why| page.fails(&why))?;
        row(&values)
    }

    /// How many bytes of a row's payload lie in the leaf itself.
    fn local(&self, size: usize) -> usize {
        let usable = self.of.usable;
        let least = (usable - 12) * 32 / 255 - 23;
        if size <= usable - 35 {
            return size;
        }
        let wanted = least + (size - least) % (usable - 4);
        if wanted <= usable - 35 { wanted } else { least }
    }

    /// The whole payload: its beginning, and what the chain from page `next` has of it.
    fn overflow(&mut self, start: &[u8], mut next: u32, size: usize) -> Result<Vec<u8>, Damage> {
        let mut all = start.to_vec();
        while all.len() < size {
            let page = self.page(next)?;
            let (link, data) = page.split_at(4);
            next = crate::image::field::be32(link, 0);
            all.extend_from_slice(&data[..data.len().min(size - all.len())]);
        }
        if next != 0 {
            return Err(format!("page {next} goes on with a row that has ended"));
        }
        Ok(all)
    }
}

impl<'d> Page<'d> {
    fn fails(&self, why: &str) -> Damage {
        format!("page {}: {why}", self.number)
    }

    /// The cells, each up to the end of the page, by the places behind a header of `header` bytes.
    fn cells(&self, header: usize) -> Result<Vec<&'d [u8]>, Damage> {
        let page = self.bytes;
        let count = usize::from(crate::image::field::be16(page, self.start + 3));
        let at = self.start + header;
        let places = page.get(at..at + 2 * count).ok_or_else(|| self.fails("too many cells"))?;
        let cell = |place: &[u8]| {
            let place = usize::from(crate::image::field::be16(place, 0));
            let inside = page.get(place..).filter(|_| place >= at + 2 * count);
            inside.ok_or_else(|| self.fails("a cell lies outside it"))
        };
        places.chunks_exact(2).map(cell).collect()
    }

    /// The pages below this one, first to last.
    fn children(&self) -> Result<Vec<u32>, Damage> {
        let number = |cell: &[u8]| {
            let number = cell.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            number.ok_or_else(|| self.fails("a cell is cut off"))
        };
        let mut all = self.cells(12)?.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
        all.push(crate::image::field::be32(self.bytes, self.start + 8));
        Ok(all)
    }
}
