//! What differs in the files of users and groups, by field and never with a password in it (passwd(5), group(5),
//! shadow(5), gshadow(5), subuid(5)).

use std::collections::BTreeMap;

/// Fields after the name, for each kind of file; `None`: a secret, of which only its state is told.
type Fields = &'static [Option<&'static str>];

const PASSWD: Fields =
    &[None, Some("uid"), Some("gid"), Some("comment"), Some("home"), Some("shell")];
const GROUP: Fields = &[None, Some("gid"), Some("members")];
const SHADOW: Fields = &[
    None,
    Some("last change"),
    Some("minimum"),
    Some("maximum"),
    Some("warning"),
    Some("inactive"),
    Some("expires"),
];
const GSHADOW: Fields = &[None, Some("administrators"), Some("members")];
const IDS: Fields = &[Some("first"), Some("count")];

/// The files themselves, without the copies that tools make before they change one.
pub(super) const FILES: [&str; 6] =
    ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

/// The differences of two texts of the file at `path`, a line each; `None` if that is no such file.
pub(super) fn differences(path: &[u8], old: &str, new: &str) -> Option<Vec<String>> {
    let (what, fields) = match path.strip_prefix(b"etc/")? {
        // The copy that tools make before they change one says nothing new.
        b"passwd-" | b"group-" | b"shadow-" | b"gshadow-" | b"subuid-" | b"subgid-" => {
            return Some(vec![]);
        }
        b"passwd" => ("user", PASSWD),
        b"group" => ("group", GROUP),
        b"shadow" => ("user", SHADOW),
        b"gshadow" => ("group", GSHADOW),
        b"subuid" | b"subgid" => ("user", IDS),
        _ => return None,
    };
    let (old, new) = (entries(old), entries(new));
    let mut lines = vec![];
    for (name, fields_of) in &new {
        let shown = || show(fields, fields_of);
        match old.get(name) {
            None => lines.push(format!("+{what} {name}{}", shown())),
            Some(before) if before != fields_of => {
                lines.extend(
                    changed(fields, before, fields_of).map(|c| format!("{what} {name}: {c}")),
                );
            }
            _ => {}
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        lines.push(format!("-{what} {name}"));
    }
    if lines.is_empty() {
        lines.push("the same entries in another order".to_owned());
    }
    Some(lines)
}

/// The entries by name; the first of a name counts.
fn entries(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split(':').map(|field| field.escape_debug().to_string());
        if let Some(name) = fields.next() {
            all.entry(name).or_insert_with(|| fields.collect());
        }
    }
    all
}

/// What a person wants to know of a new entry.
fn show(fields: Fields, values: &[String]) -> String {
    let shown: Vec<_> = fields
        .iter()
        .zip(values)
        .filter_map(|(field, value)| match field {
            Some(name @ ("uid" | "gid" | "shell" | "members")) if !value.is_empty() => {
                Some(format!("{name} {value}"))
            }
            None if fields.len() > 3 => Some(format!("password {}", state(value))),
            _ => None,
        })
        .collect();
    if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
}

fn changed<'a>(
    fields: Fields,
    old: &'a [String],
    new: &'a [String],
) -> impl Iterator<Item = String> + use<'a> {
    let count = fields.len().max(old.len()).max(new.len());
    (0..count).filter_map(move |i| {
        let empty = String::new();
        let (from, to) = (old.get(i).unwrap_or(&empty), new.get(i).unwrap_or(&empty));
        if from == to {
            return None;
        }
        Some(match fields.get(i) {
            Some(Some(name)) => {
                let word = |value: &str| {
                    if value.is_empty() { "none".to_owned() } else { value.to_owned() }
                };
                format!("{name} {} -> {}", word(from), word(to))
            }
            Some(None) if state(from) != state(to) => {
                format!("password {} -> {}", state(from), state(to))
            }
            Some(None) => "password differs".to_owned(),
            None => "another field differs".to_owned(),
        })
    })
}

/// What a password field means, without what is in it (shadow(5)).
fn state(field: &str) -> &'static str {
    match field {
        "" => "empty",
        "x" => "in shadow",
        _ if field.starts_with(['!', '*']) => "locked",
        _ => "set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, old: &str, new: &str) -> Vec<String> {
        differences(path.as_bytes(), old, new).expect("a file of accounts")
    }

    #[test]
    fn users_and_groups_are_compared_by_field() {
        let old = "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2::/bin:/bin/false\n";
        let new = "root:x:0:0:root:/root:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/bash\n";
        assert_eq!(
            of("etc/passwd", old, new),
            [
                "+user dev (password in shadow, uid 1000, gid 1000, shell /bin/bash)",
                "user root: shell /bin/bash -> /bin/sh",
                "-user bin",
            ]
        );
        assert_eq!(
            of("etc/group", "sudo:x:27:\n", "sudo:x:27:dev\n"),
            ["group sudo: members none -> dev"]
        );
        assert_eq!(of("etc/group", "a:x:1:\nb:x:2:\n", "b:x:2:\na:x:1:\n").len(), 1);
        assert!(differences(b"etc/fstab", "", "").is_none());
        assert_eq!(of("etc/passwd-", "", new), Vec::<String>::new());
    }

    #[test]
    fn no_password_is_ever_in_a_line() {
        let secret = "$6$salt$secretsecret";
        let old = format!("root:*:1:0:::::\ndev:{secret}:1:0:::::\n");
        let new = format!("root:{secret}:1:0:::::\ndev:{secret}x:2:0:::::\nnew:{secret}::::::\n");
        let lines = of("etc/shadow", &old, &new);
        assert_eq!(
            lines,
            [
                "user dev: password differs",
                "user dev: last change 1 -> 2",
                "+user new (password set)",
                "user root: password locked -> set",
            ]
        );
        assert!(!lines.join("\n").contains("secret"));
        let group = of("etc/gshadow", &format!("sudo:{secret}::\n"), "sudo:!::\n");
        assert_eq!(group, ["group sudo: password set -> locked"]);
    }
}
