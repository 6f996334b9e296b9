//! `devbox box`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Subcommand;
use fs_err as fs;
use serde_json::{Value, json};

use crate::chunks::boot::Records;
use crate::cli::{
    Context, export, import, machine as shared, outdated, prune, signatures, templates, transfer,
};
use crate::digest::FileDigest;
use crate::error::{Error, Result, exit};
use crate::host::Paths;
use crate::machine::history::History;
use crate::project::boot_record::record_boot;
use crate::registry::Address;
use crate::store::{BoxConfig, BoxRef, Checked, Live, Store, UNSEALED};
use crate::ui;

/// List, show, verify, push, pull, update, sign, import, export, remove and prune boxes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the boxes in the store.
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one box: its digests, its disk, the machines that use it.
    Show {
        /// `NAME:VERSION`, or NAME if there is only one version of it.
        #[arg(value_name = "BOX")]
        name: String,
        /// Read the whole disk and compare its digest.
        #[arg(long)]
        verify: bool,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove one box and what only it needs.
    Remove {
        /// `NAME:VERSION`, or NAME if there is only one version of it.
        #[arg(value_name = "BOX")]
        name: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Push a box to a registry or a folder; what is there already does not move again.
    Push {
        /// `NAME:VERSION`, or NAME if there is only one version of it; the box of this project by default.
        #[arg(value_name = "BOX")]
        name: Option<String>,
        /// `oci://HOST/REPOSITORY` or `dir:FOLDER`, and `:TAG` if it is not the version; `registry` of devbox.toml by default.
        #[arg(value_name = "ADDRESS")]
        address: Option<String>,
        /// Let this name mean it from now on, too: a tag that moves, such as `stable`.
        #[arg(long = "channel", value_name = "NAME")]
        channels: Vec<String>,
        /// Sign it with this ed25519 SSH key, a private one or one that the SSH agent holds; what is signed names the place.
        #[arg(long, value_name = "SSH_KEY")]
        sign: Option<PathBuf>,
        #[command(flatten)]
        how: transfer::Args,
    },
    /// Pull a box from a registry, a folder or a web server; what is here of another version does not move.
    Pull {
        /// `oci://HOST/REPOSITORY`, `dir:FOLDER` or `https://HOST/FOLDER`, and `:TAG` or `@sha256:DIGEST`; the box of this
        /// project at `registry` of devbox.toml by default.
        #[arg(value_name = "ADDRESS")]
        address: Option<String>,
        /// The architecture, where there are boxes for several: the project's or this host's by default.
        #[arg(long, value_name = "ARCH", value_parser = ["amd64", "arm64"])]
        arch: Option<String>,
        /// Move the name if it means another box here.
        #[arg(long)]
        replace: bool,
        /// Take an older version of a channel than before, from a place whose boxes have to be signed.
        #[arg(long)]
        allow_downgrade: bool,
        #[command(flatten)]
        how: transfer::Args,
    },
    /// Boot a box once and keep what of its disk that reads: `up --from` fetches it first, and `push` sends it along.
    Record {
        /// `NAME:VERSION`, or NAME if there is only one version of it.
        #[arg(value_name = "BOX")]
        name: String,
        /// How long it may take until a login works
        #[arg(long, value_name = "DURATION", value_parser = shared::duration, default_value = "10m")]
        timeout: Duration,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a box of what others made: a disk, a Vagrant box or catalog, an OVA, a containerDisk, a disk of podman's machines.
    Import(Box<import::Args>),
    /// Write a box as a file for others, and name it in a Vagrant catalog.
    Export(Box<export::Args>),
    /// Sign a box where it is: its manifest there, its place, name, version and architecture.
    Sign(signatures::SignArgs),
    /// Read every byte of the boxes in the store and compare the digests; show who has signed them.
    Verify {
        /// Only these: `NAME:VERSION`, or NAME if there is only one version of it.
        #[arg(value_name = "BOX")]
        names: Vec<String>,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which boxes of this project are older than what its registries have.
    ///
    /// Ends with 1 if one is, and with 3 if that cannot be told.
    Outdated {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Move `devbox.lock` to the newest source that fits, and pull it.
    Update {
        /// Let `qemu-img` read disks with all your rights where this host cannot isolate it.
        #[arg(long)]
        allow_unsandboxed: bool,
    },
    /// List the templates that machines start from.
    Templates {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove what no box and no machine needs, and templates that fit no box; keep old versions as what differs from the newest.
    Prune {
        /// Remove all templates; the next `devbox up` makes new ones.
        #[arg(long)]
        templates: bool,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    /// Whether "could not tell" is an answer.
    pub(super) fn asks(&self) -> bool {
        matches!(self.verb, Verb::Outdated { .. })
    }
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let store = Store::open(&ctx.paths.store)?;
    match args.verb {
        Verb::List { json } => {
            if !list(&store, &live(&ctx.paths)?, json)? {
                ctx.events.note("the store is empty; `devbox build` puts a box into it");
            }
        }
        Verb::Show { name, verify, json } => {
            let image = named(&store, &name)?;
            if verify {
                store.verify(&image)?;
            }
            show(&image, &live(&ctx.paths)?, json)?;
        }
        Verb::Remove { name, json } => {
            let (name, version) = split(&store, &name)?;
            let mut removed = store.remove(&name, &version, &live(&ctx.paths)?)?;
            removed.temporary.extend(templates::prune(
                ctx,
                &store,
                &live(&ctx.paths)?,
                false,
                false,
            )?);
            prune::report(&format!("removed {name}:{version}"), &removed, json)?;
        }
        Verb::Push { name, address, channels, sign, how } => {
            let image = match &name {
                Some(name) => named(&store, name)?,
                None => named(&store, &transfer::own()?)?,
            };
            let image = whole(&store, image, ctx)?;
            let address = match &address {
                Some(address) => Address::parse(address)?,
                None => transfer::home_of(image.config())?,
            };
            transfer::push(&store, &image, &address, &channels, sign.as_deref(), &how, ctx)?;
        }
        Verb::Pull { address, arch, replace, allow_downgrade, how } => {
            let (address, arch) = match &address {
                Some(address) => (Address::parse(address)?, arch),
                None => {
                    let (address, own) = transfer::home()?;
                    (address, arch.or(Some(own)))
                }
            };
            transfer::pull(&store, &address, arch, replace, allow_downgrade, &how, ctx)?;
        }
        Verb::Export(args) => {
            let image = whole(&store, named(&store, &args.name)?, ctx)?;
            export::run(&image, &args, ctx)?;
        }
        Verb::Import(args) => import::run(&store, *args, ctx)?,
        Verb::Sign(args) => signatures::sign(&store, &args, ctx)?,
        Verb::Verify { names, json } => return verify(&store, &names, json, ctx),
        Verb::Outdated { json } => return outdated::outdated(json, ctx),
        Verb::Update { allow_unsandboxed } => return outdated::update(allow_unsandboxed, ctx),
        Verb::Record { name, timeout, json } => {
            let image = whole(&store, named(&store, &name)?, ctx)?;
            record(&image, timeout, json, ctx)?;
        }
        Verb::Templates { json } => templates::list(ctx, json)?,
        Verb::Prune { templates, dry_run, json } => {
            prune::run(&store, templates, dry_run, json, ctx)?;
        }
    }
    Ok(exit::OK)
}

/// Sees what a boot of a box reads, and keeps it beside the store.
fn record(image: &BoxRef, timeout: Duration, json: bool, ctx: &Context) -> Result<()> {
    let recorded =
        ctx.block_on(async |cancel| record_boot(image, timeout, ctx.work(&cancel)).await)?;
    Records::new(&ctx.paths.cache).keep(image.disk_digest(), &recorded.record)?;
    let (reference, bytes) = (image.config().reference(), recorded.bytes);
    if json {
        let value = json!({
            "reference": reference,
            "disk": image.disk_digest(),
            "bytes": bytes,
            "stored": image.stored_size(),
            "record": recorded.record.len(),
            "seconds": recorded.took.as_secs_f64(),
        });
        return ui::line(&format!("{value:#}"));
    }
    ui::line(&format!(
        "a boot of {reference} reads {} of {}",
        size(bytes),
        size(image.stored_size())
    ))
}

/// Whether there is any box.
fn list(store: &Store, live: &Live, json: bool) -> Result<bool> {
    let boxes = store.list()?;
    if json {
        let all: Vec<Value> = boxes.iter().map(|image| describe(image, live)).collect();
        ui::line(&format!("{:#}", Value::from(all)))?;
        return Ok(!boxes.is_empty());
    }
    let width = boxes.iter().map(|b| b.config().reference().len()).max().unwrap_or(0).max(3);
    if !boxes.is_empty() {
        ui::line(&format!(
            "{:width$}  {:>9}  {:>9}  {:<17}  MACHINES",
            "BOX", "DISK", "STORED", "CONTENT"
        ))?;
    }
    for image in &boxes {
        let config = image.config();
        // Enough of a digest to tell boxes apart by eye.
        let content: String = config.box1.to_string().chars().take(17).collect();
        let line = format!(
            "{:width$}  {:>9}  {:>9}  {content}  {}",
            config.reference(),
            size(config.disk_size),
            size(image.kept_size()),
            users(image, live).join(", ")
        );
        ui::line(line.trim_end())?;
    }
    Ok(!boxes.is_empty())
}

fn show(image: &BoxRef, live: &Live, json: bool) -> Result<()> {
    if json {
        return ui::line(&format!("{:#}", describe(image, live)));
    }
    let config = image.config();
    for (name, value) in [
        ("box", config.reference()),
        ("content", config.box1.to_string()),
        ("disk", config.bytes1.to_string()),
        ("inputs", config.spec1.to_string()),
        ("manifest", image.manifest_digest().to_string()),
        ("arch", config.arch.clone()),
        ("firmware", config.firmware.clone()),
        ("cmdline", config.cmdline.clone()),
        ("size", format!("{}, {} stored", size(config.disk_size), kept(image))),
        ("seal", sealed(config)),
        (made(config), format!("devbox {}", config.devbox)),
        ("file", image.disk_path().display().to_string()),
        ("machines", users(image, live).join(", ")),
    ] {
        ui::line(format!("{name:9} {value}").trim_end())?;
    }
    Ok(())
}

fn verify(store: &Store, names: &[String], json: bool, ctx: &Context) -> Result<u8> {
    let mut wanted = vec![];
    for name in names {
        let (name, version) = split(store, name)?;
        if store.find(&name, &version).is_ok_and(|found| found.is_none()) {
            return Err(missing(&name, &version));
        }
        wanted.push(format!("{name}:{version}"));
    }
    let policy = signatures::policy(ctx)?;
    let (to_check, all) = (store.clone(), wanted.is_empty());
    let checks = ctx.block_on(async |cancel| {
        let cancel = cancel.clone();
        let work = move || to_check.check((!all).then_some(&wanted), &cancel);
        crate::blocking::blocking("verifying the store", work).await
    })?;
    let kept = |checked: &Checked| match &checked.result {
        Ok(image) => signatures::kept(store, image, &policy),
        Err(_) => Ok((vec![], Value::Null)),
    };
    if json {
        let mut boxes = vec![];
        for checked in &checks.boxes {
            let problem = checked.result.as_ref().err().map(crate::error::Error::what);
            let (_, signatures) = kept(checked)?;
            boxes.push(json!({"reference": checked.reference, "whole": problem.is_none(), "problem": problem, "signatures": signatures}));
        }
        let value = json!({"boxes": boxes, "damaged_blobs": checks.blobs});
        ui::line(&format!("{value:#}"))?;
    } else {
        for checked in &checks.boxes {
            match &checked.result {
                Ok(_) => ui::line(&format!("whole    {}", checked.reference))?,
                Err(e) => {
                    ui::line(&format!("damaged  {}: {}", checked.reference, e.what()))?;
                }
            }
            let (lines, _) = kept(checked)?;
            lines.iter().try_for_each(|line| ui::line(&format!("signed   {line}")))?;
        }
        for path in &checks.blobs {
            ui::line(&format!("damaged  {}", path.display()))?;
        }
    }
    if checks.is_clean() {
        return Ok(exit::OK);
    }
    ctx.events.warn("something in the store is damaged; remove it with `devbox box remove` or `devbox box prune`, then build or pull it again");
    Ok(exit::FAILED)
}

fn missing(name: &str, version: &str) -> Error {
    Error::failed(format!("there is no box `{name}:{version}` in the store"))
        .hint("Run `devbox box list` to see what is there.")
}

fn sealed(config: &BoxConfig) -> String {
    match config.seal.as_str() {
        UNSEALED => {
            "none: imported as somebody else made it, with its accounts and keys".to_owned()
        }
        seal => format!("{seal}, epoch {}", config.epoch),
    }
}

/// What its disk takes, and as what.
fn kept(image: &BoxRef) -> String {
    let size = size(image.kept_size());
    match image.delta() {
        None => size,
        Some(kept) => format!("{size} as what differs from {}", kept.base),
    }
}

/// Who brought it into the store.
fn made(config: &BoxConfig) -> &'static str {
    if config.seal == UNSEALED { "imported" } else { "built by" }
}

fn describe(image: &BoxRef, live: &Live) -> Value {
    json!({
        "reference": image.config().reference(),
        "manifest": image.manifest_digest(),
        "disk": image.disk_path(),
        "stored": image.stored_size(),
        "kept": image.kept_size(),
        "difference_from": image.delta().map(|kept| kept.base),
        "config": image.config(),
        "machines": users(image, live),
    })
}

pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn users(image: &BoxRef, live: &Live) -> Vec<String> {
    live.get(&image.manifest_digest()).cloned().unwrap_or_default()
}

fn named(store: &Store, name: &str) -> Result<BoxRef> {
    let (name, version) = split(store, name)?;
    store.find(&name, &version)?.ok_or_else(|| missing(&name, &version))
}

/// The box with its disk as a file, while what is returned lives.
///
/// # Errors
/// As [`crate::delta::whole`].
pub(super) fn whole(store: &Store, image: BoxRef, ctx: &Context) -> Result<BoxRef> {
    ctx.block_on(async |cancel| crate::delta::whole(store, image, &ctx.events, &cancel).await)
}

/// Name and version; the only version if none is given.
fn split(store: &Store, text: &str) -> Result<(String, String)> {
    if let Some((name, version)) = text.split_once([':', '@']) {
        return Ok((name.to_owned(), version.to_owned()));
    }
    let boxes = store.list()?;
    let versions: Vec<&str> = boxes
        .iter()
        .map(BoxRef::config)
        .filter(|c| c.name == text)
        .map(|c| &c.version[..])
        .collect();
    match versions.as_slice() {
        [only] => Ok((text.to_owned(), (*only).to_owned())),
        [] => Err(Error::failed(format!("there is no box `{text}` in the store"))
            .hint("Run `devbox box list` to see what is there.")),
        several => {
            Err(Error::usage(format!("`{text}` has several versions: {}", several.join(", ")))
                .hint(format!("Name one, as in `{text}:{}`.", several[several.len() - 1])))
        }
    }
}

/// The boxes that machines use, from the machines' own records.
///
/// # Errors
/// A record cannot be read: which box it needs cannot be told.
pub(crate) fn live(paths: &Paths) -> Result<Live> {
    let mut live = Live::new();
    let entries = match fs::read_dir(&paths.machines) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(live),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let entry = entry?;
        let record = entry.path().join("machine.json");
        let text = match fs::read(&record) {
            Ok(text) => text,
            // A folder without a record is no machine: one that is being made, or half removed.
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                // One that is between two boxes.
                let folder = entry.file_name().to_string_lossy().into_owned();
                let name = folder.rsplit_once('-').map_or(&*folder, |(name, _)| name);
                needed(&entry.path(), None, name, &mut live)?;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let unreadable = || {
            Error::failed(format!(
                "cannot tell which box the machine of `{}` uses",
                record.display()
            ))
            .hint("Remove the machine with `devbox destroy`, or its folder.")
        };
        let value: Value = serde_json::from_slice(&text).map_err(|e| unreadable().cause(e))?;
        let manifest: Option<FileDigest> =
            value["base"]["manifest"].as_str().and_then(|m| m.parse().ok());
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = value["name"].as_str().map_or(name, str::to_owned);
        let manifest = manifest.ok_or_else(unreadable)?;
        needed(&entry.path(), Some(manifest), &name, &mut live)?;
        live.entry(manifest).or_default().push(name);
    }
    for machines in live.values_mut() {
        machines.sort_unstable();
    }
    Ok(live)
}

/// Adds what a rollback of the machine in `folder` needs, which runs on the box `runs`.
fn needed(folder: &Path, runs: Option<FileDigest>, name: &str, live: &mut Live) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let history = History::read(&folder.join("history.json"))?;
    let runs = runs.map(|manifest| manifest.to_string());
    for manifest in history.needed(runs.as_deref()) {
        // What is no digest is no box.
        let Ok(manifest) = manifest.parse::<FileDigest>() else { continue };
        let users = live.entry(manifest).or_default();
        let user = format!("{name} (rollback)");
        if runs.as_deref() != Some(&*manifest.to_string()) && !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::FileDigest;

    #[test]
    fn machines_keep_their_boxes_and_an_unreadable_record_stops_everything() {
        let dir = tempfile::tempdir().expect("folder");
        let path = |name: &str| dir.path().join(name);
        let paths = Paths {
            store: path("store"),
            machines: path("machines"),
            templates: path("templates"),
            bundles: path("bundles"),
            disks: path("disks"),
            settings: path("config.toml"),
            cache: path("cache"),
            runtime: path("runtime"),
        };
        assert!(live(&paths).expect("none").is_empty());
        let digest = FileDigest::of(b"manifest");
        let record = |name: &str, text: String| {
            fs::create_dir_all(paths.machines.join(name)).expect("made");
            fs::write(paths.machines.join(name).join("machine.json"), text).expect("written");
        };
        fs::create_dir_all(paths.machines.join("half")).expect("made");
        for name in ["b", "a"] {
            record(name, format!(r#"{{"name": "{name}", "base": {{"manifest": "{digest}"}}}}"#));
        }
        let found = live(&paths).expect("reads");
        assert_eq!(found.get(&digest).expect("live"), &["a", "b"]);
        // What a rollback needs is kept, of a machine that is between two boxes too.
        let old = FileDigest::of(b"old");
        let text = format!(
            r#"{{"format": 1, "ran": [
                {{"reference": "web:1", "manifest": "{old}", "from": 1, "until": 2}},
                {{"reference": "web:2", "manifest": "{digest}", "from": 2, "until": null}}]}}"#
        );
        fs::write(paths.machines.join("a/history.json"), &text).expect("written");
        fs::create_dir_all(paths.machines.join("x-12345678")).expect("made");
        fs::write(paths.machines.join("x-12345678/history.json"), &text).expect("written");
        let found = live(&paths).expect("reads");
        assert_eq!(found.get(&old).expect("live"), &["a (rollback)"]);
        assert_eq!(found.get(&digest).expect("live"), &["a", "b", "x (rollback)"]);
        fs::write(paths.machines.join("a/history.json"), "{").expect("written");
        assert!(live(&paths).expect_err("unknown").what().contains("history.json"));
        fs::write(paths.machines.join("a/history.json"), &text).expect("written");
        record("c", "{}".to_owned());
        assert!(live(&paths).expect_err("unknown").what().contains("machine.json"));
    }
}
