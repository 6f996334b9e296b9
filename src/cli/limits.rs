//! The bounds for hostile input as options of the verbs that read images.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

use crate::image::Limits;
use crate::image::limits::Deadline;

/// What an image may claim, and how long reading it may take.
///
/// The defaults are those of [`Limits`]; a test compares them.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits for images that are not trusted")]
pub(crate) struct LimitArgs {
    /// Largest disk that a guest would see.
    #[arg(long, value_name = "SIZE", default_value = "64TiB", hide_short_help = true)]
    max_disk_size: ByteSize,
    /// Largest file, holes included.
    #[arg(long, value_name = "SIZE", default_value = "4TiB", hide_short_help = true)]
    max_file_size: ByteSize,
    /// Most bytes of all files of one filesystem, holes included.
    #[arg(long, value_name = "SIZE", default_value = "4TiB", hide_short_help = true)]
    max_contents: ByteSize,
    /// Most files and directories of one filesystem.
    #[arg(long, value_name = "NUMBER", default_value_t = 5_000_000, hide_short_help = true)]
    max_entries: u64,
    /// Deepest directory.
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, hide_short_help = true)]
    max_depth: u32,
    /// Longest path in bytes.
    #[arg(long, value_name = "NUMBER", default_value_t = 4096, hide_short_help = true)]
    max_path: usize,
    /// Longest value of one extended attribute in bytes.
    #[arg(long, value_name = "NUMBER", default_value_t = 64 << 10, hide_short_help = true)]
    max_xattr: usize,
    /// Most bytes of extended attributes of one file.
    #[arg(long, value_name = "NUMBER", default_value_t = 1 << 20, hide_short_help = true)]
    max_xattrs: usize,
    /// How many bytes other than zeros one byte of a compressed file may become.
    #[arg(long, value_name = "NUMBER", default_value_t = 200, hide_short_help = true)]
    max_ratio: u64,
    /// Longest time for reading, such as 90s, 10m or 2h.
    // More than the largest contents take at 100 MB/s, which is slow.
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = duration, hide_short_help = true)]
    timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    Duration::try_from(parsed).map_err(|_| "a time that is not negative is needed".to_owned())
}

impl LimitArgs {
    /// The limits; the time runs from now on.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            disk_size: self.max_disk_size.as_u64(),
            entries: self.max_entries,
            depth: self.max_depth,
            path: self.max_path,
            xattr: self.max_xattr,
            xattrs: self.max_xattrs,
            file_size: self.max_file_size.as_u64(),
            contents: self.max_contents.as_u64(),
            ratio: self.max_ratio,
            deadline: Some(Deadline::after(self.timeout)),
        }
    }

    /// The same limits as words of a command line, for a devbox elsewhere that reads files.
    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            format!("--max-file-size={}", self.max_file_size.as_u64()),
            format!("--max-contents={}", self.max_contents.as_u64()),
            format!("--max-entries={}", self.max_entries),
            format!("--max-depth={}", self.max_depth),
            format!("--max-path={}", self.max_path),
            format!("--max-xattr={}", self.max_xattr),
            format!("--max-xattrs={}", self.max_xattrs),
            format!("--timeout={}s", self.timeout.as_secs()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let line = Line::try_parse_from(["x"]).expect("defaults parse");
        let limits = line.limits.limits();
        assert!(limits.deadline.is_some());
        assert_eq!(Limits { deadline: None, ..limits }, Limits::default());
    }

    #[test]
    fn limits_travel_as_words() {
        let line = Line::try_parse_from(["x", "--max-entries=7", "--timeout=90s"]).expect("parses");
        let words = line.limits.words();
        let again = words.iter().map(String::as_str);
        let again = Line::try_parse_from(std::iter::once("x").chain(again)).expect("parses again");
        let plain = |line: &Line| Limits { deadline: None, ..line.limits.limits() };
        assert_eq!(plain(&line), plain(&again));
        assert_eq!(line.limits.timeout, again.limits.timeout);
    }

    #[test]
    fn values_are_sizes_numbers_and_times() {
        let words = ["x", "--max-disk-size=1MiB", "--max-ratio=7", "--timeout=90s"];
        let line = Line::try_parse_from(words).expect("parses");
        assert_eq!((line.limits.max_disk_size.as_u64(), line.limits.max_ratio), (1 << 20, 7));
        assert_eq!(line.limits.timeout, Duration::from_secs(90));
        for bad in ["--timeout=-1s", "--timeout=soon", "--max-disk-size=much"] {
            assert!(Line::try_parse_from(["x", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_limit_of_the_engine_is_an_option() {
        use crate::image::limits::Limit;
        let command = <Line as clap::CommandFactory>::command();
        let there =
            |option: &str| command.get_arguments().any(|arg| arg.get_long() == Some(&option[2..]));
        for limit in [
            Limit::DiskSize,
            Limit::Entries,
            Limit::Depth,
            Limit::Path,
            Limit::Xattr,
            Limit::Xattrs,
            Limit::FileSize,
            Limit::Contents,
            Limit::Ratio,
            Limit::Time,
        ] {
            assert!(there(limit.option()), "{}", limit.option());
        }
    }
}
