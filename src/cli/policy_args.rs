//! Which policy a comparison is held against, and which side is whose.

use std::path::PathBuf;

use crate::cli::Context;
use crate::error::{Error, Result};
use crate::parity::explain::InForce;
use crate::parity::policy::Policy;
use crate::spec;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    /// The devbox.toml whose `[parity]` says what may differ, in place of the project's own.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Nothing may differ, whatever the project's devbox.toml says.
    #[arg(long, conflicts_with = "policy")]
    no_policy: bool,
    /// The side that is the developers': what is declared with `only = "dev"` is there.
    #[arg(long, value_name = "SIDE", default_value = "a", value_parser = ["a", "b"])]
    dev: String,
}

impl PolicyArgs {
    /// The policy: the one that was named, or that of the project in the current folder if it has one.
    ///
    /// # Errors
    /// The file that was named cannot be read or has no `[parity]`; a declaration makes no sense.
    pub(super) fn policy(&self, ctx: &Context) -> Result<Option<Policy>> {
        if self.no_policy {
            return Ok(None);
        }
        let Ok(file) = spec::find(self.policy.as_deref()) else {
            // No project here; but a file that was named has to be there.
            return match &self.policy {
                Some(path) => spec::find(Some(path)).map(|_| None),
                None => Ok(None),
            };
        };
        let name = file.display().to_string();
        match (spec::load(Some(&file)), &self.policy) {
            (Ok(spec), _) if spec.parity.is_some() => {
                spec.parity.map(|parity| Policy::new(&parity, name)).transpose()
            }
            (Ok(_), Some(_)) => Err(Error::usage(format!("`{name}` has no `[parity]`"))
                .hint("Declare there what may differ, or leave `--policy` out.")),
            (Ok(_), None) => Ok(None),
            (Err(e), Some(_)) => Err(e),
            // Without a policy nothing may differ: that is never too little.
            (Err(e), None) => {
                ctx.events.note(format!("the policy of `{name}` is left out: {}", e.what()));
                Ok(None)
            }
        }
    }

    /// The policy as of today.
    pub(super) fn in_force<'a>(&self, policy: Option<&'a Policy>) -> Option<InForce<'a>> {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        policy.map(|policy| InForce { policy, today, dev_is_second: self.dev == "b" })
    }
}
