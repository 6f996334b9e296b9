//! The options that say in which forms a report is told, and where.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use crate::cli::Context;
use crate::cli::replaced_file::ReplacedFile;
use crate::error::{Error, Result};
use crate::parity::report::failed::Failed;
use crate::parity::report::text::Shown;
use crate::parity::report::{Format, Report};
use crate::ui;

/// Forms and files of a report.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Tell it in this form; several times for several. The first goes to the first `--output`, the
    /// second to the second; one more than files goes to standard output.
    #[arg(long = "format", value_enum, value_name = "FORMAT")]
    formats: Vec<Format>,
    /// Write to this file, replaced if it is there; the form is told by its extension (`.txt`,
    /// `.json`, `.xml`, `.sarif`, `.html`) if there is no `--format` for it. Several times for several.
    #[arg(long = "output", short, value_name = "FILE")]
    outputs: Vec<PathBuf>,
    /// As `--format json`.
    #[arg(long)]
    json: bool,
}

/// Where each form goes. The files exist under other names, so nothing is compared for a place that
/// nobody can write to.
#[derive(Debug)]
pub(crate) struct Reports {
    files: Vec<(Format, PathBuf, ReplacedFile)>,
    printed: Option<Format>,
}

/// The form of each file, and the one that is printed.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    files: Vec<(Format, PathBuf)>,
    printed: Option<Format>,
}

impl ReportArgs {
    /// Prepares all files.
    ///
    /// # Errors
    /// Kind `Usage`: formats and files do not fit each other, or a file cannot be written.
    pub(crate) fn open(&self) -> Result<Reports> {
        let Plan { files, printed } = self.plan()?;
        let mut opened: Vec<(Format, PathBuf, ReplacedFile)> = vec![];
        for (format, path) in files {
            if opened.iter().any(|(_, other, _)| *other == path) {
                return Err(Error::usage(format!("`{}` is named twice", path.display()))
                    .hint("Give each `--output` a file of its own."));
            }
            let file = ReplacedFile::create(&path)?;
            opened.push((format, path, file));
        }
        Ok(Reports { files: opened, printed })
    }

    /// Which form goes where.
    fn plan(&self) -> Result<Plan> {
        let mut formats = self.formats.clone();
        if self.json {
            formats.push(Format::Json);
        }
        let files = self.outputs.len();
        if formats.len() > files + 1 {
            let (n, last) = (formats.len() - files, files + 1);
            return Err(Error::usage(format!(
                "{n} reports would go to standard output, which takes one"
            ))
            .hint(format!("Name a file with `--output` for all but one of {} formats, or leave out what follows the format number {last}.", formats.len())));
        }
        let mut named = vec![];
        for (at, path) in self.outputs.iter().enumerate() {
            let format = match formats.get(at) {
                Some(format) => *format,
                None => by_extension(path)?,
            };
            named.push((format, path.clone()));
        }
        let printed = if files == 0 && formats.is_empty() {
            Some(Format::Text)
        } else {
            formats.get(files).copied()
        };
        Ok(Plan { files: named, printed })
    }
}

fn by_extension(path: &Path) -> Result<Format> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.as_deref().and_then(Format::of_extension).ok_or_else(|| {
        let names: Vec<_> = Format::value_variants()
            .iter()
            .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
            .collect();
        Error::usage(format!("the name `{}` does not say which form it has", path.display()))
            .hint(format!("Put `--format` in front of it, with one of {}.", names.join(", ")))
    })
}

impl Reports {
    /// Writes all of them; the files first, so that whoever reads the last line finds them.
    ///
    /// # Errors
    /// A file or standard output does not take it.
    pub(crate) fn write(self, report: &Report, shown: &Shown, ctx: &Context) -> Result<()> {
        for path in fill(self.files, |format| format.render(report, shown))? {
            ctx.events.note(format!("wrote `{}`", path.display()));
        }
        match self.printed {
            Some(format) => ui::line(format.render(report, shown)?.trim_end_matches('\n')),
            None => {
                ctx.events.note(report.headline());
                Ok(())
            }
        }
    }

    /// Writes into the files that there is no verdict.
    ///
    /// # Errors
    /// A file does not take it.
    pub(crate) fn fail(self, failed: &Failed<'_>) -> Result<()> {
        fill(self.files, |format| Ok(failed.render(format))).map(drop)
    }
}

/// Writes all files and only then puts them in their places, which it returns.
fn fill(
    files: Vec<(Format, PathBuf, ReplacedFile)>,
    render: impl Fn(Format) -> Result<String>,
) -> Result<Vec<PathBuf>> {
    let mut filled = vec![];
    for (format, path, mut file) in files {
        let text = render(format)?;
        file.fill(|out| Ok(out.write_all(text.as_bytes())?))?;
        filled.push((path, file));
    }
    let put = |(path, file): (PathBuf, ReplacedFile)| file.replace().map(|_| path);
    filled.into_iter().map(put).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        reports: ReportArgs,
    }

    fn plan(words: &str) -> Result<Plan> {
        let line = Line::try_parse_from(std::iter::once("x").chain(words.split_whitespace()))
            .map_err(|e| Error::usage(e.to_string()))?;
        line.reports.plan()
    }

    #[test]
    fn formats_go_to_files_in_their_order_and_one_more_is_printed() {
        let file = |format, name: &str| (format, PathBuf::from(name));
        for (words, files, printed) in [
            ("", vec![], Some(Format::Text)),
            ("--json", vec![], Some(Format::Json)),
            ("--format sarif", vec![], Some(Format::Sarif)),
            ("-o r.XML", vec![file(Format::Junit, "r.XML")], None),
            ("--format json -o r.xml", vec![file(Format::Json, "r.xml")], None),
            ("--json -o r", vec![file(Format::Json, "r")], None),
            ("--format json --format text -o r", vec![file(Format::Json, "r")], Some(Format::Text)),
            (
                "--format json -o a --output b.sarif",
                vec![file(Format::Json, "a"), file(Format::Sarif, "b.sarif")],
                None,
            ),
        ] {
            assert_eq!(plan(words).expect("they fit"), Plan { files, printed }, "{words}");
        }
    }

    #[test]
    fn what_does_not_fit_is_wrong_usage() {
        for (words, said) in [
            ("--format json --format text", "2 reports would go to standard output"),
            ("-o report", "the name `report` does not say which form it has"),
            ("-o report.pdf", "with one of text, json, junit, sarif, html"),
            ("--format yaml", "yaml"),
        ] {
            let error = plan(words).expect_err(words);
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
