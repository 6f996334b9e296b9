//! What a server's answer means for a download.

use reqwest::header::{self, HeaderMap};
use reqwest::{Response, StatusCode};

use super::{Ended, sent_away};
use crate::error::Error;
use crate::source::address::Address;

/// The meaning of a status and its headers (RFC 9110, sections 14 and 15).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The whole file follows.
    Whole,
    /// What was asked for follows.
    Rest { total: Option<u64> },
    /// Nothing is missing.
    Complete,
    /// Another part than was asked for, or a file that is shorter than what is here.
    Mismatch,
    /// Worth another attempt.
    Busy(StatusCode),
    /// Not worth one.
    Refused(StatusCode),
}

impl Answer {
    /// The answer to a request from byte `from`.
    pub(super) fn of(response: &Response, from: u64) -> Self {
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        Self::from_parts(response.status(), range, from)
    }

    fn from_parts(status: StatusCode, range: Option<&str>, from: u64) -> Self {
        match status {
            StatusCode::OK => Answer::Whole,
            StatusCode::PARTIAL_CONTENT if from > 0 => match range.and_then(parse_range) {
                Some((start, total)) if start == from => Answer::Rest { total },
                _ => Answer::Mismatch,
            },
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                let total =
                    range.and_then(|r| r.strip_prefix("bytes */")).and_then(|t| t.parse().ok());
                if total == Some(from) { Answer::Complete } else { Answer::Mismatch }
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Answer::Busy(status),
            other if other.is_server_error() => Answer::Busy(other),
            other => Answer::Refused(other),
        }
    }

    /// The response, if it is the whole file.
    pub(super) fn whole(self, address: &Address, response: Response) -> Result<Response, Ended> {
        match self {
            Answer::Whole => Ok(response),
            Answer::Busy(status) => Err(Ended::Lost(format!("the server answers {status}"))),
            Answer::Refused(status) => {
                Err(sent_away(&format!("cannot fetch `{address}`"), &response)
                    .unwrap_or_else(|| {
                        Error::failed(format!(
                "cannot fetch `{address}`: the server answers {status}"
            ))
            .hint(match status {
                StatusCode::NOT_FOUND | StatusCode::GONE => {
                    "Check the address; the publisher may have removed this version."
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    "Check the address and whether it needs a password or a fresh signature."
                }
                _ => "Check the address, then run the same command again.",
            })
                    })
                    .into())
            }
            Answer::Rest { .. } | Answer::Complete | Answer::Mismatch => {
                Err(Ended::Lost("the server sent a part of the file unasked".to_owned()))
            }
        }
    }
}

/// Start and total of `bytes start-end/total` (RFC 9110, section 14.4).
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = match total {
        "*" => None,
        n => Some(n.parse().ok()?),
    };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, total))
}

/// What `If-Range` may carry: a strong `ETag`, else the date (RFC 9110, section 13.1.5).
pub(super) fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(header::ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(header::LAST_MODIFIED))
}

/// That nothing came for as long as somebody waits.
pub(crate) const SILENT: &str = "the server does not answer in time";

/// The innermost reason of a failed request, without the address, which may hold secrets.
pub(crate) fn reason(e: &reqwest::Error) -> String {
    if e.is_timeout() {
        return SILENT.to_owned();
    }
    let mut innermost: &dyn std::error::Error = e;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if innermost.is::<reqwest::Error>() {
        "the request failed".to_owned()
    } else {
        innermost.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        let answer = |status, range| Answer::from_parts(status, range, 10);
        let partial = StatusCode::PARTIAL_CONTENT;
        assert_eq!(answer(partial, Some("bytes 10-19/20")), Answer::Rest { total: Some(20) });
        assert_eq!(answer(partial, Some("bytes 10-19/*")), Answer::Rest { total: None });
        for range in [
            None,
            Some("bytes 9-19/20"),
            Some("bytes 10-20/20"),
            Some("bytes 10-x/20"),
            Some("items 10-19/20"),
        ] {
            assert_eq!(answer(partial, range), Answer::Mismatch, "{range:?}");
        }
        let beyond = StatusCode::RANGE_NOT_SATISFIABLE;
        assert_eq!(answer(beyond, Some("bytes */10")), Answer::Complete);
        assert_eq!(answer(beyond, Some("bytes */9")), Answer::Mismatch);
        assert_eq!(Answer::from_parts(partial, Some("bytes 0-9/10"), 0), Answer::Refused(partial));
        assert_eq!(answer(StatusCode::BAD_GATEWAY, None), Answer::Busy(StatusCode::BAD_GATEWAY));
    }
}
