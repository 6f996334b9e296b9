//! Which tags a place has (OCI Distribution Specification 1.1, "Listing Tags"). The list is bounded, whoever sends it.

use std::collections::BTreeSet;

use reqwest::{Url, header};
use serde::Deserialize;

use super::address::is_tag;
use super::http::Http;
use super::manifest::MAX_MANIFEST;
use super::remote::Remote;
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::store::Index;

/// Tags of one page: what most registries give at most.
const PAGE: usize = 1000;
/// Most pages, and most tags in all: a registry that gives a hundred tags a page can have 20,000.
const MAX_PAGES: usize = 200;
const MAX_TAGS: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    // Some registries say `null` of a repository whose tags are all gone.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Remote {
    /// All tags, sorted; none if there is no such repository. What registries do not take as a tag is left out.
    ///
    /// # Errors
    /// The place cannot be reached; the list does not end, leads elsewhere, or is none.
    pub async fn tags(&self) -> Result<BTreeSet<String>> {
        let index = "read the index of the boxes";
        match self {
            Remote::Registry(http, base) => tags(http, base, &self.at("list the tags")).await,
            Remote::Folder(folder) => {
                let folder = folder.clone();
                blocking("reading the index of the boxes", move || {
                    folder.index().and_then(|index| bounded(names(&index)))
                })
                .await
            }
            Remote::Site(http, base) => {
                let url = format!("{base}/index.json");
                match http.small(&self.at(index), &url, "*/*", MAX_MANIFEST).await? {
                    None => Ok(BTreeSet::new()),
                    Some((_, bytes)) => bounded(names(&Index::parse(&bytes)?)),
                }
            }
        }
    }
}

fn names(index: &Index) -> Vec<String> {
    index.references().map(str::to_owned).collect()
}

fn bounded(tags: Vec<String>) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    add(&mut all, tags)?;
    Ok(all)
}

/// Adds what are tags; whether there was a new one.
fn add(all: &mut BTreeSet<String>, tags: Vec<String>) -> Result<bool> {
    let before = all.len();
    all.extend(tags.into_iter().filter(|tag| is_tag(tag)));
    if all.len() > MAX_TAGS {
        return Err(endless(&format!("there are more than {MAX_TAGS}")));
    }
    Ok(all.len() > before)
}

fn endless(why: &str) -> Error {
    Error::undetermined("the list of tags does not come to an end").cause(why)
}

async fn tags(http: &Http, base: &str, what: &str) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut url = format!("{base}/tags/list?n={PAGE}");
    for _ in 0..MAX_PAGES {
        let Some((headers, bytes)) =
            http.small(what, &url, "application/json", MAX_MANIFEST).await?
        else {
            return Ok(all);
        };
        let page: Page = serde_json::from_slice(&bytes).map_err(|e| {
            Error::undetermined(format!("cannot {what}: the answer is no list of tags")).cause(e)
        })?;
        let new = add(&mut all, page.tags.unwrap_or_default())?;
        let links = headers.get_all(header::LINK).iter().filter_map(|link| link.to_str().ok());
        let Some(next) = links.filter_map(next).next() else { return Ok(all) };
        if !new {
            return Err(endless("a page has no tag that was not on one before it"));
        }
        url = within(&url, next)?;
    }
    Err(endless(&format!("it has more than {MAX_PAGES} pages")))
}

/// The address of the next page in a header `Link` (RFC 8288).
fn next(link: &str) -> Option<&str> {
    link.split('<').skip(1).find_map(|part| {
        let (url, more) = part.split_once('>')?;
        // The parameters end where the next link begins.
        let is_next = more.split([';', ',']).map(str::trim).any(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        is_next.then_some(url)
    })
}

/// `next` against the page `url`: at the same server, since it is shown the same credentials.
fn within(url: &str, next: &str) -> Result<String> {
    let page = Url::parse(url).map_err(|e| Error::failed("a damaged address").cause(e))?;
    let to = page.join(next).ok().filter(|to| to.origin() == page.origin());
    to.map(|to| to.to_string()).ok_or_else(|| {
        Error::undetermined("the list of tags goes on at another server")
            .detail(format!("from {url}"))
            .detail(format!("to   {next}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_header_and_nowhere_else() {
        for (link, found) in [
            (r#"</v2/web/tags/list?last=b&n=2>; rel="next""#, Some("/v2/web/tags/list?last=b&n=2")),
            ("</a>; rel=next", Some("/a")),
            (r#"</a>; rel="prev", </b>; title=x; REL="next""#, Some("/b")),
            (r#"</a>; rel="prev""#, None),
            ("</a", None),
            ("", None),
            ("next", None),
        ] {
            assert_eq!(next(link), found, "{link}");
        }
        let page = "https://r.example/v2/web/tags/list?n=1000";
        let to = |link: &str| within(page, link);
        assert_eq!(
            to("/v2/web/tags/list?last=b").expect("good"),
            "https://r.example/v2/web/tags/list?last=b"
        );
        for bad in ["https://s.example/v2/", "http://r.example/v2/", "//s.example/", "file:///x"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_tag_is_left_out() {
        let tags = ["1.0.0", "", "../x", "a b", "stable"].map(str::to_owned).into();
        let found = bounded(tags).expect("some");
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["1.0.0", "stable"]);
    }
}
