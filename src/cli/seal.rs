//! `devbox seal`.

use std::ffi::OsString;

use serde::Serialize;

use crate::build::seal::VERSION;
use crate::build::seal::check::{Expected, Finding, look};
use crate::cli::Context;
use crate::cli::limits::LimitArgs;
use crate::cli::parity::could_not_tell;
use crate::error::{Error, Result, exit};
use crate::image::container::Options;
use crate::image::disk::Disk;
use crate::parity::subject::Reference;
use crate::store::Store;
use crate::ui;

/// Say whether an image is sealed.
///
/// Reads every file of it, in this process, and looks for what the steps of the seal remove or set: keys, ids, logs,
/// leases, caches, the build's account. Of a box it knows the date and the host name; of another image they are checked
/// where you name them. Sealed: exit code 0; not sealed: 1; not readable: 3.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image, or a box `NAME:VERSION`.
    #[arg(value_name = "IMAGE")]
    subject: OsString,
    /// Check, and change nothing. devbox seals what it builds, and nothing else.
    #[arg(long, required = true)]
    check: bool,
    /// No file may be later than this, in seconds since 1970 UTC.
    #[arg(long, value_name = "SECONDS")]
    epoch: Option<i64>,
    /// What `/etc/hostname` says.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// How machines of it are entered: `agent` wants a guest agent that is started, as the build does where the spec
    /// says `login = "agent"`.
    #[arg(long, value_name = "HOW", value_parser = ["ssh", "agent"], default_value = "ssh")]
    login: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The JSON form; `schema` changes when a field changes its meaning.
#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    reference: String,
    seal: &'static str,
    sealed: bool,
    findings: &'a [Finding],
    /// Findings besides.
    more: usize,
    /// What was not looked at.
    unchecked: Vec<&'static str>,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    let reference = super::reference::parse(&args.subject, ctx)?;
    let (mut epoch, mut hostname) = (args.epoch, args.hostname);
    let path = match &reference {
        Reference::Stored { name, path } => {
            if let Some((name, version)) = name.split_once(':')
                && let Some(image) = Store::open(&ctx.paths.store)?.find(name, version)?
            {
                epoch = epoch.or(Some(image.config().epoch));
                hostname = hostname.or_else(|| Some(image.config().name.clone()));
            }
            path
        }
        Reference::Image(path) => path,
        other => {
            return Err(Error::usage(format!("`{other}` is a {}, and no image", other.kind()))
                .hint("Name an image file, or a box as `NAME:VERSION`."));
        }
    };
    let options = Options { limits: args.limits.limits(), ..Options::default() };
    let disk = Disk::open(path, &options).map_err(could_not_tell)?;
    let expected = Expected::of_image(epoch, hostname.as_deref(), args.login == "agent");
    let found = look(&disk, &expected).map_err(could_not_tell)?;
    let (findings, more) = found.all();
    let sealed = findings.is_empty();
    let names = [("times", epoch.is_none()), ("hostname", hostname.is_none())];
    let unchecked: Vec<_> =
        names.into_iter().filter_map(|(name, open)| open.then_some(name)).collect();
    if args.json {
        let reference = reference.to_string();
        let json = Json {
            schema: "devbox.seal-check/1",
            reference,
            seal: VERSION,
            sealed,
            findings,
            more,
            unchecked,
        };
        let text = serde_json::to_string_pretty(&json);
        ui::line(&text.map_err(|e| Error::undetermined(e.to_string()))?).map_err(could_not_tell)?;
    } else {
        tell(&reference, findings, more, &unchecked, ctx).map_err(could_not_tell)?;
    }
    Ok(if sealed { exit::OK } else { exit::FAILED })
}

fn tell(
    reference: &Reference,
    findings: &[Finding],
    more: usize,
    unchecked: &[&str],
    ctx: &Context,
) -> Result<()> {
    if unchecked.contains(&"times") {
        ctx.events
            .note("times of files were not checked; `--epoch SECONDS` says which is the last");
    }
    if unchecked.contains(&"hostname") {
        ctx.events.note("the host name was not checked; `--hostname NAME` says what it is");
    }
    if findings.is_empty() {
        return ui::line(&format!("sealed: `{reference}` is as {VERSION} leaves an image"));
    }
    let count = findings.len() + more;
    let places = if count == 1 { "place" } else { "places" };
    ui::line(&format!("not sealed: `{reference}` differs from {VERSION} in {count} {places}"))?;
    let width = findings.iter().map(|finding| finding.step.len()).max().unwrap_or_default();
    for Finding { step, what } in findings {
        ui::line(&format!("  {step:width$}  {what}"))?;
    }
    if more > 0 {
        ui::line(&format!("  and {more} more"))?;
    }
    Ok(())
}
