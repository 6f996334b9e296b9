//! The text of a spec with more packages and more steps; all else of it stays as it is.

use std::fmt::Write as _;

use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// A text as a TOML string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// Adds `packages` to the list of a source of packages; `None` if the source is none.
///
/// # Errors
/// The text is no TOML.
pub(super) fn with_packages(text: &str, packages: &[String]) -> Result<Option<String>> {
    let table = DeTable::parse(text)
        .map_err(|e| Error::usage("the spec cannot be read").cause(e.message()))?;
    let Some(source) = table.get_ref().get("source") else { return Ok(None) };
    let DeValue::Table(keys) = source.get_ref() else { return Ok(None) };
    if keys.get("type").and_then(|kind| kind.get_ref().as_str()) != Some("packages") {
        return Ok(None);
    }
    let added: Vec<String> = packages.iter().map(|name| string(name)).collect();
    let insert = |at: usize, what: &str| Some([&text[..at], what, &text[at..]].concat());
    let Some(list) = keys.get("packages") else {
        let Some(kind) = keys.get("type") else { return Ok(None) };
        let at = kind.span().end;
        let rest = &text[at..];
        // In one line with others, the source is an inline table.
        let line = rest.split('\n').next().unwrap_or("");
        let bare = line.split('#').next().unwrap_or("").trim().is_empty();
        let list = format!("packages = [{}]", added.join(", "));
        return Ok(match bare {
            true => insert(at + line.len(), &format!("\n{list}")),
            false => insert(at, &format!(", {list}")),
        });
    };
    let DeValue::Array(items) = list.get_ref() else { return Ok(None) };
    let Some(last) = items.iter().last() else {
        return Ok(insert(list.span().start + 1, &added.join(", ")));
    };
    // As the list is: one in a line, or all in one.
    let start = last.span().start;
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let alone = text[line..start].trim().is_empty();
    let separator = if alone { format!(",\n{}", &text[line..start]) } else { ", ".to_owned() };
    let more: String = added.iter().map(|name| format!("{separator}{name}")).collect();
    Ok(insert(last.span().end, &more))
}

/// Adds whole tables at the end.
pub(super) fn with_steps(text: &str, steps: &[String]) -> String {
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    for step in steps {
        out.push('\n');
        out.push_str(step);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_go_where_the_list_is() {
        let with =
            |text: &str| with_packages(text, &["b".to_owned(), "c".to_owned()]).expect("TOML");
        for (text, expected) in [
            (
                "[source]\ntype = \"packages\"\npackages = [\"a\"] # why\n",
                "[source]\ntype = \"packages\"\npackages = [\"a\", \"b\", \"c\"] # why\n",
            ),
            (
                "[source]\ntype = \"packages\"\npackages = [\n    \"x\",\n    \"a\", # why\n]\n",
                "[source]\ntype = \"packages\"\npackages = [\n    \"x\",\n    \"a\",\n    \"b\",\n    \"c\", # why\n]\n",
            ),
            (
                "[source]\ntype = \"packages\"\npackages = []\n",
                "[source]\ntype = \"packages\"\npackages = [\"b\", \"c\"]\n",
            ),
            (
                "[source]\ntype = \"packages\" # all\nsuite = \"x\"\n",
                "[source]\ntype = \"packages\" # all\npackages = [\"b\", \"c\"]\nsuite = \"x\"\n",
            ),
            (
                "source = { type = \"packages\", suite = \"x\" }\n",
                "source = { type = \"packages\", packages = [\"b\", \"c\"], suite = \"x\" }\n",
            ),
        ] {
            let new = with(text).expect("a source of packages");
            assert_eq!(new, expected);
            DeTable::parse(&new).expect("TOML");
        }
        assert_eq!(with("[source]\ntype = \"image\"\npath = \"x\"\n"), None);
    }

    #[test]
    fn strings_are_as_toml_reads_them() {
        let text = "a \"b\" \\ \n\t\u{1}é";
        let toml = format!("x = {}", string(text));
        let table = DeTable::parse(&toml).expect("TOML");
        assert_eq!(table.get_ref().get("x").and_then(|x| x.get_ref().as_str()), Some(text));
    }
}
