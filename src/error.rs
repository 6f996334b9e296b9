//! One error type for everything a user can meet: what failed, on which object, what to do next.
//!
//! The grammar of messages: [`Error::what`] is a lower-case fragment without a full stop, with the
//! object in backticks; a hint is a full imperative sentence with the next command.

use std::fmt;
use std::io;

/// Exit codes of the program, the same for every verb.
pub mod exit {
    /// Done, or equal.
    pub const OK: u8 = 0;
    /// Failed, or different.
    pub const FAILED: u8 = 1;
    /// Wrong usage, or a bad spec.
    pub const USAGE: u8 = 2;
    /// Could not tell: unreadable or hostile input, or a limit was hit.
    pub const UNDETERMINED: u8 = 3;
    /// A signature or the trust in it failed.
    pub const TRUST: u8 = 4;
    /// `ssh` and `exec`: devbox itself failed, the guest's command did not run.
    pub const SSH_FAILED: u8 = 255;
    /// Interrupted by the user.
    pub const INTERRUPTED: u8 = 130;
}

/// What a failure means for the caller; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The work was tried and failed.
    Failed,
    /// The command line or the spec is wrong.
    Usage,
    /// The answer could not be found: an image that cannot be read, a limit, an unknown feature.
    Undetermined,
    /// A signature or trust failure.
    Trust,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Kind {
    /// The exit code of this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => exit::FAILED,
            Kind::Usage => exit::USAGE,
            Kind::Undetermined => exit::UNDETERMINED,
            Kind::Trust => exit::TRUST,
            Kind::Interrupted => exit::INTERRUPTED,
        }
    }
}

/// A failure with its object, its cause, evidence and the next step.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    what: String,
    causes: Vec<String>,
    details: Vec<String>,
    hints: Vec<String>,
    lacks_space: bool,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `what` says what failed on which object.
    #[must_use]
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        let what = line(what.into());
        Error { kind, what, causes: vec![], details: vec![], hints: vec![], lacks_space: false }
    }

    /// The work was tried and failed (exit 1).
    #[must_use]
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Wrong usage or a bad spec (exit 2).
    #[must_use]
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Could not tell (exit 3).
    #[must_use]
    pub fn undetermined(what: impl Into<String>) -> Self {
        Self::new(Kind::Undetermined, what)
    }

    /// Interrupted (exit 130).
    #[must_use]
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, what)
    }

    /// Adds the underlying cause, printed as `caused by:`.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(lines(cause.to_string()));
        self
    }

    /// Adds a line of evidence: a path of a log, a last line of output.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.details.push(lines(text.into()));
        self
    }

    /// Adds a hint: a full sentence that says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(line(hint.into()));
        self
    }

    /// The same failure with another meaning for the caller.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Puts `what` in front; the former message becomes the first cause.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.what, line(what.into())));
        self
    }

    /// The same failure with each of its texts changed.
    #[must_use]
    pub fn with_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        self.what = change(&self.what);
        for list in [&mut self.causes, &mut self.details, &mut self.hints] {
            for text in list {
                *text = change(text);
            }
        }
        self
    }

    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What failed, on which object.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Underlying causes, outermost first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// Evidence lines.
    #[must_use]
    pub fn details(&self) -> &[String] {
        &self.details
    }

    /// What to do next.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether it is that a disk was full, or somebody's share of it.
    #[must_use]
    pub fn lacks_space(&self) -> bool {
        self.lacks_space
    }
}

/// Text without what a terminal would obey. Names in images and what guests say stand in messages, and
/// could otherwise clear the screen or make up a line of their own.
fn lines(text: String) -> String {
    without(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// As [`lines`], of one line.
fn line(text: String) -> String {
    without(text, char::is_control)
}

fn without(text: String, hidden: impl Fn(char) -> bool) -> String {
    if !text.contains(&hidden) {
        return text;
    }
    let shown = |c: char| if hidden(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(shown).collect()
}

/// The whole message over several lines, as the terminal shows it, without colour.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {}", cause.replace('\n', "\n    "))?;
        }
        for line in &self.details {
            write!(f, "\n  {}", line.replace('\n', "\n  "))?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// `fs-err` puts the operation and the path into the text, so the text alone is the message.
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        let mut error = Error::failed(e.to_string());
        error.lacks_space =
            matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if error.lacks_space {
            return error.hint("Free some space on that disk, then run the same command again.");
        }
        error
    }
}

/// Adds the object and the operation to a plain error.
pub trait Context<T> {
    /// Turns the error into an [`Error`] with `what` in front and the old text as its cause.
    ///
    /// # Errors
    /// The mapped error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().context(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_cause_evidence_and_hint_in_this_order() {
        let e =
            Error::failed("cannot boot `web`").cause("no kernel").detail("log: /x").hint("Do y.");
        assert_eq!(
            e.to_string(),
            "cannot boot `web`\n  caused by: no kernel\n  log: /x\nhint: Do y."
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let e = Error::undetermined("`a\n\x1b[2Jb` is damaged")
            .cause("one\r\ntwo")
            .detail("\u{9b}31m\tx")
            .hint("Run `a\nb`.")
            .context("in `\x07`");
        assert_eq!(
            e.to_string(),
            "in `\\u{7}`\n  caused by: `a\\n\\u{1b}[2Jb` is damaged\n  caused by: one\\r\n    two\n  \
             \\u{9b}31m\tx\nhint: Run `a\\nb`."
        );
    }

    #[test]
    fn context_keeps_the_former_message_as_first_cause() {
        let e = Error::undetermined("inner").cause("deepest").context("outer");
        assert_eq!(e.what(), "outer");
        assert_eq!(e.causes(), ["inner", "deepest"]);
        assert_eq!(e.kind(), Kind::Undetermined);
    }
}
