//! Downloads with a known digest: verified while they arrive, resumed after an interruption, and
//! visible only when they are whole and right.

mod lasting;
mod partial;
mod response;
mod running;
#[cfg(test)]
mod tests;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use futures_util::StreamExt as _;
use reqwest::{Client, Response, header};
use tokio_util::sync::CancellationToken;

pub(crate) use self::lasting::{is_untrusted, lasting, redirects, redirects_at_home, sent_away};
use self::partial::{Origin, Partial};
use self::response::{Answer, validator};
pub(crate) use self::response::{SILENT, reason};
use self::running::Running;
pub use self::running::kind;
use super::address::Address;
use crate::blocking::blocking;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::host::free_bytes;

/// How long to wait for a connection. A mirror that takes longer is as good as down.
const CONNECT: Duration = Duration::from_secs(30);
/// How long the stream may stand still before the connection counts as lost.
const STALL: Duration = Duration::from_secs(60);
/// Most redirects of one request: mirrors and their directories need two or three.
const REDIRECTS: usize = 8;
/// How often progress is told, and looked how much space is left.
const PROGRESS: Duration = Duration::from_millis(200);
/// Bytes that stay free on the disk: a full disk breaks more than this download.
const SPARE: u64 = 64 << 20;

/// When to give up.
#[derive(Debug, Clone, Copy)]
struct Retry {
    /// Failures in a row without a new byte.
    without_progress: u32,
    /// Failures in all: a server that gives little at a time does not keep devbox for ever.
    in_all: u32,
    /// First pause; each further one without progress is twice as long.
    pause: Duration,
}

const RETRY: Retry = Retry { without_progress: 5, in_all: 30, pause: Duration::from_secs(1) };

/// Fetches over HTTP and HTTPS. Trusts the certificates that the system trusts, and uses the proxies
/// of the environment.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    retry: Retry,
}

/// Why one attempt ended.
enum Ended {
    /// Another attempt may go further.
    Lost(String),
    /// Nothing to be gained by another one.
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(e: Error) -> Self {
        Ended::Failed(e)
    }
}

impl Fetcher {
    /// A fetcher.
    ///
    /// # Errors
    /// The system's certificates cannot be loaded.
    pub fn new() -> Result<Self> {
        Self::with(Client::builder(), RETRY)
    }

    fn with(builder: reqwest::ClientBuilder, retry: Retry) -> Result<Self> {
        let client = builder
            .user_agent(concat!("devbox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .redirect(redirects(REDIRECTS))
            .build()
            .map_err(|e| Error::failed("cannot prepare for downloads").cause(reason(&e)))?;
        Ok(Fetcher { client, retry })
    }

    /// The file at `address` with the digest `expected`, in hex (SHA-256, or SHA-512 by its length), as a read-only file in `folder`. One that is
    /// there already is hashed again and used. An interrupted download goes on where it stopped, in
    /// this call and in the next.
    ///
    /// # Errors
    /// The server refuses, or is lost too often; the digest is another one (the download is removed);
    /// the disk is too small; `cancel` was set.
    pub async fn fetch(
        &self,
        address: &Address,
        expected: &str,
        folder: &Path,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<PathBuf> {
        let path = folder.join(expected);
        let _lock = lock(&folder.join(format!("{expected}.lock")), address, events, cancel).await?;
        if path.exists() {
            if hash_file_like(expected, &path, events, cancel).await? == expected {
                return Ok(path);
            }
            events.warn(format!("`{}` was changed and is fetched again", path.display()));
            fs::remove_file(&path)?;
        }
        let job = Job {
            fetcher: self,
            address,
            expected,
            partial: Partial::new(folder, expected),
            events,
            cancel,
            label: address.to_string(),
        };
        job.run().await?;
        let partial = job.partial.clone();
        let done = path.clone();
        blocking("work on a download", move || partial.finish(&done)).await?;
        Ok(path)
    }

    /// What is at `address`, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; it is longer than `limit`.
    pub async fn small(
        &self,
        address: &Address,
        limit: u64,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>> {
        let mut failures = 0;
        loop {
            let attempt = async {
                let response = self.client.get(address.url()).send().await;
                let response = response.map_err(|e| ended(address, &e))?;
                let mut body = Answer::of(&response, 0).whole(address, response)?.bytes_stream();
                let mut bytes = vec![];
                while let Some(chunk) = body.next().await {
                    bytes.extend_from_slice(&chunk.map_err(|e| Ended::Lost(reason(&e)))?);
                    if bytes.len() as u64 > limit {
                        return Err(Error::failed(format!(
                            "`{address}` is longer than {limit} bytes"
                        ))
                        .into());
                    }
                }
                Ok(bytes)
            };
            let ended = tokio::select! {
                () = cancel.cancelled() => return Err(stopped(address)),
                ended = attempt => ended,
            };
            match ended {
                Ok(bytes) => return Ok(bytes),
                Err(Ended::Failed(e)) => return Err(e),
                Err(Ended::Lost(why)) => {
                    failures += 1;
                    if failures >= self.retry.without_progress {
                        return Err(unreachable(address, &why));
                    }
                    self.pause(failures, address, cancel).await?;
                }
            }
        }
    }

    async fn pause(
        &self,
        failures: u32,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let pause = self.retry.pause * 2u32.saturating_pow(failures.saturating_sub(1).min(5));
        tokio::select! {
            () = cancel.cancelled() => Err(stopped(address)),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

/// One download.
struct Job<'a> {
    fetcher: &'a Fetcher,
    address: &'a Address,
    expected: &'a str,
    partial: Partial,
    events: &'a Events,
    cancel: &'a CancellationToken,
    label: String,
}

/// The bytes that are there, with their running digest.
struct Progress {
    file: Option<fs::File>,
    digest: Running,
    done: u64,
    origin: Origin,
    /// Whether any of it came from an earlier connection.
    resumed: bool,
}

impl Job<'_> {
    /// Fetches until the partial file is whole and has the right digest.
    async fn run(&self) -> Result<()> {
        let retry = self.fetcher.retry;
        let mut progress = self.earlier().await?;
        let (mut in_a_row, mut in_all) = (0, 0);
        loop {
            let before = progress.done;
            let ended = tokio::select! {
                () = self.cancel.cancelled() => return Err(self.stopped(progress.done)),
                ended = self.attempt(&mut progress) => ended,
            };
            match ended {
                Ok(()) => {
                    let found = progress.digest.clone().finish();
                    if found == self.expected {
                        return Ok(());
                    }
                    self.partial.remove();
                    if !progress.resumed {
                        return Err(self.wrong_digest(&found, progress.done));
                    }
                    // The parts may belong to different versions of the file: once more, in one.
                    self.events.warn(format!(
                        "the parts of `{}` do not fit together; it is fetched again",
                        self.label
                    ));
                    progress = self.nothing();
                }
                Err(Ended::Failed(e)) => return Err(e),
                Err(Ended::Lost(why)) => {
                    in_all += 1;
                    in_a_row = if progress.done > before { 1 } else { in_a_row + 1 };
                    if in_a_row >= retry.without_progress || in_all >= retry.in_all {
                        return Err(self.lost(&progress, &why));
                    }
                    self.events.note(format!("the connection was lost ({why}); trying again"));
                    self.fetcher
                        .pause(in_a_row, self.address, self.cancel)
                        .await
                        .map_err(|_| self.stopped(progress.done))?;
                }
            }
        }
    }

    fn nothing(&self) -> Progress {
        let address = FileDigest::of(self.address.url().as_str().as_bytes()).hex();
        Progress {
            file: None,
            digest: Running::like(self.expected),
            done: 0,
            origin: Origin { address, validator: None, total: None },
            resumed: false,
        }
    }

    /// What an earlier run left, hashed.
    async fn earlier(&self) -> Result<Progress> {
        let mut progress = self.nothing();
        let Some((origin, length)) = self.partial.found(&progress.origin.address) else {
            return Ok(progress);
        };
        let (digest, done) =
            digest_of(self.expected, &self.partial.bytes, length, self.events, self.cancel).await?;
        self.events.note(format!("going on with `{}` at byte {done}", self.label));
        (progress.digest, progress.done, progress.origin, progress.resumed) =
            (digest, done, origin, true);
        Ok(progress)
    }

    /// One connection: asks for what is missing and appends it.
    async fn attempt(&self, progress: &mut Progress) -> Result<(), Ended> {
        progress.file = None;
        let mut request = self.fetcher.client.get(self.address.url());
        if progress.done > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", progress.done));
            if let Some(validator) = &progress.origin.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = request.send().await.map_err(|e| ended(self.address, &e))?;
        let answer = Answer::of(&response, progress.done);
        match answer {
            Answer::Complete => return Ok(()),
            Answer::Rest { total } => {
                progress.resumed = true;
                progress.origin.total = total.or(progress.origin.total);
                progress.file = Some(self.partial.resume(progress.done)?);
            }
            Answer::Mismatch => {
                *progress = self.nothing();
                self.partial.remove();
                return Err(Ended::Lost(
                    "the server sent another part than was asked for".to_owned(),
                ));
            }
            other => {
                let response = other.whole(self.address, response)?;
                return self.receive_whole(progress, response).await;
            }
        }
        self.check_space(progress)?;
        self.receive(progress, response).await
    }

    /// The server sends the whole file: because it was asked to, ignores ranges, or has a new one.
    async fn receive_whole(
        &self,
        progress: &mut Progress,
        response: Response,
    ) -> Result<(), Ended> {
        if progress.done > 0 {
            self.events.note(format!("the server cannot resume `{}`; it starts again", self.label));
        }
        *progress = self.nothing();
        progress.origin.validator = validator(response.headers());
        progress.origin.total = response.content_length();
        self.check_space(progress)?;
        progress.file = Some(self.partial.begin(&progress.origin)?);
        self.receive(progress, response).await
    }

    async fn receive(&self, progress: &mut Progress, response: Response) -> Result<(), Ended> {
        let mut body = response.bytes_stream();
        let mut told = Instant::now();
        self.tell(progress);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| Ended::Lost(reason(&e)))?;
            let Some(file) = &mut progress.file else { break };
            file.write_all(&chunk).map_err(Error::from)?;
            progress.digest.update(&chunk);
            progress.done += chunk.len() as u64;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                self.tell(progress);
                // Others write, too, and a server need not say how much it sends.
                self.check_space(progress)?;
            }
        }
        self.tell(progress);
        match progress.origin.total {
            Some(total) if progress.done < total => {
                Err(Ended::Lost("the server closed the connection".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, progress: &Progress) {
        let what = self.address.file_name().unwrap_or(&self.label).to_owned();
        self.events.emit(Event::Progress {
            what,
            done: progress.done,
            total: progress.origin.total,
        });
    }

    fn check_space(&self, progress: &Progress) -> Result<()> {
        let missing = progress.origin.total.map_or(0, |total| total.saturating_sub(progress.done));
        let folder = self.partial.bytes.parent().unwrap_or(Path::new("."));
        let free = free_bytes(folder)?;
        if missing.saturating_add(SPARE) <= free {
            return Ok(());
        }
        Err(Error::failed(format!("not enough free space in `{}` for `{}`", folder.display(), self.label))
            .cause(format!("{missing} bytes are missing and {free} are free"))
            .hint("Free some space there, or set `DEVBOX_HOME` to a bigger disk, then run the same command again."))
    }

    fn wrong_digest(&self, found: &str, length: u64) -> Error {
        let kind = kind(self.expected);
        Error::failed(format!("`{}` is not the expected file", self.label))
            .detail(format!("expected {kind}:{}", self.expected))
            .detail(format!("found    {kind}:{found} in {length} bytes"))
            .hint("Compare the digest with the one that the publisher shows; the download was removed.")
    }

    fn lost(&self, progress: &Progress, why: &str) -> Error {
        if progress.done == 0 {
            return unreachable(self.address, why);
        }
        let of = progress.origin.total.map_or(String::new(), |total| format!(" of {total}"));
        Error::failed(format!(
            "the download of `{}` stopped after {}{of} bytes",
            self.label, progress.done
        ))
        .cause(why)
        .hint("Run the same command again: it goes on where it stopped.")
    }

    fn stopped(&self, done: u64) -> Error {
        stopped(self.address)
            .detail(format!("{done} bytes are kept"))
            .hint("Run the same command again: it goes on where it stopped.")
    }
}

fn stopped(address: &Address) -> Error {
    Error::interrupted(format!("the download of `{address}` was interrupted"))
}

fn ended(address: &Address, e: &reqwest::Error) -> Ended {
    let trust = "Add the certificate of its authority to those that this system trusts.";
    match lasting(&format!("cannot fetch `{address}`"), e, trust) {
        Some(lasting) => Ended::Failed(lasting),
        None => Ended::Lost(reason(e)),
    }
}

fn unreachable(address: &Address, why: &str) -> Error {
    Error::failed(format!("cannot fetch `{address}`"))
        .cause(why)
        .hint("Check the address and the network, then run the same command again.")
}

/// Waits until no other devbox fetches the same file. The kernel frees the lock of a dead process.
async fn lock(
    path: &Path,
    address: &Address,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<std::fs::File> {
    let file = fs::File::create(path)?.into_parts().0;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    events.note(format!("another devbox fetches `{address}`; waiting for it"));
                }
                tokio::select! {
                    () = cancel.cancelled() => return Err(stopped(address)),
                    () = tokio::time::sleep(PROGRESS) => {}
                }
            }
            Err(std::fs::TryLockError::Error(e)) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).cause(e));
            }
        }
    }
}

/// The SHA-256 of a file in hex, with progress.
///
/// # Errors
/// It cannot be read, or `cancel` was set.
pub async fn hash_file(path: &Path, events: &Events, cancel: &CancellationToken) -> Result<String> {
    hash_file_like("", path, events, cancel).await
}

/// The digest of a file in hex, of the same kind as `expected`: SHA-256, or SHA-512 by its length.
///
/// # Errors
/// As [`hash_file`].
pub async fn hash_file_like(
    expected: &str,
    path: &Path,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<String> {
    let length = fs::metadata(path)?.len();
    let (digest, _) = digest_of(expected, path, length, events, cancel).await?;
    Ok(digest.finish())
}

/// The running digest of the first `length` bytes of a file, and how many there were.
async fn digest_of(
    expected: &str,
    path: &Path,
    length: u64,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Running, u64)> {
    let digest = Running::like(expected);
    let (path, events, cancel) = (path.to_path_buf(), events.clone(), cancel.clone());
    blocking("work on a download", move || {
        let mut file = fs::File::open(&path)?.take(length);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("verifying {}", name.get(..16).unwrap_or(&name));
        let (mut digest, mut done, mut told) = (digest, 0, Instant::now());
        let mut buf = vec![0; 1 << 20];
        loop {
            if cancel.is_cancelled() {
                return Err(Error::interrupted(format!(
                    "verifying `{}` was interrupted",
                    path.display()
                )));
            }
            let n = file.read(&mut buf)?;
            if n == 0 {
                return Ok((digest, done));
            }
            digest.update(&buf[..n]);
            done += n as u64;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                events.emit(Event::Progress { what: what.clone(), done, total: Some(length) });
            }
        }
    })
    .await
}
