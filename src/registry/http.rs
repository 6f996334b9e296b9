//! Requests that are worth repeating are repeated, those that are not say why.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;
use futures_util::StreamExt as _;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, header, redirect};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::source::fetch::reason;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long an answer may stand still before the connection counts as lost.
const STALL: Duration = Duration::from_secs(60);
/// Most redirects of one request: registries need one or two, to where their blobs are.
const REDIRECTS: usize = 5;
/// Longest pause that a server may ask for; one that wants more is treated as down.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Bytes of an answer that is an error.
const MAX_ERROR: u64 = 64 << 10;

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Failures in a row without a new byte.
    pub without_progress: u32,
    /// Failures of one request in all.
    pub in_all: u32,
    /// First pause; each further one without progress is twice as long.
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { without_progress: 6, in_all: 40, pause: Duration::from_millis(500) }
    }
}

/// What was asked for and what came, in all.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Requests that were sent, repeated ones too.
    pub requests: AtomicU64,
    /// Bytes of answers.
    pub received: AtomicU64,
    /// Bytes of blobs and manifests that were sent.
    pub sent: AtomicU64,
}

/// A client of one server.
pub struct Http {
    client: Client,
    auth: Auth,
    retry: Retry,
    pub(super) traffic: Traffic,
    events: Events,
    cancel: CancellationToken,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("retry", &self.retry).finish_non_exhaustive()
    }
}

/// Why an attempt ended.
pub(super) enum Ended {
    /// Another one may go further, not before this time.
    Lost(String, Option<Duration>),
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(e: Error) -> Self {
        Ended::Failed(e)
    }
}

impl Http {
    /// A client that also trusts the certificates (`*.crt`, PEM) in `certificates`, folders that need not be there.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn new(
        certificates: &[PathBuf],
        auth: Auth,
        retry: Retry,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut builder = Client::builder()
            .user_agent(concat!("devbox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .redirect(redirect::Policy::limited(REDIRECTS));
        for certificate in trusted(certificates)? {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder
            .build()
            .map_err(|e| Error::failed("cannot prepare for requests").cause(reason(&e)))?;
        let traffic = Traffic::default();
        Ok(Http { client, auth, retry, traffic, events: events.clone(), cancel: cancel.clone() })
    }

    /// Whether a server that speaks TLS is at `url`; one that cannot prove who it is does.
    pub(super) async fn speaks_tls(&self, url: &str) -> bool {
        self.count();
        match self.client.get(url).send().await {
            Ok(_) => true,
            Err(e) => is_untrusted(&e),
        }
    }

    fn count(&self) {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends a request until it is answered with something else than "not now"; `what` says what it is for.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses who asks.
    pub(super) async fn send(
        &self,
        what: &str,
        make: &(dyn Fn(&Client) -> RequestBuilder + Sync),
    ) -> Result<Response> {
        self.again(what, || self.attempt(what, make)).await
    }

    /// Does `work` until it ends well, or is not worth another attempt.
    pub(super) async fn again<T, Work: Future<Output = Result<T, Ended>>>(
        &self,
        what: &str,
        work: impl Fn() -> Work,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            match self.stopping(what, work()).await? {
                Ok(done) => return Ok(done),
                Err(Ended::Failed(e)) => return Err(e),
                Err(Ended::Lost(why, pause)) => {
                    failures += 1;
                    if failures >= self.retry.without_progress {
                        return Err(unreachable(what, &why));
                    }
                    self.pause(what, &why, failures, pause).await?;
                }
            }
        }
    }

    /// One attempt that shows no credentials.
    pub(super) async fn without_credentials(
        &self,
        what: &str,
        make: &(dyn Fn(&Client) -> RequestBuilder + Sync),
    ) -> Result<Response, Ended> {
        self.count();
        let response = make(&self.client).send().await.map_err(|e| ended(what, &e))?;
        if response.status().is_server_error() {
            return Err(busy(&response));
        }
        Ok(response)
    }

    /// One attempt, with credentials once the server asks for them.
    pub(super) async fn attempt(
        &self,
        what: &str,
        make: &(dyn Fn(&Client) -> RequestBuilder + Sync),
    ) -> Result<Response, Ended> {
        let mut shown = self.auth.header().await;
        // Without, with those that are known, with fresh ones.
        for _ in 0..3 {
            self.count();
            let mut request = make(&self.client);
            if let Some(header) = &shown {
                request = request.header(header::AUTHORIZATION, header.clone());
            }
            let response = request.send().await.map_err(|e| ended(what, &e))?;
            match response.status() {
                StatusCode::UNAUTHORIZED => {
                    let over_tls = response.url().scheme() == "https";
                    let headers = response.headers();
                    shown = Some(self.auth.answer(self, what, headers, over_tls, shown).await?);
                }
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                    return Err(busy(&response));
                }
                status if status.is_server_error() => return Err(busy(&response)),
                _ => return Ok(response),
            }
        }
        Err(Auth::refused(what).into())
    }

    /// A request for a token: no credentials but those that it brings, and no further attempts of its own.
    pub(super) async fn token(&self, what: &str, request: RequestBuilder) -> Result<Response> {
        self.count();
        let response = request.send().await;
        response.map_err(|e| {
            Error::failed(format!("cannot {what}: the server that gives tokens cannot be reached"))
                .cause(reason(&e))
        })
    }

    /// The whole of an answer that has at most `limit` bytes; none if it is longer, or breaks off.
    pub(super) async fn bounded(&self, response: Response, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![];
        self.take("", response, 0, limit + 1, &mut bytes).await.ok()?;
        (bytes.len() as u64 <= limit).then_some(bytes)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The whole of a small answer, at most `limit` bytes; `None` if there is nothing at `url`. `accept`: the
    /// types that are understood.
    ///
    /// # Errors
    /// As [`Http::send`]; it is longer; the connection is lost again and again.
    pub(super) async fn small(
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
    pub(super) async fn small_unless(
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
    pub(super) async fn part(
        &self,
        what: &str,
        url: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(8 << 20));
        let (mut in_a_row, mut in_all) = (0, 0);
        while (bytes.len() as u64) < length {
            let start = range.start + bytes.len() as u64;
            let before = bytes.len();
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
            in_a_row = if bytes.len() > before { 1 } else { in_a_row + 1 };
            if in_a_row >= self.retry.without_progress || in_all >= self.retry.in_all {
                return Err(unreachable(what, &why));
            }
            self.pause(what, &why, in_a_row, pause).await?;
        }
        Ok(bytes)
    }

    /// Appends the body without its first `skip` bytes to `bytes`, until those are `most`.
    async fn take(
        &self,
        what: &str,
        response: Response,
        mut skip: u64,
        most: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
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

    /// The response, if its status is one of success.
    ///
    /// # Errors
    /// It is another one: with what the server says about it.
    pub(super) async fn good(&self, what: &str, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut said = vec![];
        let _ = self.stopping(what, self.take(what, response, 0, MAX_ERROR, &mut said)).await?;
        Err(answered(what, status, &said))
    }

    /// The outcome of `work`, unless somebody stops it.
    async fn stopping<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(interrupted(what)),
            done = work => Ok(done),
        }
    }

    async fn pause(
        &self,
        what: &str,
        why: &str,
        failures: u32,
        asked: Option<Duration>,
    ) -> Result<()> {
        let own = self.retry.pause * 2u32.saturating_pow(failures.saturating_sub(1).min(6));
        let pause = asked.map_or(own, |asked| asked.max(own));
        if pause > LONGEST_PAUSE {
            return Err(unreachable(what, why)
                .detail(format!("it asks for a pause of {} s", pause.as_secs())));
        }
        if pause >= Duration::from_secs(1) {
            self.events.note(format!("{why}; trying again in {} s", pause.as_secs()));
        }
        self.stopping(what, tokio::time::sleep(pause)).await
    }
}

fn trusted(folders: &[PathBuf]) -> Result<Vec<Certificate>> {
    let mut all = vec![];
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "crt")) {
            let certificates = Certificate::from_pem_bundle(&fs::read(path)?).map_err(|e| {
                Error::failed(format!("`{}` holds no certificate", path.display()))
                    .cause(reason(&e))
            })?;
            all.extend(certificates);
        }
    }
    Ok(all)
}

/// Start of `bytes start-end/total` (RFC 9110, section 14.4).
fn begins(response: &Response) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn busy(response: &Response) -> Ended {
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
    let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Ended::Lost(format!("the server answers {}", response.status()), after)
}

fn ended(what: &str, e: &reqwest::Error) -> Ended {
    if e.is_redirect() {
        return Error::failed(format!(
            "cannot {what}: the server sends from one address to the next"
        ))
        .cause(format!("more than {REDIRECTS} redirects, or one in a circle"))
        .into();
    }
    if e.is_builder() {
        return Error::failed(format!("cannot {what}")).cause(reason(e)).into();
    }
    let why = reason(e);
    // A certificate does not become right by asking again.
    if is_untrusted(e) {
        return Error::failed(format!("cannot {what}: the server is not who it should be"))
            .cause(why)
            .hint("Put the certificate of its authority as `ca.crt` into `/etc/docker/certs.d/HOST:PORT` or `~/.config/containers/certs.d/HOST:PORT`.")
            .into();
    }
    if e.is_connect() && why.contains("InvalidContentType") {
        return Error::failed(format!("cannot {what}: the server does not speak TLS"))
            .cause(why)
            .hint("If it is to be trusted without, give `--plain-http`.")
            .into();
    }
    Ended::Lost(why, None)
}

fn is_untrusted(e: &reqwest::Error) -> bool {
    e.is_connect() && reason(e).contains("certificate")
}

/// What a registry says of an error (OCI Distribution Specification 1.1, "Error Codes").
#[derive(Deserialize)]
struct Said {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    message: String,
}

fn answered(what: &str, status: StatusCode, said: &[u8]) -> Error {
    let mut error = Error::failed(format!("cannot {what}: the server answers {status}"));
    if let Ok(said) = serde_json::from_slice::<Said>(said) {
        for problem in said.errors.iter().take(3) {
            error = error.cause(format!("{}: {}", problem.code, problem.message));
        }
    }
    match status {
        StatusCode::FORBIDDEN => {
            error.hint("Log in with `docker login` or `skopeo login` as somebody who may do this.")
        }
        StatusCode::NOT_FOUND => error.hint("Check the address."),
        _ => error,
    }
}

fn unreachable(what: &str, why: &str) -> Error {
    Error::failed(format!("cannot {what}")).cause(why).hint(
        "Check the address and the network, then run the same command again: what arrived is kept.",
    )
}

fn interrupted(what: &str) -> Error {
    Error::interrupted(format!("interrupted; could not {what}"))
        .hint("Run the same command again: what arrived is kept.")
}
