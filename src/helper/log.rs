//! What a helper did, for people: a line for each event, never more than fits.

use std::fmt::Arguments;
use std::io::Write as _;
use std::path::PathBuf;

use super::place::Place;

/// Then the log starts anew; years of an ordinary machine.
const LONGEST: u64 = 256 << 10;

/// The log of one helper.
#[derive(Debug, Clone)]
pub(super) struct Log {
    path: PathBuf,
}

impl Log {
    pub(super) fn new(place: &Place) -> Self {
        Log { path: place.log() }
    }

    #[cfg(test)]
    pub(super) fn at(path: &std::path::Path) -> Self {
        Log { path: path.to_owned() }
    }

    /// Adds a line with the time. One that cannot be written is lost.
    pub(super) fn line(&self, text: Arguments<'_>) {
        let full = std::fs::metadata(&self.path).is_ok_and(|meta| meta.len() > LONGEST);
        let mut options = std::fs::OpenOptions::new();
        let options = options.create(true).write(true).truncate(full).append(!full);
        if let Ok(mut file) = options.open(&self.path) {
            let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
            let _ = file.write_all(format!("{now} {text}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_grow_without_end() {
        let dir = tempfile::tempdir().expect("dir");
        let log = Log::at(&dir.path().join("log"));
        for n in 0..10_000 {
            log.line(format_args!("line {n} {}", "x".repeat(80)));
        }
        let text = std::fs::read_to_string(&log.path).expect("there");
        assert!(text.len() as u64 <= LONGEST + 200, "{}", text.len());
        assert!(text.lines().last().is_some_and(|line| line.contains("line 9999 x")));
    }
}
