//! What stands where a report was asked for and no verdict was found: a job that reads only files sees that, too,
//! and not the verdict of another day.

use serde_json::json;

use super::junit::{attribute, escaped};
use super::plain::plain;
use super::{Format, sarif};
use crate::error::Error;
use crate::parity::Level;

/// A comparison without an answer.
#[derive(Debug)]
pub struct Failed<'a> {
    /// Both sides as they were named.
    pub sides: [String; 2],
    /// The level that was asked for.
    pub level: Level,
    /// Why nobody can tell.
    pub error: &'a Error,
}

impl Failed<'_> {
    /// It in this form; ends with a line feed.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => format!("{}\n{}\n", self.headline(), self.why()),
            Format::Json => self.json(),
            Format::Junit => self.junit(),
            Format::Sarif => self.sarif(),
            Format::Html => self.html(),
        }
    }

    fn headline(&self) -> String {
        format!("undetermined at level {}", self.level.as_str())
    }

    fn why(&self) -> String {
        plain(&self.error.to_string()).into_owned()
    }

    fn json(&self) -> String {
        let [a, b] = &self.sides;
        let object = json!({
            "schema": "devbox.parity-error/1",
            "toolVersion": env!("CARGO_PKG_VERSION"),
            "accepted": false,
            "verdict": "undetermined",
            "level": self.level,
            "a": { "reference": a },
            "b": { "reference": b },
            "error": self.why(),
        });
        format!("{object:#}\n")
    }

    fn junit(&self) -> String {
        let name = attribute(&self.sides.join(" and "));
        let level = self.level.as_str();
        let (message, why) = (attribute(self.error.what()), escaped(&self.why()));
        let numbers = "tests=\"1\" failures=\"0\" errors=\"1\"";
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"devbox parity\" {numbers} time=\"0\">\n  \
             <testsuite name=\"{name}\" {numbers} skipped=\"0\" time=\"0\">\n    \
             <properties><property name=\"verdict\" value=\"undetermined\"/></properties>\n    \
             <testcase classname=\"parity\" name=\"level {level}\" time=\"0\">\n      \
             <error message=\"{message}\" type=\"undetermined\">{why}</error>\n    \
             </testcase>\n  </testsuite>\n</testsuites>\n"
        )
    }

    fn sarif(&self) -> String {
        let notification = json!({ "level": "error", "message": { "text": self.why() } });
        let run = json!({
            "tool": { "driver": { "name": "devbox", "version": env!("CARGO_PKG_VERSION") } },
            "invocations": [{
                "executionSuccessful": false,
                "exitCode": self.error.kind().exit_code(),
                "toolExecutionNotifications": [notification],
            }],
            "results": [],
            "properties": { "verdict": "undetermined", "level": self.level },
        });
        format!(
            "{:#}\n",
            json!({ "$schema": sarif::SCHEMA, "version": sarif::VERSION, "runs": [run] })
        )
    }

    fn html(&self) -> String {
        let sides = escaped(&self.sides.join(" and "));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'\"/>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
             <meta name=\"color-scheme\" content=\"light dark\"/>\
             <title>undetermined: {sides}</title></head>\n\
             <body data-verdict=\"undetermined\"><h1>? {}</h1><p>{sides}</p><pre>{}</pre></body></html>\n",
            self.headline(),
            escaped(&self.why())
        )
    }
}
