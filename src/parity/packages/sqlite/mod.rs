//! Reads a table of an SQLite database file (sqlite.org/fileformat2.html), front to back.
//!
//! The file is hostile until proven otherwise: a page is used once in one reading, so whatever leads
//! back to a page is an error, and no reading takes more memory than the file has bytes.

mod record;
mod table;

pub(super) use record::Value;

use table::Walk;

/// What makes no sense in a file, for people.
pub(super) type Damage = String;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of the header at the start of page 1.
const HEADER: usize = 100;
/// Least bytes of a page that hold something.
const MIN_USABLE: usize = 480;
/// The value of "text encoding" that stands for UTF-8.
const UTF_8: u32 = 1;

/// A database file in memory.
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    /// Bytes of a page.
    page: usize,
    /// Those at a page's beginning that are used; extensions may reserve the rest.
    usable: usize,
    /// Pages that count; a file can be longer.
    pages: u32,
}

impl<'a> Database<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// No SQLite database, one of an unknown kind, or shorter than its header says.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Damage> {
        let header = bytes.first_chunk::<HEADER>().filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or("it is no SQLite database")?;
        let page = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 1 << 16,
            size => usize::from(size),
        };
        if !(512..=1 << 16).contains(&page) || !page.is_power_of_two() {
            return Err(format!("pages of {page} bytes do not exist"));
        }
        if !matches!(header[19], 1 | 2) {
            return Err(format!("its format version {} is not known", header[19]));
        }
        let usable = page - usize::from(header[20]);
        if usable < MIN_USABLE || header[21..24] != [64, 32, 32] {
            return Err("the header makes no sense".into());
        }
        // The size is that of the last writer who knew this field (file format, 1.3.7).
        let number = |at| crate::image::field::be32(header, at);
        let said = number(28);
        let present = u32::try_from(bytes.len() / page).map_err(|_| "it is too large")?;
        let pages = if said != 0 && number(24) == number(92) { said } else { present };
        if pages > present {
            return Err(format!("it is cut off: {present} of its {pages} pages are there"));
        }
        // 0 is a database in which nothing was ever made.
        if number(56) != UTF_8 && number(44) != 0 {
            return Err("its text is not in UTF-8".into());
        }
        Ok(Database { bytes, page, usable, pages })
    }

    /// Calls `row` with the values of each row of a table; false if there is no such table.
    ///
    /// # Errors
    /// Damage on a page of the table or of the schema, and what `row` returns.
    pub(super) fn rows(
        &self,
        table: &[u8],
        row: &mut dyn FnMut(&[Value<'_>]) -> Result<(), Damage>,
    ) -> Result<bool, Damage> {
        let mut root = None;
        let mut walk = Walk::of(self);
        // type, name, tbl_name, rootpage, sql
        walk.rows(1, &mut |values| {
            if let [Value::Text(kind), Value::Text(name), _, Value::Integer(page), ..] = values
                && *kind == b"table"
                && name.eq_ignore_ascii_case(table)
                && root.replace(*page).is_some()
            {
                return Err("a table is there twice".into());
            }
            Ok(())
        })?;
        let Some(root) = root else { return Ok(false) };
        let root = u32::try_from(root).map_err(|_| "the root of the table is no page")?;
        walk.rows(root, row)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
