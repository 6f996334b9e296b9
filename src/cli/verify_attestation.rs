//! `devbox verify-attestation`.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::attest::MAX_BYTES;
use crate::attest::statement::{Statement, Verdict};
use crate::attest::trust::Trust;
use crate::attest::verify::{Present, Verified, subjects, verify};
use crate::cli::{Context, reference};
use crate::error::{Context as _, Error, Kind, Result, exit};
use crate::image::Limits;
use crate::parity::subject;
use crate::ui;

/// Verify a signed attestation that two images are equal.
///
/// It is checked offline, and before any image is looked at: the signature, by a key of the trust file;
/// the kind of statement; when it was signed and until when it holds. Then the SHA-256 of each `--subject`
/// has to be that of an image that was compared. Ends with 4 if anything is not as it has to be.
/// `devbox parity --attest` makes attestations.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The attestation.
    file: PathBuf,
    /// The keys that are trusted, as OpenSSH's list of allowed signers: lines of a name, options and a
    /// public key (`man ssh-keygen`, ALLOWED SIGNERS).
    #[arg(long, value_name = "TRUSTFILE")]
    trust: PathBuf,
    /// An image, or a box `NAME:VERSION`, that has to be one of the two; give it twice for both.
    #[arg(long, value_name = "IMAGE")]
    subject: Vec<OsString>,
    /// Whose key it has to be, of those in the trust file.
    #[arg(long, value_name = "NAME")]
    signer: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The JSON form; `schema` changes when a field changes its meaning.
#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    signer: &'a str,
    keyid: &'a str,
    subjects: Vec<Checked<'a>>,
    statement: &'a Statement,
}

/// A file that was given, and which subject it is.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a str,
    subject: &'a str,
    sha256: &'a str,
}

pub(crate) fn run(args: Args, ctx: &Context) -> Result<u8> {
    if args.subject.len() > 2 {
        return Err(Error::usage(format!("`--subject` is there {} times", args.subject.len()))
            .hint("An attestation is about two images; name one or both."));
    }
    let untrusted = || format!("cannot trust `{}`", args.file.display());
    let trust = read(&args.trust, MAX_BYTES)
        .map_err(Error::from)
        .and_then(|text| Trust::parse(&text, &TimeZone::system()))
        .context(|| format!("cannot use the trust file `{}`", args.trust.display()))
        .map_err(|e| match e.hints() {
            [] => trust_failed(e).hint("Name a file of lines `NAME ssh-ed25519 AAAA…`."),
            _ => trust_failed(e),
        })?;
    let text = read(&args.file, MAX_BYTES)
        .context(untrusted)
        .map_err(|e| trust_failed(e).hint("Name the file that `devbox parity --attest` wrote."))?;
    let now = Timestamp::now();
    let verified = verify(&text, &trust, args.signer.as_deref(), now).context(untrusted)?;
    let files = args.subject.iter().map(|name| present(name, ctx));
    let files: Vec<Present> = files.collect::<Result<_>>().map_err(trust_failed)?;
    let found = subjects(&verified.statement, &files).context(untrusted)?;
    let checked = files.iter().zip(found).map(|(file, subject)| Checked {
        file: &file.name,
        subject,
        sha256: &file.sha256,
    });
    let checked: Vec<Checked<'_>> = checked.collect();
    // Nobody has seen a verdict that could not be written.
    if args.json { print_json(&verified, checked) } else { print(&verified, &checked) }
        .map_err(trust_failed)?;
    Ok(exit::OK)
}

/// Reads a file, and no more than one byte beyond `limit`.
pub(super) fn read(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut text = vec![];
    fs_err::File::open(path)?.take(limit + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The SHA-256 of an image's file; nothing else of it is looked at.
fn present(name: &OsString, ctx: &Context) -> Result<Present> {
    let reference = reference::parse(name, ctx)?;
    let path = reference.image().map_or_else(|| PathBuf::from(name), Path::to_owned);
    let sha256 = subject::file(&path, &Limits::default())?.what.0.hex();
    Ok(Present { name: reference.to_string(), sha256 })
}

/// What could not be checked is not trusted.
fn trust_failed(e: Error) -> Error {
    e.with_kind(Kind::Trust)
}

fn print_json(verified: &Verified, subjects: Vec<Checked<'_>>) -> Result<()> {
    let json = Json {
        schema: "devbox.verify-attestation/1",
        signer: &verified.principals,
        keyid: &verified.keyid,
        subjects,
        statement: &verified.statement,
    };
    ui::line(&serde_json::to_string_pretty(&json).map_err(|e| Error::failed(e.to_string()))?)
}

fn print(verified: &Verified, checked: &[Checked<'_>]) -> Result<()> {
    let said = &verified.statement.predicate;
    let names: Vec<String> = said.sides.iter().map(|side| format!("`{}`", side.name)).collect();
    let answer = match said.verdict {
        Verdict::Equal => "equal",
        Verdict::Equivalent => "equivalent",
    };
    ui::line(&format!("trusted: {} are {answer} at level {}", names.join(" and "), said.level))?;
    let mut digests: Vec<&String> = said.sides.iter().flat_map(|side| &side.digests).collect();
    digests.dedup();
    for digest in digests {
        ui::line(&format!("  digest   {digest}"))?;
    }
    let policy = said.policy.as_deref().unwrap_or("none: no differences were declared");
    ui::line(&format!("  policy   {policy}"))?;
    if let Some(base) = &said.base {
        ui::line(&format!("  base     {base}"))?;
    }
    ui::line(&format!("  signer   {}", verified.principals))?;
    ui::line(&format!("  key      {}", verified.keyid))?;
    ui::line(&format!("  tool     {} {}", said.tool.name, said.tool.version))?;
    ui::line(&format!("  valid    {} to {}", said.created, said.expires))?;
    for one in checked {
        ui::line(&format!("  checked  `{}` is `{}`", one.file, one.subject))?;
        ui::line(&format!("  sha256   {}", one.sha256))?;
    }
    if checked.is_empty() {
        ui::line("  checked  no image; `--subject IMAGE` checks that it is one of the two")?;
    }
    Ok(())
}
