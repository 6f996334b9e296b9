//! Blobs and manifests on their way into a registry (OCI Distribution Specification 1.1, "Push").

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{StatusCode, Url, header};
use tokio_util::bytes::Bytes;

use super::http::{Ended, Http};
use super::manifest::Blob;
use crate::error::{Error, Result};

/// How often a registry may say that it lacks what it was given already.
const LACKING: usize = 4;

impl Http {
    /// Writes a manifest of the media type `kind` under `name`, a tag or its digest; what the registry answers. All that it
    /// names is there already.
    ///
    /// A registry may not see that at once: one that keeps files, such as `docker-registry`, misses a blob while somebody
    /// else puts the same one, since it writes its name anew; one in a bucket may be a moment behind. So it is asked again.
    ///
    /// # Errors
    /// As [`Http::send`]; the registry refuses it.
    pub(super) async fn put_manifest(
        &self,
        what: &str,
        base: &str,
        name: &str,
        kind: &'static str,
        bytes: Vec<u8>,
    ) -> Result<header::HeaderMap> {
        self.traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let (url, bytes) = (format!("{base}/manifests/{name}"), Bytes::from(bytes));
        let make = |client: &reqwest::Client| {
            client.put(&url).header(header::CONTENT_TYPE, kind).body(bytes.clone())
        };
        let lacking = AtomicUsize::new(0);
        let work = async || {
            let response = self.attempt(what, &make).await?;
            match self.judged(what, response).await? {
                Ok(response) => Ok(response.headers().clone()),
                Err(refused)
                    if refused.lacks_a_blob()
                        && lacking.fetch_add(1, Ordering::Relaxed) < LACKING =>
                {
                    Err(Ended::Lost("the registry lacks what it was given".to_owned(), None))
                }
                Err(refused) => Err(refused.into()),
            }
        };
        self.again(what, work).await
    }

    /// Puts `blob` into the repository at `base`. An upload that was cut off is begun anew: what a registry keeps of it
    /// differs, and a blob is small.
    pub(super) async fn upload(
        &self,
        what: &str,
        base: &str,
        blob: &Blob,
        bytes: Bytes,
    ) -> Result<()> {
        self.traffic.sent.fetch_add(blob.size, Ordering::Relaxed);
        self.again(what, || self.upload_once(what, base, blob, &bytes)).await
    }

    async fn upload_once(
        &self,
        what: &str,
        base: &str,
        blob: &Blob,
        bytes: &Bytes,
    ) -> Result<(), Ended> {
        let start = format!("{base}/blobs/uploads/");
        let begun = self
            .attempt(what, &|client| client.post(&start).header(header::CONTENT_LENGTH, 0))
            .await?;
        let begun = self.good(what, begun).await?;
        let to = location(&start, begun.headers().get(header::LOCATION), blob)?;
        let put = |client: &reqwest::Client| {
            let kind = "application/octet-stream";
            client.put(to.clone()).header(header::CONTENT_TYPE, kind).body(bytes.clone())
        };
        // Who one is, is the registry's business alone.
        let elsewhere = Url::parse(&start).is_ok_and(|url| url.origin() != to.origin());
        let done = match elsewhere {
            true => self.without_credentials(what, &put).await?,
            false => self.attempt(what, &put).await?,
        };
        // The registry forgot that the upload was begun.
        if done.status() == StatusCode::NOT_FOUND {
            return Err(Ended::Lost("the registry forgot the upload".to_owned(), None));
        }
        self.good(what, done).await?;
        Ok(())
    }
}

/// Where the bytes go.
fn location(start: &str, location: Option<&header::HeaderValue>, blob: &Blob) -> Result<Url> {
    let bad = || Error::failed("the registry does not say where a part of the box goes");
    let text = location.and_then(|value| value.to_str().ok()).ok_or_else(bad)?;
    let mut url =
        Url::parse(start).and_then(|start| start.join(text)).map_err(|e| bad().cause(e))?;
    if !matches!(url.scheme(), "http" | "https")
        || start.starts_with("https:") && url.scheme() != "https"
    {
        return Err(bad().cause("it names an address without TLS"));
    }
    url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_added_to_what_the_registry_names() {
        let blob = Blob::of(b"x");
        let to = |start: &str, text: &str| {
            location(start, text.parse().ok().as_ref(), &blob).map(|url| url.to_string())
        };
        let digest = blob.digest.to_string().replace(':', "%3A");
        let start = "https://r.example/v2/web/blobs/uploads/";
        assert_eq!(
            to(start, "/v2/web/blobs/uploads/1?_state=a%2Bb").expect("good"),
            format!("https://r.example/v2/web/blobs/uploads/1?_state=a%2Bb&digest={digest}")
        );
        assert_eq!(
            to(start, "https://s.example/up").expect("good"),
            format!("https://s.example/up?digest={digest}")
        );
        assert!(to(start, "http://r.example/up").is_err());
        assert!(to(start, "file:///etc/passwd").is_err());
        assert!(location(start, None, &blob).is_err());
    }
}
