//! `type = "shell"`: a script of the spec, run as root.

use fs_err as fs;

use super::{Running, SMALL};
use crate::error::Result;
use crate::guest::ssh::Remote;
use crate::guest::work::as_root;
use crate::spec::Script;

/// Where a step's script lies in the guest; the seal empties the folder. Of the folders for
/// temporary files the one that every image has.
const SCRIPT: &str = "/tmp/.devbox-step";

impl Running<'_> {
    /// Runs a script of the spec.
    pub(super) async fn shell(&self, script: &Script) -> Result<()> {
        let text = match script {
            Script::Inline(text) => text.clone().into_bytes(),
            Script::File(path) => fs::read(path)?,
        };
        self.script(text).await
    }

    /// Puts the script into the guest, runs it there, and takes it away.
    pub(super) async fn script(&self, text: Vec<u8>) -> Result<()> {
        let run = interpreter(&text);
        let put =
            format!("set -euC; umask 077; rm -f {SCRIPT}; cat > {SCRIPT}; chmod 0700 {SCRIPT}");
        self.execute(Remote::new(as_root(&put)).stdin(text), SMALL).await?;
        let ran = self.in_guest("/", &run, &[]).await;
        self.execute(Remote::new(as_root(&format!("rm -f {SCRIPT}"))), SMALL).await?;
        ran.map(|_| ())
    }
}

/// What runs the script at [`SCRIPT`]: what its first line names, or `sh`.
fn interpreter(text: &[u8]) -> String {
    if text.starts_with(b"#!") { format!("exec {SCRIPT}") } else { format!("exec sh -eu {SCRIPT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_by_its_first_line_or_by_sh() {
        assert_eq!(interpreter(b"#!/usr/bin/python3\n"), "exec /tmp/.devbox-step");
        assert_eq!(interpreter(b"echo hi\n"), "exec sh -eu /tmp/.devbox-step");
    }
}
