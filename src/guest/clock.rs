//! The guest's clock after it stood still.

use std::path::Path;
use std::time::Duration;

use super::agent::Agent;
use crate::error::{Error, Result};

/// For the whole: a tenth of a second where an agent runs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sets the guest's clock to the host's, through the guest agent on `socket`.
///
/// Not by `guest-set-time`: that also writes the hardware clock, for which it waits up to a second.
///
/// # Errors
/// No agent answers, or it may not run programs.
pub async fn set(socket: &Path) -> Result<()> {
    let mut agent = Agent::connect(socket, TIMEOUT).await?;
    let now = jiff::Timestamp::now();
    let (seconds, millis) = (now.as_second(), now.subsec_millisecond());
    let script = format!("date -u -s @{seconds}.{millis:03} || date -u -s @{seconds}");
    let ran = agent.run("/bin/sh", &["-c", &script], b"", TIMEOUT).await?;
    if ran.code != 0 {
        let why = crate::exec::last_lines(&ran.err, 1).pop().unwrap_or_default();
        return Err(Error::failed("cannot set the guest's clock").cause(why));
    }
    Ok(())
}
