//! `devbox init`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::Context;
use crate::error::{Error, Result, exit};
use crate::spec::template::template;
use crate::spec::{FILE_NAME, grammar};

/// Write a commented devbox.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the box; by default the name of the folder.
    name: Option<String>,
    /// Where to write; an existing file is never overwritten.
    #[arg(long, short, value_name = "FILE", default_value = FILE_NAME)]
    output: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let name = match args.name {
        Some(name) => given(name)?,
        None => from_folder(&args.output)?,
    };
    let shown = args.output.display().to_string();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&args.output);
    let mut file = file.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::usage(format!("`{shown}` is there already"))
            .hint("Edit it, remove it, or name another file with `--output`."),
        _ => Error::usage(format!("cannot write `{shown}`"))
            .cause(e)
            .hint("Choose a place that exists and that you may write to with `--output`."),
    })?;
    file.write_all(template(&name).as_bytes()).and_then(|()| file.sync_all()).map_err(|e| {
        // Half a spec is worse than none, and it would block the next try.
        let _ = std::fs::remove_file(&args.output);
        Error::from(e).context(format!("cannot write `{shown}`"))
    })?;
    ctx.events.note(format!("wrote `{shown}` for the box `{name}`"));
    ctx.events.note("next: edit it, then run `devbox validate` and `devbox build`");
    Ok(exit::OK)
}

fn given(name: String) -> Result<String> {
    if grammar::LABEL.accepts(&name) {
        return Ok(name);
    }
    let shown = crate::spec::problem::shown(&name);
    let error = Error::usage(format!("`{shown}` is no name for a box"))
        .detail(format!("expected {}", grammar::LABEL.expected));
    Err(match as_label(&name) {
        Some(label) => error.hint(format!("Run `devbox init {label}`.")),
        None => error.hint("Run `devbox init NAME` with such a name."),
    })
}

/// The name of the folder that will hold the file, as near as a label can come to it.
fn from_folder(output: &Path) -> Result<String> {
    let folder = std::path::absolute(output)?;
    let folder = folder.parent().and_then(Path::file_name);
    let folder = folder.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(as_label(&folder).unwrap_or_else(|| "box".to_owned()))
}

fn as_label(text: &str) -> Option<String> {
    let dashed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(grammar::LABEL.longest)
        .collect();
    let label = dashed.trim_matches('-').to_owned();
    grammar::LABEL.accepts(&label).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_gives_a_valid_name_or_none() {
        assert_eq!(as_label("My Project_2").as_deref(), Some("my-project-2"));
        assert_eq!(as_label("-x-").as_deref(), Some("x"));
        assert_eq!(as_label("日本"), None);
        let long = "a".repeat(62) + "-b";
        assert_eq!(as_label(&long).map(|l| l.len()), Some(62));
    }
}
