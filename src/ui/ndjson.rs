//! Events for programs: one JSON object a line on standard output.
//!
//! `"schema": 1`: keys and kinds of events may be added; one that goes or changes its meaning makes it 2.

use serde_json::{Value, json};

use crate::error::Error;
use crate::event::{Event, Sink};

/// Writes each event as it comes.
#[derive(Debug, Default)]
pub struct Ndjson(());

impl Ndjson {
    /// On this program's standard output.
    #[must_use]
    pub fn new() -> Self {
        Ndjson(())
    }
}

impl Sink for Ndjson {
    fn emit(&self, event: Event) {
        line(value(event));
    }
}

/// The last line: how the command ended.
pub fn end(code: u8, error: Option<&Error>) {
    let error = error.map(|e| {
        json!({"what": e.what(), "causes": e.causes(), "details": e.details(), "hints": e.hints()})
    });
    line(json!({"event": "end", "exit": code, "error": error}));
}

fn line(mut value: Value) {
    value["schema"] = json!(1);
    value["time"] = json!(jiff::Timestamp::now().to_string());
    // Whoever reads the events has gone: the work goes on all the same.
    let _ = super::line(&value.to_string());
}

fn value(event: Event) -> Value {
    match event {
        Event::Phase(text) => json!({"event": "phase", "text": text}),
        Event::Done { text, took } => {
            json!({"event": "done", "text": text, "seconds": took.as_secs_f64()})
        }
        Event::Part { text, took } => {
            json!({"event": "part", "text": text, "seconds": took.as_secs_f64()})
        }
        Event::Note(text) => json!({"event": "note", "text": text}),
        Event::Warning(text) => json!({"event": "warning", "text": text}),
        Event::Asks => json!({"event": "asks"}),
        Event::Output { from, line } => json!({"event": "output", "from": from, "text": line}),
        Event::Program { name, line } => json!({"event": "program", "from": name, "text": line}),
        Event::Progress { what, done, total } => {
            json!({"event": "progress", "text": what, "done": done, "total": total})
        }
        Event::Of { machine, event } => {
            let mut value = value(*event);
            value["machine"] = json!(machine);
            value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_event_of_one_among_several_names_its_machine() {
        let done = Event::Done { text: "up".to_owned(), took: Duration::from_millis(1500) };
        let of = Event::Of { machine: "web".to_owned(), event: Box::new(done) };
        let expected = json!({"event": "done", "text": "up", "seconds": 1.5, "machine": "web"});
        assert_eq!(value(of), expected);
    }
}
