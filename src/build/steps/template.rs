//! `type = "template"`: a file with variables, filled in here and put into the guest.

use std::path::Path;

use fs_err as fs;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, UndefinedBehavior};

use super::Running;
use crate::build::files;
use crate::error::{Error, Result};
use crate::spec::{Template, Values};

impl Running<'_> {
    /// Fills the template in and puts it into the guest.
    pub(super) async fn template(&self, template: &Template) -> Result<()> {
        let text = render(&template.source, &template.vars)?;
        let target = files::target(&template.source, &template.target);
        let mode = files::mode(&template.source, template.mode)?;
        let ids = self.ids(&template.owner).await?;
        self.bytes(std::io::Cursor::new(text.into_bytes()), &target, mode, ids).await?;
        self.events.note(format!("put `{}`, filled in, to {target}", template.source.display()));
        Ok(())
    }
}

/// The text of a template with its variables filled in.
///
/// # Errors
/// It is no text, no template, or names a variable that is not there: with the line.
pub(super) fn render(source: &Path, vars: &Values) -> Result<String> {
    let text = fs::read_to_string(source)?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // As Ansible fills templates in: a line that holds a tag alone is none in the file.
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| Error::failed("no syntax of templates").cause(e))?);
    // Nothing is escaped: what the file is, only its writer knows.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // As devbox.toml spells them, and most files do; Jinja's own `True` comes from Python.
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "true" } else { "false" })?),
        _ => minijinja::escape_formatter(out, state, value),
    });
    let name = source.display().to_string();
    environment.render_named_str(&name, &text, Serde(vars)).map_err(|e| {
        let line = e.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let error = Error::failed(format!("the template `{name}` cannot be filled in{line}"))
            .cause(e.detail().map_or_else(|| e.kind().to_string(), str::to_owned));
        if e.kind() == minijinja::ErrorKind::UndefinedError {
            let known: Vec<&str> = vars.keys().map(String::as_str).collect();
            return error.hint(format!(
                "Add the variable to `vars`; there {}.",
                if known.is_empty() {
                    "are none".to_owned()
                } else {
                    format!("are {}", known.join(", "))
                }
            ));
        }
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_there_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("conf.j2");
        let vars: Values = [
            ("port".to_owned(), 80.into()),
            ("names".to_owned(), vec!["a", "b"].into()),
            ("on".to_owned(), true.into()),
        ]
        .into();
        let of = |text: &str| {
            std::fs::write(&path, text).expect("written");
            render(&path, &vars)
        };
        let text =
            "listen {{ port }} {{ on }};\n{% for n in names %}host {{ n }};\n{% endfor %}# <&>\n";
        assert_eq!(of(text).expect("fills in"), "listen 80 true;\nhost a;\nhost b;\n# <&>\n");
        let e = of("a\n{{ prot }}\n").expect_err("not there");
        assert!(e.what().ends_with("conf.j2` cannot be filled in, line 2"), "{e}");
        assert!(
            e.to_string().contains("Add the variable to `vars`; there are names, on, port."),
            "{e}"
        );
        let e = of("{% if %}").expect_err("no template");
        assert!(e.what().contains("line 1"), "{e}");
    }
}
