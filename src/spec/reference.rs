//! The reference of devbox.toml in Markdown, made from [`keys`](crate::spec::keys).
//!
//! It stands in `docs/spec.md` between two marks; a test fails when the page differs from this.

use std::fmt::Write as _;

use crate::spec::keys;
use crate::spec::shape::{Key, Presence, Shape, Table};

/// All tables with all keys.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    section(&mut out, "The file", &keys::SPEC);
    for variant in keys::SOURCES {
        section(&mut out, &format!("`[source]` with `type = \"{}\"`", variant.name), variant.table);
    }
    for (title, variants) in
        [("[[source.answers]]", keys::ANSWER_TYPES), ("[source.boot]", keys::BOOT_TYPES)]
    {
        for variant in variants {
            section(
                &mut out,
                &format!("`{title}` with `type = \"{}\"`", variant.name),
                variant.table,
            );
        }
    }
    for variant in keys::STEP_TYPES {
        section(
            &mut out,
            &format!("`[[steps]]` with `type = \"{}\"`", variant.name),
            variant.table,
        );
    }
    section(&mut out, "`secrets` of `[[steps]]`", &keys::SECRET_TABLE);
    section(&mut out, "`[seal]`", &keys::SEAL_TABLE);
    section(&mut out, "`[deploy]`", &keys::DEPLOY_TABLE);
    section(&mut out, "`[machine]`", &keys::MACHINE_TABLE);
    section(&mut out, "`[[machine.disks]]`", &keys::DISKS_TABLE);
    section(&mut out, "`[[machine.ports]]`", &keys::PORTS_TABLE);
    let own: Vec<&Key> = keys::MACHINES_TABLE
        .keys
        .iter()
        .copied()
        .filter(|key| keys::MACHINE_TABLE.keys.iter().all(|shared| shared.name != key.name))
        .collect();
    rows(&mut out, "`[machines.NAME]`", keys::MACHINES_TABLE.about, &own);
    section(&mut out, "`[network]`", &keys::NETWORK_TABLE);
    section(&mut out, "`[[mounts]]`", &keys::MOUNTS_TABLE);
    section(&mut out, "`[[provision]]`", &keys::PROVISION_TABLE);
    section(&mut out, "`[[hooks]]`", &keys::HOOKS_TABLE);
    section(&mut out, "`[parity]`", &keys::PARITY_TABLE);
    section(&mut out, "`[[parity.delta]]`", &keys::DELTAS_TABLE);
    section(&mut out, "`[trust]`", &keys::TRUST_TABLE);
    section(&mut out, "`[[trust.rules]]`", &keys::TRUST_RULES_TABLE);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn section(out: &mut String, title: &str, table: &Table) {
    rows(out, title, table.about, table.keys);
}

fn rows(out: &mut String, title: &str, about: &str, keys: &[&Key]) {
    // Writing to a string cannot fail.
    let _ = write!(out, "## {title}\n\n{about}\n\n");
    let _ = write!(out, "| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default = match key.presence {
            Presence::Required => "required".to_owned(),
            Presence::Default(words) => words.to_owned(),
            Presence::OneOf(group) => {
                let others = keys.iter().filter(|k| {
                    k.name != key.name && matches!(k.presence, Presence::OneOf(g) if g == group)
                });
                let others: Vec<String> = others.map(|k| format!("`{}`", k.name)).collect();
                format!("this or {}", others.join(" or "))
            }
        };
        let value = match (key.name, key.shape) {
            ("type", _) => "tells the forms apart".to_owned(),
            (
                _,
                Shape::Table(_)
                | Shape::Variants(_)
                | Shape::List(_)
                | Shape::ListOfVariants(_)
                | Shape::Named(..),
            ) => {
                format!("{}, see below", key.shape.expected())
            }
            _ => key.shape.expected(),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            key.name,
            cell(&value),
            cell(&default),
            cell(key.about)
        );
    }
    out.push('\n');
}
