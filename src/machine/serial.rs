//! Reads the guest's serial log for people: the last lines, without what would move a cursor.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Enough for some hundred lines.
const TAIL: u64 = 64 << 10;

/// The last `n` lines that say something; empty if there is no log.
#[must_use]
pub fn last_lines(log: &Path, n: usize) -> Vec<String> {
    let Ok(mut file) = std::fs::File::open(log) else { return vec![] };
    let size = file.metadata().map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(size.saturating_sub(TAIL)));
    let _ = file.take(TAIL).read_to_end(&mut bytes);
    let text = plain(&String::from_utf8_lossy(&bytes));
    let lines: Vec<&str> =
        text.split('\n').map(str::trim_end).filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect()
}

/// The last line that tells of a dead kernel, if there is one.
#[must_use]
pub fn kernel_panic(log: &Path) -> Option<String> {
    last_lines(log, usize::MAX).into_iter().rfind(|l| l.contains("Kernel panic - not syncing"))
}

/// Takes out terminal control: CSI sequences (ECMA-48, 5.4), other escapes, control characters.
/// Firmware and boot loaders draw with them, and they could rewrite the user's screen.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            '\r' if chars.peek() != Some(&'\n') => out.push('\n'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_never_reaches_the_user() {
        let text = "\u{1b}[2J\u{1b}[01;01HSeaBIOS\r\n\u{1b}]0;title\u{7}a\u{8}b\rc\u{1b}cd";
        assert_eq!(plain(text), "SeaBIOS\nab\ncd");
    }

    #[test]
    fn the_last_lines_skip_empty_ones_and_a_missing_log_is_empty() {
        let dir = tempfile::tempdir().expect("dir");
        let log = dir.path().join("serial.log");
        assert!(last_lines(&log, 3).is_empty());
        std::fs::write(&log, "one\r\n\r\ntwo\r\n[ 1.0] Kernel panic - not syncing: VFS\r\nend")
            .expect("log");
        assert_eq!(last_lines(&log, 2), ["[ 1.0] Kernel panic - not syncing: VFS", "end"]);
        assert!(kernel_panic(&log).is_some_and(|l| l.contains("VFS")));
    }
}
