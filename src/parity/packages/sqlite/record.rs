//! Varints and records (file format, 2.1).

use super::Damage;

/// Most columns of a table (`SQLITE_MAX_COLUMN` cannot be higher).
const MAX_COLUMNS: usize = 32_767;

/// A column of a row. An `INTEGER PRIMARY KEY` is `Null`: its value is the row's key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Value<'a> {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number that is not whole, of which nobody asks.
    Real,
    /// Bytes.
    Blob(&'a [u8]),
    /// Text, as it is stored.
    Text(&'a [u8]),
}

/// Takes a varint off the front: seven bits a byte, highest first, all of a ninth byte.
pub(super) fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..9 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        if i == 8 {
            return Some(value << 8 | u64::from(*byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// The values of a record, into `out`.
pub(super) fn read<'a>(record: &'a [u8], out: &mut Vec<Value<'a>>) -> Result<(), Damage> {
    out.clear();
    let mut types = record;
    let header = varint(&mut types).and_then(|size| usize::try_from(size).ok());
    let start = record.len() - types.len();
    let header = header.filter(|size| (start..=record.len()).contains(size));
    let header = header.ok_or("a record's header is longer than the record")?;
    let mut types = &record[start..header];
    let mut rest = &record[header..];
    while !types.is_empty() {
        if out.len() == MAX_COLUMNS {
            return Err("a record has too many values".into());
        }
        let kind = varint(&mut types).ok_or("a record's header is cut off")?;
        out.push(value(kind, &mut rest).ok_or("a value is longer than its record")?);
    }
    if !rest.is_empty() {
        return Err("a record is longer than its values".into());
    }
    Ok(())
}

/// Takes a value off the front, by its serial type.
fn value<'a>(kind: u64, from: &mut &'a [u8]) -> Option<Value<'a>> {
    let mut take = |len: u64| {
        let (value, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
        *from = rest;
        Some(value)
    };
    Some(match kind {
        0 => Value::Null,
        1..=4 => Value::Integer(integer(take(kind)?)),
        5 => Value::Integer(integer(take(6)?)),
        6 => Value::Integer(integer(take(8)?)),
        7 => {
            take(8)?;
            Value::Real
        }
        8 | 9 => Value::Integer(i64::from(kind == 9)),
        10 | 11 => return None,
        _ if kind.is_multiple_of(2) => Value::Blob(take((kind - 12) / 2)?),
        _ => Value::Text(take((kind - 13) / 2)?),
    })
}

/// A number of two's complement, highest byte first.
fn integer(bytes: &[u8]) -> i64 {
    let first = bytes.first().map_or(0, |byte| byte.cast_signed());
    bytes.iter().skip(1).fold(i64::from(first), |value, byte| value << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_up_to_nine_bytes() {
        let cases: [(&[u8], Option<u64>, usize); 6] = [
            (&[0x7f, 1], Some(0x7f), 1),
            (&[0x81, 0x00], Some(0x80), 0),
            (&[0xff; 10], Some(u64::MAX), 1),
            (&[0x80, 0x80, 0x01], Some(1), 0),
            (&[0x80, 0x80], None, 0),
            (&[], None, 0),
        ];
        for (bytes, expected, left) in cases {
            let mut from = bytes;
            assert_eq!(varint(&mut from), expected, "{bytes:?}");
            assert_eq!(from.len(), left, "{bytes:?}");
        }
    }

    #[test]
    fn every_serial_type_is_read() {
        let record: &[u8] = &[
            11, 0, 1, 2, 4, 5, 6, 8, 9, 16, 17, //
            0xff, 0x80, 0x00, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 7, //
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, b'a', b'b', b'c', b'd',
        ];
        let mut out = vec![];
        read(record, &mut out).expect("a record");
        let numbers = [-1, -32768, 0x7fff_ffff, 7, -2, 0, 1].map(Value::Integer);
        assert_eq!(out[0], Value::Null);
        assert_eq!(out[1..8], numbers);
        assert_eq!(out[8..], [Value::Blob(b"ab"), Value::Text(b"cd")]);
        for broken in [&[][..], &[5, 1], &[2, 10], &[2, 1], &[2, 0, 0], &[0], &[2, 0x80]] {
            assert!(read(broken, &mut out).is_err(), "{broken:?}");
        }
    }
}
