//! The report on a terminal: 80 columns, groups by rank, what to do next; it makes sense without colour.

use globset::{GlobBuilder, GlobMatcher};

use super::Report;
use crate::error::{Error, Result};
use crate::parity::explain::{Cause, Counts, Explained, Explanation, Group, Severity, count};

/// Columns that a line may have.
const WIDTH: usize = 80;
/// Where the summary of a group begins.
const COLUMN: usize = 19;
/// Most lines for the groups of rank 1 to 4, which are what somebody has to act on.
const URGENT: usize = 12;
/// The last of these ranks.
const URGENT_RANK: u8 = 4;

/// What is listed below the groups.
#[derive(Debug, Default)]
pub struct Shown {
    /// Every difference.
    pub all: bool,
    /// Only these groups, with every difference in them.
    pub groups: Vec<Cause>,
    /// Only differences at paths that fit, with all that is known of each.
    pub path: Option<GlobMatcher>,
}

impl Shown {
    /// Reads group ids and a pattern for paths.
    ///
    /// # Errors
    /// Kind `Usage`: no such group, or the pattern makes no sense.
    pub fn parse(all: bool, groups: &[String], path: Option<&str>) -> Result<Self> {
        let group = |id: &String| {
            Cause::by_id(id).ok_or_else(|| {
                Error::usage(format!("there is no group `{id}`")).hint(
                    "The report without `--group` names those that differ, as in `access.sudo`.",
                )
            })
        };
        let groups = groups.iter().map(group).collect::<Result<_>>()?;
        let path = path.map(matcher).transpose()?;
        Ok(Shown { all, groups, path })
    }

    fn is_list(&self) -> bool {
        self.all || !self.groups.is_empty() || self.path.is_some()
    }

    fn has(&self, one: &Explained) -> bool {
        (self.groups.is_empty() || self.groups.contains(&one.group))
            && self.path.as_ref().is_none_or(|path| path.is_match(one.name()))
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher> {
    // `*` stays in one component, as in a shell.
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|e| {
        Error::usage(format!("`{pattern}` is no pattern for paths"))
            .cause(e.kind())
            .hint("Write it as in a shell, from the root: `/etc/**/*.conf`.")
    })
}

/// The lines of the report.
#[must_use]
pub fn lines(report: &Report, shown: &Shown) -> Vec<String> {
    let mut lines = vec![report.headline()];
    let counts = &report.explanation.counts;
    if counts.differences > 0 {
        lines.push(format!("  {}", told(counts)));
    }
    if let Some(policy) = &report.explanation.policy {
        lines.push(format!("  {} of {}", policy.digest, policy.name));
        match &policy.base[..] {
            [a, b] if a == b => lines.push(format!("  {a} on both sides")),
            [a, b] => lines.push(format!("  {a}, {b}")),
            _ => {}
        }
    }
    if shown.is_list() {
        lines.extend(listed(&report.explanation, shown));
        return lines;
    }
    lines.extend(overview(&report.explanation.groups));
    if counts.differences > 0 {
        lines.push("`--group ID` lists a group, `--all` every difference.".to_owned());
    }
    lines
}

/// How many differences there are, and what explains them.
#[must_use]
pub fn told(counts: &Counts) -> String {
    let mut parts = vec![];
    if counts.by_packages > 0 {
        parts.push(format!(
            "{} by {}",
            number(counts.by_packages),
            count(counts.packages, "package")
        ));
    }
    if counts.state > 0 {
        parts.push(format!("{} of instance state", number(counts.state)));
    }
    if counts.declared > 0 {
        parts.push(format!("{} declared", number(counts.declared)));
    }
    let all = count(counts.differences, "difference");
    if parts.is_empty() {
        return all;
    }
    if counts.remain > 0 {
        parts.push(format!("{} others", number(counts.remain)));
    }
    format!("{all}: {}", parts.join(", "))
}

fn number(n: usize) -> String {
    let counted = count(n, "x");
    counted.split(' ').next().unwrap_or_default().to_owned()
}

/// A group a line, the urgent ones in at most [`URGENT`] lines.
fn overview(groups: &[Group]) -> Vec<String> {
    let split = groups.partition_point(|group| group.rank <= URGENT_RANK);
    let (urgent, rest) = groups.split_at(split);
    let mut lines = fitted(urgent, URGENT, |more| {
        format!("! and {} of rank 1 to {URGENT_RANK} (`--all`)", count(more, "more group"))
    });
    lines.extend(rest.iter().flat_map(block));
    lines
}

/// A group a line, in at most `most` lines; `end` says how many groups have none.
pub fn fitted(groups: &[Group], most: usize, end: impl Fn(usize) -> String) -> Vec<String> {
    let mut blocks: Vec<Vec<String>> = groups.iter().map(block).collect();
    let total = |blocks: &[Vec<String>]| blocks.iter().map(Vec::len).sum::<usize>();
    // The least important ones give up their hints first.
    for i in (0..blocks.len()).rev() {
        if total(&blocks) <= most {
            break;
        }
        blocks[i] = vec![line(&groups[i])];
    }
    let mut lines: Vec<String> = blocks.into_iter().flatten().collect();
    if lines.len() > most {
        let more = lines.len() - (most - 1);
        lines.truncate(most - 1);
        lines.push(end(more));
    }
    lines
}

/// The mark in front of a line.
fn mark(group: &Group) -> char {
    match group.severity {
        Severity::Error => '!',
        Severity::Warning => '~',
        Severity::Note => '-',
    }
}

fn head(group: &Group) -> String {
    format!("{} {:<width$}", mark(group), group.title, width = COLUMN - 2)
}

/// A group in one line.
fn line(group: &Group) -> String {
    cut(&format!("{}{}", head(group), group.summary))
}

/// A group with its whole summary and its hint, in a few lines.
fn block(group: &Group) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for (i, part) in wrapped(&group.summary, WIDTH - COLUMN, 2).into_iter().enumerate() {
        let start = if i == 0 { head(group) } else { " ".repeat(COLUMN) };
        lines.push(format!("{start}{part}"));
    }
    if lines.is_empty() {
        lines.push(head(group).trim_end().to_owned());
    }
    if let Some(hint) = &group.hint {
        let hint = format!("hint: {hint}");
        for part in wrapped(&hint, WIDTH - COLUMN, 4) {
            lines.push(format!("{}{part}", " ".repeat(COLUMN)));
        }
    }
    lines
}

/// Every difference that is asked for, by group.
#[must_use]
pub fn listed(explanation: &Explanation, shown: &Shown) -> Vec<String> {
    let mut lines = vec![];
    for group in &explanation.groups {
        let members: Vec<_> =
            explanation.differences_of(group).filter(|one| shown.has(one)).collect();
        let whole =
            shown.path.is_none() && (shown.groups.is_empty() || shown.groups.contains(&group.id));
        if members.is_empty() && !whole {
            continue;
        }
        let id = group.id.about().id;
        lines.push(format!("{} {} ({id}): {}", mark(group), group.title, group.meaning));
        if whole {
            lines.extend(group.packages.iter().map(|package| format!("    {package}")));
            lines.extend(group.details.iter().map(|detail| format!("    {detail}")));
            lines.extend(group.hint.iter().map(|hint| format!("    hint: {hint}")));
        }
        for one in members {
            let package =
                one.package.as_ref().map(|name| format!("  [{name}]")).unwrap_or_default();
            lines.push(format!("  {}{package}", one.line()));
            lines.extend(one.details.iter().map(|detail| format!("      {detail}")));
        }
    }
    lines
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    let short: String = text.chars().take(WIDTH - 4).collect();
    format!("{} ...", short.trim_end())
}

/// A text in lines of at most `width` columns; what does not fit `most` lines is cut.
fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in text.split_whitespace() {
        let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
        if let Some(line) = lines.last_mut().filter(|line| fits(line)) {
            line.push(' ');
            line.push_str(word);
            continue;
        }
        // A path that is longer than a line goes on in the next one.
        let letters: Vec<char> = word.chars().collect();
        lines.extend(letters.chunks(width).map(|part| part.iter().collect()));
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            let short: String = last.chars().take(width - 4).collect();
            *last = format!("{} ...", short.trim_end());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(cause: Cause, summary: &str, hint: Option<&str>) -> Group {
        let about = cause.about();
        Group {
            id: cause,
            rank: about.rank,
            severity: cause.severity(),
            title: about.title,
            meaning: about.meaning,
            summary: summary.to_owned(),
            hint: hint.map(str::to_owned),
            count: 1,
            packages: vec![],
            details: vec![],
        }
    }

    #[test]
    fn the_first_ranks_take_twelve_lines_at_most_and_no_line_is_too_long() {
        let long = "word ".repeat(100);
        let all: Vec<_> = crate::parity::explain::cause::ALL
            .into_iter()
            .map(|cause| group(cause, &long, Some(&long)))
            .collect();
        let urgent = all.iter().filter(|group| group.rank <= URGENT_RANK).count();
        assert!(urgent > URGENT, "{urgent}");
        for n in 0..=urgent {
            let lines = overview(&all[..n]);
            assert!(lines.len() <= URGENT, "{n}: {lines:#?}");
            assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        }
        assert!(overview(&all).iter().all(|line| line.chars().count() <= WIDTH));
        assert!(overview(&all)[URGENT - 1].contains("more groups"));
    }

    #[test]
    fn a_long_summary_goes_on_below_itself() {
        let lines = block(&group(Cause::Sudo, &"abc ".repeat(30), Some("Do this.")));
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("! sudo             abc"), "{}", lines[0]);
        assert!(lines[1].starts_with("                   abc"), "{}", lines[1]);
        assert_eq!(lines[2].trim(), "hint: Do this.");
    }
}
