//! Small artifacts that belong to a manifest: signatures, and whatever else is known of a box later than itself.
//!
//! An artifact is a manifest of its own whose `subject` is the other one (OCI Image Format Specification 1.1, `manifest.md`). A
//! registry that knows `subject` lists it ("Listing Referrers" of the Distribution Specification 1.1). Elsewhere, and in folders,
//! the list is an image index under the tag `sha256-HEX` ("Referrers Tag Schema"), in which the entries of others stay.

use std::collections::BTreeMap;

use reqwest::{StatusCode, Url, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::Which;
use super::http::Http;
use super::manifest::{Blob, MAX_MANIFEST};
use super::remote::Remote;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::store::{INDEX, MANIFEST, encode};

/// Largest artifact in bytes.
pub const MAX_ARTIFACT: u64 = 4 << 20;
/// Most artifacts of a kind that are read of one manifest: whoever may push can add any number.
const MOST: usize = 64;
/// Most pages of a list that are followed.
const PAGES: usize = 16;
/// How often a list is written anew if another one writes it at the same time.
const TRIES: usize = 5;
/// Media type of a config that says nothing, and its bytes (`manifest.md`, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const NOTHING: &[u8] = b"{}";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Entry,
    layers: Vec<Entry>,
    subject: Option<Entry>,
}

/// A descriptor, also one that others wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    fn new(media_type: &str, blob: &Blob) -> Self {
        Entry {
            media_type: media_type.to_owned(),
            digest: blob.digest.to_string(),
            size: blob.size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl Remote {
    /// Puts an artifact there that belongs to the manifest `subject`, which is there; `kind` is its media type. The digest of
    /// its own manifest; the same artifact again is the same.
    ///
    /// Where the place keeps no list itself, two who add to one manifest at the same moment can lose one of both: a registry
    /// knows no exchange of tags. In a folder they cannot.
    ///
    /// # Errors
    /// It is larger than [`MAX_ARTIFACT`], or cannot be written.
    pub async fn attach(&self, subject: &Blob, kind: &str, bytes: Vec<u8>) -> Result<FileDigest> {
        if bytes.len() as u64 > MAX_ARTIFACT {
            return Err(Error::failed(format!("an artifact has {} bytes", bytes.len()))
                .cause(format!("the limit is {MAX_ARTIFACT} bytes")));
        }
        let (blob, config) = (Blob::of(&bytes), Blob::of(NOTHING));
        for (blob, bytes) in [(&blob, bytes), (&config, NOTHING.to_vec())] {
            if !self.has(blob).await? {
                self.put(blob, bytes.into()).await?;
            }
        }
        let text = encode(&Text {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(kind.to_owned()),
            config: Entry::new(EMPTY, &config),
            layers: vec![Entry::new(kind, &blob)],
            subject: Some(Entry::new(MANIFEST, subject)),
        })?;
        let own = Blob::of(&text);
        let entry = Entry { artifact_type: Some(kind.to_owned()), ..Entry::new(MANIFEST, &own) };
        let tag = list_tag(subject.digest);
        match self {
            Remote::Registry(http, base) => {
                let what = &self.at("write what belongs to the box");
                let name = own.digest.to_string();
                let headers = http.put_manifest(what, base, &name, MANIFEST, text).await?;
                // Otherwise the registry keeps no list.
                if !headers.contains_key("oci-subject") {
                    self.list_in_tag(http, base, &tag, &entry).await?;
                }
            }
            Remote::Folder(folder) => {
                folder.put(own.digest, &text)?;
                folder.change_list(&tag, |before| with(before, &entry))?;
            }
            Remote::Site(..) => return Err(Error::usage("a web server cannot be written to")),
        }
        Ok(own.digest)
    }

    /// The artifacts of `kind` that belong to the manifest `subject`, in the order of the place, at most 64. What is no such
    /// artifact is passed over: whoever may push can put anything into the list.
    ///
    /// # Errors
    /// The place cannot be reached, or gives other bytes than those that it names.
    pub async fn attached(&self, subject: FileDigest, kind: &str) -> Result<Vec<Vec<u8>>> {
        let mut found = vec![];
        let listed = self.listed(subject, kind).await?;
        let ours = |entry: &Entry| entry.artifact_type.as_deref() == Some(kind);
        for entry in listed.into_iter().filter(ours).take(MOST) {
            let Ok(digest) = entry.digest.parse() else { continue };
            let which = Which::Digest(digest);
            let what = "read what belongs to the box";
            let Some((text, _)) = self.document(what, &which, MANIFEST).await? else { continue };
            if let Some(blob) = artifact(&text, subject, kind) {
                found.push(self.blob(what, &blob, MAX_ARTIFACT).await?);
            }
        }
        Ok(found)
    }

    async fn listed(&self, subject: FileDigest, kind: &str) -> Result<Vec<Entry>> {
        let what = "list what belongs to the box";
        if let Remote::Registry(http, base) = self
            && let Some(listed) = referrers(http, &self.at(what), base, subject, kind).await?
        {
            return Ok(listed);
        }
        let which = Which::Tag(list_tag(subject));
        match self.document(what, &which, INDEX).await? {
            Some((bytes, _)) => Ok(list(&bytes).map(entries).unwrap_or_default()),
            None => Ok(vec![]),
        }
    }

    async fn list_in_tag(&self, http: &Http, base: &str, tag: &str, entry: &Entry) -> Result<()> {
        let what = &self.at("write the list of what belongs to the box");
        for _ in 0..TRIES {
            let which = Which::Tag(tag.to_owned());
            let before = self.document("list what belongs to the box", &which, INDEX).await?;
            let before = before.map(|(bytes, _)| bytes);
            // The second time it is there, unless somebody else wrote the list at the same moment.
            let Some(list) = with(before.as_deref(), entry)? else { return Ok(()) };
            http.put_manifest(what, base, tag, INDEX, list).await?;
        }
        Err(Error::failed(format!("cannot {what}"))
            .cause("others write it at the same time")
            .hint("Run the same command again."))
    }
}

/// The list that the registry keeps; none if it keeps none.
async fn referrers(
    http: &Http,
    what: &str,
    base: &str,
    subject: FileDigest,
    kind: &str,
) -> Result<Option<Vec<Entry>>> {
    // Those that do not know the question say so in several ways.
    let unknown = |status: StatusCode| {
        status.is_client_error()
            && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    };
    let address = format!("{base}/referrers/{subject}");
    let mut url = Url::parse_with_params(&address, [("artifactType", kind)])
        .map_err(|e| Error::failed(format!("cannot {what}")).cause(e))?;
    let mut all = vec![];
    for page in 0..PAGES {
        let answer = http.small_unless(what, url.as_str(), INDEX, MAX_MANIFEST, unknown).await?;
        let Some((headers, list)) =
            answer.and_then(|(headers, bytes)| Some((headers, list(&bytes)?)))
        else {
            return Ok((page > 0).then_some(all));
        };
        all.extend(entries(list));
        match next(&headers, &url) {
            Some(further) => url = further,
            None => break,
        }
    }
    Ok(Some(all))
}

/// The next page (RFC 8288), if it is of the same server: others need not know who asks.
fn next(headers: &header::HeaderMap, url: &Url) -> Option<Url> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    let further = url.join(target).ok()?;
    let is_next = rest.contains("rel=\"next\"") || rest.contains("rel=next");
    (is_next && further.origin() == url.origin()).then_some(further)
}

/// The tag of the list (Distribution Specification 1.1, "Referrers Tag Schema").
fn list_tag(subject: FileDigest) -> String {
    format!("sha256-{}", subject.hex())
}

/// An image index; none if the bytes are something else.
fn list(bytes: &[u8]) -> Option<Value> {
    let list: Value = serde_json::from_slice(bytes).ok()?;
    (list["mediaType"] == INDEX && list["manifests"].is_array()).then_some(list)
}

/// Those of its entries that can be read.
fn entries(mut list: Value) -> Vec<Entry> {
    let Value::Array(all) = list["manifests"].take() else { return vec![] };
    all.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect()
}

/// The list with `entry` in it; none if it is there.
///
/// # Errors
/// What is under its tag is no list, or it is full.
fn with(before: Option<&[u8]>, entry: &Entry) -> Result<Option<Vec<u8>>> {
    let new = || json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let mut list = match before {
        None => new(),
        Some(bytes) => list(bytes).ok_or_else(|| {
            Error::undetermined("the list of what belongs to the box is no image index")
                .hint("Remove its tag `sha256-…`, then run the same command again.")
        })?,
    };
    let Some(all) = list["manifests"].as_array_mut() else { return Ok(None) };
    if all.iter().any(|one| one["digest"] == entry.digest.as_str()) {
        return Ok(None);
    }
    all.push(json!(entry));
    let bytes = encode(&list)?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::failed("the list of what belongs to the box is full")
            .cause(format!("a registry takes {MAX_MANIFEST} bytes")));
    }
    Ok(Some(bytes))
}

/// The blob of an artifact; none if the manifest is of something else.
fn artifact(text: &[u8], subject: FileDigest, kind: &str) -> Option<Blob> {
    let text: Text = serde_json::from_slice(text).ok()?;
    let [layer] = &text.layers[..] else { return None };
    let fits = text.schema_version == 2
        && text.media_type.as_deref() == Some(MANIFEST)
        && text.artifact_type.as_deref() == Some(kind)
        && layer.media_type == kind
        && layer.size <= MAX_ARTIFACT
        && text.subject?.digest == subject.to_string();
    if !fits {
        return None;
    }
    Some(Blob { digest: layer.digest.parse().ok()?, size: layer.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> Entry {
        Entry { artifact_type: Some("a/b".to_owned()), ..Entry::new(MANIFEST, &Blob::of(name)) }
    }

    #[test]
    fn a_list_keeps_what_others_put_there() {
        let first = with(None, &entry(b"1")).expect("a list").expect("changed");
        assert_eq!(with(Some(&first), &entry(b"1")).expect("a list"), None, "it is there");
        let other = json!({"schemaVersion": 2, "mediaType": INDEX, "x": 1, "manifests": [
            {"mediaType": "c/d", "digest": "sha512:00", "size": 1, "data": "e30="}, 7]});
        let both = with(Some(other.to_string().as_bytes()), &entry(b"2")).expect("a list");
        let both: Value = serde_json::from_slice(&both.expect("changed")).expect("JSON");
        assert_eq!((&both["x"], &both["manifests"][0]["data"]), (&json!(1), &json!("e30=")));
        assert_eq!(entries(both).len(), 2, "what is no entry is passed over");
        for bad in [&b"{}"[..], b"[", b"{\"mediaType\":\"x\",\"manifests\":[]}"] {
            with(Some(bad), &entry(b"1")).expect_err("no list");
        }
    }

    #[test]
    fn an_artifact_of_another_manifest_or_kind_is_none() {
        let subject = FileDigest::of(b"subject");
        let blob = Blob::of(b"bytes");
        let text = |change: &dyn Fn(&mut Text)| {
            let mut text = Text {
                schema_version: 2,
                media_type: Some(MANIFEST.to_owned()),
                artifact_type: Some("a/b".to_owned()),
                config: Entry::new(EMPTY, &Blob::of(NOTHING)),
                layers: vec![Entry::new("a/b", &blob)],
                subject: Some(Entry::new(MANIFEST, &Blob { digest: subject, size: 7 })),
            };
            change(&mut text);
            artifact(&encode(&text).expect("encodes"), subject, "a/b")
        };
        assert_eq!(text(&|_| {}), Some(blob.clone()));
        let other = Entry::new(MANIFEST, &Blob::of(b"other"));
        assert_eq!(text(&|t| t.subject = Some(other.clone())), None);
        assert_eq!(text(&|t| t.subject = None), None);
        assert_eq!(text(&|t| t.artifact_type = None), None);
        assert_eq!(text(&|t| t.layers[0].size = MAX_ARTIFACT + 1), None);
        assert_eq!(text(&|t| t.layers[0].digest = "sha512:00".to_owned()), None);
        assert_eq!(text(&|t| t.layers.push(other.clone())), None);
        assert_eq!(artifact(b"[]", subject, "a/b"), None);
    }

    #[test]
    fn further_pages_are_of_the_same_server() {
        let url = Url::parse("https://r.example/v2/web/referrers/x").expect("url");
        let to = |link: &str| {
            let mut headers = header::HeaderMap::new();
            headers.insert(header::LINK, link.parse().expect("header"));
            next(&headers, &url).map(|url| url.to_string())
        };
        let further = "https://r.example/v2/web/referrers/x?n=2";
        assert_eq!(to("<?n=2>; rel=\"next\"").as_deref(), Some(further));
        assert_eq!(to("<https://s.example/>; rel=\"next\""), None);
        assert_eq!(to("<?n=2>; rel=\"prev\""), None);
        assert_eq!(to("nonsense"), None);
    }
}
