//! Numbers and foreign text as people read them.

use std::time::Duration;

/// `0.4 s`, `12 s`, `3 min 5 s`, `1 h 2 min`.
pub(super) fn duration(d: Duration) -> String {
    // One decimal only where it says something.
    if d < Duration::from_secs(10) {
        return format!("{:.1} s", d.as_secs_f64());
    }
    match d.as_secs() {
        s @ ..60 => format!("{s} s"),
        s @ ..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// `120.5 MiB`.
pub(super) fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).display().iec().to_string()
}

/// A line of a guest or a program without colours and other control codes, which could move the
/// cursor or change the terminal. Of a line that was drawn over itself, the last state.
pub(super) fn plain(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').next().unwrap_or(line);
    anstream::adapter::strip_str(line)
        .to_string()
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_useful() {
        let text = |ms| duration(Duration::from_millis(ms));
        assert_eq!(text(420), "0.4 s");
        assert_eq!(text(12_900), "12 s");
        assert_eq!(text(185_000), "3 min 5 s");
        assert_eq!(text(3_720_000), "1 h 2 min");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}\tx\u{8}\r\n"), "red x");
        assert_eq!(plain("10%\r20%\r30%"), "30%");
        assert_eq!(plain("größe"), "größe");
    }
}
