//! `type = "file"`: a file or a folder of the host, put into the guest.

use std::ffi::OsStr;
use std::path::Path;

use fs_err as fs;
use tokio::io::AsyncRead;

use super::Running;
use crate::build::files;
use crate::error::{Error, Result};
use crate::exec::quote;
use crate::guest::ssh::Remote;
use crate::guest::work::as_root;

impl Running<'_> {
    /// Puts `source` at `target`.
    pub(super) async fn put(
        &self,
        source: &Path,
        target: &str,
        mode: Option<u32>,
        owner: &str,
    ) -> Result<()> {
        let ids = self.ids(owner).await?;
        if fs::metadata(source)?.is_dir() {
            self.folder(source, target, mode, ids).await?;
            self.events.note(format!("put `{}` to {target}", source.display()));
            Ok(())
        } else {
            let target = files::target(source, target);
            let mode = files::mode(source, mode)?;
            let input = tokio::fs::File::open(source).await?;
            self.bytes(input, &target, mode, ids).await?;
            self.events.note(format!("put `{}` to {target}", source.display()));
            Ok(())
        }
    }

    /// The numbers of an owner in the guest: names are the guest's own.
    pub(super) async fn ids(&self, owner: &str) -> Result<files::Ids> {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let script = format!(
            "u={}; g={}; \
             case $u in *[!0-9]*) id -u \"$u\" ;; *) echo \"$u\" ;; esac; \
             case $g in \
             '') case $u in *[!0-9]*) id -g \"$u\" ;; *) echo \"$u\" ;; esac ;; \
             *[!0-9]*) grep \"^$g:\" /etc/group | cut -d: -f3 ;; \
             *) echo \"$g\" ;; esac",
            quote(OsStr::new(user)),
            quote(OsStr::new(group)),
        );
        let lines = self.ask(&script).await?;
        match lines.iter().map(|l| l.trim().parse()).collect::<Result<Vec<u32>, _>>().as_deref() {
            Ok([uid, gid]) => Ok(files::Ids { uid: *uid, gid: *gid }),
            _ => Err(Error::failed(format!(
                "{} failed: the guest knows no `{owner}`",
                self.title
            ))
            .hint("Make the account in an earlier step, or give `owner` as numbers (`1000:1000`).")),
        }
    }

    /// Puts these bytes at `target`.
    pub(super) async fn bytes(
        &self,
        bytes: impl AsyncRead + Send + Unpin + 'static,
        target: &str,
        mode: u32,
        ids: files::Ids,
    ) -> Result<()> {
        let mut remote = Remote::new(as_root(&files::put_file(target, mode, ids, self.epoch)));
        remote.stdin = Some(Box::new(bytes));
        self.timed(remote).await?;
        Ok(())
    }

    /// Puts what is in a folder into the folder `target`.
    pub(super) async fn folder(
        &self,
        source: &Path,
        target: &str,
        mode: Option<u32>,
        ids: files::Ids,
    ) -> Result<()> {
        let mut tar = tokio::process::Command::from(files::tar(source, ids, self.epoch)?);
        let mut tar = tar
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::failed("cannot start `tar`").cause(e))?;
        let script = files::put_folder(target, mode, ids);
        let mut remote = Remote::new(as_root(&script));
        remote.stdin = tar.stdout.take().map(|out| Box::new(out) as _);
        let put = self.timed(remote).await;
        let out = tar.wait_with_output().await?;
        put?;
        if !out.status.success() {
            let mut error = Error::failed(format!("cannot read `{}`", source.display()));
            for line in crate::exec::last_lines(&out.stderr, 5) {
                error = error.cause(line);
            }
            return Err(error);
        }
        Ok(())
    }
}
