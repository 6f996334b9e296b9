//! The report as one page for a browser: no address in it is fetched, and nothing in it runs but its own filter.
//!
//! The page is XML, too, so that programs can read it with what they have.

use base64ct::{Base64, Encoding as _};
use minijinja::Environment;
use serde::Serialize;

use super::plain::plain;
use super::{Report, text};
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::parity::compare::Side;
use crate::parity::explain::{Explained, Group, Severity, count};
use crate::parity::policy::Applied;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// Most differences of a group: a browser lays these out at once.
const MAX_ROWS: usize = 500;

#[derive(Serialize)]
struct Page {
    /// What a browser may load and run: the style and the script of this page, by their digests.
    policy: String,
    style: &'static str,
    script: &'static str,
    schema: &'static str,
    tool_version: &'static str,
    verdict: &'static str,
    accepted: bool,
    level: &'static str,
    told: String,
    sides: [SideView; 2],
    counts: Vec<Count>,
    groups: Vec<GroupView>,
    declared: Option<PolicyView>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct PolicyView {
    name: String,
    digest: String,
    /// One if both sides have the same.
    bases: Vec<String>,
}

#[derive(Serialize)]
struct SideView {
    letter: char,
    reference: String,
    of: &'static str,
    digests: Vec<String>,
    cached: bool,
}

#[derive(Serialize)]
struct Count {
    key: &'static str,
    name: &'static str,
    n: usize,
    shown: String,
    is_shown: bool,
}

#[derive(Serialize)]
struct GroupView {
    id: &'static str,
    severity: &'static str,
    title: &'static str,
    meaning: &'static str,
    summary: String,
    hint: Option<String>,
    count: usize,
    /// The count with its word.
    n: String,
    packages: Vec<String>,
    details: Vec<String>,
    rows: Vec<Row>,
    /// How many differences have no row, with the word.
    more: Option<String>,
    more_is_one: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    package: Option<String>,
    changes: Vec<ChangeView>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct ChangeView {
    kind: &'static str,
    key: Option<String>,
    old: Option<String>,
    new: Option<String>,
}

#[derive(Serialize)]
struct Line {
    kind: &'static str,
    text: String,
}

/// The report as one page.
///
/// # Errors
/// None that is known: a failure of the template.
pub fn render(report: &Report) -> Result<String> {
    let failed = |e: minijinja::Error| Error::failed("cannot write the report as HTML").cause(e);
    let mut environment = Environment::new();
    // The name says what has to be escaped.
    environment.add_template("page.html", PAGE).map_err(failed)?;
    let page = environment.get_template("page.html").map_err(failed)?;
    page.render(minijinja::value::Serde(page_of(report))).map_err(failed)
}

fn page_of(report: &Report) -> Page {
    let (comparison, explanation) = (&report.comparison, &report.explanation);
    let told = if explanation.counts.differences == 0 {
        String::new()
    } else {
        text::told(&report.explanation.counts)
    };
    Page {
        policy: format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
            sha256(STYLE),
            sha256(SCRIPT)
        ),
        style: STYLE,
        script: SCRIPT,
        schema: report.schema,
        tool_version: report.tool_version,
        verdict: report.verdict(),
        accepted: report.accepted,
        level: comparison.level.as_str(),
        told,
        sides: [side('A', &comparison.a), side('B', &comparison.b)],
        counts: counts(report),
        groups: explanation.groups.iter().map(|group| view(report, group)).collect(),
        declared: explanation.policy.as_ref().map(policy),
        notes: all(&comparison.notes),
    }
}

fn sha256(text: &str) -> String {
    Base64::encode_string(FileDigest::of(text.as_bytes()).as_bytes())
}

fn one(text: &str) -> String {
    plain(text).into_owned()
}

fn all(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| one(text)).collect()
}

fn side(letter: char, of: &Side) -> SideView {
    let (reference, digests) = (one(&of.reference), all(&of.digests));
    SideView { letter, reference, of: of.of, digests, cached: of.cached }
}

fn policy(of: &Applied) -> PolicyView {
    let mut bases = all(&of.base);
    bases.dedup();
    PolicyView { name: one(&of.name), digest: one(&of.digest), bases }
}

fn counts(report: &Report) -> Vec<Count> {
    let of = &report.explanation.counts;
    [
        ("differences", "differences", of.differences),
        ("packages", "packages changed", of.packages),
        ("by-packages", "explained by packages", of.by_packages),
        ("state", "instance state", of.state),
        ("declared", "declared", of.declared),
        ("remain", "others", of.remain),
    ]
    .into_iter()
    .map(|(key, name, n)| Count {
        key,
        name,
        n,
        shown: number(n),
        is_shown: n > 0 || key == "differences",
    })
    .collect()
}

/// With commas.
fn number(n: usize) -> String {
    let counted = count(n, "x");
    counted.split(' ').next().unwrap_or_default().to_owned()
}

fn view(report: &Report, group: &Group) -> GroupView {
    let more = group.count.saturating_sub(MAX_ROWS);
    GroupView {
        id: group.id.about().id,
        severity: match group.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        title: group.title,
        meaning: group.meaning,
        summary: one(&group.summary),
        hint: group.hint.as_deref().map(one),
        count: group.count,
        n: if group.count == 0 { String::new() } else { count(group.count, "difference") },
        packages: group.packages.iter().map(|package| one(&package.to_string())).collect(),
        details: all(&group.details),
        rows: report.explanation.differences_of(group).take(MAX_ROWS).map(row).collect(),
        more: (more > 0).then(|| count(more, "difference")),
        more_is_one: more == 1,
    }
}

fn row(of: &Explained) -> Row {
    let changes = of.difference.changes.iter().map(|change| ChangeView {
        kind: change.kind.as_str(),
        key: change.key.as_deref().map(one),
        old: change.old.as_deref().map(one),
        new: change.new.as_deref().map(one),
    });
    Row {
        name: one(&of.name()),
        package: of.package.as_deref().map(one),
        changes: changes.collect(),
        lines: of.details.iter().map(|line| self::line(line)).collect(),
    }
}

fn line(text: &str) -> Line {
    let kind = match text.chars().next() {
        Some('+') => "add",
        Some('-') => "del",
        Some('@') => "at",
        _ => "same",
    };
    Line { kind, text: one(text) }
}
