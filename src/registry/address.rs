//! Where boxes are pushed to and pulled from: `oci://HOST/REPOSITORY:TAG`, a folder, or a web server with such a folder.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use reqwest::Url;

use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// Longest tag (OCI Distribution Specification 1.1, "Pulling manifests").
const MAX_TAG: usize = 128;
/// Longest repository name with its host, as registries commonly have it.
const MAX_NAME: usize = 255;

/// A place that holds boxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A repository of an OCI registry.
    Registry {
        /// Host, and the port if there is one.
        host: String,
        /// Name of the repository.
        repository: String,
    },
    /// A folder with an OCI image layout.
    Folder(PathBuf),
    /// A folder with an OCI image layout behind a web server; its address without the last slash.
    Site(Url),
}

/// Which of the boxes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one that this tag means now.
    Tag(String),
    /// The one whose manifest has this digest.
    Digest(FileDigest),
}

/// A box, or the place for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The place.
    pub place: Place,
    /// The box; none was named.
    pub which: Option<Which>,
}

impl Place {
    /// What the place is called in signatures, then what else it may be called in rules: the same place in another spelling is
    /// no other place.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Place::Registry { host, repository } => {
                let host = host.to_ascii_lowercase();
                let host = host.strip_suffix(":443").unwrap_or(&host);
                let (name, port) = match host.rsplit_once(':') {
                    Some((name, port)) if !port.ends_with(']') => (name, format!(":{port}")),
                    _ => (host, String::new()),
                };
                vec![format!("oci://{}{port}/{repository}", name.trim_end_matches('.'))]
            }
            Place::Folder(path) => {
                let mut names = vec![format!("dir:{}", cleaned(path).display())];
                let found = path.canonicalize().map(|path| format!("dir:{}", path.display()));
                names.extend(found.ok().filter(|name| *name != names[0]));
                names
            }
            Place::Site(url) => vec![url.as_str().trim_end_matches('/').to_owned()],
        }
    }
}

/// Absolute, without `.` and `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// It is not one of those above, or its digest is not a SHA-256.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("oci://") {
            return registry(text, rest);
        }
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(wrong(text, "`file://` goes on with an absolute path"));
            }
            return folder(text, path);
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return folder(text, path);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            let (site, which) = split(text, text)?;
            let url =
                Url::parse(site.trim_end_matches('/')).map_err(|e| wrong(text, &e.to_string()))?;
            if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
                return Err(wrong(site, "a web address of boxes has no user, password or query"));
            }
            return Ok(Address { place: Place::Site(url), which });
        }
        Err(wrong(text, "it has another beginning than those that are known"))
    }

    /// The tag, where one is named.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.which {
            Some(Which::Tag(tag)) => Some(tag),
            _ => None,
        }
    }
}

fn registry(text: &str, rest: &str) -> Result<Address> {
    let Some((host, path)) = rest.split_once('/') else {
        return Err(wrong(text, "it names no repository"));
    };
    // What is before the first slash can have a colon before its port.
    let (repository, which) = split(text, path)?;
    let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
        Ok(_) => name,
        Err(_) => "",
    });
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if name.is_empty() || !host.chars().all(is_host) {
        return Err(wrong(text, "its host is not one"));
    }
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(inner)
            && part.ends_with(inner)
            && part.chars().all(|c| inner(c) || "._-".contains(c))
    };
    if !repository.split('/').all(part) || host.len() + repository.len() >= MAX_NAME {
        return Err(wrong(
            text,
            "its repository is not a name of lower-case letters, digits and `.`, `_`, `-`, `/`",
        ));
    }
    let place = Place::Registry { host: host.to_owned(), repository: repository.to_owned() };
    Ok(Address { place, which })
}

fn folder(text: &str, path: &str) -> Result<Address> {
    let (path, which) = split(text, path)?;
    if path.is_empty() {
        return Err(wrong(text, "it names no folder"));
    }
    Ok(Address { place: Place::Folder(PathBuf::from(path)), which })
}

/// Name, and tag or digest behind its last component.
fn split<'a>(text: &str, name: &'a str) -> Result<(&'a str, Option<Which>)> {
    if let Some((name, digest)) = name.rsplit_once('@') {
        let digest = digest.parse().map_err(|_| {
            wrong(text, "behind `@` stands no `sha256:` with 64 lower-case hex digits")
        })?;
        return Ok((name, Some(Which::Digest(digest))));
    }
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = name[last..].find(':').map(|colon| last + colon) else {
        return Ok((name, None));
    };
    // The port of a web address without a path.
    if name[..colon].ends_with("//") || name[..last].ends_with("//") {
        return Ok((name, None));
    }
    let tag = &name[colon + 1..];
    if !is_tag(tag) {
        return Err(wrong(text, "its tag is not one of letters, digits and `.`, `_`, `-`"));
    }
    Ok((&name[..colon], Some(Which::Tag(tag.to_owned()))))
}

/// Whether registries take `tag` as a tag.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG
        && tag.starts_with(inner)
        && tag.chars().all(|c| inner(c) || c == '.' || c == '-')
}

fn wrong(text: &str, why: &str) -> Error {
    // A web address may hold a password.
    let shown = match text.rsplit_once('@') {
        Some((_, rest)) if text.contains("://") && !text.starts_with("oci://") => {
            format!("…@{rest}")
        }
        _ => text.to_owned(),
    };
    Error::usage(format!("`{shown}` is not the address of a box"))
        .cause(why)
        .hint("Write `oci://HOST/REPOSITORY:TAG`, `dir:FOLDER:TAG`, or `https://HOST/FOLDER:TAG`; `@sha256:…` in the place of the tag pins one.")
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Registry { host, repository } => write!(f, "oci://{host}/{repository}"),
            Place::Folder(path) => write!(f, "dir:{}", path.display()),
            Place::Site(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Tag(tag) => write!(f, ":{tag}"),
            Which::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        self.which.iter().try_for_each(|which| write!(f, "{which}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        let digest = FileDigest::of(b"x");
        for (text, place, tag) in [
            ("oci://r.example/team/web:1.2.0", "oci://r.example/team/web", Some("1.2.0")),
            ("oci://127.0.0.1:5000/web", "oci://127.0.0.1:5000/web", None),
            ("dir:boxes:stable", "dir:boxes", Some("stable")),
            ("dir:/a/b", "dir:/a/b", None),
            (
                "https://w.example:8443/boxes:1.0.0-dev",
                "https://w.example:8443/boxes",
                Some("1.0.0-dev"),
            ),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", None),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.place.to_string().as_str(), address.tag()), (place, tag), "{text}");
            assert_eq!(address.to_string(), text);
            let pinned = format!("{place}@{digest}");
            let address = Address::parse(&pinned).expect("good");
            assert_eq!(address.which, Some(Which::Digest(digest)));
            assert_eq!(address.to_string(), pinned);
        }
        let file = Address::parse("file:///srv/boxes:1.0.0").expect("good");
        assert_eq!(file.place, Place::Folder("/srv/boxes".into()));
        assert_eq!(file.tag(), Some("1.0.0"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "web",
            "oci://",
            "oci://host",
            "oci:///web",
            "oci://h/Web",
            "oci://h/web:",
            "oci://h/a//b",
            "oci://h/../b",
            "oci://h:x/web",
            "oci://h/web:a/b",
            "oci://u:p@h/web",
            "oci://h/web@sha512:00",
            "oci://h/web:-a",
            "file://x",
            "dir:",
            "ftp://h/x",
            "https://u:pw@h/x",
            "https://h/x?y",
        ] {
            let e = Address::parse(text).expect_err(text);
            assert!(!e.to_string().contains("pw"), "{e}");
        }
        assert!(Address::parse(&format!("oci://h/web:{}", "a".repeat(129))).is_err());
    }
}
