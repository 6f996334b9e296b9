//! The language in which `keys` describes devbox.toml: tables, keys and the shape of values.

use crate::spec::grammar::Grammar;

/// A table of the spec.
#[derive(Debug)]
pub struct Table {
    /// Its path in the file (`machine.ports`); empty for the top.
    pub path: &'static str,
    /// What it is for, one sentence.
    pub about: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [&'static Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What its value must be.
    pub shape: Shape,
    /// Whether it may be absent, and what then holds.
    pub presence: Presence,
    /// What it is for, one sentence or two.
    pub about: &'static str,
}

/// Whether a key may be absent.
#[derive(Debug, Clone, Copy)]
pub enum Presence {
    /// It must be there.
    Required,
    /// It may be absent; then this holds, in the words of the reference.
    Default(&'static str),
    /// Exactly one of the table's keys with the same group name must be there.
    OneOf(&'static str),
}

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string of this grammar.
    Text(&'static Grammar),
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A whole number in this range.
    Integer(i64, i64),
    /// True or false.
    Boolean,
    /// A size in bytes with its unit, in this range of bytes, a whole number of MiB.
    Size(u64, u64),
    /// A duration with its unit, in this range of seconds.
    Duration(u64, u64),
    /// An array of values that are all different.
    Set(&'static Shape),
    /// A table whose keys are environment variables and whose values are strings.
    Environment,
    /// A table of any values by name, for another program: texts, whole numbers, true and false,
    /// and arrays and tables of these.
    Values,
    /// A table.
    Table(&'static Table),
    /// A table whose keys depend on its key `type`.
    Variants(&'static [Variant]),
    /// An array of tables, each told apart by `type`.
    ListOfVariants(&'static [Variant]),
    /// An array of tables.
    List(&'static Table),
    /// A table of tables by a name of this grammar. A key that the last table has too is
    /// optional here, and its default is the value there.
    Named(&'static Grammar, &'static Table, &'static Table),
}

/// A table for one value of `type`.
#[derive(Debug)]
pub struct Variant {
    /// The value of `type`.
    pub name: &'static str,
    /// The table.
    pub table: &'static Table,
}

impl Shape {
    /// What is expected, for messages and the reference, to stand after "expected".
    #[must_use]
    pub fn expected(&self) -> String {
        use crate::spec::problem::one_of;
        use crate::spec::quantity::{duration_text, size_text};
        match self {
            Shape::Text(grammar) => grammar.expected.to_owned(),
            Shape::Choice(values) => one_of(values),
            Shape::Integer(from, to) => format!("a whole number from {from} to {to}"),
            Shape::Boolean => "`true` or `false`".to_owned(),
            Shape::Size(from, to) => format!(
                "a size from \"{}\" to \"{}\", a whole number of MiB",
                size_text(*from),
                size_text(*to)
            ),
            Shape::Duration(from, to) => {
                format!(
                    "a duration from \"{}\" to \"{}\"",
                    duration_text(*from),
                    duration_text(*to)
                )
            }
            Shape::Set(item) => format!("an array, each item {}", item.expected()),
            Shape::Environment => "a table of strings by variable name".to_owned(),
            Shape::Values => "a table of values by name".to_owned(),
            Shape::Table(_) | Shape::Variants(_) => "a table".to_owned(),
            Shape::List(_) | Shape::ListOfVariants(_) => "an array of tables".to_owned(),
            Shape::Named(..) => "a table of tables by name".to_owned(),
        }
    }
}
