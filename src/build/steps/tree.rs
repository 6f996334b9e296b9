//! The folder that a step's program works in, in the guest: what it reads, what it writes, its home.
//! It is there while the step runs; the image keeps nothing of it.

use std::ffi::OsStr;
use std::path::Path;

use super::{Running, SMALL};
use crate::build::files::Ids;
use crate::error::Result;
use crate::exec::quote;
use crate::guest::ssh::Remote;
use crate::guest::work::as_root;

/// The folder.
pub(super) const TREE: &str = "/tmp/.devbox-work";
const ROOT: Ids = Ids { uid: 0, gid: 0 };

impl Running<'_> {
    /// Makes the folder, with these empty folders in it.
    pub(super) async fn make_tree(&self, folders: &[&str]) -> Result<()> {
        let folders: String = folders.iter().map(|name| format!(" {TREE}/{name}")).collect();
        let line = format!(
            "set -eu; umask 077; rm -rf {TREE}; mkdir {TREE}; umask 022; mkdir -p {TREE}/home{folders}"
        );
        self.execute(Remote::new(as_root(&line)), SMALL).await?;
        Ok(())
    }

    /// Puts a folder of the host into it.
    pub(super) async fn put_tree(&self, source: &Path, name: &str) -> Result<()> {
        self.folder(source, &format!("{TREE}/{name}"), None, ROOT).await
    }

    /// Writes a file in it.
    pub(super) async fn write_tree(&self, name: &str, text: impl Into<Vec<u8>>) -> Result<()> {
        let text = std::io::Cursor::new(text.into());
        self.bytes(text, &format!("{TREE}/{name}"), 0o600, ROOT).await
    }

    /// Removes it.
    pub(super) async fn remove_tree(&self) -> Result<()> {
        self.execute(Remote::new(as_root(&format!("rm -rf {TREE}"))), SMALL).await?;
        Ok(())
    }
}

/// Words as a shell takes them.
pub(super) fn shell_line(words: &[String]) -> String {
    words.iter().map(|word| quote(OsStr::new(word))).collect::<Vec<_>>().join(" ")
}
