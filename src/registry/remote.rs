//! The places that hold boxes, each with the same few questions.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::address::{Place, Which};
use super::auth::Auth;
use super::credentials;
use super::folder::Folder;
use super::http::{Http, Retry, Traffic};
use super::manifest::{Blob, MAX_MANIFEST};
use super::trust::Policy;
use crate::attest::sign::Signer;
use crate::blocking::blocking;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::{Index, MANIFEST};

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Writing, too.
    Push,
}

/// How a place is spoken to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Speak HTTP without TLS to a registry; to one on this host it is tried anyway.
    pub plain_http: bool,
    /// When to give up.
    pub retry: Retry,
    /// Files of credentials, in order.
    pub credentials: Vec<PathBuf>,
    /// Folders with certificates that are trusted besides those of the system; those of docker and podman if none is given.
    pub certificates: Option<Vec<PathBuf>>,
    /// The architecture of a box that is pulled (Debian's name): of several, and it has to be that one. If absent, this host's
    /// of several, and else what is there.
    pub arch: Option<String>,
    /// Tags that are to mean a box that is pushed, besides its own.
    pub channels: Vec<String>,
    /// What has to be signed by whom, of what is pulled.
    pub trust: Policy,
    /// Who signs what is pushed.
    pub signer: Option<Arc<Signer>>,
}

impl Options {
    /// As usual. There is no default without `trust`: whoever pulls has to say what is trusted.
    #[must_use]
    pub fn new(trust: Policy) -> Self {
        let (retry, credentials) = (Retry::default(), credentials::files());
        let channels = vec![];
        Options {
            plain_http: false,
            retry,
            credentials,
            certificates: None,
            arch: None,
            channels,
            trust,
            signer: None,
        }
    }
}

/// An open place.
#[derive(Debug)]
pub enum Remote {
    /// A repository of a registry: its client, and its address up to the name of the repository.
    Registry(Http, String),
    /// A folder.
    Folder(Folder),
    /// A web server: its client, and the address of the folder without a slash at the end.
    Site(Http, String),
}

impl Remote {
    /// Opens a place.
    ///
    /// # Errors
    /// Credentials or certificates cannot be read; a web server is to be written to.
    pub async fn open(
        place: &Place,
        access: Access,
        options: &Options,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        match place {
            Place::Folder(path) => Ok(Remote::Folder(Folder::open(path, access)?)),
            Place::Site(_) if access == Access::Push => Err(Error::usage(format!(
                "a box cannot be pushed to `{place}`"
            ))
            .hint(
                "Push it to a folder with `dir:FOLDER`, and let the web server show that folder.",
            )),
            Place::Site(url) => {
                let auth = Auth::new(None, String::new());
                let host = url.host_str().unwrap_or_default();
                let folders =
                    options.certificates.clone().unwrap_or_else(|| credentials::certificates(host));
                let http = Http::new(&folders, auth, options.retry, events, cancel)?;
                Ok(Remote::Site(http, url.as_str().trim_end_matches('/').to_owned()))
            }
            Place::Registry { host, repository } => {
                let (files, at, name) =
                    (options.credentials.clone(), host.clone(), repository.clone());
                // A helper program can take its time.
                let found = blocking("looking for credentials", move || {
                    credentials::find(&files, &at, &name)
                })
                .await?;
                let verbs = if access == Access::Push { "pull,push" } else { "pull" };
                let auth = Auth::new(found, format!("repository:{repository}:{verbs}"));
                let folders =
                    options.certificates.clone().unwrap_or_else(|| credentials::certificates(host));
                let http = Http::new(&folders, auth, options.retry, events, cancel)?;
                let plain = options.plain_http
                    || is_loopback(host) && !http.speaks_tls(&format!("https://{host}/v2/")).await;
                let scheme = if plain { "http" } else { "https" };
                Ok(Remote::Registry(http, format!("{scheme}://{host}/v2/{repository}")))
            }
        }
    }

    /// What a message calls some work there.
    pub(super) fn at(&self, what: &str) -> String {
        match self {
            Remote::Registry(_, base) | Remote::Site(_, base) => format!("{what} at `{base}`"),
            Remote::Folder(_) => what.to_owned(),
        }
    }

    /// What was asked for and what came.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64, u64) {
        let of = |traffic: &Traffic| {
            let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            (read(&traffic.requests), read(&traffic.received), read(&traffic.sent))
        };
        match self {
            Remote::Registry(http, _) | Remote::Site(http, _) => of(&http.traffic),
            Remote::Folder(folder) => of(&folder.traffic),
        }
    }

    /// The manifest of a box, with its digest; none if there is no such box.
    ///
    /// # Errors
    /// The place cannot be reached, or gives other bytes than those that were asked for.
    pub async fn manifest(&self, which: &Which) -> Result<Option<(Vec<u8>, FileDigest)>> {
        self.document("read the manifest of the box", which, MANIFEST).await
    }

    /// As [`Remote::manifest`], for what has the media type `accept`.
    pub(super) async fn document(
        &self,
        what: &str,
        which: &Which,
        accept: &str,
    ) -> Result<Option<(Vec<u8>, FileDigest)>> {
        let what = &self.at(what);
        let (bytes, told) = match self {
            Remote::Registry(http, base) => {
                let name = match which {
                    Which::Tag(tag) => tag.clone(),
                    Which::Digest(digest) => digest.to_string(),
                };
                let url = format!("{base}/manifests/{name}");
                let Some((headers, bytes)) = http.small(what, &url, accept, MAX_MANIFEST).await?
                else {
                    return Ok(None);
                };
                let told = headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
                (bytes, told.map(str::to_owned))
            }
            Remote::Folder(folder) => match folder.manifest(which)? {
                Some(bytes) => (bytes, None),
                None => return Ok(None),
            },
            Remote::Site(http, base) => {
                let digest = match which {
                    Which::Digest(digest) => *digest,
                    Which::Tag(tag) => {
                        let url = format!("{base}/index.json");
                        let Some((_, bytes)) = http
                            .small(
                                &self.at("read the index of the boxes"),
                                &url,
                                "*/*",
                                MAX_MANIFEST,
                            )
                            .await?
                        else {
                            return Ok(None);
                        };
                        match Index::parse(&bytes)?.get(tag) {
                            Some(entry) => entry.digest,
                            None => return Ok(None),
                        }
                    }
                };
                let url = blob_url(base, digest);
                let Some((_, bytes)) = http.small(what, &url, "*/*", MAX_MANIFEST).await? else {
                    return Ok(None);
                };
                (bytes, Some(digest.to_string()))
            }
        };
        let digest = FileDigest::of(&bytes);
        let pinned = match which {
            Which::Digest(digest) => Some(digest.to_string()),
            Which::Tag(_) => None,
        };
        // A header of another algorithm says nothing of these bytes.
        let told = told.filter(|told| told.starts_with("sha256:"));
        match pinned.or(told).filter(|expected| *expected != digest.to_string()) {
            Some(expected) => {
                Err(Error::undetermined(format!("cannot {what}: it arrived with other bytes"))
                    .detail(format!("expected {expected}"))
                    .detail(format!("found    {digest}")))
            }
            None => Ok(Some((bytes, digest))),
        }
    }

    /// A whole blob of at most `limit` bytes, with the right digest.
    ///
    /// # Errors
    /// It is larger, not there, or other bytes arrive.
    pub async fn blob(&self, what: &str, blob: &Blob, limit: u64) -> Result<Vec<u8>> {
        if blob.size > limit {
            return Err(Error::undetermined(format!("cannot {what}: it has {} bytes", blob.size))
                .cause(format!("the limit is {limit} bytes")));
        }
        let bytes = self.part(what, blob, 0..blob.size).await?;
        let found = FileDigest::of(&bytes);
        if found == blob.digest {
            return Ok(bytes);
        }
        Err(Error::undetermined(format!("cannot {what}: it arrived with other bytes"))
            .detail(format!("expected {}", blob.digest))
            .detail(format!("found    {found}"))
            .hint("Run the same command again; if that does not help, push the box again."))
    }

    /// A part of a blob; not verified.
    ///
    /// # Errors
    /// It is not there, or cannot be reached.
    pub async fn part(&self, what: &str, blob: &Blob, range: Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(vec![]);
        }
        let what = &self.at(what);
        match self {
            Remote::Registry(http, base) => {
                http.part(what, &format!("{base}/blobs/{}", blob.digest), range).await
            }
            Remote::Site(http, base) => http.part(what, &blob_url(base, blob.digest), range).await,
            Remote::Folder(folder) => {
                let (folder, digest) = (folder.clone(), blob.digest);
                blocking("reading a blob", move || folder.part(digest, range)).await
            }
        }
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// The place cannot be reached.
    pub async fn has(&self, blob: &Blob) -> Result<bool> {
        match self {
            Remote::Registry(http, base) => {
                let url = format!("{base}/blobs/{}", blob.digest);
                let what = &self.at("ask for a blob of the box");
                let response = http.send(what, &|client| client.head(&url)).await?;
                match response.status() {
                    reqwest::StatusCode::NOT_FOUND => Ok(false),
                    _ => http.good(what, response).await.map(|_| true),
                }
            }
            Remote::Folder(folder) => Ok(folder.has(blob.digest)),
            Remote::Site(..) => Ok(false),
        }
    }

    /// Puts a blob there.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn put(&self, blob: &Blob, bytes: Bytes) -> Result<()> {
        match self {
            Remote::Registry(http, base) => {
                http.upload(&self.at("push a part of the box"), base, blob, bytes).await
            }
            Remote::Folder(folder) => {
                let (folder, digest) = (folder.clone(), blob.digest);
                blocking("writing a blob", move || folder.put(digest, &bytes)).await
            }
            Remote::Site(..) => Err(Error::usage("a web server cannot be written to")),
        }
    }

    /// Puts a manifest there, under a tag; all that it names is there. `kind`: its media type.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn put_manifest(
        &self,
        tag: &str,
        bytes: Vec<u8>,
        kind: &'static str,
    ) -> Result<()> {
        match self {
            Remote::Registry(http, base) => {
                let what = &self.at("write the manifest of the box");
                http.put_manifest(what, base, tag, kind, bytes).await.map(drop)
            }
            Remote::Folder(folder) => folder.put_manifest(tag, &bytes, kind),
            Remote::Site(..) => Err(Error::usage("a web server cannot be written to")),
        }
    }
}

fn blob_url(base: &str, digest: FileDigest) -> String {
    format!("{base}/blobs/sha256/{}", digest.hex())
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_matches(['[', ']']);
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_host_is_spoken_to_without_tls() {
        for host in ["localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1:5000", "r.example", "[::2]:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
