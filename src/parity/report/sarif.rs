//! The report as findings, SARIF 2.1.0: a rule for each group, a result for each difference.

use serde_json::{Value, json};

use super::plain::plain;
use super::{Report, text};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::parity::difference::Place;
use crate::parity::explain::{Explained, Group, Severity};
use crate::parity::spelling;

/// The version of the format.
pub(super) const VERSION: &str = "2.1.0";
/// Where its schema is published.
pub(super) const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// What stands for the root of the compared system.
const BASE: &str = "GUEST";
/// Most results of a group: code hosts take 25,000 in all, and show fewer.
const MAX_RESULTS: usize = 1000;
/// Most characters of a message: code hosts cut longer ones.
const MAX_MESSAGE: usize = 4000;

/// The report as one log with one run.
///
/// # Errors
/// None that is known: a failure of the writer.
pub fn render(report: &Report) -> Result<String> {
    let groups = &report.explanation.groups;
    let rules: Vec<_> = groups.iter().map(rule).collect();
    let results: Vec<_> =
        groups.iter().enumerate().flat_map(|(at, group)| results(report, at, group)).collect();
    let not_shown: usize = groups.iter().map(|group| group.count.saturating_sub(MAX_RESULTS)).sum();
    let comparison = &report.comparison;
    let driver = json!({
        "name": "devbox",
        "fullName": "devbox parity",
        "version": report.tool_version,
        "semanticVersion": report.tool_version,
        "rules": rules,
    });
    let run = json!({
        "tool": { "driver": driver },
        "invocations": [{ "executionSuccessful": true, "exitCode": i32::from(!report.accepted) }],
        "originalUriBaseIds": { BASE: {
            "uri": "file:///",
            "description": { "text": "The root of the compared system." },
        } },
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "schema": report.schema,
            "verdict": report.verdict(),
            "accepted": report.accepted,
            "headline": plain(&report.headline()),
            "level": comparison.level,
            "a": comparison.a,
            "b": comparison.b,
            "counts": report.explanation.counts,
            "told": text::told(&report.explanation.counts),
            "policy": report.explanation.policy,
            "notShown": not_shown,
        },
    });
    let log = json!({ "$schema": SCHEMA, "version": VERSION, "runs": [run] });
    let text = serde_json::to_string_pretty(&log)
        .map_err(|e| Error::failed("cannot write the report as SARIF").cause(e))?;
    Ok(text + "\n")
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn rule(group: &Group) -> Value {
    json!({
        "id": group.id,
        "name": group.title,
        "shortDescription": { "text": group.meaning },
        "help": { "text": group.hint.as_deref().map_or_else(|| group.meaning.to_owned(), |hint| format!("{} {hint}", group.meaning)) },
        "defaultConfiguration": { "level": level(group.severity) },
        "properties": { "rank": group.rank, "count": group.count, "summary": plain(&group.summary) },
    })
}

fn results(report: &Report, at: usize, group: &Group) -> Vec<Value> {
    let result = |message: &[String], locations: Vec<Value>, print: String| {
        json!({
            "ruleId": group.id,
            "ruleIndex": at,
            "level": level(group.severity),
            "message": { "text": cut(&plain(&message.join("\n"))) },
            "locations": locations,
            "partialFingerprints": { "devboxParity/v1": print },
        })
    };
    let of_one = |one: &Explained| {
        let message: Vec<_> = std::iter::once(one.line()).chain(one.details.clone()).collect();
        result(&message, vec![location(one)], fingerprint(group, one))
    };
    let all: Vec<_> =
        report.explanation.differences_of(group).take(MAX_RESULTS).map(of_one).collect();
    if !all.is_empty() {
        return all;
    }
    // A finding about the whole: packages without a path of theirs, keys that both sides hold.
    let packages = group.packages.iter().map(ToString::to_string);
    let message: Vec<_> = std::iter::once(group.summary.clone()).chain(packages).collect();
    let print = FileDigest::of(format!("{}\n{}", group.id.about().id, group.summary).as_bytes());
    let locations = group.details.iter().filter_map(|path| physical(path)).collect();
    vec![result(&message, locations, print.hex())]
}

/// The same finding has the same fingerprint in every run: group, place, changes.
fn fingerprint(group: &Group, one: &Explained) -> String {
    let of = json!([group.id, one.difference.place, one.path, one.difference.changes]);
    FileDigest::of(of.to_string().as_bytes()).hex()
}

fn location(one: &Explained) -> Value {
    let path = match (&one.path, &one.difference.place) {
        (Some(path), _) => physical(path),
        (None, Place::Path(_, path)) => Some(artifact(path)),
        (None, _) => None,
    };
    let place = one.difference.place.to_string();
    path.unwrap_or_else(
        || json!({ "logicalLocations": [{ "fullyQualifiedName": plain(&place), "kind": "resource" }] }),
    )
}

/// A path as reports spell it.
fn physical(path: &str) -> Option<Value> {
    let path = path.strip_prefix('/')?;
    let bytes = if path.is_empty() { vec![] } else { spelling::read(path.as_bytes())? };
    Some(artifact(&bytes))
}

fn artifact(path: &[u8]) -> Value {
    // RFC 3986, section 3.3: a path's first part without a colon, or it looks like a scheme.
    let uri: String = path
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(*byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let uri = if uri.is_empty() { ".".to_owned() } else { uri };
    json!({ "physicalLocation": { "artifactLocation": { "uri": uri, "uriBaseId": BASE } } })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_MESSAGE {
        return text.to_owned();
    }
    text.chars().take(MAX_MESSAGE - 4).chain(" ...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_address_whatever_its_name_holds() {
        let of = |path: &str| {
            physical(path).map(|it| it["physicalLocation"]["artifactLocation"]["uri"].clone())
        };
        assert_eq!(of("/etc/a\\x20b\\x3d%"), Some(json!("etc/a%20b%3D%25")));
        assert_eq!(of("/c:<script>"), Some(json!("c%3A%3Cscript%3E")));
        assert_eq!(of("/"), Some(json!(".")));
        assert_eq!(of("partition 3"), None);
    }
}
