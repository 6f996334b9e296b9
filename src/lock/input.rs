//! What a spec takes in from outside, by digests.

use serde_json::Value;

use super::{Input, SOURCE};
use crate::digest::FileDigest;
use crate::error::Result;
use crate::spec::{self, Spec};

/// What the spec asks for, as a digest: `spec1` of the same spec with the version `0.0.0`, since a new version of the
/// same box needs no new lock. `image` is the digest of the source's image.
///
/// # Errors
/// As [`spec::digest::spec1`].
pub fn fingerprint(spec: &Spec, image: Option<&FileDigest>) -> Result<String> {
    let spec = Spec { version: "0.0.0".to_owned(), ..spec.clone() };
    Ok(spec::digest::spec1(&spec, image)?.to_string())
}

/// The inputs, sorted: the image, each step, and each file that a step reads.
///
/// # Errors
/// A file that a step names cannot be read.
pub fn inputs(spec: &Spec, image: Option<&FileDigest>) -> Result<Vec<Input>> {
    let mut all = vec![];
    if let Some(image) = image {
        all.push(Input { name: SOURCE.to_owned(), digest: image.to_string() });
    }
    for step in &spec.steps {
        let title = step_name(&step.name);
        let digest = spec::digest::step(step)?.to_string();
        all.push(Input { name: title.clone(), digest });
        if let Value::Object(inputs) = spec::digest::inputs(step)? {
            for (key, value) in &inputs {
                let mut count = 0;
                files(value, &mut |digest| {
                    count += 1;
                    let number = if count == 1 { String::new() } else { format!(" {count}") };
                    all.push(Input { name: format!("{title}: {key}{number}"), digest });
                });
            }
        }
    }
    all.sort();
    Ok(all)
}

/// `step install`; a step without a name is called `step 2` anyway.
pub(super) fn step_name(name: &str) -> String {
    if name.starts_with("step ") { name.to_owned() } else { format!("step {name}") }
}

/// The digests in what a step takes in: a file's own; one of a whole folder.
fn files(value: &Value, found: &mut impl FnMut(String)) {
    match value {
        Value::String(text) if is_digest(text) => found(text.clone()),
        // A folder's entries are lists: kind, name, …
        Value::Array(list) if list.iter().any(Value::is_array) => {
            found(FileDigest::of(value.to_string().as_bytes()).to_string());
        }
        Value::Array(list) => list.iter().for_each(|value| files(value, found)),
        _ => {}
    }
}

fn is_digest(text: &str) -> bool {
    text.parse::<FileDigest>().is_ok()
}
