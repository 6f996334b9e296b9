//! How long an attestation holds: what people write after `--expires`.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::error::{Error, Result};

/// How long an attestation holds if nothing is said: long enough for a release to be deployed, short
/// enough that a key that was lost is not trusted for years.
pub const DEFAULT: &str = "90d";

/// Reads a duration from `now` on (`90d`, `12h`, `1y`), a day (`2027-06-30`, of which it means the
/// beginning, in UTC) or a point in time (`2027-06-30T12:00:00Z`). Whole seconds.
///
/// # Errors
/// Kind `Usage`: it is none of these, or not in the future.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    let wrong = |why: String| {
        Error::usage(format!("`--expires {text}` is no time in the future"))
            .cause(why)
            .hint("Write how long, such as `90d`, or until when, such as `2030-01-31`.")
    };
    let at = point(text, now).map_err(wrong)?;
    let at = whole(at);
    if at <= now {
        return Err(wrong(format!("it is {} now", whole(now))));
    }
    Ok(at)
}

/// A point in time without parts of a second, which nobody needs here.
#[must_use]
pub fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn point(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    // A date reads a longer text too and forgets its time of day.
    if text.len() == "2030-01-31".len()
        && let Ok(day) = text.parse::<Date>()
    {
        return day.to_zoned(TimeZone::UTC).map(|at| at.timestamp()).map_err(|e| e.to_string());
    }
    let span: Span = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let at = now.to_zoned(TimeZone::UTC).checked_add(span).map_err(|e| e.to_string())?;
    Ok(at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn durations_days_and_points_in_time() {
        let now = time("2026-11-22T06:00:00.25Z");
        for (text, expected) in [
            (DEFAULT, "2027-02-20T06:00:00Z"),
            ("12h", "2026-11-22T18:00:00Z"),
            ("1y", "2027-11-22T06:00:00Z"),
            ("2 weeks", "2026-12-06T06:00:00Z"),
            ("2027-06-30", "2027-06-30T00:00:00Z"),
            ("2027-06-30T12:00:00Z", "2027-06-30T12:00:00Z"),
            ("2027-06-30T12:00:00+02:00", "2027-06-30T10:00:00Z"),
        ] {
            assert_eq!(parse(text, now).expect(text), time(expected), "{text}");
        }
    }

    #[test]
    fn what_is_over_or_no_time_is_wrong_usage() {
        let now = time("2026-11-22T06:00:00Z");
        let wrong = [
            "2026-11-22",
            "2026-11-22T06:00:00Z",
            "0s",
            "-1d",
            "soon",
            "",
            "9999999y",
            "2027-02-30",
            "90",
        ];
        for text in wrong {
            let e = parse(text, now).expect_err(text);
            assert_eq!(e.kind(), crate::error::Kind::Usage);
        }
    }
}
