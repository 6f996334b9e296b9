//! `type = "images"`: container images, from archives or from registries by their digest.

use super::{Running, environment};
use crate::error::Result;
use crate::guest::ssh::Remote;
use crate::guest::work::as_root;
use crate::spec::Images;

impl Running<'_> {
    pub(super) async fn images(&self, images: &Images) -> Result<()> {
        let wanted: &[&'static str] = match images.engine.as_deref() {
            Some("docker") => &["docker"],
            Some("podman") => &["podman"],
            _ => &["docker", "podman"],
        };
        let engine = self.program(wanted, "Install it in the guest, by an earlier step or `source.packages` (Debian: `docker.io`, `podman`).").await?;
        for archive in &images.archives {
            let mut remote = Remote::new(load(engine));
            remote.stdin = Some(Box::new(tokio::fs::File::open(archive).await?));
            self.timed(remote).await?;
            self.events.note(format!("{engine} loaded `{}`", archive.display()));
        }
        for image in &images.pull {
            self.in_guest("/", &format!("exec {engine} pull --quiet {image}"), &[]).await?;
            self.events.note(format!("{engine} pulled {image}"));
        }
        Ok(())
    }
}

/// The command that takes an archive on its standard input.
fn load(engine: &str) -> String {
    as_root(&format!("exec env PATH={} HOME=/root {engine} load", environment::PATH))
}
