//! What the engine says while it works. The engine sends events; only [`crate::ui`] prints them.

use std::sync::Arc;
use std::time::Duration;

/// One thing that happened. Text fields are for people and end without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins (`Booting web-1 …`). A new phase ends the one before.
    Phase(String),
    /// The current phase ended well: past tense, with what came out.
    Done {
        /// What was done (`booted, ssh answers`).
        text: String,
        /// How long the phase took.
        took: Duration,
    },
    /// One part of the current phase ended well, and the phase goes on.
    Part {
        /// What was done.
        text: String,
        /// How long the part took.
        took: Duration,
    },
    /// A fact that people should see, in a sentence.
    Note(String),
    /// Something is not as asked, and the work goes on.
    Warning(String),
    /// A person is asked something on the terminal: until the next phase nothing moves there.
    Asks,
    /// One line of what runs in a guest; people always see it.
    Output {
        /// Where it comes from (`step 2 install`).
        from: String,
        /// The line, without its line end.
        line: String,
    },
    /// One line of a helper program of the host; people see it with `--verbose`.
    Program {
        /// The program (`mmdebstrap`).
        name: String,
        /// The line, without its line end.
        line: String,
    },
    /// What one of several machines does that come up or go down at once.
    Of {
        /// The machine's name.
        machine: String,
        /// What it does.
        event: Box<Event>,
    },
    /// How far a long transfer or computation is.
    Progress {
        /// What is being worked on.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
}

/// Takes events; must not block for long.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// A shared sink, cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<dyn Sink>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Wraps a sink.
    pub fn new(sink: impl Sink + 'static) -> Self {
        Events(Arc::new(sink))
    }

    /// A sink that drops everything, for library users and tests.
    #[must_use]
    pub fn silent() -> Self {
        struct Silent;
        impl Sink for Silent {
            fn emit(&self, _: Event) {}
        }
        Self::new(Silent)
    }

    /// The same sink for one of several that work at once: each text begins with `name`, and its
    /// phases are parts of the phase that all of them are in.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self::new(Part { name: name.to_owned(), whole: self.clone() })
    }

    /// Sends any event.
    pub fn emit(&self, event: Event) {
        self.0.emit(event);
    }

    /// Begins a phase.
    pub fn phase(&self, text: impl Into<String>) {
        self.emit(Event::Phase(text.into()));
    }

    /// Ends the phase.
    pub fn done(&self, text: impl Into<String>, took: Duration) {
        self.emit(Event::Done { text: text.into(), took });
    }

    /// States a fact.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note(text.into()));
    }

    /// Warns.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning(text.into()));
    }

    /// Passes on one line of a helper program of the host.
    pub fn program(&self, name: &str, line: impl Into<String>) {
        self.emit(Event::Program { name: name.to_owned(), line: line.into() });
    }

    /// Passes on one line of what runs in a guest.
    pub fn output(&self, from: &str, line: impl Into<String>) {
        self.emit(Event::Output { from: from.to_owned(), line: line.into() });
    }
}

/// See [`Events::part`].
struct Part {
    name: String,
    whole: Events,
}

impl Sink for Part {
    fn emit(&self, event: Event) {
        self.whole.emit(Event::Of { machine: self.name.clone(), event: Box::new(event) });
    }
}

impl Event {
    /// The same event with each of its texts changed.
    #[must_use]
    pub fn with_texts(self, change: &dyn Fn(String) -> String) -> Self {
        match self {
            Event::Phase(text) => Event::Phase(change(text)),
            Event::Done { text, took } => Event::Done { text: change(text), took },
            Event::Part { text, took } => Event::Part { text: change(text), took },
            Event::Note(text) => Event::Note(change(text)),
            Event::Warning(text) => Event::Warning(change(text)),
            Event::Asks => Event::Asks,
            Event::Output { from, line } => {
                Event::Output { from: change(from), line: change(line) }
            }
            Event::Program { name, line } => {
                Event::Program { name: change(name), line: change(line) }
            }
            Event::Of { machine, event } => {
                Event::Of { machine, event: Box::new(event.with_texts(change)) }
            }
            Event::Progress { what, done, total } => {
                Event::Progress { what: change(what), done, total }
            }
        }
    }

    /// As one line after another of one screen, that of a machine among several begins with its name,
    /// and its phases are parts of the phase that all of them are in.
    #[must_use]
    pub fn flat(self) -> Self {
        let Event::Of { machine, event } = self else { return self };
        let named = |text: String| format!("{machine}: {text}");
        match event.flat() {
            Event::Phase(text) | Event::Note(text) => Event::Note(named(text)),
            Event::Done { text, took } | Event::Part { text, took } => {
                Event::Part { text: named(text), took }
            }
            Event::Warning(text) => Event::Warning(named(text)),
            Event::Asks => Event::Asks,
            Event::Output { from, line } => Event::Output { from: named(from), line },
            Event::Program { name, line } => Event::Program { name: named(name), line },
            Event::Progress { what, done, total } => {
                Event::Progress { what: named(what), done, total }
            }
            of @ Event::Of { .. } => of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_one_among_several_carry_its_name() {
        let of = |event| Event::Of { machine: "web".to_owned(), event: Box::new(event) };
        let flat = of(Event::Phase("Booting".to_owned())).flat();
        assert_eq!(flat, Event::Note("web: Booting".to_owned()));
        let flat = of(of(Event::Warning("late".to_owned()))).flat();
        assert_eq!(flat, Event::Warning("web: web: late".to_owned()));
        assert_eq!(Event::Note("x".to_owned()).flat(), Event::Note("x".to_owned()));
    }
}
