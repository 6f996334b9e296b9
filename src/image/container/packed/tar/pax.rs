//! Extended headers: `LENGTH KEY=VALUE` records (POSIX.1-2017, pax, "pax Extended Header").

/// What the records of one header say, as far as it matters here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// GNU tar's sparse format 1.0: the member's real name and size; the map stands before its
    /// contents.
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    sparse_version: (Option<u64>, Option<u64>),
}

impl Records {
    /// Decodes all records.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let bad = || "an extended header is damaged".to_owned();
        let mut records = Records::default();
        let mut rest = text;
        while !rest.is_empty() {
            let space = rest.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let length = decimal(&rest[..space]).and_then(|n| usize::try_from(n).ok());
            let record = length.and_then(|length| rest.get(space + 1..length)).ok_or_else(bad)?;
            rest = &rest[length.unwrap_or(rest.len())..];
            let Some((b'\n', record)) = record.split_last() else { return Err(bad()) };
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || decimal(value).ok_or_else(bad);
            match key {
                b"path" => records.path = Some(value.to_vec()),
                b"size" => records.size = Some(number()?),
                b"GNU.sparse.major" => records.sparse_version.0 = Some(number()?),
                b"GNU.sparse.minor" => records.sparse_version.1 = Some(number()?),
                b"GNU.sparse.name" => records.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => records.sparse_size = Some(number()?),
                // The maps of the formats 0.0 and 0.1 stand in the header itself.
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(
                        "a member is sparse in GNU format 0.0 or 0.1, which is not read".to_owned()
                    );
                }
                b"hdrcharset" | b"charset" if value == b"BINARY" => {}
                // Owners, times and comments.
                _ => {}
            }
        }
        match records.sparse_version {
            (None, None) if records.sparse_size.is_none() && records.sparse_name.is_none() => {}
            (Some(1), Some(0)) if records.sparse_size.is_some() => {}
            _ => return Err("a member is sparse in a GNU format that is not 1.0".to_owned()),
        }
        Ok(records)
    }

    /// Whether the contents begin with a map.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse_size.is_some()
    }
}

/// Decimal digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_damage_is_refused() {
        let records = Records::parse(b"12 path=abc\n16 size=8589934\n20 comment=whatever\n");
        let records = records.expect("sound");
        assert_eq!((records.path.as_deref(), records.size), (Some(&b"abc"[..]), Some(8_589_934)));
        for bad in [
            &b"12 path=abcd"[..],
            b"99 path=abc\n",
            b"0 \n",
            b"3 \n",
            b"path=abc\n",
            b"8 path\n\n\n",
            b"18446744073709551616 a=b\n",
            b"10 size=x\n",
            b"22 GNU.sparse.major=2\n",
            b"22 GNU.sparse.map=1,2\n",
        ] {
            assert!(Records::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
