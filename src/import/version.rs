//! Versions and ranges as Vagrant has them, which are those of RubyGems: any number of parts, `~>` for "at least, and below the next".

use std::cmp::Ordering;

use crate::error::{Error, Result};

/// Most parts of a version, and longest text of one in bytes.
const PARTS: usize = 16;
const LONGEST: usize = 128;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// A word makes a version a preliminary one, which is before the one without it.
    Word(String),
    Number(u64),
}

impl Version {
    /// None if the text is no version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if text.len() > LONGEST
            || !text.starts_with(|c: char| c.is_ascii_digit())
            || !text.chars().all(good)
        {
            return None;
        }
        let mut parts = vec![];
        // `-` begins the preliminary part.
        for word in text.replace('-', ".pre.").split('.') {
            parts.push(match word.parse() {
                Ok(number) => Part::Number(number),
                Err(_) if !word.is_empty() && !word.bytes().all(|b| b.is_ascii_digit()) => {
                    Part::Word(word.to_owned())
                }
                Err(_) => return None,
            });
        }
        (parts.len() <= PARTS).then_some(Version { parts })
    }

    pub(crate) fn is_preliminary(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Word(_)))
    }

    /// As a box of devbox has it: three numbers; none if it has other parts.
    pub(crate) fn of_box(&self) -> Option<String> {
        let mut numbers = vec![];
        for part in &self.parts {
            let Part::Number(number) = part else { return None };
            numbers.push(*number);
        }
        numbers.resize(numbers.len().max(3), 0);
        let [major, minor, patch] = numbers[..] else { return None };
        Some(format!("{major}.{minor}.{patch}"))
    }

    /// The first version that `~>` does not hold any more: without the last part, and one more in the one before.
    fn next(&self) -> Version {
        let mut parts: Vec<Part> =
            self.parts.iter().take_while(|part| matches!(part, Part::Number(_))).cloned().collect();
        if parts.len() > 1 {
            parts.pop();
        }
        if let Some(Part::Number(last)) = parts.last_mut() {
            *last = last.saturating_add(1);
        }
        Version { parts }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let nothing = Part::Number(0);
        for at in 0..self.parts.len().max(other.parts.len()) {
            let (a, b) = (self.parts.get(at), other.parts.get(at));
            let ordering = a.unwrap_or(&nothing).cmp(b.unwrap_or(&nothing));
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Conditions, all of which have to hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    all: Vec<(String, Version)>,
}

impl Range {
    /// Reads `>= 1.2, < 2`; a version alone is that one.
    ///
    /// # Errors
    /// Kind `Usage`: it is none.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            // It may be anything: a terminal is shown it, and obeys none of it.
            Error::usage(format!("`{}` is no range of versions", text.escape_debug()))
                .cause(format!("`{}` is not understood", what.escape_debug()))
                .hint("Write a version, or conditions with commas between them, as in `>= 1.2, < 2` or `~> 1.2`.")
        };
        let mut all = vec![];
        for one in text.split(',').map(str::trim) {
            let digits = one.find(|c: char| c.is_ascii_digit()).ok_or_else(|| wrong(one))?;
            let (operator, version) = (one[..digits].trim(), one[digits..].trim());
            if !["", "=", "!=", ">", "<", ">=", "<=", "~>"].contains(&operator) {
                return Err(wrong(one));
            }
            let version = Version::parse(version).ok_or_else(|| wrong(one))?;
            all.push((operator.to_owned(), version));
        }
        Ok(Range { all })
    }

    /// Whether `version` is in it. A preliminary one has to be named, or another preliminary one.
    pub(crate) fn holds(&self, version: &Version) -> bool {
        if version.is_preliminary() && !self.all.iter().any(|(_, one)| one.is_preliminary()) {
            return false;
        }
        self.all.iter().all(|(operator, one)| match operator.as_str() {
            "!=" => version.cmp(one) != Ordering::Equal,
            ">" => version > one,
            "<" => version < one,
            ">=" => version >= one,
            "<=" => version <= one,
            "~>" => version >= one && *version < one.next(),
            _ => version.cmp(one) == Ordering::Equal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn versions_are_in_the_order_of_rubygems() {
        let sorted =
            ["0.9", "1.0.a", "1.0.0-rc.1", "1.0", "1.0.1", "1.9.0", "1.10.0", "202401.31.0"];
        for pair in sorted.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0").cmp(&version("1.0.0")), Ordering::Equal);
        for bad in
            ["", "a", ".1", "1..2", "1.", "1 2", "99999999999999999999", "1/2", &"1.".repeat(20)]
        {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_hold_what_vagrant_takes() {
        for (range, good, bad) in [
            ("1.2", "1.2.0", "1.2.1"),
            (">= 1.0, < 2", "1.9.9", "2.0.0"),
            ("~> 1.2", "1.9.0", "2.0.0"),
            ("~> 1.2.3", "1.2.9", "1.3.0"),
            ("~> 1.2.3", "1.2.3", "1.2.2"),
            ("!=1.0", "1.0.1", "1.0.0"),
            (">1,<=3", "3.0", "1.0"),
            (">= 1", "1.0", "2.0.0-rc.1"),
            (">= 2.0.0-rc", "2.0.0-rc.1", "1.9"),
        ] {
            let parsed = Range::parse(range).expect(range);
            assert!(parsed.holds(&version(good)), "{range} {good}");
            assert!(!parsed.holds(&version(bad)), "{range} {bad}");
        }
        assert!(Range::default().holds(&version("1")) && !Range::default().holds(&version("1.b")));
        for bad in ["", "latest", "=> 1", "^1", ">= 1,", "1 || 2"] {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_of_three_numbers_is_one_of_a_box() {
        for (text, of_box) in [
            ("202401.31.0", Some("202401.31.0")),
            ("4.3", Some("4.3.0")),
            ("12.01.02", Some("12.1.2")),
            ("4.3.12.1", None),
            ("1.0.0-rc.1", None),
        ] {
            assert_eq!(version(text).of_box().as_deref(), of_box, "{text}");
        }
    }
}
