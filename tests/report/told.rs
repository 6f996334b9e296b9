//! What each form tells of a comparison: read back from its text, the same of all of them.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

/// The counts of a report, as JSON names them.
const COUNTS: [&str; 6] = ["differences", "packages", "byPackages", "state", "declared", "remain"];

/// What every form tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) verdict: String,
    pub(crate) level: String,
    /// Those of the JSON object; a text has the first alone.
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) groups: BTreeSet<String>,
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn counts(of: impl Fn(&str) -> u64) -> BTreeMap<String, u64> {
    COUNTS.iter().map(|name| ((*name).to_owned(), of(name))).collect()
}

fn word(value: &Value) -> String {
    value.as_str().expect("a word").to_owned()
}

pub(crate) fn by_json(text: &str) -> Told {
    let all = json(text);
    let groups = all["groups"].as_array().expect("groups");
    let differences = all["differences"].as_array().expect("differences");
    assert_eq!(all["counts"]["differences"], differences.len());
    for group in groups {
        let members = differences.iter().filter(|one| one["group"] == group["id"]).count();
        assert_eq!(group["count"], members, "{group}");
    }
    Told {
        verdict: word(&all["verdict"]),
        level: word(&all["level"]),
        counts: counts(|name| all["counts"][name].as_u64().expect(name)),
        groups: groups.iter().map(|group| word(&group["id"])).collect(),
    }
}

pub(crate) fn by_sarif(text: &str) -> Told {
    let all = json(text);
    let run = &all["runs"][0];
    let (rules, results) = (&run["tool"]["driver"]["rules"], &run["results"]);
    let ids = |of: &Value, key: &str| -> BTreeSet<String> {
        of.as_array().expect("a list").iter().map(|one| word(&one[key])).collect()
    };
    assert_eq!(ids(rules, "id"), ids(results, "ruleId"));
    for result in results.as_array().expect("results") {
        let at = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(rules[at]["id"], result["ruleId"]);
    }
    let of = &run["properties"];
    Told {
        verdict: word(&of["verdict"]),
        level: word(&of["level"]),
        counts: counts(|name| of["counts"][name].as_u64().expect(name)),
        groups: ids(results, "ruleId"),
    }
}

pub(crate) fn by_junit(text: &str) -> Told {
    let document = roxmltree::Document::parse(text).expect("XML");
    let named = |name: &str| {
        let is = |node: &roxmltree::Node<'_, '_>| node.attribute("name") == Some(name);
        let property = document.descendants().filter(|n| n.has_tag_name("property")).find(is);
        property.and_then(|node| node.attribute("value")).expect(name).to_owned()
    };
    // The groups are in the lines of the cases, too: one line begins with each id.
    let told = document
        .descendants()
        .filter(|n| n.has_tag_name("failure") || n.has_tag_name("system-out"));
    let lines: String = told.filter_map(|node| node.text()).map(|t| format!("{t}\n")).collect();
    let head = Regex::new(r"(?m)^([a-z]+\.[a-z-]+): ").expect("a pattern");
    let groups = head.captures_iter(&lines).map(|found| found[1].to_owned()).collect();
    let listed: BTreeSet<_> = named("groups").split_whitespace().map(str::to_owned).collect();
    assert_eq!(listed, groups);
    Told {
        verdict: named("verdict"),
        level: named("level"),
        counts: counts(|name| named(&format!("counts.{name}")).parse().expect("a number")),
        groups,
    }
}

pub(crate) fn by_html(text: &str) -> Told {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options).expect("XML");
    let body = document.descendants().find(|n| n.has_tag_name("body")).expect("a body");
    let of = |name: &str| body.attribute(name).expect(name).to_owned();
    let key = |name: &str| format!("data-count-{}", name.replace("byP", "by-p"));
    // What a person reads: the line of the verdict.
    let head = document.descendants().find(|n| n.has_tag_name("h1")).expect("a headline");
    let words: String =
        head.descendants().filter_map(|n| n.text().filter(|_| n.is_text())).collect();
    assert!(
        words.contains(&format!(" {} at level {}", of("data-verdict"), of("data-level"))),
        "{words}"
    );
    let groups: Vec<_> =
        document.descendants().filter(|n| n.attribute("data-group").is_some()).collect();
    for group in &groups {
        let rows = |n: &roxmltree::Node<'_, '_>| n.attribute("class") == Some("where");
        let rows = group.descendants().filter(rows).count();
        let n: usize = group.attribute("data-count").expect("a count").parse().expect("a number");
        assert_eq!(rows, n.min(500));
    }
    Told {
        verdict: of("data-verdict"),
        level: of("data-level"),
        counts: counts(|name| of(&key(name)).parse().expect("a number")),
        groups: groups
            .iter()
            .filter_map(|n| n.attribute("data-group"))
            .map(str::to_owned)
            .collect(),
    }
}

/// Of the text with `--all`; it has no counts but the first.
pub(crate) fn by_text(text: &str) -> Told {
    let head = Regex::new(r"^(\w+) at level (\w+)").expect("a pattern");
    let head = head.captures(text).expect("a headline");
    let all = Regex::new(r"(?m)^  ([0-9,]+) differences?\b").expect("a pattern");
    let n =
        all.captures(text).map_or(0, |found| found[1].replace(',', "").parse().expect("a number"));
    let group = Regex::new(r"(?m)^[!~-] [^(\n]*\(([a-z]+\.[a-z-]+)\): ").expect("a pattern");
    Told {
        verdict: head[1].to_owned(),
        level: head[2].to_owned(),
        counts: BTreeMap::from([("differences".to_owned(), n)]),
        groups: group.captures_iter(text).map(|found| found[1].to_owned()).collect(),
    }
}
