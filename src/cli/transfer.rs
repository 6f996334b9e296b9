//! `devbox box push` and `devbox box pull`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::chunks::boot::Records;
use crate::cli::boxes::size;
use crate::cli::{Context, signatures};
use crate::error::{Error, Result};
use crate::registry::address::{Address, Which};
use crate::registry::{self, Described, Moved, Options, Policy};
use crate::spec::{self, Spec};
use crate::store::{BoxConfig, BoxRef, Existing, Outcome, Store};
use crate::ui;

/// What both take.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Speak HTTP without TLS to the registry; one on this host is tried anyway.
    #[arg(long)]
    plain_http: bool,
    /// Print what moved as JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn options(&self, trust: Policy) -> Options {
        Options { plain_http: self.plain_http, ..Options::new(trust) }
    }
}

/// `NAME:VERSION` of the box of the current project.
pub(super) fn own() -> Result<String> {
    let spec = spec::load(None)?;
    Ok(format!("{}:{}", spec.name, spec.version))
}

/// Where the box of the current project lives, with the tag of its version, and its architecture.
pub(super) fn home() -> Result<(Address, String)> {
    let spec = spec::load(None)?;
    let which = Some(Which::Tag(spec.version.clone()));
    Ok((Address { which, ..place(&spec)? }, spec.arch.as_str().to_owned()))
}

/// Where the box `config` lives, which has to be the one of the current project.
pub(super) fn home_of(config: &BoxConfig) -> Result<Address> {
    let spec = spec::load(None).map_err(|e| {
        e.hint("Or say where it goes, as in `devbox box push NAME:VERSION oci://HOST/REPOSITORY`.")
    })?;
    let address = place(&spec)?;
    if spec.name == config.name {
        return Ok(address);
    }
    Err(Error::usage(format!(
        "`{}` is not the box of this project, which is `{}`",
        config.reference(),
        spec.name
    ))
    .detail(format!("its `registry`: {address}"))
    .hint("Say where it goes, as in `devbox box push NAME:VERSION oci://HOST/REPOSITORY`."))
}

fn place(spec: &Spec) -> Result<Address> {
    match &spec.registry {
        Some(text) => Address::parse(text),
        None => Err(Error::usage("devbox.toml does not say where its box lives").hint(
            "Write `registry = \"oci://HOST/REPOSITORY\"` into it, or name the address here.",
        )),
    }
}

pub(super) fn push(
    store: &Store,
    image: &BoxRef,
    address: &Address,
    channels: &[String],
    key: Option<&Path>,
    args: &Args,
    ctx: &Context,
) -> Result<()> {
    let signer = signatures::signer(key)?.map(Arc::new);
    let described = Described::new(&ctx.paths.cache);
    let (name, begun) = (image.config().reference(), Instant::now());
    ctx.events.phase(format!("Pushing {name} to {}", address.place));
    let pushed = ctx.block_on(async |cancel| {
        let channels = channels.to_vec();
        let signer = signer.clone();
        let options = Options { channels, signer, ..args.options(Policy::none()) };
        let events = &ctx.events;
        registry::push(store, image, address, &described, &options, events, &cancel).await
    })?;
    if let Some(record) = Records::new(&ctx.paths.cache).bytes(image.disk_digest()) {
        let attached = ctx.block_on(async |cancel| {
            let (options, disk) = (args.options(Policy::none()), image.disk_digest());
            let at = &pushed.address;
            registry::attach_boot(at, disk, &record, &options, &ctx.events, &cancel).await
        });
        match attached {
            Ok(true) => ctx.events.note("what a boot of it reads was sent along"),
            Ok(false) => {}
            Err(e) => {
                ctx.events.warn(format!("what a boot of it reads was not sent: {}", e.what()))
            }
        }
    }
    let (there, all) = pushed.packs;
    let text = match (pushed.was_there, there) {
        (true, _) => "the same box was there".to_owned(),
        (_, 0) => format!("pushed {}", size(pushed.moved.sent)),
        _ => format!("pushed {}; {there} of {all} packs were there", size(pushed.moved.sent)),
    };
    ctx.events.done(text, begun.elapsed());
    for (channel, moved) in &pushed.channels {
        let place = &pushed.address.place;
        ctx.events.note(match moved {
            true => format!("{place}:{channel} is {name} now"),
            false => format!("{place}:{channel} was {name} already"),
        });
    }
    let keyid = signer.map(|signer| signer.keyid());
    if let Some(keyid) = &keyid {
        ctx.events.note(format!("signed {name} at {} by {keyid}", pushed.address.place));
    }
    if args.json {
        let channel = |(name, moved): &(String, bool)| json!({"name": name, "moved": moved});
        let value = json!({
            "channels": pushed.channels.iter().map(channel).collect::<Vec<_>>(),
            "signedBy": keyid,
            "address": pushed.address.to_string(),
            "reference": name,
            "manifest": pushed.manifest,
            "disk": image.disk_digest(),
            "wasThere": pushed.was_there,
            "packs": {"all": all, "there": there},
            "moved": moved(pushed.moved),
        });
        return ui::line(&format!("{value:#}"));
    }
    ui::line(&format!("{} {}", pushed.address, pushed.manifest))
}

pub(super) fn pull(
    store: &Store,
    address: &Address,
    arch: Option<String>,
    replace: bool,
    allow_downgrade: bool,
    args: &Args,
    ctx: &Context,
) -> Result<()> {
    let described = Described::new(&ctx.paths.cache);
    let existing = if replace { Existing::Replace } else { Existing::Refuse };
    let begun = Instant::now();
    let mut policy = signatures::policy(ctx)?;
    policy.allow_downgrade = allow_downgrade;
    ctx.events.phase(format!("Pulling {address}"));
    let options = Options { arch, ..args.options(policy) };
    let pulled = ctx.block_on(async |cancel| {
        registry::pull(store, address, existing, &described, &options, &ctx.events, &cancel).await
    })?;
    let name = pulled.image.config().reference();
    let text = match pulled.outcome {
        Outcome::Same => format!("{name} was here"),
        Outcome::SameContent => format!("{name} was here with the same content"),
        Outcome::New | Outcome::Replaced | Outcome::Unnamed => {
            format!("pulled {}; {} were here", size(pulled.moved.received), size(pulled.reused))
        }
    };
    ctx.events.done(text, begun.elapsed());
    let (lines, signers) = signatures::signers(&pulled, address, &options.trust);
    for line in lines {
        ctx.events.note(line);
    }
    if args.json {
        let value = json!({
            "signers": signers,
            "address": address.to_string(),
            "reference": name,
            "manifest": pulled.manifest,
            "disk": pulled.image.disk_digest(),
            "outcome": match pulled.outcome {
                Outcome::New => "new",
                Outcome::Same => "same",
                Outcome::SameContent => "same-content",
                Outcome::Replaced => "replaced",
                Outcome::Unnamed => "unnamed",
            },
            "reused": pulled.reused,
            "moved": moved(pulled.moved),
        });
        return ui::line(&format!("{value:#}"));
    }
    ui::line(&format!("{name} {}", pulled.manifest))
}

fn moved(moved: Moved) -> serde_json::Value {
    json!({"requests": moved.requests, "received": moved.received, "sent": moved.sent})
}
