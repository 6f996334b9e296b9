//! What answers carry: small documents, and parts of large ones that come in spite of connections that break.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Client, Response, StatusCode, header};

use super::{Ended, Failures, Http, ended, unreachable};
use crate::error::{Error, Result};
use crate::source::fetch::SILENT;

impl Http {
    /// The whole of an answer that has at most `limit` bytes; none if it is longer, or breaks off.
    pub(in crate::registry) async fn bounded(
        &self,
        response: Response,
        limit: u64,
    ) -> Option<Vec<u8>> {
        let mut bytes = vec![];
        self.take("", response, 0, limit + 1, &mut bytes).await.ok()?;
        (bytes.len() as u64 <= limit).then_some(bytes)
    }

    /// The whole of a small answer, at most `limit` bytes; `None` if there is nothing at `url`. `accept`: the
    /// types that are understood.
    ///
    /// # Errors
    /// As [`Http::send`]; it is longer; the connection is lost again and again.
    pub(in crate::registry) async fn small(
        &self,
        what: &str,
        url: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Option<(header::HeaderMap, Vec<u8>)>> {
        self.small_unless(what, url, accept, limit, |status| status == StatusCode::NOT_FOUND).await
    }

    /// As [`Http::small`], where `absent` are the answers that say that there is nothing.
    ///
    /// # Errors
    /// As [`Http::small`].
    pub(in crate::registry) async fn small_unless(
        &self,
        what: &str,
        url: &str,
        accept: &str,
        limit: u64,
        absent: impl Fn(StatusCode) -> bool,
    ) -> Result<Option<(header::HeaderMap, Vec<u8>)>> {
        let make = |client: &Client| client.get(url).header(header::ACCEPT, accept);
        let work = || async {
            let response = self.attempt(what, &make).await?;
            if absent(response.status()) {
                return Ok(None);
            }
            let response = self.good(what, response).await?;
            let headers = response.headers().clone();
            let mut bytes = vec![];
            self.take(what, response, 0, limit + 1, &mut bytes).await?;
            if bytes.len() as u64 > limit {
                let what = format!("cannot {what}: the answer is longer than {limit} bytes");
                return Err(Error::undetermined(what).into());
            }
            Ok(Some((headers, bytes)))
        };
        self.again(what, work).await
    }

    /// The bytes `range` of what is at `url`. What arrived before the connection was lost is kept.
    ///
    /// # Errors
    /// As [`Http::send`]; there is nothing; it is too short; the connection is lost again and again.
    pub(in crate::registry) async fn part(
        &self,
        what: &str,
        url: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(8 << 20));
        let (mut failures, mut in_all) = (Failures::default(), 0);
        while (bytes.len() as u64) < length {
            let start = range.start + bytes.len() as u64;
            let (before, begun) = (bytes.len(), Instant::now());
            let make = |client: &Client| {
                let value = format!("bytes={start}-{}", range.end.saturating_sub(1));
                client.get(url).header(header::RANGE, value)
            };
            let response = self.good(what, self.send(what, &make).await?).await?;
            // A server that knows no ranges sends all of it.
            let skip = match (response.status(), begins(&response)) {
                (StatusCode::PARTIAL_CONTENT, Some(at)) if at == start => 0,
                (StatusCode::OK, _) => start,
                _ => {
                    return Err(Error::failed(format!(
                        "cannot {what}: the server sends another part than was asked for"
                    )));
                }
            };
            let ended = self.take(what, response, skip, length, &mut bytes);
            let (why, pause) = match self.stopping(what, ended).await? {
                Ok(()) if bytes.len() as u64 >= length => break,
                Ok(()) => ("the server closed the connection".to_owned(), None),
                Err(Ended::Lost(why, pause)) => (why, pause),
                Err(Ended::Failed(e)) => return Err(e),
            };
            in_all += 1;
            // What took time then was that bytes came.
            let mut took = begun.elapsed();
            if bytes.len() > before {
                (failures, took) = (Failures::default(), Duration::ZERO);
            }
            failures.add(&why, took);
            if failures.are_too_many(&self.retry) || in_all >= self.retry.in_all {
                return Err(unreachable(what, &why));
            }
            self.pause(what, &why, failures.number, pause).await?;
        }
        Ok(bytes)
    }

    /// Appends the body without its first `skip` bytes to `bytes`, until those are `most`.
    pub(super) async fn take(
        &self,
        what: &str,
        response: Response,
        mut skip: u64,
        most: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        let mut body = response.bytes_stream();
        loop {
            let piece = tokio::time::timeout(self.retry.stall, body.next()).await;
            let piece = piece.map_err(|_| Ended::Lost(SILENT.to_owned(), None))?;
            let Some(piece) = piece else { break };
            let piece = piece.map_err(|e| ended(what, &e))?;
            self.traffic.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let room =
                usize::try_from(most.saturating_sub(bytes.len() as u64)).unwrap_or(usize::MAX);
            let piece = &piece[skipped..];
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if bytes.len() as u64 >= most {
                break;
            }
        }
        Ok(())
    }
}

/// Start of `bytes start-end/total` (RFC 9110, section 14.4).
fn begins(response: &Response) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
