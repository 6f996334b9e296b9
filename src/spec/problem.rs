//! What is wrong with a spec: every problem with its place, what was expected and a suggestion.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::error::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the data: `steps[2].timeout`; empty for syntax and for the file as a whole.
    pub path: String,
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong, as a lower-case fragment with the object in backticks.
    pub what: String,
    /// What was expected there (`a size with a unit, such as "2GiB"`).
    pub expected: Option<String>,
    /// What to do, as a full imperative sentence.
    pub hint: Option<String>,
}

/// All problems of one file, in the order of the text.
#[derive(Debug, Clone)]
pub struct Problems {
    file: PathBuf,
    text: String,
    list: Vec<Problem>,
}

/// A place in a text as people and editors count: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Character in the line.
    pub column: usize,
}

impl Problems {
    /// Problems of `text`, which was read from `file`.
    #[must_use]
    pub fn new(file: &Path, text: &str, mut list: Vec<Problem>) -> Self {
        for problem in &mut list {
            problem.span = inside(text, &problem.span);
        }
        list.sort_by_key(|p| (p.span.start, p.span.end));
        list.dedup();
        Problems { file: file.to_owned(), text: text.to_owned(), list }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The problems, in the order of the text.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Where a problem begins.
    #[must_use]
    pub fn place(&self, problem: &Problem) -> Place {
        let before = &self.text[..problem.span.start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().filter(|c| *c != '\u{feff}').count() + 1,
        }
    }

    /// `` `devbox.toml` has 2 problems ``.
    #[must_use]
    pub fn summary(&self) -> String {
        let n = self.list.len();
        let file = self.file.display();
        format!("`{file}` has {n} problem{}", if n == 1 { "" } else { "s" })
    }

    /// For people: one block a problem with the lines of the file, as compilers do. The marks make
    /// sense without colour; control characters of the file are shown, never sent.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let file = self.file.display().to_string();
        let mut out = String::new();
        for problem in &self.list {
            let mark = AnnotationKind::Primary.span(problem.span.clone());
            let mark = match &problem.expected {
                Some(expected) => mark.label(format!("expected {expected}")),
                None => mark,
            };
            let title = Level::ERROR.primary_title(problem.title());
            let source = Snippet::source(&self.text).path(&file).annotation(mark);
            let mut group: Group<'_> = title.element(source);
            if let Some(hint) = &problem.hint {
                group = group.element(Level::HELP.message(hint.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out.truncate(out.trim_end().len());
        // The renderer replaces the old control characters, and not these, which some terminals obey too.
        out.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "\u{fffd}")
    }

    /// For programs: `{"file", "problems": [{"path", "line", "column", "message", "expected", "hint"}]}`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let problems: Vec<serde_json::Value> = self
            .list
            .iter()
            .map(|p| {
                let Place { line, column } = self.place(p);
                serde_json::json!({
                    "path": p.path,
                    "line": line,
                    "column": column,
                    "message": p.what,
                    "expected": p.expected,
                    "hint": p.hint,
                })
            })
            .collect();
        serde_json::json!({ "file": self.file.display().to_string(), "problems": problems })
    }
}

impl Problem {
    /// What is wrong, with the path where it is not said already.
    fn title(&self) -> String {
        if self.path.is_empty() {
            self.what.clone()
        } else {
            format!("`{}`: {}", self.path, self.what)
        }
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Error::usage(problems.summary())
            .detail(problems.render(false))
            .hint("Correct the file; `devbox validate` checks it again.")
    }
}

/// The span cut to the text and widened to whole characters, since a parser may point behind the end.
fn inside(text: &str, span: &Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The name among `known` that `typed` was probably meant to be.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Above this the words have little in common; "memory" and "mem" score 0.86, "disk" and "cpus" 0.5.
    const ALIKE: f64 = 0.75;
    let typed = typed.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, name), name))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A user's text inside a message: control characters escaped, at most 60 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `` `a`, `b` or `c` ``.
#[must_use]
pub fn one_of(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("`{v}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_lines_with_either_line_end() {
        let text = "a = 1\r\nü = \"x\"\n";
        let at = |start| {
            let p = Problem {
                path: String::new(),
                span: start..start + 1,
                what: "w".into(),
                expected: None,
                hint: None,
            };
            let all = Problems::new(Path::new("f"), text, vec![p]);
            let place = all.place(&all.list()[0]);
            (place.line, place.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(text.find('"').expect("there")), (2, 5));
        assert_eq!(at(9_999), (3, 1));
        // A span inside a character widens to it.
        assert_eq!(at(8), (2, 1));
    }

    #[test]
    fn suggestions_come_for_typing_errors_only() {
        let keys = ["packages", "suite", "mirror"];
        assert_eq!(nearest("pakages", keys), Some("packages"));
        assert_eq!(nearest("Packages", keys), Some("packages"));
        assert_eq!(nearest("zzz", keys), None);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        let text = "a = \"\u{1b}[31m\u{9b}31m\"\n";
        let p = Problem {
            path: "a".into(),
            span: 4..5,
            what: "bad".into(),
            expected: None,
            hint: None,
        };
        let out = Problems::new(Path::new("f"), text, vec![p]).render(false);
        assert!(!out.contains(['\u{1b}', '\u{9b}']), "{out:?}");
    }
}
