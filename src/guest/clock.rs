//! The guest's clock, after it stood still or went wrong.

use std::path::Path;
use std::time::Duration;

use qapi::qga as schema;

use super::agent::Agent;
use crate::error::{Error, Result};

/// For the whole: a tenth of a second where an agent runs.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Until an agent says what time it is; others may wait for the agent meanwhile.
const ANSWER: Duration = Duration::from_secs(2);

/// Sets the guest's clock to the host's, through the guest agent on `socket`.
///
/// # Errors
/// No agent answers, or it may not set the clock.
pub async fn set(socket: &Path) -> Result<()> {
    let mut agent = Agent::connect(socket, TIMEOUT).await?;
    set_by(&mut agent).await
}

/// Looks at the guest's clock and sets it to the host's if it is off by more than `tolerance`; then says by
/// how many seconds it was (below 0: it was late).
///
/// # Errors
/// No agent answers, or it may not set the clock.
pub async fn correct(socket: &Path, tolerance: Duration) -> Result<Option<f64>> {
    let mut agent = Agent::connect(socket, ANSWER).await?;
    let before = now();
    let guest = agent.execute(schema::guest_get_time {}, ANSWER).await?;
    let guest = seconds(guest.into());
    let off = off_by(guest, before, now());
    if off.abs() <= tolerance.as_secs_f64() {
        return Ok(None);
    }
    set_by(&mut agent).await?;
    Ok(Some(off))
}

/// By how much `guest` is off, which was read at some time between these two of the host. Where the
/// host's clock was set meanwhile, nothing can be said.
fn off_by(guest: f64, before: f64, after: f64) -> f64 {
    if after < before || (before..=after).contains(&guest) {
        0.0
    } else if guest < before {
        guest - before
    } else {
        guest - after
    }
}

/// Not by `guest-set-time` at first: that also writes the hardware clock, for which it waits up to a second.
/// Where programs may not be run, it is the only way.
async fn set_by(agent: &mut Agent) -> Result<()> {
    let now = jiff::Timestamp::now();
    let (seconds, millis) = (now.as_second(), now.subsec_millisecond());
    let script = format!("date -u -s @{seconds}.{millis:03} || date -u -s @{seconds}");
    let ran = match agent.run("/bin/sh", &["-c", &script], b"", TIMEOUT).await {
        Ok(ran) => ran,
        Err(e) => {
            let time = i64::try_from(jiff::Timestamp::now().as_nanosecond()).ok();
            let set = agent.execute(schema::guest_set_time { time }, TIMEOUT).await;
            return set.map(|_| ()).map_err(|_| e);
        }
    };
    if ran.code != 0 {
        let why = crate::exec::last_lines(&ran.err, 1).pop().unwrap_or_default();
        return Err(Error::failed("cannot set the guest's clock").cause(why));
    }
    Ok(())
}

fn now() -> f64 {
    seconds(jiff::Timestamp::now().as_nanosecond())
}

/// To the microsecond, which is enough here.
#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit")]
fn seconds(nanos: i128) -> f64 {
    (nanos / 1000) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn a_slow_answer_is_no_wrong_clock() {
        assert!(close(off_by(100.5, 100.0, 109.0), 0.0));
        assert!(close(off_by(95.0, 100.0, 101.0), -5.0));
        assert!(close(off_by(120.0, 100.0, 101.0), 19.0));
        // The host's clock jumped back while it was asked.
        assert!(close(off_by(100.0, 100.0, 50.0), 0.0));
    }
}
