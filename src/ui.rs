//! The only place that prints: standard output for data, standard error for people.
//!
//! What people see is the same lines everywhere. On a terminal a last line moves: a spinner with the
//! time of the current phase, or a bar for a transfer. In a pipe and in CI nothing moves, and no
//! escape codes are sent where there is no terminal or `NO_COLOR` is set.

pub mod ndjson;
mod terminal;
mod text;

use std::io::Write as _;

use crate::error::Error;
use crate::spec::Problems;

pub use terminal::Terminal;

/// How much people want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Phases, facts and what steps print.
    #[default]
    Normal,
    /// Also what helper programs of the host print.
    Verbose,
}

/// Prints an error for people, on standard error.
pub fn error(error: &Error) {
    let bold = anstyle::Style::new().bold();
    let red = bold.fg_color(Some(anstyle::AnsiColor::Red.into()));
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{red}error{red:#}{bold}:{bold:#} {error}");
}

/// Prints everything that is wrong in a spec, on standard error.
pub fn problems(problems: &Problems) {
    let _ = writeln!(anstream::stderr().lock(), "{}\n", problems.render(true));
    error(&Error::usage(problems.summary()));
}

/// Prints one line of data on standard output. Whoever closed the other end of a pipe has seen enough:
/// that is no error.
///
/// # Errors
/// Standard output does not take it, as on a full disk.
pub fn line(text: &str) -> crate::error::Result<()> {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(cannot_write(e)),
        _ => Ok(()),
    }
}

fn cannot_write(e: std::io::Error) -> Error {
    Error::failed("cannot write to standard output").cause(e)
}

/// Prints much data on standard output.
///
/// # Errors
/// The writer's own, or standard output does not take it all: half of the data looks like data.
pub fn data(
    write: impl FnOnce(&mut dyn std::io::Write) -> crate::error::Result<()>,
) -> crate::error::Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    write(&mut out)?;
    out.flush().map_err(cannot_write)
}

/// Passes on what a guest's console sends, byte for byte, to the terminal that is connected to it.
///
/// # Errors
/// Standard output does not take it.
pub fn console(bytes: &[u8]) -> crate::error::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(cannot_write)
}

/// Asks a question on standard error; only `y` and `yes` are a yes.
///
/// # Errors
/// Standard input cannot be read.
pub fn ask(question: &str) -> crate::error::Result<bool> {
    {
        let mut err = anstream::stderr().lock();
        let _ = write!(err, "{question} [y/N] ");
        let _ = err.flush();
    }
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
