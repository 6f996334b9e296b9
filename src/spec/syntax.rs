//! The text of a spec as spanned TOML, with every syntax error, and a check for TOML 1.0.
//!
//! The reader underneath takes TOML 1.1. A spec is shared with other tools, and a reader of TOML
//! 1.0 would choke on the new forms, so they are refused here: the file means the same everywhere.

use std::ops::Range;

use toml::de::DeTable;
use toml_parser::decoder::Encoding;
use toml_parser::parser::{EventReceiver, RecursionGuard, parse_document};
use toml_parser::{ErrorSink, ParseError, Source, Span};

use crate::spec::problem::Problem;

/// Deeper nesting than this is refused before it can exhaust the stack; the reader has the same limit.
const DEEPEST: u32 = 80;

/// What could be read of `text`, and all syntax problems.
pub(crate) fn parse(text: &str) -> (DeTable<'_>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|e| {
            let message = e.message().replace('\n', ", ");
            problem(e.span().unwrap_or(0..0), message, "Correct the TOML syntax here.")
        })
        .collect();
    if problems.is_empty() {
        problems = newer_syntax(text);
    }
    (table.into_inner(), problems)
}

fn problem(span: Range<usize>, what: String, hint: &str) -> Problem {
    Problem { path: String::new(), span, what, expected: None, hint: Some(hint.to_owned()) }
}

/// What TOML 1.1 allows and TOML 1.0 does not: line breaks, comments and a last comma in an inline
/// table; the escapes `\e` and `\x`. (Times without seconds are refused as wrong types anyway.)
fn newer_syntax(text: &str) -> Vec<Problem> {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut lint = Lint { text, open: vec![], comma: None, problems: vec![] };
    let mut sink = Ignore;
    parse_document(&tokens, &mut RecursionGuard::new(&mut lint, DEEPEST), &mut sink);
    lint.problems
}

/// The errors were reported by the first reader.
struct Ignore;

impl ErrorSink for Ignore {
    fn report_error(&mut self, _error: ParseError) {}
}

struct Lint<'i> {
    text: &'i str,
    /// Open inline tables (true) and arrays (false).
    open: Vec<bool>,
    /// The comma before the current place, if nothing but space stands between.
    comma: Option<Span>,
    problems: Vec<Problem>,
}

impl Lint<'_> {
    fn report(&mut self, span: Span, what: &str, hint: &str) {
        let what = format!("{what} is not in TOML 1.0");
        self.problems.push(problem(span.start()..span.end(), what, hint));
    }

    fn line_break(&mut self, span: Span) {
        if self.open.last() == Some(&true) {
            // Once a table is enough.
            self.open.pop();
            self.open.push(false);
            self.report(
                span,
                "a line break inside an inline table",
                "Write the table on one line, or as a `[table]` of its own.",
            );
        }
    }

    fn escapes(&mut self, span: Span, encoding: Option<Encoding>) {
        if !matches!(encoding, Some(Encoding::BasicString | Encoding::MlBasicString)) {
            return;
        }
        let raw = self.text.get(span.start()..span.end()).unwrap_or("");
        let mut bytes = raw.bytes().enumerate();
        while let Some((i, b)) = bytes.next() {
            if b != b'\\' {
                continue;
            }
            if let Some((_, c @ (b'e' | b'x'))) = bytes.next() {
                let at = span.start() + i;
                let what = if c == b'e' { r"the escape `\e`" } else { r"the escape `\x`" };
                self.report(
                    Span::new_unchecked(at, at + 2),
                    what,
                    r"Write `\u` and four hex digits, such as `\u001B`.",
                );
            }
        }
    }
}

impl EventReceiver for Lint<'_> {
    fn inline_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) -> bool {
        self.comma = None;
        self.open.push(true);
        true
    }

    fn inline_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.open.pop();
        if let Some(comma) = self.comma.take() {
            self.report(
                comma,
                "a comma after the last key of an inline table",
                "Remove the comma.",
            );
        }
    }

    fn array_open(&mut self, _: Span, _: &mut dyn ErrorSink) -> bool {
        self.comma = None;
        self.open.push(false);
        true
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.comma = None;
        self.open.pop();
    }

    fn value_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.comma = Some(span);
    }

    fn simple_key(&mut self, span: Span, kind: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.comma = None;
        self.escapes(span, kind);
    }

    fn scalar(&mut self, span: Span, kind: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.comma = None;
        self.escapes(span, kind);
    }

    fn newline(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.line_break(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str) -> Vec<String> {
        parse(text).1.into_iter().map(|p| p.what).collect()
    }

    #[test]
    fn every_syntax_error_is_reported_at_once() {
        assert!(whats("a = \nb = 1\nc = ]\n").len() >= 2);
    }

    #[test]
    fn toml_1_1_forms_are_refused_and_their_1_0_look_alikes_are_not() {
        for text in
            ["a = {\n b = 1 }", "a = { b = 1, }", "a = \"\\e\"", "a = \"\\x41\"", "\"\\x41\" = 1"]
        {
            assert_eq!(whats(text).len(), 1, "{text}: {:?}", whats(text));
            assert!(whats(text)[0].ends_with("is not in TOML 1.0"), "{text}");
        }
        for text in [
            "a = [\n 1,\n]",
            "a = { b = [\n1,\n] }",
            "a = '\\e'",
            "a = \"\\\\e\"",
            "a = \"\\u001B\"",
            "a = { b = 1 }\n# c\n",
        ] {
            assert!(whats(text).is_empty(), "{text}: {:?}", whats(text));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        assert!(!whats(&format!("a = {}", "[".repeat(100_000))).is_empty());
        assert!(!whats(&format!("a = {}1{}", "[".repeat(5_000), "]".repeat(5_000))).is_empty());
        let keys = vec!["a"; 50_000].join(".");
        let _ = whats(&format!("{keys} = 1"));
    }
}
