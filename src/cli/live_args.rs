//! A side that may be a host that runs.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::cli::limits::LimitArgs;
use crate::cli::{Context, reference};
use crate::error::{Error, Result};
use crate::live::address::{Address, SCHEME};
use crate::live::{self, Options};
use crate::parity::Level;
use crate::parity::subject::Reference;
use crate::parity::watch::Watch;

/// How a host `ssh://…` is asked.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Hosts that run")]
pub(crate) struct LiveArgs {
    /// The static devbox to send to the host, in place of this one.
    #[arg(long, value_name = "FILE", env = "DEVBOX_HOST_BINARY", hide_env_values = true)]
    host_binary: Option<PathBuf>,
    /// An option of ssh, as after its `-o`; several times for several.
    #[arg(long = "ssh-option", value_name = "OPTION")]
    ssh_options: Vec<OsString>,
}

/// Whether `text` is the address of a host.
pub(crate) fn is_live(text: &OsStr) -> bool {
    text.as_encoded_bytes().starts_with(SCHEME.as_bytes())
}

impl LiveArgs {
    /// What `text` names, as [`reference::parse`]; of a host, it is asked for what `level` needs, or for the
    /// most that it can tell.
    ///
    /// # Errors
    /// As [`reference::parse`] and [`live::look`].
    pub(crate) fn parse(
        &self,
        text: &OsStr,
        level: Option<Level>,
        limits: &LimitArgs,
        ctx: &Context,
    ) -> Result<Reference> {
        if !is_live(text) {
            return reference::parse(text, ctx);
        }
        let address: Address = text.to_string_lossy().parse()?;
        let binary = self.host_binary.clone().filter(|path| !path.as_os_str().is_empty());
        let options = Options { binary, ssh: self.ssh_options.clone(), words: limits.words() };
        live::look(&address, level, &options, &ctx.events).map_err(super::parity::could_not_tell)
    }

    /// Both sides, and the level to compare them at: `level`, or the strongest that both can tell. Hosts come last,
    /// when the rest is known to be there.
    ///
    /// # Errors
    /// As [`LiveArgs::parse`].
    pub(crate) fn both(
        &self,
        [a, b]: [&OsStr; 2],
        level: Option<Level>,
        limits: &LimitArgs,
        ctx: &Context,
    ) -> Result<(Reference, Reference, Level)> {
        let parse = |text: &OsStr| self.parse(text, level, limits, ctx);
        let files = level.unwrap_or(Level::Tree);
        let (a, b) = match (is_live(a), is_live(b)) {
            (true, false) => {
                let b = there(parse(b)?, files)?;
                (parse(a)?, b)
            }
            (false, true) => (there(parse(a)?, files)?, parse(b)?),
            _ => (parse(a)?, parse(b)?),
        };
        let level = level.unwrap_or_else(|| match (a.of_host(), b.of_host()) {
            (Some(Level::Packages), _) | (_, Some(Level::Packages)) => Level::Packages,
            (Some(_), _) | (_, Some(_)) => Level::Tree,
            (None, None) => Level::Content,
        });
        Ok((a, b, level))
    }
}

/// Fails if what was named cannot be compared at that level, or is not there.
fn there(of: Reference, level: Level) -> Result<Reference> {
    of.check(level)?;
    match &of {
        Reference::Directory(path) if !path.is_dir() => {
            Err(Error::undetermined(format!("there is no directory `{}`", path.display())))
        }
        _ => of.image().map_or(Ok(()), |path| Watch::begin(path).map(drop)),
    }?;
    Ok(of)
}
