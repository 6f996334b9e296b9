//! `devbox box sign`, and the signatures that `devbox box verify` and `pull` show.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::attest::placed::Signed;
use crate::attest::sign::{Signer, fingerprint};
use crate::cli::{Context, attest_args};
use crate::error::{Error, Kind, Result};
use crate::registry::{self, Address, Options, Policy};
use crate::spec;
use crate::store::{BoxRef, Store};
use crate::ui;

/// What `devbox box sign` takes.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// Where the box is: an address with `:TAG` if the box is in the store too, else with `@sha256:DIGEST`.
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// The ed25519 SSH key to sign with: a private key, or one that the SSH agent holds; by default the one that
    /// `DEVBOX_SIGNING_KEY` names.
    #[arg(long, value_name = "SSH_KEY")]
    key: Option<PathBuf>,
    /// Sign it as the box of this place, which shows the same one: a web server that shows the folder, a mirror.
    #[arg(long = "as", value_name = "ADDRESS")]
    elsewhere: Option<String>,
    /// The architecture, where there are boxes for several: this host's by default.
    #[arg(long, value_name = "ARCH", value_parser = ["amd64", "arm64"])]
    arch: Option<String>,
    /// Speak HTTP without TLS to the registry; one on this host is tried anyway.
    #[arg(long)]
    plain_http: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Who signs what is pushed, if somebody does.
pub(super) fn signer(key: Option<&Path>) -> Result<Option<Signer>> {
    key.map(|key| attest_args::signer(Some(key))).transpose()
}

/// What has to be signed by whom: as the user's own file says, and the spec of the current folder, if there is one.
pub(super) fn policy(ctx: &Context) -> Result<Policy> {
    let spec = match spec::find(None) {
        Ok(file) => Some(spec::load(Some(&file))?),
        Err(_) => None,
    };
    Policy::load(spec.as_ref(), &ctx.paths.settings)
}

pub(super) fn sign(store: &Store, args: &SignArgs, ctx: &Context) -> Result<()> {
    let address = Address::parse(&args.address)?;
    let elsewhere = args.elsewhere.as_deref().map(Address::parse).transpose()?;
    if let Some(Address { which: Some(_), .. }) = elsewhere {
        return Err(Error::usage("`--as` names a place, and no box there")
            .hint("Leave the tag or the digest out."));
    }
    let signer = attest_args::signer(args.key.as_deref())?;
    let options = Options {
        plain_http: args.plain_http,
        arch: args.arch.clone(),
        ..Options::new(Policy::none())
    };
    let place = elsewhere.as_ref().map(|address| &address.place);
    let signed = ctx.block_on(async |cancel| {
        registry::sign(store, &address, place, &signer, &options, &ctx.events, &cancel).await
    })?;
    let of = &signed.placed.of;
    if args.json {
        let value = json!({
            "address": signed.address.to_string(),
            "manifest": signed.placed.manifest,
            "statement": of,
            "keyid": signed.keyid,
            "wasThere": signed.was_there,
        });
        return ui::line(&format!("{value:#}"));
    }
    if signed.was_there {
        ctx.events.note("the same signature was there");
    }
    ui::line(&format!("{} {} {} {}", signed.address, of.reference(), of.arch, signed.keyid))
}

/// The signatures that are kept with a box, for people and for JSON.
///
/// # Errors
/// Kind `Trust`: one is of another box.
pub(super) fn kept(store: &Store, image: &BoxRef, policy: &Policy) -> Result<(Vec<String>, Value)> {
    let (mut lines, mut values) = (vec![], vec![]);
    for text in store.signatures(image)? {
        let signed = about(image, &text)?;
        let of = &signed.placed.of;
        let place = Address::parse(&of.place)?.place;
        for key in &signed.keys {
            let (keyid, by) = (fingerprint(key), policy.trusts(&place, key));
            let trusted = by.as_ref().map_or_else(
                || "which nothing here trusts".to_owned(),
                |by| format!("trusted for {by}"),
            );
            lines.push(format!("{} at {} by {keyid}, {trusted}", of.reference(), of.place));
            values.push(json!({"statement": of, "manifest": signed.placed.manifest, "keyid": keyid, "trusted": by}));
        }
    }
    Ok((lines, Value::from(values)))
}

/// A kept signature, which is of this box and no other one.
fn about(image: &BoxRef, text: &[u8]) -> Result<Signed> {
    let signed = Signed::parse(text)?;
    let (of, config) = (&signed.placed.of, image.config());
    let fits = of.disk == image.disk_digest()
        && of.reference() == config.reference()
        && of.arch == config.arch;
    if fits {
        return Ok(signed);
    }
    Err(Error::new(
        Kind::Trust,
        format!("a signature that is kept with `{}` is of another box", config.reference()),
    )
    .detail(format!(
        "expected: {} for {}, disk {}",
        config.reference(),
        config.arch,
        image.disk_digest()
    ))
    .detail(format!("found:    {} for {}, disk {}", of.reference(), of.arch, of.disk))
    .hint("Remove the box with `devbox box remove`, and pull it again."))
}

/// The keys of what was pulled, for people and for JSON.
pub(super) fn signers(
    pulled: &registry::Pulled,
    address: &Address,
    policy: &Policy,
) -> (Vec<String>, Value) {
    let (mut lines, mut values) = (vec![], vec![]);
    for key in &pulled.signers {
        let (keyid, by) = (fingerprint(key), policy.trusts(&address.place, key));
        lines.push(match &by {
            Some(by) => format!("signed by {keyid}, trusted for {by}"),
            None => format!("signed by {keyid}, which nothing here trusts"),
        });
        values.push(json!({"keyid": keyid, "trusted": by}));
    }
    (lines, Value::from(values))
}
