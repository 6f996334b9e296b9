//! Reads values of a spanned TOML table by their [`Key`], and collects what is wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::spec::grammar;
use crate::spec::problem::{Problem, nearest, one_of, shown};
use crate::spec::quantity::{MIB, QuantityError, parse_duration, parse_size, size_text};
use crate::spec::shape::{Key, Presence, Shape, Table, Variant};

/// Collects problems while the spec is decoded.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    pub(crate) problems: Vec<Problem>,
}

impl Collector {
    /// Adds a problem.
    pub(crate) fn report(
        &mut self,
        path: &str,
        span: Range<usize>,
        what: impl Into<String>,
    ) -> &mut Problem {
        self.problems.push(Problem {
            path: path.to_owned(),
            span,
            what: what.into(),
            expected: None,
            hint: None,
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) path: String,
    pub(crate) span: Range<usize>,
}

impl<T> At<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), path: self.path, span: self.span }
    }
}

/// One table that is being read.
pub(crate) struct Reader<'d, 'i> {
    table: &'d DeTable<'i>,
    rules: &'static Table,
    path: String,
    span: Range<usize>,
}

impl<'d, 'i> Reader<'d, 'i> {
    /// A reader of a whole file.
    pub(crate) fn top(table: &'d DeTable<'i>, rules: &'static Table, c: &mut Collector) -> Self {
        let reader = Reader { table, rules, path: String::new(), span: 0..0 };
        reader.unknown_keys(&[], c);
        reader.missing_keys(c);
        reader
    }

    fn nested(
        table: &'d DeTable<'i>,
        rules: &'static Table,
        path: String,
        span: Range<usize>,
        c: &mut Collector,
    ) -> Self {
        let reader = Reader { table, rules, path, span };
        reader.unknown_keys(&[], c);
        reader.missing_keys(c);
        reader
    }

    /// Where the table stands, for problems about the table as a whole.
    pub(crate) fn at(&self) -> At<()> {
        At { value: (), path: self.path.clone(), span: self.span.clone() }
    }

    /// Where a key of this table stands, whatever its value.
    pub(crate) fn place_of(&self, key: &Key) -> At<()> {
        let span = self.key_span(key).unwrap_or_else(|| self.span.clone());
        At { value: (), path: self.path_of(key.name), span }
    }

    /// The path of a key of this table.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn unknown_keys(&self, others: &[Variant], c: &mut Collector) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.rules.keys.iter().any(|k| k.name == name) {
                continue;
            }
            let path = self.path_of(&key_text(name));
            let known = self.rules.keys.iter().map(|k| k.name);
            let owner = others.iter().find(|v| v.table.keys.iter().any(|k| k.name == name));
            let hint = match (owner, nearest(name, known.clone())) {
                (Some(v), _) => format!("Remove it: it belongs to `type = \"{}\"`.", v.name),
                (None, Some(meant)) => format!("Did you mean `{meant}`?"),
                (None, None) => format!(
                    "Remove it; known keys are {}.",
                    one_of(&known.collect::<Vec<_>>()).replace(" or ", " and ")
                ),
            };
            let problem = c.report(&path, key.span(), format!("unknown key `{}`", shown(name)));
            problem.hint = Some(hint);
        }
    }

    fn missing_keys(&self, c: &mut Collector) {
        let mut groups: Vec<(&str, Vec<&'static Key>)> = vec![];
        for key in self.rules.keys {
            match key.presence {
                Presence::Required if !self.has(key) => {
                    let problem = c.report(
                        &self.path_of(key.name),
                        self.span.clone(),
                        format!("`{}` is missing", key.name),
                    );
                    problem.expected = Some(key.shape.expected()).filter(|_| !self.path.is_empty());
                    problem.hint = Some(format!("Add `{}`. {}", key.name, key.about));
                }
                Presence::OneOf(group) => {
                    match groups.iter_mut().find(|(name, _)| *name == group) {
                        Some((_, keys)) => keys.push(key),
                        None => groups.push((group, vec![key])),
                    }
                }
                Presence::Required | Presence::Default(_) => {}
            }
        }
        for (_, keys) in &groups {
            let names: Vec<&str> = keys.iter().map(|k| k.name).collect();
            let mut present =
                keys.iter().filter_map(|k| self.key_span(k).map(|span| (k.name, span)));
            match (present.next(), present.next()) {
                (None, _) => {
                    let problem = c.report(
                        &self.path,
                        self.span.clone(),
                        format!("{} is missing", one_of(&names)),
                    );
                    problem.hint = Some(format!("Add one of {}.", one_of(&names)));
                }
                (Some((first, _)), Some((second, span))) => {
                    let problem = c.report(
                        &self.path_of(second),
                        span,
                        format!("`{first}` and `{second}` exclude each other"),
                    );
                    problem.hint = Some("Remove one of the two.".to_owned());
                }
                _ => {}
            }
        }
    }

    fn key_span(&self, key: &Key) -> Option<Range<usize>> {
        self.table.keys().find(|k| k.get_ref().as_ref() == key.name).map(Spanned::span)
    }

    /// Whether the key is there, whatever its value.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.table.contains_key(key.name)
    }

    fn get(&self, key: &Key) -> Option<At<&'d DeValue<'i>>> {
        debug_assert!(
            self.rules.keys.iter().any(|k| k.name == key.name),
            "{} is not in the table",
            key.name
        );
        let value = self.table.get(key.name)?;
        Some(At { value: value.get_ref(), path: self.path_of(key.name), span: value.span() })
    }

    /// A string of the key's grammar or choice.
    pub(crate) fn text(&self, key: &Key, c: &mut Collector) -> Option<At<String>> {
        let at = self.get(key)?;
        text(at, &key.shape, c)
    }

    /// A whole number in the key's range.
    pub(crate) fn integer(&self, key: &Key, c: &mut Collector) -> Option<At<i64>> {
        let at = self.get(key)?;
        let Shape::Integer(from, to) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let DeValue::Integer(number) = at.value else { return wrong_type(&at, &key.shape, c) };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if (from..=to).contains(&n) => Some(at.map(|_| n)),
            _ => {
                let what = format!("`{}` is out of range", shown(&number.to_string()));
                c.report(&at.path, at.span, what).expected = Some(key.shape.expected());
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn boolean(&self, key: &Key, c: &mut Collector) -> Option<bool> {
        let at = self.get(key)?;
        match at.value {
            DeValue::Boolean(b) => Some(*b),
            _ => wrong_type(&at, &key.shape, c),
        }
    }

    /// A size in bytes, in the key's range and a whole number of MiB.
    pub(crate) fn size(&self, key: &Key, c: &mut Collector) -> Option<At<u64>> {
        let at = self.get(key)?;
        let Shape::Size(from, to) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let DeValue::String(s) = at.value else { return wrong_type(&at, &key.shape, c) };
        let (what, hint) = match parse_size(s) {
            Ok(n) if (from..=to).contains(&n) && n % MIB == 0 => return Some(at.map(|_| n)),
            Ok(n) if (from..=to).contains(&n) => {
                let near = n.next_multiple_of(MIB).min(to);
                (format!("`{}` is not a whole number of MiB", shown(s)), Some(size_text(near)))
            }
            Ok(_) | Err(QuantityError::Overflow) => {
                (format!("`{}` is out of range", shown(s)), None)
            }
            Err(QuantityError::Form(meant)) => (format!("`{}` is not a size", shown(s)), meant),
        };
        quantity_problem(&at, what, hint, &key.shape, c)
    }

    /// A duration in the key's range.
    pub(crate) fn duration(&self, key: &Key, c: &mut Collector) -> Option<Duration> {
        let at = self.get(key)?;
        let Shape::Duration(from, to) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let DeValue::String(s) = at.value else { return wrong_type(&at, &key.shape, c) };
        let (what, hint) = match parse_duration(s) {
            Ok(d) if (from..=to).contains(&d.as_secs()) => return Some(d),
            Ok(_) | Err(QuantityError::Overflow) => {
                (format!("`{}` is out of range", shown(s)), None)
            }
            Err(QuantityError::Form(meant)) => (format!("`{}` is not a duration", shown(s)), meant),
        };
        quantity_problem(&at, what, hint, &key.shape, c)
    }

    /// An array of strings that are all different.
    pub(crate) fn set(&self, key: &Key, c: &mut Collector) -> Option<Vec<At<String>>> {
        let at = self.get(key)?;
        let Shape::Set(item) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let DeValue::Array(array) = at.value else { return wrong_type(&at, &key.shape, c) };
        let mut seen: Vec<At<String>> = vec![];
        let mut first: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        for (i, value) in array.iter().enumerate() {
            let path = format!("{}[{i}]", at.path);
            let at = At { value: value.get_ref(), path, span: value.span() };
            let Some(at) = text(at, item, c) else { continue };
            if let Some(before) = first.get(&at.value) {
                let what = format!("`{}` is there already, at [{before}]", shown(&at.value));
                c.report(&at.path, at.span, what).hint = Some("Remove one of the two.".to_owned());
                continue;
            }
            first.insert(at.value.clone(), i);
            seen.push(at);
        }
        Some(seen)
    }

    /// Environment variables.
    pub(crate) fn environment(
        &self,
        key: &Key,
        c: &mut Collector,
    ) -> Option<BTreeMap<String, String>> {
        let at = self.get(key)?;
        let DeValue::Table(table) = at.value else { return wrong_type(&at, &key.shape, c) };
        let mut env = BTreeMap::new();
        for (name, value) in table {
            let path = format!("{}.{}", at.path, key_text(name.get_ref()));
            let name_span = name.span();
            let name = name.get_ref().as_ref();
            if !grammar::VARIABLE.accepts(name) {
                let what = format!("`{}` is no name of a variable", shown(name));
                c.report(&path, name_span, what).expected =
                    Some(grammar::VARIABLE.expected.to_owned());
            }
            match value.get_ref() {
                DeValue::String(s) if !s.contains('\0') => {
                    env.insert(name.to_owned(), s.clone().into_owned());
                }
                DeValue::String(_) => {
                    c.report(&path, value.span(), "a variable's value cannot hold NUL");
                }
                other => {
                    let problem =
                        c.report(&path, value.span(), format!("wrong type: {}", kind(other)));
                    problem.expected = Some("a string".to_owned());
                    problem.hint = Some("Put the value in quotes.".to_owned());
                }
            }
        }
        Some(env)
    }

    /// Values of any kind by name, for another program.
    pub(crate) fn values(
        &self,
        key: &Key,
        c: &mut Collector,
    ) -> Option<BTreeMap<String, serde_json::Value>> {
        let at = self.get(key)?;
        let DeValue::Table(table) = at.value else { return wrong_type(&at, &key.shape, c) };
        let mut values = BTreeMap::new();
        for (name, value) in table {
            let path = format!("{}.{}", at.path, key_text(name.get_ref()));
            if !grammar::VARIABLE.accepts(name.get_ref()) {
                let what = format!("`{}` is no name of a variable", shown(name.get_ref()));
                c.report(&path, name.span(), what).expected =
                    Some(grammar::VARIABLE.expected.to_owned());
            }
            let at = At { value: value.get_ref(), path, span: value.span() };
            if let Some(value) = super::values::value(&at, c) {
                values.insert(name.get_ref().clone().into_owned(), value);
            }
        }
        Some(values)
    }

    /// A nested table.
    pub(crate) fn table(&self, key: &Key, c: &mut Collector) -> Option<Reader<'d, 'i>> {
        let at = self.get(key)?;
        let Shape::Table(rules) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let DeValue::Table(table) = at.value else { return wrong_type(&at, &key.shape, c) };
        Some(Reader::nested(table, rules, at.path, self.header(key, at.span), c))
    }

    /// A nested table that is told apart by `type`: the variant's name and its reader.
    pub(crate) fn variant(
        &self,
        key: &Key,
        c: &mut Collector,
    ) -> Option<(&'static str, Reader<'d, 'i>)> {
        let at = self.get(key)?;
        let Shape::Variants(variants) = key.shape else { return wrong_type(&at, &key.shape, c) };
        let span = self.header(key, at.span.clone());
        one_variant(At { span, ..at }, variants, &key.shape, c)
    }

    /// The elements of an array of tables, each told apart by `type`; a bad element is left out.
    pub(crate) fn variants(
        &self,
        key: &Key,
        c: &mut Collector,
    ) -> Vec<(usize, &'static str, Reader<'d, 'i>)> {
        let Shape::ListOfVariants(variants) = key.shape else { return vec![] };
        let elements = self.elements(key, c);
        let shape = Shape::Variants(variants);
        elements
            .into_iter()
            .enumerate()
            .filter_map(|(i, at)| {
                one_variant(at, variants, &shape, c).map(|(name, r)| (i, name, r))
            })
            .collect()
    }

    /// The elements of an array of tables; a bad element is left out.
    pub(crate) fn tables(&self, key: &Key, c: &mut Collector) -> Vec<Reader<'d, 'i>> {
        let Shape::List(rules) = key.shape else { return vec![] };
        let elements = self.elements(key, c);
        elements
            .into_iter()
            .filter_map(|at| match at.value {
                DeValue::Table(table) => Some(Reader::nested(table, rules, at.path, at.span, c)),
                _ => wrong_type(&at, &Shape::Table(rules), c),
            })
            .collect()
    }

    /// The tables of a table of tables, with their names, in the order of the text; a bad one is
    /// left out.
    pub(crate) fn named(&self, key: &Key, c: &mut Collector) -> Vec<(At<String>, Reader<'d, 'i>)> {
        let Some(at) = self.get(key) else { return vec![] };
        let (Shape::Named(names, rules, _), DeValue::Table(table)) = (&key.shape, at.value) else {
            let none: Option<()> = wrong_type(&at, &key.shape, c);
            debug_assert!(none.is_none());
            return vec![];
        };
        if table.is_empty() {
            let span = self.header(key, at.span);
            let what = format!("`{}` is empty", key.name);
            c.report(&at.path, span, what).hint =
                Some(format!("Write `[{}.NAME]`, or remove the table.", at.path));
            return vec![];
        }
        let mut found = vec![];
        for (name, value) in table {
            let path = format!("{}.{}", at.path, key_text(name.get_ref()));
            let (span, value_span) = (name.span(), value.span());
            let name = name.get_ref().as_ref();
            if !names.accepts(name) {
                let what = format!("`{}` is no valid name", shown(name));
                let problem = c.report(&path, span, what);
                problem.expected = Some(names.expected.to_owned());
                problem.hint = repaired(name, names).map(|m| format!("Did you mean `{m}`?"));
                continue;
            }
            let at = At { value: value.get_ref(), path, span: value_span };
            let DeValue::Table(table) = at.value else {
                let none: Option<()> = wrong_type(&at, &Shape::Table(rules), c);
                debug_assert!(none.is_none());
                continue;
            };
            // An implicit table has no span of its own.
            let whole = if at.span.is_empty() { span.clone() } else { at.span };
            let reader = Reader::nested(table, rules, at.path.clone(), whole, c);
            found.push((At { value: name.to_owned(), path: at.path, span }, reader));
        }
        found.sort_by_key(|(name, _)| name.span.start);
        found
    }

    fn elements(&self, key: &Key, c: &mut Collector) -> Vec<At<&'d DeValue<'i>>> {
        let Some(at) = self.get(key) else { return vec![] };
        let DeValue::Array(array) = at.value else {
            let none: Option<()> = wrong_type(&at, &key.shape, c);
            debug_assert!(none.is_none());
            return vec![];
        };
        array
            .iter()
            .enumerate()
            .map(|(i, v)| At {
                value: v.get_ref(),
                path: format!("{}[{i}]", at.path),
                span: v.span(),
            })
            .collect()
    }

    /// Where to point for a problem of a whole table: its own span, or the key if that is empty.
    fn header(&self, key: &Key, span: Range<usize>) -> Range<usize> {
        if span.is_empty() { self.key_span(key).unwrap_or(span) } else { span }
    }
}

fn one_variant<'d, 'i>(
    at: At<&'d DeValue<'i>>,
    variants: &'static [Variant],
    shape: &Shape,
    c: &mut Collector,
) -> Option<(&'static str, Reader<'d, 'i>)> {
    let DeValue::Table(table) = at.value else { return wrong_type(&at, shape, c) };
    let names: Vec<&'static str> = variants.iter().map(|v| v.name).collect();
    let Some(value) = table.get("type") else {
        let problem = c.report(&format!("{}.type", at.path), at.span, "`type` is missing");
        problem.expected = Some(one_of(&names));
        problem.hint = Some(format!(
            "Add `type = \"{}\"`, or another of these.",
            names.first().unwrap_or(&"")
        ));
        return None;
    };
    let tag = At { value: value.get_ref(), path: format!("{}.type", at.path), span: value.span() };
    let DeValue::String(name) = tag.value else {
        return wrong_type(&tag, &Shape::Choice(&[]), c).or_else(|| {
            if let Some(p) = c.problems.last_mut() {
                p.expected = Some(one_of(&names));
            }
            None
        });
    };
    let Some(variant) = variants.iter().find(|v| v.name == name.as_ref()) else {
        let problem = c.report(&tag.path, tag.span, format!("unknown type `{}`", shown(name)));
        problem.expected = Some(one_of(&names));
        problem.hint = nearest(name, names.iter().copied()).map(|m| format!("Did you mean `{m}`?"));
        return None;
    };
    let reader = Reader { table, rules: variant.table, path: at.path, span: at.span };
    reader.unknown_keys(variants, c);
    reader.missing_keys(c);
    Some((variant.name, reader))
}

/// A string of a shape, from any place.
fn text(at: At<&DeValue<'_>>, shape: &Shape, c: &mut Collector) -> Option<At<String>> {
    let DeValue::String(s) = at.value else { return wrong_type(&at, shape, c) };
    let hint = match shape {
        Shape::Text(grammar) if grammar.accepts(s) => {
            let value = s.clone().into_owned();
            return Some(at.map(|_| value));
        }
        Shape::Choice(values) if values.contains(&s.as_ref()) => {
            let value = s.clone().into_owned();
            return Some(at.map(|_| value));
        }
        Shape::Choice(values) => {
            nearest(s, values.iter().copied()).map(|m| format!("Did you mean `{m}`?"))
        }
        Shape::Text(grammar) => repaired(s, grammar).map(|m| format!("Did you mean `{m}`?")),
        _ => None,
    };
    let problem = c.report(&at.path, at.span, format!("`{}` is not valid here", shown(s)));
    problem.expected = Some(shape.expected());
    problem.hint = hint;
    None
}

/// The same text with what people often get wrong put right, if it is then of the grammar.
fn repaired(text: &str, grammar: &grammar::Grammar) -> Option<String> {
    grammar
        .repairs
        .iter()
        .map(|repair| repair(text))
        .find(|candidate| candidate != text && grammar.accepts(candidate))
}

fn quantity_problem<T>(
    at: &At<&DeValue<'_>>,
    what: String,
    meant: Option<String>,
    shape: &Shape,
    c: &mut Collector,
) -> Option<T> {
    let problem = c.report(&at.path, at.span.clone(), what);
    problem.expected = Some(shape.expected());
    problem.hint = meant.map(|m| format!("Did you mean `\"{m}\"`?"));
    None
}

fn wrong_type<T>(at: &At<&DeValue<'_>>, shape: &Shape, c: &mut Collector) -> Option<T> {
    let hint = match (at.value, shape) {
        (DeValue::Integer(n), Shape::Size(..)) => {
            Some(format!("Write a number with its unit, such as `\"{}MiB\"`.", shown(n.as_str())))
        }
        (DeValue::Integer(n), Shape::Duration(..)) => {
            Some(format!("Write a number with its unit, such as `\"{}s\"`.", shown(n.as_str())))
        }
        (DeValue::Integer(n), Shape::Text(g)) if std::ptr::eq(*g, &raw const grammar::MODE) => {
            Some(format!(
                "Write the octal digits as a string, such as `\"{:0>4}\"`.",
                shown(n.as_str())
            ))
        }
        (DeValue::String(s), Shape::Integer(..)) if s.parse::<i64>().is_ok() => {
            Some(format!("Write it without quotes: `{}`.", shown(s)))
        }
        (DeValue::String(s), Shape::Boolean) if matches!(s.as_ref(), "true" | "false") => {
            Some(format!("Write it without quotes: `{s}`."))
        }
        (DeValue::String(s), Shape::Set(_)) => {
            Some(format!("Put it into an array: `[\"{}\"]`.", shown(s)))
        }
        (DeValue::Table(_), Shape::List(_) | Shape::ListOfVariants(_)) => {
            Some(format!("Write the header with two brackets: `[[{}]]`.", at.path))
        }
        (DeValue::Array(_), Shape::Table(_) | Shape::Variants(_)) => {
            Some(format!("Write the header with one bracket: `[{}]`.", at.path))
        }
        (DeValue::Float(_) | DeValue::Integer(_), Shape::Text(_)) => {
            Some("Put the value in quotes.".to_owned())
        }
        _ => None,
    };
    let problem = c.report(&at.path, at.span.clone(), format!("wrong type: {}", kind(at.value)));
    problem.expected = Some(shape.expected());
    problem.hint = hint;
    None
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A key as it stands in a path: bare where TOML allows, else quoted.
fn key_text(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        shown(name)
    } else {
        format!("\"{}\"", shown(name))
    }
}
