//! What may differ: declared, pinned and directed (`docs/parity.md`, "Differences that are meant").
//!
//! Nothing is left out of a digest. Both sides are predicted from what they share and the declarations; what is
//! not declared, declared in vain, or other than declared makes them different. [`base`] is what is left when the
//! declared is taken away: equal on both sides if they match.

mod base;
mod judge;

use fs_err as fs;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::json;

pub(super) use self::judge::{Case, Judged};
use super::Level;
use crate::digest::{FileDigest, PolicyDigest};
use crate::error::{Error, Result};
use crate::spec::types::{Delta, DeltaMeta, DeltaOp, Parity, Stands};

/// Where a difference has to be meant twice: what boots, programs, libraries, who is let in.
const PROTECTED: [&str; 9] =
    ["/boot", "/efi", "/bin", "/sbin", "/lib", "/usr/bin", "/usr/sbin", "/usr/lib", "/etc/pam.d"];
const PRELOAD: &str = "/etc/ld.so.preload";
/// Largest file that a declaration may name, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// A policy whose files were read.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Where it was found, for messages.
    pub name: String,
    /// The level at which both sides must match.
    pub require: Level,
    /// The declarations, in the order of the file.
    pub deltas: Vec<Pinned>,
    /// The digest of all of it.
    pub digest: PolicyDigest,
}

/// A declaration with the digests of the files that it names.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// As written.
    pub delta: Delta,
    /// Of the file that stands at the path on its side, with its length in bytes.
    pub file: Option<(FileDigest, u64)>,
}

/// What became of a declaration.
#[derive(Debug, Clone, Serialize)]
pub struct Declared {
    /// `dev` or `cloud`.
    pub only: &'static str,
    /// `add`, `remove`, `replace`, `meta`, `subtree` or `package`.
    pub op: &'static str,
    /// The path, or the package with its version.
    pub what: String,
    /// The reason.
    pub why: String,
    /// The last day on which it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many differences it explains.
    pub differences: usize,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A policy in a report.
#[derive(Debug, Clone, Serialize)]
pub struct Applied {
    /// Where it was found.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The level that it asks for.
    pub require: Level,
    /// What is left of each side without what is declared; equal if they match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub base: Vec<String>,
    /// Every declaration.
    pub declared: Vec<Declared>,
}

impl Applied {
    /// Whether every declaration holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.declared.iter().all(|one| one.problem.is_none())
            && self.base.first() == self.base.last()
    }
}

impl Policy {
    /// Reads the files that the declarations name; `name` is where they were found.
    ///
    /// # Errors
    /// A file cannot be read; something is declared that has to be meant twice (kind `Usage`).
    pub fn new(parity: &Parity, name: String) -> Result<Self> {
        let require = if parity.require == "tree" { Level::Tree } else { Level::Content };
        let mut deltas = vec![];
        for delta in &parity.deltas {
            insist_on_protected(delta)?;
            let file = match &delta.op {
                DeltaOp::Add(Stands::File(path), _) | DeltaOp::Replace(path, ..) => {
                    let size = fs::metadata(path)?.len();
                    if size > MAX_FILE {
                        return Err(Error::usage(format!(
                            "`{}` is too large for a declared difference",
                            path.display()
                        ))
                        .hint("Put it into the image with a step, on both sides."));
                    }
                    Some((FileDigest::of(&fs::read(path)?), size))
                }
                _ => None,
            };
            deltas.push(Pinned { delta: delta.clone(), file });
        }
        let digest = digest(require, &deltas);
        Ok(Policy { name, require, deltas, digest })
    }

    /// What is to be said of two sides that are equal: every declaration is in vain.
    #[must_use]
    pub fn of_equal(&self, today: Date) -> Applied {
        let declared = self.deltas.iter().map(|pinned| {
            let stale = || "declared in vain: both sides are the same".to_owned();
            pinned.told(0, Some(pinned.expired(today).unwrap_or_else(stale)))
        });
        self.applied(vec![], declared.collect())
    }

    fn applied(&self, base: Vec<String>, declared: Vec<Declared>) -> Applied {
        Applied {
            name: self.name.clone(),
            digest: self.digest.to_string(),
            require: self.require,
            base,
            declared,
        }
    }
}

impl Pinned {
    /// Why it does not hold any more.
    fn expired(&self, today: Date) -> Option<String> {
        let until = self.delta.until.as_deref()?;
        let last: Date = until.parse().ok()?;
        (last < today).then(|| format!("expired on {until}"))
    }

    fn told(&self, differences: usize, problem: Option<String>) -> Declared {
        let Delta { only_dev, op, path, why, until, .. } = &self.delta;
        Declared {
            only: if *only_dev { "dev" } else { "cloud" },
            op: op_word(op),
            what: match op {
                DeltaOp::Package(name, version) => format!("{name}={version}"),
                _ => path.clone(),
            },
            why: why.clone(),
            until: until.clone(),
            differences,
            problem,
        }
    }
}

fn op_word(op: &DeltaOp) -> &'static str {
    match op {
        DeltaOp::Add(..) => "add",
        DeltaOp::Remove(_) => "remove",
        DeltaOp::Replace(..) => "replace",
        DeltaOp::Meta(..) => "meta",
        DeltaOp::Subtree(..) => "subtree",
        DeltaOp::Package(..) => "package",
    }
}

fn insist_on_protected(delta: &Delta) -> Result<()> {
    let below = |folder: &str| {
        let rest = delta.path.strip_prefix(folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let setuid = match &delta.op {
        DeltaOp::Add(_, meta) | DeltaOp::Replace(_, meta, _) | DeltaOp::Subtree(_, meta) => {
            meta.mode & 0o6000 != 0
        }
        DeltaOp::Meta(meta, base) => (meta.mode | base.mode) & 0o6000 != 0,
        DeltaOp::Remove(_) | DeltaOp::Package(..) => false,
    };
    // A package brings programs, and may bring anything.
    let package = matches!(delta.op, DeltaOp::Package(..));
    if delta.protected
        || !(setuid || package || delta.path == PRELOAD || PROTECTED.into_iter().any(below))
    {
        return Ok(());
    }
    let what = if package { "a package" } else { delta.path.as_str() };
    Err(Error::usage(format!("the declared difference of `{what}` needs `protected = true`"))
        .cause("what boots, runs, or lets people in is not declared by the way")
        .hint("Add `protected = true` to its `[[parity.delta]]` if you mean it."))
}

/// Over everything that has a meaning for the comparison, and the reasons.
fn digest(require: Level, deltas: &[Pinned]) -> PolicyDigest {
    let meta = |meta: &DeltaMeta| json!([meta.mode, meta.uid, meta.gid]);
    let deltas: Vec<_> = deltas
        .iter()
        .map(|Pinned { delta, file }| {
            let pins = match &delta.op {
                DeltaOp::Add(Stands::Link(target), m) => json!({ "link": target, "meta": meta(m) }),
                DeltaOp::Add(_, m) => json!({ "meta": meta(m) }),
                DeltaOp::Remove(base) => json!({ "base": base }),
                DeltaOp::Replace(_, m, base) => json!({ "meta": meta(m), "base": base }),
                DeltaOp::Meta(m, base) => json!({ "meta": meta(m), "base": meta(base) }),
                DeltaOp::Subtree(tree, m) => json!({ "tree": tree, "meta": meta(m) }),
                DeltaOp::Package(name, version) => json!({ "package": name, "version": version }),
            };
            json!({
                "only": if delta.only_dev { "dev" } else { "cloud" },
                "op": op_word(&delta.op),
                "path": delta.path,
                "file": file.map(|(digest, _)| digest.to_string()),
                "pins": pins,
                "protected": delta.protected,
                "until": delta.until,
                "why": delta.why,
            })
        })
        .collect();
    let mut document = json!({ "require": require, "deltas": deltas });
    document.sort_all_objects();
    PolicyDigest::of(format!("devbox/policy/1\n{document}").as_bytes())
}
