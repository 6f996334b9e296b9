//! The lines in which two texts differ, fit for a report.

use similar::TextDiff;

use super::redact;

/// Longest text that is compared, in bytes: configuration is shorter, data is not for people.
pub(super) const MAX_TEXT: u64 = 64 << 10;
/// Most lines of one file.
const MAX_LINES: usize = 20;
/// Longest line in characters.
const MAX_LINE: usize = 160;

/// Lines that begin with `-` (the first side), `+` (the second) or ` ` (both), and `@@` before each place, as in a
/// unified diff. What could be a secret is taken out.
pub(super) fn differences(old: &str, new: &str) -> Vec<String> {
    if redact::holds_key(old) || redact::holds_key(new) {
        return vec!["a private key differs (not shown)".to_owned()];
    }
    let diff = TextDiff::from_lines(old, new);
    let (old, new) = (redact::lines(old), redact::lines(new));
    let mut lines = vec![];
    for hunk in diff.unified_diff().context_radius(1).iter_hunks() {
        lines.push(hunk.header().to_string().trim_end().to_owned());
        for change in hunk.iter_changes() {
            // Told by the side that it is of: what a secret's value is depends on the lines above.
            let line = match (change.old_index(), change.new_index()) {
                (_, Some(at)) => new.get(at),
                (Some(at), None) => old.get(at),
                (None, None) => None,
            };
            lines.push(shown(&change.tag().to_string(), line.map_or("", String::as_str)));
        }
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more lines"));
    }
    lines
}

/// A line without what moves a terminal's cursor.
fn shown(sign: &str, line: &str) -> String {
    let plain: String = line
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control() && c != '\t';
            let text = if escaped { c.escape_default().to_string() } else { c.to_string() };
            text.chars().collect::<Vec<_>>()
        })
        .collect();
    let mut out: String = sign.chars().chain(plain.chars().take(MAX_LINE)).collect();
    if plain.chars().count() > MAX_LINE {
        out.push_str(" ...");
    }
    out
}

/// Words that one side alone has, with `-` and `+` in front; `the same words in another order` if there are none.
pub(super) fn words(old: &str, new: &str) -> String {
    let (from, to) = (redact::split(old), redact::split(new));
    let mut out: Vec<String> = vec![];
    out.extend(from.iter().filter(|w| !to.contains(w)).map(|w| format!("-{}", redact::line(w))));
    out.extend(to.iter().filter(|w| !from.contains(w)).map(|w| format!("+{}", redact::line(w))));
    if out.is_empty() {
        return "the same words in another order or number".to_owned();
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_as_a_unified_diff_without_secrets_and_escapes() {
        let old = "a\nb\nc\npassword=x\n";
        let new = "a\nb\x1b[2J\nc\npassword=y\n";
        let lines = differences(old, new);
        assert_eq!(
            lines,
            [
                "@@ -1,4 +1,4 @@",
                " a",
                "-b",
                "+b\\u{1b}[2J",
                " c",
                "-password=(redacted)",
                "+password=(redacted)",
            ]
        );
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        let lines = differences("", &many);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines.last().map(String::as_str), Some("and 81 more lines"));
        let key = "-----BEGIN PRIVATE KEY-----\nabc\n";
        assert_eq!(differences("", key), ["a private key differs (not shown)"]);
    }

    #[test]
    fn words_say_what_was_taken_and_given() {
        assert_eq!(
            words("ro quiet root=/dev/a", "ro root=/dev/a nopti token=abc"),
            "-quiet +nopti +token=(redacted)"
        );
        assert!(words("a b", "b a").contains("order"));
    }
}
