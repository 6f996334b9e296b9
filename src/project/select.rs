//! Which machines a verb is about: by name, by a pattern with `*` and `?`, or all.

use crate::error::{Error, Result};
use crate::project::Member;
use crate::spec::problem::{nearest, shown};

/// The machines that `patterns` name, each once, in their own order; all where no pattern is given.
///
/// # Errors
/// A name or a pattern fits no machine (kind `Usage`).
pub fn members<'a>(all: &[&'a Member], patterns: &[String]) -> Result<Vec<&'a Member>> {
    let names: Vec<&str> = all.iter().map(|member| member.name()).collect();
    let chosen = names_of(&names, patterns)?;
    Ok(all.iter().copied().filter(|member| chosen.contains(&member.name())).collect())
}

/// The same for names alone.
///
/// # Errors
/// As [`members`].
pub fn names_of<'a>(all: &[&'a str], patterns: &[String]) -> Result<Vec<&'a str>> {
    for pattern in patterns {
        if !all.iter().any(|name| fits(pattern, name)) {
            return Err(unknown(all, pattern));
        }
    }
    let chosen = |name: &str| patterns.is_empty() || patterns.iter().any(|p| fits(p, name));
    Ok(all.iter().copied().filter(|name| chosen(name)).collect())
}

/// The one machine that `name` names, or the only one that exists. A machine that is not made yet
/// is found by its name alone. `None` if the project has no machine.
///
/// # Errors
/// There is no machine of that name, or there are several and none is named (kind `Usage`).
pub fn one<'a>(all: &'a [Member], name: Option<&str>) -> Result<Option<&'a Member>> {
    if let Some(name) = name {
        let names: Vec<&str> = all.iter().map(Member::name).collect();
        let found = all.iter().find(|member| member.name() == name);
        return found.map(Some).ok_or_else(|| unknown(&names, name));
    }
    let existing: Vec<&Member> = all.iter().filter(|m| m.instance.exists()).collect();
    match existing[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let names: Vec<&str> = existing.iter().map(|member| member.name()).collect();
            Err(Error::usage(format!("this project has several machines: {}", list(&names)))
                .hint("Name one of them."))
        }
    }
}

fn unknown(all: &[&str], pattern: &str) -> Error {
    let error = Error::usage(format!("this project has no machine `{}`", shown(pattern)));
    match nearest(pattern, all.iter().copied()) {
        Some(meant) => error.hint(format!("Did you mean `{meant}`?")),
        None if all.is_empty() => error.hint("Make one with `devbox up`."),
        None => error.hint(format!("Name one that it has: {}.", list(all))),
    }
}

/// `` `a`, `b` ``.
#[must_use]
pub fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Whether a name fits a pattern, in which `*` stands for any text and `?` for one character. Names
/// are ASCII and at most 63 bytes, so the two loops need no bound.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // `ends[i]`: the pattern so far fits the first `i` bytes of the name.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for &p in pattern {
        if p == b'*' {
            let from = ends.iter().position(|end| *end).unwrap_or(ends.len());
            ends[from..].fill(true);
        } else {
            for i in (1..ends.len()).rev() {
                ends[i] = ends[i - 1] && (p == b'?' || p == name[i - 1]);
            }
            ends[0] = false;
        }
    }
    ends[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, expected) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web-*", "web-12", true),
            ("web-*", "web", false),
            ("*", "a", true),
            ("*b*", "abc", true),
            ("a*c*", "abc", true),
            ("?", "ab", false),
            ("w??-1", "web-1", true),
            ("", "a", false),
            ("**", "a", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_taken_once_in_their_own_order_and_unknown_ones_are_refused() {
        let all = ["db", "web-1", "web-2"];
        let of = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            names_of(&all, &patterns)
        };
        assert_eq!(of(&[]).expect("all"), all);
        assert_eq!(of(&["web-2", "web-*"]).expect("two"), ["web-1", "web-2"]);
        let e = of(&["db", "wbe-1"]).expect_err("unknown");
        assert_eq!(e.kind(), crate::error::Kind::Usage);
        assert_eq!(e.hints(), ["Did you mean `web-1`?"]);
        let e = of(&["x*"]).expect_err("unknown");
        assert_eq!(e.hints(), ["Name one that it has: `db`, `web-1`, `web-2`."]);
    }
}
