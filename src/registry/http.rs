//! Requests that are worth repeating are repeated, those that are not say why.

mod answers;
mod bodies;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use reqwest::{Body, Certificate, Client, Request, RequestBuilder, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;

use self::answers::sent_on;
use super::auth::Auth;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::source::fetch::{SILENT, is_untrusted, lasting, reason, redirects, redirects_at_home};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Bytes a second with which what is sent gets through, at least: several parts share a line.
const SLOWEST: u64 = 8 << 10;
/// Most redirects of one request: registries need one or two, to where their blobs are.
const REDIRECTS: usize = 5;
/// Longest pause that a server may ask for; one that wants more is treated as down.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Failures in a row without a new byte.
    pub without_progress: u32,
    /// Failures of one request in all.
    pub in_all: u32,
    /// First pause; each further one without progress is twice as long.
    pub pause: Duration,
    /// How long an answer may stand still before the connection counts as lost; to its beginning, what is sent has the time
    /// that it takes besides.
    pub stall: Duration,
    /// How long a server may be silent in all, without a new byte. Two attempts are always made.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            without_progress: 6,
            in_all: 40,
            pause: Duration::from_millis(500),
            stall: Duration::from_secs(60),
            patience: Duration::from_secs(120),
        }
    }
}

/// Failures in a row without a new byte.
#[derive(Debug, Default)]
struct Failures {
    number: u32,
    /// How long the server was silent in them.
    silent: Duration,
}

impl Failures {
    /// One more, which took so long.
    fn add(&mut self, why: &str, took: Duration) {
        self.number += 1;
        if why.starts_with(SILENT) {
            self.silent += took;
        }
    }

    /// Whether another attempt is one too many.
    fn are_too_many(&self, retry: &Retry) -> bool {
        self.number >= retry.without_progress || self.number >= 2 && self.silent >= retry.patience
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
    /// For requests whose body is a secret.
    discreet: Client,
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
        let certificates = trusted(certificates)?;
        let client = |policy| {
            let mut builder = Client::builder()
                .user_agent(concat!("devbox/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .redirect(policy);
            for certificate in &certificates {
                builder = builder.add_root_certificate(certificate.clone());
            }
            let client = builder.build();
            client.map_err(|e| Error::failed("cannot prepare for requests").cause(reason(&e)))
        };
        let (events, cancel) = (events.clone(), cancel.clone());
        let all = client(redirects(REDIRECTS))?;
        let discreet = match auth.sends_secret() {
            true => client(redirects_at_home(REDIRECTS))?,
            false => all.clone(),
        };
        let traffic = Traffic::default();
        Ok(Http { client: all, discreet, auth, retry, traffic, events, cancel })
    }

    /// Whether a server that speaks TLS is at `url`; one that cannot prove who it is does.
    pub(super) async fn speaks_tls(&self, url: &str) -> bool {
        self.count();
        match tokio::time::timeout(self.retry.stall, self.client.get(url).send()).await {
            Ok(Ok(_)) => true,
            Ok(Err(e)) => is_untrusted(&e) || e.is_redirect(),
            Err(_) => false,
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
        let mut failures = Failures::default();
        loop {
            let begun = Instant::now();
            match self.stopping(what, work()).await? {
                Ok(done) => return Ok(done),
                Err(Ended::Failed(e)) => return Err(e),
                Err(Ended::Lost(why, pause)) => {
                    failures.add(&why, begun.elapsed());
                    if failures.are_too_many(&self.retry) {
                        return Err(unreachable(what, &why));
                    }
                    self.pause(what, &why, failures.number, pause).await?;
                }
            }
        }
    }

    /// The answer to a request. Until it begins, time passes in which nothing arrives: all of what is sent has to be there.
    async fn answer(
        &self,
        what: &str,
        client: &Client,
        request: Request,
    ) -> Result<Response, Ended> {
        self.count();
        let sent = request.body().and_then(Body::as_bytes).map_or(0, |bytes| bytes.len() as u64);
        let limit = self.retry.stall + Duration::from_millis(sent.saturating_mul(1000) / SLOWEST);
        match tokio::time::timeout(limit, client.execute(request)).await {
            Ok(answer) => answer.map_err(|e| ended(what, &e)),
            Err(_) => Err(Ended::Lost(SILENT.to_owned(), None)),
        }
    }

    /// One attempt that shows no credentials.
    pub(super) async fn without_credentials(
        &self,
        what: &str,
        make: &(dyn Fn(&Client) -> RequestBuilder + Sync),
    ) -> Result<Response, Ended> {
        let request = make(&self.client).build().map_err(|e| ended(what, &e))?;
        let response = self.answer(what, &self.client, request).await?;
        if response.status().is_server_error() {
            return Err(self.busy(what, response).await);
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
            let mut request = make(&self.client);
            if let Some(header) = &shown {
                request = request.header(header::AUTHORIZATION, header.clone());
            }
            let request = request.build().map_err(|e| ended(what, &e))?;
            let asked = request.url().origin();
            let response = self.answer(what, &self.client, request).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if response.url().origin() != asked => {
                    return Err(sent_on(what, &response).into());
                }
                StatusCode::UNAUTHORIZED => {
                    let over_tls = response.url().scheme() == "https";
                    let headers = response.headers();
                    shown = Some(self.auth.answer(self, what, headers, over_tls, shown).await?);
                }
                status if is_busy(status) => return Err(self.busy(what, response).await),
                _ => return Ok(response),
            }
        }
        Err(Auth::refused(what).into())
    }

    /// A request for a token: no credentials but those that it brings. Another attempt is one of the request that it is for.
    pub(super) async fn token(
        &self,
        what: &str,
        request: RequestBuilder,
    ) -> Result<Response, Ended> {
        let tokens = format!("{what}: the server that gives tokens cannot be asked");
        let (client, request) = request.build_split();
        let request = request.map_err(|e| ended(&tokens, &e))?;
        let response = self.answer(&tokens, &client, request).await.map_err(|e| match e {
            Ended::Lost(why, pause) => {
                Ended::Lost(format!("{why} (the server that gives tokens)"), pause)
            }
            failed @ Ended::Failed(_) => failed,
        })?;
        match is_busy(response.status()) {
            true => Err(self.busy(what, response).await),
            false => Ok(response),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// For a request whose body is for its server alone.
    pub(super) fn discreet(&self) -> &Client {
        &self.discreet
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
        // Whoever waited for a minute already is told, however short the pause.
        if pause >= Duration::from_secs(1) {
            self.events.note(format!("{why}; trying again in {} s", pause.as_secs()));
        } else if why.starts_with(SILENT) {
            self.events.note(format!("{why}; trying again"));
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

/// Whether the same request may be answered otherwise later.
fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || status.is_server_error()
}

fn ended(what: &str, e: &reqwest::Error) -> Ended {
    let trust = "Put the certificate of its authority as `ca.crt` into `/etc/docker/certs.d/HOST:PORT` or `~/.config/containers/certs.d/HOST:PORT`.";
    if let Some(error) = lasting(&format!("cannot {what}"), e, trust) {
        return error.into();
    }
    let why = reason(e);
    if e.is_connect() && why.contains("InvalidContentType") {
        return Error::failed(format!("cannot {what}: the server does not speak TLS"))
            .cause(why)
            .hint("If it is to be trusted without, give `--plain-http`.")
            .into();
    }
    Ended::Lost(why, None)
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
