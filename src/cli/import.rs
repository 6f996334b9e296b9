//! `devbox box import`.

use std::time::Instant;

use serde_json::json;

use crate::cli::limits::LimitArgs;
use crate::cli::{Context, signatures};
use crate::error::Result;
use crate::import::{self, Asked, Means};
use crate::registry::Options;
use crate::store::{Outcome, Store};
use crate::ui;

/// What is imported, and as what.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file (qcow2, raw, VMDK, VHD, VHDX, an OVA, a Vagrant box, a containerDisk in an archive, compressed or not), Vagrant's
    /// catalog JSON as a file or address, a folder with an OCI image layout, or `oci://HOST/REPOSITORY:TAG` of a containerDisk or of
    /// a disk of podman's machines.
    #[arg(value_name = "FILE|FOLDER|ADDRESS")]
    what: String,
    /// What the box is called here: `NAME:VERSION`, or NAME where a catalog or a tag says the version.
    #[arg(long, value_name = "NAME:VERSION")]
    name: Option<String>,
    /// Of a catalog: which versions (`>= 1.2, < 2`, `~> 1.2`); the newest of them is taken.
    #[arg(long, value_name = "RANGE")]
    box_version: Option<String>,
    /// Of a catalog: the provider; by default libvirt, else one whose disk is read here.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Architecture, by Debian's name; by default the host's where there are several, else what the disk shows.
    #[arg(long, value_name = "ARCH", value_parser = ["amd64", "arm64"])]
    arch: Option<String>,
    /// SHA-256 of the file; needed for an address that is no catalog.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: Option<String>,
    /// Move the name if it means another box here.
    #[arg(long)]
    replace: bool,
    /// Speak HTTP without TLS to the registry; one on this host is tried anyway.
    #[arg(long)]
    plain_http: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

fn digest(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    match hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(hex),
        false => Err("a SHA-256 has 64 hex digits".to_owned()),
    }
}

pub(super) fn run(store: &Store, args: Args, ctx: &Context) -> Result<()> {
    let begun = Instant::now();
    let options = Options { plain_http: args.plain_http, ..Options::new(signatures::policy(ctx)?) };
    ctx.events.phase(format!("Importing {}", args.what));
    let asked = Asked {
        what: args.what,
        name: args.name,
        version: args.box_version,
        provider: args.provider,
        arch: args.arch,
        sha256: args.sha256,
        replace: args.replace,
    };
    let limits = args.limits.limits();
    let imported = ctx.block_on(async |cancel| {
        let means = Means {
            paths: &ctx.paths,
            options: &options,
            limits: &limits,
            events: &ctx.events,
            cancel: &cancel,
        };
        import::run(store, &asked, &means).await
    })?;
    let (image, outcome) = (&imported.added.image, imported.added.outcome);
    let reference = image.config().reference();
    let text = match outcome {
        Outcome::Same | Outcome::SameContent => format!("{reference} was in the store already"),
        Outcome::New | Outcome::Unnamed => format!("{reference} is in the store"),
        Outcome::Replaced => format!("{reference} means the new box now"),
    };
    ctx.events.done(text, begun.elapsed());
    ctx.events.warn(format!(
        "{reference} is not sealed: its accounts, keys and logs are those of whoever made it"
    ));
    if args.json {
        let value = json!({
            "reference": reference,
            "from": imported.from,
            "sha256": imported.sha256,
            "manifest": image.manifest_digest(),
            "disk": image.disk_digest(),
            "config": image.config(),
        });
        return ui::line(&format!("{value:#}"));
    }
    ui::line(&format!("{reference} {}", image.manifest_digest()))
}
