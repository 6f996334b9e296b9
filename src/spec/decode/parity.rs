//! `[parity]`.

use std::path::Path;

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::reader::{Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Delta, DeltaMeta, DeltaOp, Parity, Stands};

pub(super) fn parity(top: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Parity> {
    let table = top.table(&keys::PARITY, c)?;
    let require = table.text(&keys::PARITY_REQUIRE, c).map(|at| at.value);
    let mut deltas = vec![];
    for delta in table.tables(&keys::DELTAS, c) {
        deltas.extend(one(&delta, dir, c));
    }
    Some(Parity { require: require.unwrap_or_else(|| "content".to_owned()), deltas })
}

fn one(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Delta> {
    let only = table.text(&keys::DELTA_ONLY, c);
    let why = table.text(&keys::DELTA_WHY, c);
    let op = table.text(&keys::DELTA_OP, c);
    let path = table.text(&keys::DELTA_PATH, c);
    let until = table.text(&keys::DELTA_UNTIL, c).and_then(|at| {
        if at.value.parse::<jiff::civil::Date>().is_err() {
            let what = format!("`{}` is no day of the calendar", at.value);
            c.report(&at.path, at.span.clone(), what).hint =
                Some("Write year, month and day, as in `2027-06-30`.".to_owned());
            return None;
        }
        Some(at.value)
    });
    let op = op?.value;
    // The keys that mean something for each operation, besides those that all have.
    let (needed, allowed): (&[&Key], &[&Key]) = match op.as_str() {
        "add" => (
            &[],
            &[
                &keys::DELTA_FILE,
                &keys::DELTA_LINK,
                &keys::DELTA_MODE,
                &keys::DELTA_UID,
                &keys::DELTA_GID,
            ],
        ),
        "remove" => (&[&keys::DELTA_BASE], &[]),
        "replace" => (
            &[&keys::DELTA_FILE, &keys::DELTA_BASE],
            &[&keys::DELTA_MODE, &keys::DELTA_UID, &keys::DELTA_GID],
        ),
        "meta" => (&[&keys::DELTA_BASE, &keys::DELTA_MODE], &[&keys::DELTA_UID, &keys::DELTA_GID]),
        "subtree" => {
            (&[&keys::DELTA_TREE], &[&keys::DELTA_MODE, &keys::DELTA_UID, &keys::DELTA_GID])
        }
        _ => (&[&keys::DELTA_PACKAGE], &[]),
    };
    let path_needed: &[&Key] = if op == "package" { &[] } else { &[&keys::DELTA_PATH] };
    let mut whole = true;
    for key in needed.iter().chain(path_needed).filter(|key| !table.has(key)) {
        let at = table.at();
        let what = format!("`op = \"{op}\"` needs `{}`", key.name);
        c.report(&at.path, at.span.clone(), what).hint = Some(key.about.to_owned());
        whole = false;
    }
    let special: [&Key; 8] = [
        &keys::DELTA_PATH,
        &keys::DELTA_FILE,
        &keys::DELTA_LINK,
        &keys::DELTA_MODE,
        &keys::DELTA_UID,
        &keys::DELTA_GID,
        &keys::DELTA_BASE,
        &keys::DELTA_TREE,
    ];
    for key in special.into_iter().chain([&keys::DELTA_PACKAGE]).filter(|key| table.has(key)) {
        let known = |keys: &[&Key]| keys.iter().any(|known| known.name == key.name);
        if !known(needed) && !known(allowed) && !known(path_needed) {
            let at = table.place_of(key);
            let what = format!("`{}` means nothing for `op = \"{op}\"`", key.name);
            c.report(&at.path, at.span.clone(), what).hint = Some("Remove it.".to_owned());
            whole = false;
        }
    }
    let file = table.text(&keys::DELTA_FILE, c).map(|at| resolve(&at, dir, Expect::File, c));
    let link = table.text(&keys::DELTA_LINK, c).map(|at| at.value);
    if file.is_some() && link.is_some() {
        let at = table.place_of(&keys::DELTA_LINK);
        c.report(&at.path, at.span.clone(), "a path is a file or a link".to_owned()).hint =
            Some("Remove `file` or `link`.".to_owned());
        whole = false;
    }
    let is_folder = op == "subtree" || (op == "add" && file.is_none() && link.is_none());
    let meta = meta(table, if is_folder { 0o755 } else { 0o644 }, c);
    let base = table.text(&keys::DELTA_BASE, c);
    let tree = table.text(&keys::DELTA_TREE, c).map(|at| at.value);
    let package = table.text(&keys::DELTA_PACKAGE, c).map(|at| at.value);
    let protected = table.boolean(&keys::DELTA_PROTECTED, c).unwrap_or(false);
    let mut wrong_base = |what: &str, hint: &str| {
        let at = table.place_of(&keys::DELTA_BASE);
        c.report(&at.path, at.span.clone(), what.to_owned()).hint = Some(hint.to_owned());
    };
    let digest = |text: &str| {
        text.strip_prefix("sha256:")
            .filter(|hex| crate::spec::grammar::SHA256.accepts(hex))
            .map(str::to_owned)
    };
    let op = match op.as_str() {
        "add" => {
            let stands = match (file, link) {
                (Some(file), _) => Stands::File(file),
                (None, Some(link)) => Stands::Link(link),
                (None, None) => Stands::Folder,
            };
            DeltaOp::Add(stands, meta)
        }
        "meta" => {
            let base = base?;
            let Some(base) = permissions(&base.value) else {
                wrong_base(
                    "for `meta`, `base` is a mode and an owner",
                    "Write what the other side has, as in `base = \"0644 0:0\"`.",
                );
                return None;
            };
            DeltaOp::Meta(meta, base)
        }
        "subtree" => DeltaOp::Subtree(tree?, meta),
        "package" => {
            let package = package?;
            let (name, version) = package.split_once('=')?;
            DeltaOp::Package(name.to_owned(), version.to_owned())
        }
        op => {
            let base = base?;
            let Some(base) = digest(&base.value) else {
                wrong_base(
                    "`base` is not the digest of a file",
                    "Write `sha256:` and what `sha256sum` says of the file on the other side.",
                );
                return None;
            };
            if op == "remove" { DeltaOp::Remove(base) } else { DeltaOp::Replace(file?, meta, base) }
        }
    };
    let path = path.map(|at| at.value).unwrap_or_default();
    let (only, why) = (only?, why?);
    whole.then(|| Delta {
        only_dev: only.value == "dev",
        op,
        path,
        protected,
        why: why.value,
        until,
    })
}

fn meta(table: &Reader<'_, '_>, mode: u16, c: &mut Collector) -> DeltaMeta {
    let id = |key: &Key, c: &mut Collector| {
        table.integer(key, c).and_then(|at| u32::try_from(at.value).ok()).unwrap_or(0)
    };
    let named = table.text(&keys::DELTA_MODE, c);
    let mode = named.and_then(|at| u16::from_str_radix(&at.value, 8).ok()).unwrap_or(mode);
    DeltaMeta { mode, uid: id(&keys::DELTA_UID, c), gid: id(&keys::DELTA_GID, c) }
}

/// `0644 0:0`.
fn permissions(text: &str) -> Option<DeltaMeta> {
    let (mode, owner) = text.split_once(' ')?;
    let (uid, gid) = owner.split_once(':')?;
    if !crate::spec::grammar::MODE.accepts(mode) {
        return None;
    }
    let mode = u16::from_str_radix(mode, 8).ok()?;
    Some(DeltaMeta { mode, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}
