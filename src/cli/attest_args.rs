//! The options of `parity` that have an equal result signed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::attest::expiry;
use crate::attest::sign::{self, Signer};
use crate::attest::statement::{Compared, Declared, Period, Side, Statement};
use crate::cli::Context;
use crate::cli::new_file::NewFile;
use crate::error::{Context as _, Error, Result, exit};
use crate::image::Limits;
use crate::image::container::{self, Options};
use crate::parity::Level;
use crate::parity::compare::{self, Comparison, Verdict};
use crate::parity::policy::Applied;
use crate::parity::subject::{self, Reference};
use crate::parity::watch::Watch;

/// Names the key where `--key` is not given.
const KEY: &str = "DEVBOX_SIGNING_KEY";
/// Where the agent's socket is, as every SSH program knows it.
const AGENT: &str = "SSH_AUTH_SOCK";
/// Most bytes of a key file that are read; real ones have some hundred.
const MAX_KEY: u64 = 1 << 16;

/// What to sign, and with what.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Attestation of an equal result")]
pub(crate) struct AttestArgs {
    /// If both sides are equal, or differ as declared, sign that and write it to this file, which must not be there yet. Both
    /// images are read for it, whatever the cache knows. See `devbox verify-attestation`.
    #[arg(long, value_name = "FILE")]
    attest: Option<PathBuf>,
    /// The ed25519 SSH key to sign with: a private key, or one that the SSH agent holds; by default the
    /// one that `DEVBOX_SIGNING_KEY` names.
    #[arg(long, value_name = "SSH_KEY", requires = "attest")]
    key: Option<PathBuf>,
    /// How long it holds (`12h`, `90d`, `1y`) or until when (`2030-01-31`), by default 90 days.
    #[arg(long, value_name = "WHEN", requires = "attest")]
    expires: Option<String>,
}

/// An attestation that is asked for, before the comparison.
#[derive(Debug)]
pub(crate) struct Attesting {
    file: PathBuf,
    signer: Signer,
    period: Period,
    sides: [Input; 2],
}

/// One of the two files.
#[derive(Debug)]
struct Input {
    name: String,
    path: PathBuf,
    watch: Watch,
}

impl AttestArgs {
    /// Fails for a side that has no file, before it is asked.
    ///
    /// # Errors
    /// Kind `Usage`.
    pub(crate) fn refuse_hosts(&self, sides: [&OsString; 2]) -> Result<()> {
        let host = sides.into_iter().find(|side| super::live_args::is_live(side));
        match (host, &self.attest) {
            (Some(host), Some(_)) => {
                let host = host.to_string_lossy();
                Err(Error::usage(format!("`{host}` cannot be attested: it is a host that runs"))
                    .cause("an attestation is of a file, whose sha256 can be checked later")
                    .hint("Compare two images, or boxes of the store."))
            }
            _ => Ok(()),
        }
    }

    /// Checks all that can be checked before images are read.
    ///
    /// # Errors
    /// Kind `Usage`: no key, a wrong time, a side that is not one file, a file that is there.
    pub(crate) fn begin(&self, a: &Reference, b: &Reference) -> Result<Option<Attesting>> {
        let Some(file) = &self.attest else { return Ok(None) };
        let output = output(file);
        output.refuse_existing()?;
        if !output.folder().is_dir() {
            return Err(Error::usage(format!("there is no folder for `{}`", file.display()))
                .hint("Make it first, or choose another place with `--attest`."));
        }
        let created = expiry::whole(Timestamp::now());
        let expires = expiry::parse(self.expires.as_deref().unwrap_or(expiry::DEFAULT), created)?;
        let signer = signer(self.key.as_deref())?;
        let [first, second] = names(a, b)?;
        let sides = [Input::begin(first, a)?, Input::begin(second, b)?];
        let period = Period { created, expires };
        Ok(Some(Attesting { file: file.clone(), signer, period, sides }))
    }
}

impl Attesting {
    /// Signs and writes if the sides are equal. Returns the exit code: an attestation that was asked for
    /// and not written is a failure, also where padding is allowed.
    ///
    /// # Errors
    /// A file is in several parts or changed meanwhile, the signer does not sign, or the result cannot be
    /// written.
    pub(crate) fn finish(
        self,
        comparison: &Comparison,
        policy: Option<&Applied>,
        limits: &Limits,
        ctx: &Context,
    ) -> Result<u8> {
        let file = self.file.display();
        let declared = match (comparison.verdict, policy.map(|policy| (policy, &policy.base[..]))) {
            (Verdict::Equal, _) => None,
            (Verdict::Equivalent, Some((policy, [base, _]))) => {
                Some(Declared { policy: policy.digest.clone(), base: base.clone() })
            }
            _ => {
                ctx.events.warn(format!("the two sides are not equal: `{file}` was not written"));
                return Ok(exit::FAILED);
            }
        };
        let (level, [a, b]) = (comparison.level, &self.sides);
        let sides =
            [a.compared(level, &comparison.a, limits)?, b.compared(level, &comparison.b, limits)?];
        let statement = Statement::new(level.as_str(), sides, declared, self.period)?;
        let envelope = self.signer.sign(&statement)?;
        output(&self.file).write(|out| Ok(out.write_all(envelope.to_json().as_bytes())?))?;
        let (keyid, until) = (self.signer.keyid(), self.period.expires);
        ctx.events.note(format!("wrote `{file}`, signed by {keyid}, valid until {until}"));
        Ok(exit::OK)
    }
}

fn output(path: &Path) -> NewFile<'_> {
    NewFile { path, option: "--attest" }
}

impl Input {
    fn begin(name: String, of: &Reference) -> Result<Self> {
        let path = of.image().ok_or_else(|| no_image(of))?.to_owned();
        let watch = Watch::begin(&path)?;
        Ok(Input { name, path, watch })
    }

    /// What was compared, with the SHA-256 of the file that it was read from.
    fn compared(&self, level: Level, side: &compare::Side, limits: &Limits) -> Result<Compared> {
        refuse_parts(level, &self.path, limits)?;
        let sha256 = subject::file(&self.path, limits)?.what.0.hex();
        // Since before the comparison: the digests and the sha256 are of the same bytes.
        self.watch.check_unchanged()?;
        let (name, digests) = (self.name.clone(), side.digests.clone());
        Ok(Compared { side: Side { name, of: side.of.to_owned(), digests }, sha256 })
    }
}

/// One SHA-256 cannot stand for several files, as a VMDK has that is a descriptor.
fn refuse_parts(level: Level, path: &Path, limits: &Limits) -> Result<()> {
    // The files as they are, or one archive with everything in it.
    if level == Level::File || container::wrapping(path)?.is_some() {
        return Ok(());
    }
    let opened = container::open(path, &Options { limits: *limits, ..Options::default() })?;
    match opened.others().next() {
        None => Ok(()),
        Some(other) => Err(Error::usage(format!("`{}` is not one file", path.display()))
            .cause(format!("its bytes are in `{}` too", other.display()))
            .hint(
                "Convert it to an image of one file with `qemu-img convert`, and compare that one.",
            )),
    }
}

/// The key, as far as it can be told before it signs.
pub(super) fn signer(key: Option<&Path>) -> Result<Signer> {
    let named = |name: &str| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
    let key = key.map(Path::to_owned).or_else(|| named(KEY).map(PathBuf::from));
    let key = key.ok_or_else(|| {
        Error::usage("no key to sign with")
            .hint(format!("Name one with `--key` or in `{KEY}`."))
            .hint(sign::MAKE)
    })?;
    let text = super::verify_attestation::read(&key, MAX_KEY)
        .map_err(|e| Error::from(e).with_kind(crate::error::Kind::Usage))
        .context(|| format!("cannot read the key `{}`", key.display()))?;
    Signer::parse(&text, &key, named(AGENT).as_deref().map(Path::new))
}

/// A name for each side that tells them apart: the file's, else as the user wrote it.
fn names(a: &Reference, b: &Reference) -> Result<[String; 2]> {
    let short = |of: &Reference| match of {
        Reference::Image(path) => path.file_name().map(OsStr::to_string_lossy).map(String::from),
        _ => None,
    };
    let short = |of: &Reference| short(of).unwrap_or_else(|| of.to_string());
    for names in [[short(a), short(b)], [a.to_string(), b.to_string()]] {
        if names[0] != names[1] {
            return Ok(names);
        }
    }
    Err(Error::usage(format!("both sides are `{a}`"))
        .hint("An attestation is about two images; name another one."))
}

fn no_image(of: &Reference) -> Error {
    let error = Error::usage(format!("`{of}` cannot be attested: it is a {}", of.kind()));
    match of {
        Reference::Manifest(_) => {
            error.cause("a manifest says what an image held, and an attestation is of bytes")
        }
        _ => error.cause("it is not one file, whose sha256 could be checked later"),
    }
    .hint("Compare two images, or boxes of the store.")
}
