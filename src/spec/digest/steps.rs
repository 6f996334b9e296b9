//! What each kind of step takes in. The one definition for `spec1` and for the key of a step's layer.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use super::files::{entries, executable, file};
use crate::digest::FileDigest;
use crate::error::Result;
use crate::spec::types::{Action, Script, Step};

/// The inputs of a step: its keys, and the digests of the files that it reads. Of a secret its name
/// is one, and not its value.
pub(super) fn inputs(step: &Step) -> Result<Value> {
    let mut inputs = action(&step.action)?;
    // A shell step always had the key.
    if !step.env.is_empty() || matches!(step.action, Action::Shell { .. }) {
        inputs["env"] = json!(step.env);
    }
    if !step.secrets.is_empty() {
        inputs["secrets"] = step.secrets.keys().cloned().collect();
    }
    Ok(inputs)
}

fn action(action: &Action) -> Result<Value> {
    Ok(match action {
        Action::Shell { script } => {
            let script = match script {
                Script::Inline(text) => FileDigest::of(text.as_bytes()),
                Script::File(path) => file(path)?,
            };
            json!({ "type": "shell", "script": script })
        }
        Action::File { source, target, mode, owner } => {
            let mut step =
                json!({ "type": "file", "target": target, "mode": mode, "owner": owner });
            if fs::metadata(source)?.is_dir() {
                step["entries"] = Value::Array(entries(source)?);
            } else {
                step["content"] = json!(file(source)?);
                step["executable"] = json!(executable(source)?);
            }
            step
        }
        Action::Template(t) => json!({
            "type": "template",
            "target": t.target,
            "mode": t.mode,
            "owner": t.owner,
            "vars": t.vars,
            "content": file(&t.source)?,
            "executable": executable(&t.source)?,
        }),
        Action::Ansible(a) => json!({
            "type": "ansible",
            "where": if a.in_guest { "guest" } else { "host" },
            "entries": entries(&a.source)?,
            "playbook": a.playbook,
            "roles": a.roles.iter().map(|path| entries(path)).collect::<Result<Vec<_>>>()?,
            "requirements": optional(a.requirements.as_ref())?,
            "extra_vars": a.extra_vars,
            "groups": a.groups,
            "tags": a.tags,
            "skip_tags": a.skip_tags,
            "vault_password": a.vault_password,
            "idempotent": a.idempotent,
        }),
        Action::Puppet(p) => json!({
            "type": "puppet",
            "entries": entries(&p.source)?,
            "manifest": p.manifest,
            "modules": p.modules,
            "hiera": p.hiera,
            "idempotent": p.idempotent,
        }),
        Action::Chef(c) => json!({
            "type": "chef",
            "entries": entries(&c.source)?,
            "run_list": c.run_list,
            "attributes": c.attributes,
        }),
        Action::Salt(s) => {
            let mut salt = json!({
                "type": "salt",
                "entries": entries(&s.source)?,
                "states": s.states,
                "pillar": s.pillar.as_deref().map(entries).transpose()?,
                "grains": s.grains,
            });
            // The key is younger than the digest: a step without it keeps its own.
            if s.idempotent {
                salt["idempotent"] = json!(true);
            }
            salt
        }
        Action::Images(i) => json!({
            "type": "images",
            "engine": i.engine,
            "archives": i.archives.iter().map(|path| file(path)).collect::<Result<Vec<_>>>()?,
            "pull": i.pull,
        }),
        Action::Test(t) => json!({
            "type": "test",
            "commands": t.commands,
            "files": t.files,
            "packages": t.packages,
            "services": t.services,
            "ports": t.ports,
            "goss": optional(t.goss.as_ref())?,
        }),
    })
}

fn optional(path: Option<&PathBuf>) -> Result<Option<FileDigest>> {
    path.map(|path| file(Path::new(path))).transpose()
}
