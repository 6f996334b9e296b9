//! `terraform.tfvars.json`: the outputs as the value of one variable, for a module such as that in
//! `examples/terraform` (Terraform language, "Variable Definitions Files").

use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value, json};

use crate::build::outputs::{Output, Work, small};
use crate::error::{Error, Result};
use crate::spec::Deploy;

/// Its name: Terraform reads it without being told.
const NAME: &str = "terraform.tfvars.json";
/// The only variable in it.
const VARIABLE: &str = "devbox_box";
/// Longest file that is looked into, in bytes, before it is replaced.
const LONGEST: u64 = 1 << 20;

/// Writes it.
///
/// # Errors
/// There is a file of that name that devbox has not written.
pub(super) fn write(work: &Work, deploy: &Deploy, outputs: &[Output]) -> Result<PathBuf> {
    let dir = deploy.terraform.as_ref().unwrap_or(&work.dir);
    refuse_foreign(&dir.join(NAME))?;
    let config = work.image.config();
    let mut all = Map::new();
    for output in outputs {
        all.insert(
            output.format.to_owned(),
            json!({
                "path": seen_from(dir, &output.path)?,
                "size": output.size,
                "sha256": output.sha256.hex(),
                "bytes1": config.bytes1,
                // Nothing publishes images yet: whoever does fills it in.
                "image_id": "",
            }),
        );
    }
    let value = json!({VARIABLE: {
        "name": config.name,
        "version": config.version,
        "arch": config.arch,
        "firmware": config.firmware,
        "spec1": config.spec1,
        "box1": config.box1,
        "outputs": all,
    }});
    small(dir, NAME, format!("{value:#}\n").as_bytes())
}

/// Variables that somebody wrote by hand are not replaced.
fn refuse_foreign(path: &Path) -> Result<()> {
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    let text = if meta.len() > LONGEST { vec![] } else { fs::read(path)? };
    let value: Option<Map<String, Value>> = serde_json::from_slice(&text).ok();
    if value.is_some_and(|value| value.keys().eq([VARIABLE])) {
        return Ok(());
    }
    Err(Error::failed(format!("`{}` was not written by devbox", path.display()))
        .cause(format!("it has something else than the variable `{VARIABLE}`"))
        .hint("Move your variables into another file, such as `local.auto.tfvars`, or name another folder as `deploy.terraform`."))
}

/// `file` as it is found from `dir`: relative, so that both can be moved together.
fn seen_from(dir: &Path, file: &Path) -> Result<String> {
    let (dir, file) = (std::path::absolute(dir)?, std::path::absolute(file)?);
    let (from, to) = (parts(&dir), parts(&file));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut path: PathBuf = from[same..].iter().map(|_| Component::ParentDir).collect();
    path.extend(&to[same..]);
    Ok(path.to_string_lossy().into_owned())
}

/// Without `.` and `..`.
fn parts(path: &Path) -> Vec<Component<'_>> {
    let mut all = vec![];
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(all.pop()),
            part => all.push(part),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_module() {
        for (dir, file, seen) in [
            ("/p/dist", "/p/dist/a.vhd", "a.vhd"),
            ("/p/infra", "/p/dist/a.vhd", "../dist/a.vhd"),
            ("/p/./infra/x", "/p/y/../dist/a.vhd", "../../dist/a.vhd"),
            ("/", "/a.vhd", "a.vhd"),
        ] {
            assert_eq!(seen_from(Path::new(dir), Path::new(file)).expect("seen"), seen);
        }
    }

    #[test]
    fn variables_of_others_are_not_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(NAME);
        refuse_foreign(&path).expect("there is none");
        for (text, ours) in [
            (r#"{"devbox_box": {"name": "old"}}"#, true),
            (r#"{"devbox_box": {}, "region": "eu"}"#, false),
            ("{}", false),
            ("region = 1", false),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(refuse_foreign(&path).is_ok(), ours, "{text}");
        }
    }
}
