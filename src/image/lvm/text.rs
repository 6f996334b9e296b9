//! The syntax of LVM2's metadata: `name { ... }` and `name = value`, with lists and comments.
//!
//! Source: libdm/libdm-config.c. Sections keep their order, which is the order of the volumes.

use super::damaged;
use crate::error::Result;

/// Deepest nesting of sections; the format has four levels.
const DEPTH: u32 = 8;
/// Most sections and values; a volume has some twenty, and each takes some ten times the memory of
/// its shortest spelling.
const ITEMS: u32 = 1_000_000;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(&'a [u8]),
    List(Vec<Value<'a>>),
}

/// Names with values and sections, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) values: Vec<(&'a str, Value<'a>)>,
    pub(super) sections: Vec<(&'a str, Section<'a>)>,
}

impl<'a> Section<'a> {
    fn value(&self, name: &str) -> Result<&Value<'a>> {
        let found = self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| value);
        found.ok_or_else(|| bad(format_args!("`{name}` is missing")))
    }

    /// A number that has to be there.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        match self.value(name)? {
            Value::Number(number) => Ok(*number),
            _ => Err(bad(format_args!("`{name}` is not a number"))),
        }
    }

    /// A text that has to be there.
    pub(super) fn text(&self, name: &str) -> Result<&'a [u8]> {
        match self.value(name)? {
            Value::Text(text) => Ok(text),
            _ => Err(bad(format_args!("`{name}` is not a text"))),
        }
    }

    /// A list that has to be there; one value is a list of it.
    pub(super) fn list(&self, name: &str) -> Result<&[Value<'a>]> {
        Ok(match self.value(name)? {
            Value::List(list) => list,
            one => std::slice::from_ref(one),
        })
    }

    /// The section of that name, if it is there.
    pub(super) fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|(n, _)| *n == name).map(|(_, section)| section)
    }
}

/// Something that the text may not say.
pub(super) fn bad(why: impl std::fmt::Display) -> crate::error::Error {
    damaged("the metadata", why)
}

/// Parses a whole text; a NUL ends it.
///
/// # Errors
/// Kind `Undetermined`: bad syntax, a name twice in one section, or sections nested too deep.
pub(super) fn parse(text: &[u8]) -> Result<Section<'_>> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    let mut parser = Parser { rest: text, length: text.len(), left: ITEMS };
    let section = parser.section(0)?;
    if parser.rest.is_empty() { Ok(section) } else { Err(parser.bad("a `}` too many")) }
}

struct Parser<'a> {
    rest: &'a [u8],
    length: usize,
    /// How many sections and values there may still be.
    left: u32,
}

impl<'a> Parser<'a> {
    fn bad(&self, why: &str) -> crate::error::Error {
        bad(format_args!("{why} at byte {}", self.length - self.rest.len()))
    }

    fn count(&mut self) -> Result<()> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| bad(format_args!("it has more than {ITEMS} sections and values")))?;
        Ok(())
    }

    /// Goes over white space and comments to the next byte that counts.
    fn next(&mut self) -> Option<u8> {
        loop {
            let blank = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.rest = &self.rest[blank..];
            match self.rest.first() {
                Some(b'#') => {
                    let line = self.rest.iter().take_while(|b| **b != b'\n').count();
                    self.rest = &self.rest[line..];
                }
                other => return other.copied(),
            }
        }
    }

    /// Takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    /// All up to the `}` that ends the section, or up to the end of the text.
    fn section(&mut self, depth: u32) -> Result<Section<'a>> {
        if depth > DEPTH {
            return Err(self.bad("sections are nested too deep"));
        }
        let mut section = Section::default();
        while let Some(byte) = self.next() {
            if byte == b'}' {
                break;
            }
            let name = self.name()?;
            self.count()?;
            if self.take(b'{') {
                let inner = self.section(depth + 1)?;
                if !self.take(b'}') {
                    return Err(self.bad("a `}` is missing"));
                }
                section.sections.push((name, inner));
            } else if self.take(b'=') {
                let value = self.value()?;
                section.values.push((name, value));
            } else {
                return Err(self.bad("neither `{` nor `=` follows a name"));
            }
        }
        let mut names: Vec<_> = section.values.iter().map(|(name, _)| *name).collect();
        names.extend(section.sections.iter().map(|(name, _)| *name));
        names.sort_unstable();
        match names.windows(2).find(|two| two[0] == two[1]) {
            Some(twice) => Err(bad(format_args!("`{}` is there twice", twice[0]))),
            None => Ok(section),
        }
    }

    /// Names of volumes are letters, digits and `+_.-` (lib/misc/lvm-string.c), and so are all others.
    fn name(&mut self) -> Result<&'a str> {
        let is_part = |b: &&u8| b.is_ascii_alphanumeric() || b"+_.-".contains(b);
        let length = self.rest.iter().take_while(is_part).count();
        let (name, rest) = self.rest.split_at(length);
        match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() => {
                self.rest = rest;
                Ok(name)
            }
            _ => Err(self.bad("a name is missing")),
        }
    }

    fn value(&mut self) -> Result<Value<'a>> {
        if !self.take(b'[') {
            return self.scalar();
        }
        let mut list = vec![];
        while !self.take(b']') {
            self.count()?;
            list.push(self.scalar()?);
            if !self.take(b',') && self.next() != Some(b']') {
                return Err(self.bad("neither `,` nor `]` follows a value"));
            }
        }
        Ok(Value::List(list))
    }

    fn scalar(&mut self) -> Result<Value<'a>> {
        if self.take(b'"') {
            // Quotes inside are escaped; no text that is used here can hold one.
            let mut escaped = false;
            let end = self.rest.iter().position(|b| {
                let ends = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                ends
            });
            let end = end.ok_or_else(|| self.bad("a text does not end"))?;
            let (text, rest) = self.rest.split_at(end);
            self.rest = &rest[1..];
            return Ok(Value::Text(text));
        }
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| self.bad("a value is missing or too large"))?;
        self.rest = rest;
        Ok(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, parse};

    #[test]
    fn values_sections_lists_and_comments_are_understood() {
        let text = b"a-b.c+1 { # comment {\n x = 12 y=\"t \\\" } #\" z = [ \"p\", 3 ] e = []\n inner{}}\0junk{";
        let section = parse(text).expect("it parses");
        let outer = section.section("a-b.c+1").expect("there");
        assert_eq!(outer.number("x").expect("number"), 12);
        assert_eq!(outer.text("y").expect("text"), b"t \\\" } #");
        assert_eq!(outer.list("z").expect("list"), [Value::Text(b"p"), Value::Number(3)]);
        assert!(outer.list("e").expect("list").is_empty() && outer.section("inner").is_some());
    }

    #[test]
    fn more_items_than_any_group_has_are_refused() {
        let list = format!("a = [{}]", "1,".repeat(1_000_001));
        let sections: String = (0..1_000_001).map(|i| format!("a{i} {{}} ")).collect();
        for text in [&list, &sections] {
            let e = parse(text.as_bytes()).expect_err("too many");
            assert!(e.to_string().contains("more than 1000000 sections and values"), "{e}");
        }
        parse(format!("a = [{}]", "1,".repeat(900_000)).as_bytes()).expect("few enough");
    }

    #[test]
    fn bad_texts_end_in_an_error() {
        let deep = "a{".repeat(100_000);
        for text in [
            "a",
            "a {",
            "a }",
            "}",
            "a = ",
            "a = [1",
            "a = [1 2]",
            "a = \"x",
            "= 1",
            "a = -1",
            "a = 99999999999999999999",
            "a = 1 a = 2",
            "a {} a = 1",
            "a = [[1]]",
            &deep,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
