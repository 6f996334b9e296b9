//! The layers that a spec asks for, known before anything runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::build::hardware;
use crate::digest;
use crate::error::Result;
use crate::host;
use crate::source::SourceDisk;
use crate::spec::{self, Action, Script, Spec, Step};

/// The rules by which steps are run; a change of what a step's guest sees is a new name.
const RULES: &str = "devbox/layer/1";

/// One step as a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// 64 hex digits over all that the disk after the step is made of.
    pub(crate) key: String,
    /// The key of the layer below, or of the source.
    pub(crate) below: String,
    /// The step's name.
    pub(crate) title: String,
    /// What the step is made of, as in the preimage of `spec1`.
    pub(crate) inputs: Value,
    /// What the file behind an input is called in the spec, where it is one.
    pub(crate) names: Vec<(&'static str, String)>,
}

impl Planned {
    /// What a guest wrote while it booted, on the layer with this key: a layer of its own, so that its memory can be kept
    /// with the disk that belongs to it. No other build asks for it by its key.
    pub(crate) fn boot(below: &str) -> Result<Self> {
        Ok(Planned {
            key: digest::hex(&host::random::<32>()?),
            below: below.to_owned(),
            title: "(boot)".to_owned(),
            inputs: Value::Null,
            names: vec![],
        })
    }
}

/// The layers of a spec's steps on this disk, in order.
///
/// # Errors
/// A file that a step names cannot be read.
pub(crate) fn plan(spec: &Spec, source: &SourceDisk) -> Result<Vec<Planned>> {
    let root = json!({
        "source": source.key,
        "size": source.size,
        "epoch": source.epoch,
        "arch": spec.arch.as_str(),
        "hostname": spec.seal.hostname,
        "firmware": hardware::firmware(spec.machine.firmware).as_str(),
    });
    let mut below = key("", &root);
    let mut all = vec![];
    for step in &spec.steps {
        let inputs = spec::digest::inputs(step)?;
        let key = key(&below, &inputs);
        let names = names(&step.action, &spec.dir);
        let planned = Planned { key, below, title: step.name.clone(), inputs, names };
        below = planned.key.clone();
        all.push(planned);
    }
    Ok(all)
}

/// Plans steps anew that are still to be run, on what the first of them lies on: their files may have changed since.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_anew(todo: &mut [(&Step, Planned)]) -> Result<()> {
    let mut below = None;
    for (step, planned) in todo {
        if let Some(below) = below.take() {
            planned.below = below;
        }
        planned.inputs = spec::digest::inputs(step)?;
        planned.key = key(&planned.below, &planned.inputs);
        below = Some(planned.key.clone());
    }
    Ok(())
}

/// What a person calls the file behind an input.
fn names(action: &Action, dir: &Path) -> Vec<(&'static str, String)> {
    let shown = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let one = |name, path: &Path| vec![(name, shown(path))];
    match action {
        Action::Shell { script: Script::File(path) } => one("script", path),
        Action::File { source, .. } => vec![("content", shown(source)), ("entries", shown(source))],
        Action::Template(template) => one("content", &template.source),
        Action::Ansible(ansible) => {
            let requirements = ansible.requirements.iter();
            let requirements = requirements.map(|path| ("requirements", shown(path)));
            one("entries", &ansible.source).into_iter().chain(requirements).collect()
        }
        Action::Puppet(puppet) => one("entries", &puppet.source),
        Action::Chef(chef) => one("entries", &chef.source),
        Action::Salt(salt) => {
            let pillar = salt.pillar.iter().map(|path| ("pillar", shown(path)));
            one("entries", &salt.source).into_iter().chain(pillar).collect()
        }
        Action::Test(checks) => checks.goss.iter().map(|path| ("goss", shown(path))).collect(),
        Action::Shell { script: Script::Inline(_) } | Action::Images(_) => vec![],
    }
}

fn key(below: &str, inputs: &Value) -> String {
    let mut inputs = inputs.clone();
    inputs.sort_all_objects();
    digest::hex(&digest::sha256(format!("{RULES}\n{below}\n{inputs}").as_bytes()))
}
