//! The report as JUnit writes test results, which every CI shows: a case for the level and one for each class
//! of groups.

use std::fmt::Write as _;

use super::plain::plain;
use super::{Report, class, text};
use crate::parity::explain::{Group, cause};

/// Most lines of a class's failure.
const MAX_LINES: usize = 200;

/// One test.
struct Case {
    class: String,
    name: String,
    /// What the class's groups say in a line, if there are any.
    message: String,
    lines: Vec<String>,
}

/// The report as one XML document.
#[must_use]
pub fn render(report: &Report) -> String {
    let cases = cases(report);
    let found = |case: &&Case| !case.lines.is_empty();
    // What is found in sides that are as they should be is no failed test.
    let failures = if report.accepted { 0 } else { cases.iter().filter(found).count() };
    let (a, b) = (&report.comparison.a.reference, &report.comparison.b.reference);
    let numbers = format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\"", cases.len());
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    _ = writeln!(xml, "<testsuites name=\"devbox parity\" {numbers} time=\"0\">");
    let name = attribute(&format!("{a} and {b}"));
    _ = writeln!(xml, "  <testsuite name=\"{name}\" {numbers} skipped=\"0\" time=\"0\">");
    xml.push_str("    <properties>\n");
    for (name, value) in properties(report) {
        let value = attribute(&value);
        _ = writeln!(xml, "      <property name=\"{name}\" value=\"{value}\"/>");
    }
    xml.push_str("    </properties>\n");
    for case in &cases {
        let (class, name) = (attribute(&case.class), attribute(&case.name));
        _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\"");
        if case.lines.is_empty() {
            xml.push_str("/>\n");
            continue;
        }
        let lines = escaped(&case.lines.join("\n"));
        if report.accepted {
            _ = writeln!(xml, ">\n      <system-out>{lines}</system-out>\n    </testcase>");
        } else {
            let (message, kind) = (attribute(&case.message), report.verdict());
            _ = writeln!(
                xml,
                ">\n      <failure message=\"{message}\" type=\"{kind}\">{lines}</failure>\n    </testcase>"
            );
        }
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// What is known of the whole.
fn properties(report: &Report) -> Vec<(&'static str, String)> {
    let (comparison, counts) = (&report.comparison, &report.explanation.counts);
    let ids: Vec<_> = report.explanation.groups.iter().map(|group| group.id.about().id).collect();
    let mut all = vec![
        ("schema", report.schema.to_owned()),
        ("toolVersion", report.tool_version.to_owned()),
        ("verdict", report.verdict().to_owned()),
        ("accepted", report.accepted.to_string()),
        ("level", comparison.level.as_str().to_owned()),
        ("a", comparison.a.reference.clone()),
        ("a.digests", comparison.a.digests.join(" ")),
        ("b", comparison.b.reference.clone()),
        ("b.digests", comparison.b.digests.join(" ")),
        ("groups", ids.join(" ")),
        ("counts.differences", counts.differences.to_string()),
        ("counts.packages", counts.packages.to_string()),
        ("counts.byPackages", counts.by_packages.to_string()),
        ("counts.state", counts.state.to_string()),
        ("counts.declared", counts.declared.to_string()),
        ("counts.remain", counts.remain.to_string()),
    ];
    if let Some(policy) = &report.explanation.policy {
        all.push(("policy", policy.digest.clone()));
        all.push(("policy.base", policy.base.join(" ")));
    }
    all
}

/// The level first, then every class, also those without a group: a passed test.
fn cases(report: &Report) -> Vec<Case> {
    let mut lines = vec![];
    if !report.accepted {
        lines.push(report.headline());
        lines.push(text::told(&report.explanation.counts));
    }
    let level = format!("level {}", report.comparison.level.as_str());
    let whole = Case { class: "parity".into(), name: level, message: lines.join(": "), lines };
    let mut classes: Vec<&str> = cause::ALL.into_iter().map(class).collect();
    classes.sort_unstable();
    classes.dedup();
    let of_class = |name: &str| {
        let all = &report.explanation.groups;
        let groups: Vec<&Group> = all.iter().filter(|group| class(group.id) == name).collect();
        let summaries: Vec<_> = groups
            .iter()
            .map(|group| format!("{}: {}", group.id.about().id, group.summary))
            .collect();
        let lines = groups.iter().flat_map(|group| lines_of(report, group)).collect();
        let message = summaries.join("; ");
        Case { class: format!("parity.{name}"), name: name.to_owned(), message, lines }
    };
    std::iter::once(whole).chain(classes.into_iter().map(of_class)).collect()
}

fn lines_of(report: &Report, group: &Group) -> Vec<String> {
    let mut lines = vec![format!("{}: {} {}", group.id.about().id, group.meaning, group.summary)];
    lines.extend(group.hint.iter().map(|hint| format!("hint: {hint}")));
    lines.extend(group.packages.iter().map(|package| format!("  {package}")));
    lines.extend(group.details.iter().map(|detail| format!("  {detail}")));
    for one in report.explanation.differences_of(group) {
        lines.push(format!("  {}", one.line()));
        lines.extend(one.details.iter().map(|detail| format!("      {detail}")));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more lines"));
    }
    lines
}

/// Text between tags.
pub(super) fn escaped(text: &str) -> String {
    plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text in an attribute, where a parser would make blanks of line ends and tabs.
pub(super) fn attribute(text: &str) -> String {
    escaped(text).replace('"', "&quot;").replace('\n', "&#10;").replace('\t', "&#9;")
}
