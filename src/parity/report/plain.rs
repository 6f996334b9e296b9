//! Text that does nothing but stand there, wherever a report is shown.

use std::borrow::Cow;

/// `text` with an escape in place of every character that moves what is around it, or that XML cannot hold:
/// control characters but for tab and line feed, the marks of writing direction, what has no width.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.into() };
    Cow::Owned(text.chars().map(shown).collect())
}

fn acts(c: char) -> bool {
    (c.is_control() && c != '\t' && c != '\n')
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_turns_text_around_is_shown_as_its_number() {
        assert_eq!(plain("a\u{202e}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(plain("a\x1b[2J\r\0"), "a\\u{1b}[2J\\u{d}\\u{0}");
        assert_eq!(plain("Főtanúsítvány\tok\n"), "Főtanúsítvány\tok\n");
    }

    proptest! {
        #[test]
        fn what_is_plain_stays(text: String) {
            let once = plain(&text).into_owned();
            prop_assert_eq!(plain(&once), once.as_str());
            // The characters of XML 1.0, section 2.2.
            let of_xml = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
            prop_assert!(once.chars().all(of_xml));
        }
    }
}
