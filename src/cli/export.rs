//! `devbox box export`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use serde_json::json;

use crate::build;
use crate::cli::Context;
use crate::cli::replaced_file::ReplacedFile;
use crate::error::{Error, Result};
use crate::exec::sandbox::Policy;
use crate::import::offer::Offer;
use crate::spec::OutputFormat;
use crate::spec::keys::OUTPUT_FORMATS;
use crate::store::BoxRef;
use crate::ui;

/// What is written, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `NAME:VERSION`, or NAME if there is only one version of it.
    #[arg(value_name = "BOX")]
    pub(super) name: String,
    /// The form of the file, as in `outputs` of devbox.toml.
    #[arg(long, value_name = "FORMAT", default_value = "vagrant", value_parser = clap::builder::PossibleValuesParser::new(OUTPUT_FORMATS))]
    format: String,
    /// The folder of the file; by default that of the catalog, else this one.
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// Write it into this Vagrant catalog, too, which is made if it is not there: with version, architecture and checksum.
    #[arg(long, value_name = "FILE", requires = "url")]
    catalog: Option<PathBuf>,
    /// The address of the folder that a web server will show the file in.
    #[arg(long, value_name = "URL", requires = "catalog")]
    url: Option<String>,
    /// Let the catalog name this file for a released version that it names another one for.
    #[arg(long)]
    replace: bool,
    /// Let `qemu-img` read the disk where this host cannot isolate it.
    #[arg(long)]
    allow_unsandboxed: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(image: &BoxRef, args: &Args, ctx: &Context) -> Result<()> {
    let begun = Instant::now();
    let format = OutputFormat::named(&args.format).ok_or_else(|| {
        Error::usage(format!("`{}` is no format", args.format)).hint("See `--help`.")
    })?;
    if args.catalog.is_some() && format != OutputFormat::Vagrant {
        return Err(Error::usage("a catalog names boxes of Vagrant alone")
            .hint("Leave `--catalog` out, or give `--format vagrant`."));
    }
    let base = args.url.as_deref().map(base).transpose()?;
    let dir = match (&args.output_dir, &args.catalog) {
        (Some(dir), _) => dir.clone(),
        (None, Some(catalog)) => folder(catalog),
        (None, None) => PathBuf::from("."),
    };
    let reference = image.config().reference();
    ctx.events.phase(format!("Writing {reference} as {}", args.format));
    fs::create_dir_all(&dir)?;
    // The file that a catalog names stays as it is until the catalog may name another one.
    let aside = tempfile::Builder::new().prefix(".devbox-").tempdir_in(&dir)?;
    let mut output = ctx.block_on(async |cancel| {
        let policy = Policy::from_flag(args.allow_unsandboxed);
        build::export(image, format, aside.path(), policy, &ctx.paths, &cancel).await
    })?;
    let name = output.path.file_name().unwrap_or_default().to_owned();
    let publish = |from: &Path| -> Result<PathBuf> {
        let to = dir.join(from.file_name().unwrap_or_default());
        fs::rename(from, &to)?;
        Ok(to)
    };
    if let (Some(catalog), Some(base)) = (&args.catalog, base) {
        let config = image.config();
        let url = base.join(&name.to_string_lossy());
        let url = url.map_err(|e| Error::usage("the box has no address").cause(e))?;
        let offer = Offer {
            name: config.name.clone(),
            version: config.version.clone(),
            arch: config.arch.clone(),
            url: url.to_string(),
            sha256: output.sha256,
            replace: args.replace,
        };
        let path = output.path.clone();
        output.path = add(&offer, catalog, || publish(&path))?;
        ctx.events.note(format!("`{}` names it at {url}", catalog.display()));
    } else {
        output.path = publish(&output.path)?;
    }
    output.beside = output.beside.iter().map(|path| publish(path)).collect::<Result<_>>()?;
    ctx.events.done(format!("{} written and read back", output.path.display()), begun.elapsed());
    if args.json {
        let value = json!({"reference": reference, "output": output, "catalog": args.catalog});
        return ui::line(&format!("{value:#}"));
    }
    ui::line(&format!("{} {}", output.path.display(), output.sha256))
}

/// The folder behind an address.
fn base(text: &str) -> Result<reqwest::Url> {
    let with_slash = format!("{}/", text.trim_end_matches('/'));
    let url = reqwest::Url::parse(&with_slash)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| {
        Error::usage(format!("`{text}` is no address of the web"))
            .hint("Write the folder's address, as in `https://boxes.example/web`.")
    })
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Puts the file in its place by `publish` when the catalog may name it, then the catalog. Two who add at the same time wait for each other: the folder's lock is the kernel's, and leaves no file.
fn add(
    offer: &Offer,
    catalog: &Path,
    publish: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    let lock = std::fs::File::open(folder(catalog))?;
    lock.lock().map_err(|e| Error::failed("cannot lock the folder of the catalog").cause(e))?;
    let before = match fs::read(catalog) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let text = offer.added_to(before.as_deref(), &catalog.display().to_string())?;
    let mut file = ReplacedFile::create(catalog)?;
    file.fill(|out| Ok(out.write_all(text.as_bytes())?))?;
    let path = publish()?;
    file.replace()?;
    Ok(path)
}
