//! Sizes and durations as written in devbox.toml: a whole number and a unit.

use std::time::Duration;

/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte in bytes.
pub const GIB: u64 = 1 << 30;
/// One tebibyte in bytes.
pub const TIB: u64 = 1 << 40;

const SIZE_UNITS: &[(&str, u64)] =
    &[("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS: &[(&str, u64)] = &[("h", 3600), ("m", 60), ("s", 1)];

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantityError {
    /// Not a whole number with a known unit; perhaps this was meant.
    Form(Option<String>),
    /// Too large to count.
    Overflow,
}

/// A size in bytes: `512MiB`, `2GiB`. Units are powers of 1024, with their IEC names.
///
/// # Errors
/// No unit, a fraction, a sign, an unknown unit, or more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split(text);
    if let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        return scale(number, *factor);
    }
    // What people write for the same: `2G`, `2GB`, `2 gib`, `2048M`.
    let letter = unit.trim().chars().next().map(|c| c.to_ascii_uppercase());
    let meant = match letter {
        Some(c @ ('K' | 'M' | 'G' | 'T')) if unit.trim().len() <= 3 => {
            Some(format!("{number}{c}iB"))
        }
        None => Some(format!("{number}MiB")),
        _ => None,
    };
    Err(QuantityError::Form(meant.filter(|_| whole(number))))
}

/// A duration: `90s`, `10m`, `2h`.
///
/// # Errors
/// No unit, a fraction, a sign, an unknown unit, or a number too large.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text);
    if let Some((_, factor)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) {
        return scale(number, *factor).map(Duration::from_secs);
    }
    let meant = match unit.trim().to_lowercase().as_str() {
        "" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "min" | "mins" | "minute" | "minutes" | "m" => Some("m"),
        "hour" | "hours" | "hr" | "h" => Some("h"),
        _ => None,
    };
    Err(QuantityError::Form(meant.map(|unit| format!("{number}{unit}")).filter(|_| whole(number))))
}

/// The shortest spelling of a size.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    spell(bytes, SIZE_UNITS, "B")
}

/// The shortest spelling of a duration in seconds.
#[must_use]
pub fn duration_text(seconds: u64) -> String {
    spell(seconds, TIME_UNITS, "s")
}

fn spell(n: u64, units: &[(&str, u64)], smallest: &str) -> String {
    match units.iter().find(|(_, factor)| n != 0 && n.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", n / factor),
        None => format!("{n}{smallest}"),
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// One spelling a number: no leading zeros, so that equal sizes look equal.
fn whole(number: &str) -> bool {
    !number.is_empty() && (number == "0" || !number.starts_with('0'))
}

fn scale(number: &str, factor: u64) -> Result<u64, QuantityError> {
    if !whole(number) {
        return Err(QuantityError::Form(None));
    }
    let n: u64 = number.parse().map_err(|_| QuantityError::Overflow)?;
    n.checked_mul(factor).ok_or(QuantityError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_suggest_it() {
        assert_eq!(parse_size("2GiB"), Ok(2 * GIB));
        assert_eq!(parse_size("512MiB"), Ok(512 * MIB));
        let meant = |s: &str| match parse_size(s) {
            Err(QuantityError::Form(meant)) => meant,
            other => panic!("{s}: {other:?}"),
        };
        assert_eq!(meant("2G").as_deref(), Some("2GiB"));
        assert_eq!(meant("2 gb").as_deref(), Some("2GiB"));
        assert_eq!(meant("2GiB ").as_deref(), Some("2GiB"));
        assert_eq!(meant("2048").as_deref(), Some("2048MiB"));
        for bad in ["", "GiB", "-2GiB", "+2GiB", "1.5GiB", "02GiB", "2PiB", "٢GiB"] {
            assert_eq!(meant(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_too_large_are_told_apart_from_bad_form() {
        assert_eq!(parse_size("99999999999999999999GiB"), Err(QuantityError::Overflow));
        assert_eq!(parse_size("18446744073709551615KiB"), Err(QuantityError::Overflow));
        assert_eq!(parse_duration("18446744073709551615h"), Err(QuantityError::Overflow));
    }

    #[test]
    fn durations_parse_and_spell_back() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
            assert_eq!(duration_text(seconds), text);
        }
        assert_eq!(parse_duration("10min"), Err(QuantityError::Form(Some("10m".into()))));
        assert_eq!(parse_duration("1.5h"), Err(QuantityError::Form(None)));
    }

    #[test]
    fn sizes_spell_back() {
        for bytes in [1, 1024, 5 * MIB, 3 * GIB, GIB + MIB, 2 * TIB] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
    }
}
