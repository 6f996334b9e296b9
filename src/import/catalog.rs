//! A Vagrant catalog: JSON that names the boxes of each version, one a provider and architecture (Vagrant's documentation, "Box
//! Metadata").

use serde::Deserialize;

use super::version::{Range, Version};
use crate::attest::json;
use crate::error::{Error, Result};

/// Largest catalog in bytes: those of distributions have some 100 KiB.
pub(crate) const LONGEST: u64 = 8 << 20;
/// Most that a message lists.
const NAMED: usize = 8;
/// Providers whose disks are read here, the best first: those of QEMU need no conversion by others.
const PROVIDERS: [&str; 8] = [
    "libvirt",
    "qemu",
    "virtualbox",
    "vmware_desktop",
    "vmware_fusion",
    "vmware_workstation",
    "vmware",
    "hyperv",
];

/// What a catalog says.
#[derive(Debug, Deserialize)]
pub(crate) struct Catalog {
    pub(crate) name: Option<String>,
    versions: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    version: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Debug, Clone, Deserialize)]
struct Provider {
    name: String,
    url: String,
    checksum: Option<String>,
    checksum_type: Option<String>,
    architecture: Option<String>,
    default_architecture: Option<bool>,
}

/// What is looked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) range: Range,
    pub(crate) provider: Option<&'a str>,
    pub(crate) arch: &'a str,
}

/// The box that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) version: Version,
    pub(crate) provider: String,
    /// Its address or path, as it stands there.
    pub(crate) url: String,
    /// SHA-256 or SHA-512 in hex, if the catalog has one.
    pub(crate) checksum: Option<String>,
    /// Its architecture, if the catalog says it.
    pub(crate) arch: Option<String>,
}

impl Catalog {
    /// None if the text is no catalog, but something else.
    ///
    /// # Errors
    /// It is one, and something in it is wrong.
    pub(crate) fn parse(text: &[u8], at: &str) -> Option<Result<Self>> {
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return None;
        }
        let wrong = |e: serde_json::Error| {
            Error::failed(format!("`{at}` is no catalog of boxes"))
                .cause(e)
                .hint("Name Vagrant's JSON with `versions`, or a file with a disk.")
        };
        Some(json::parse(text).and_then(serde_json::from_value).map_err(wrong))
    }

    /// The newest version in the range that has a box for this architecture whose disk is read here.
    ///
    /// # Errors
    /// There is none: with what there is.
    pub(crate) fn choose(&self, wanted: &Wanted<'_>, at: &str) -> Result<Choice> {
        let mut versions: Vec<(Version, &Entry)> = self
            .versions
            .iter()
            .filter_map(|entry| Some((Version::parse(&entry.version)?, entry)))
            .filter(|(version, _)| wanted.range.holds(version))
            .collect();
        versions.sort_by(|a, b| b.0.cmp(&a.0));
        for (version, entry) in &versions {
            if let Some(provider) = best(&entry.providers, wanted) {
                return Ok(Choice {
                    version: version.clone(),
                    provider: provider.name.clone(),
                    url: provider.url.clone(),
                    checksum: checksum(provider, at)?,
                    arch: named_arch(provider),
                });
            }
        }
        let what = match versions.is_empty() {
            true => format!("`{at}` has no version in this range"),
            false => format!("`{at}` has no box for {} that is read here", wanted.arch),
        };
        Err(Error::failed(what)
            .detail(format!("there are: {}", self.listed()))
            .hint("Choose another version with `--box-version`, or another box with `--provider` and `--arch`."))
    }

    fn listed(&self) -> String {
        let mut all: Vec<(Option<Version>, String)> = vec![];
        for entry in &self.versions {
            let providers: Vec<String> = entry
                .providers
                .iter()
                .take(NAMED)
                .map(|of| match named_arch(of) {
                    Some(arch) => format!("{} for {arch}", of.name),
                    None => of.name.clone(),
                })
                .collect();
            let text = format!("{} ({})", entry.version, providers.join(", "));
            all.push((Version::parse(&entry.version), text.chars().take(200).collect()));
        }
        all.sort_by(|a, b| b.0.cmp(&a.0));
        let more = all.len().saturating_sub(NAMED);
        let shown: Vec<String> = all.into_iter().take(NAMED).map(|(_, text)| text).collect();
        match (shown.is_empty(), more) {
            (true, _) => "none".to_owned(),
            (_, 0) => shown.join("; "),
            (_, more) => format!("{}; and {more} more", shown.join("; ")),
        }
    }
}

fn named_arch(provider: &Provider) -> Option<String> {
    provider.architecture.clone().filter(|arch| !arch.is_empty() && arch != "unknown")
}

/// The best of the boxes of one version, by Vagrant's own rule for architectures.
fn best<'a>(providers: &'a [Provider], wanted: &Wanted<'_>) -> Option<&'a Provider> {
    let names: Vec<&str> = match wanted.provider {
        Some(name) => vec![name],
        None => PROVIDERS.to_vec(),
    };
    names.into_iter().find_map(|name| {
        let of: Vec<&Provider> = providers.iter().filter(|one| one.name == name).collect();
        let exact = of.iter().find(|one| one.architecture.as_deref() == Some(wanted.arch));
        let default = || {
            of.iter()
                .find(|one| named_arch(one).is_none() && one.default_architecture == Some(true))
        };
        let alone = || of.first().filter(|one| of.len() == 1 && named_arch(one).is_none());
        exact.or_else(default).or_else(alone).copied()
    })
}

/// The digest, in lower-case hex, of a kind that proves something.
fn checksum(provider: &Provider, at: &str) -> Result<Option<String>> {
    let Some(text) = provider.checksum.as_deref().map(str::trim).filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let kind = provider.checksum_type.as_deref().unwrap_or("sha256").to_ascii_lowercase();
    let length = match kind.replace('-', "").as_str() {
        "sha256" => 64,
        "sha512" => 128,
        // Weaker ones prove nothing, and are no reason to go without.
        _ => return Ok(None),
    };
    let hex = text.to_ascii_lowercase();
    if hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Some(hex));
    }
    Err(Error::failed(format!("`{at}` has a wrong checksum for the provider `{}`", provider.name))
        .cause(format!("it is no {kind} in hex"))
        .hint("Tell whoever keeps the catalog, or name the box's own address with `--sha256`."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let hex = "ab".repeat(32);
        let text = format!(
            r#"{{"name": "acme/base", "description": "x", "versions": [
            {{"version": "1.9.0", "providers": [
                {{"name": "libvirt", "url": "a.box", "checksum": "{hex}", "checksum_type": "sha256"}}]}},
            {{"version": "1.10.0", "status": "active", "providers": [
                {{"name": "virtualbox", "url": "v.box", "architecture": "amd64"}},
                {{"name": "libvirt", "url": "l.box", "checksum": "{}", "checksum_type": "SHA-256", "architecture": "amd64", "default_architecture": true}},
                {{"name": "libvirt", "url": "r.box", "checksum": "aa", "checksum_type": "md5", "architecture": "arm64"}}]}},
            {{"version": "2.0.0", "providers": [{{"name": "docker", "url": "d.box"}}, {{"name": "parallels", "url": "p.box"}}]}},
            {{"version": "3.0.0-beta", "providers": [{{"name": "libvirt", "url": "b.box"}}]}}]}}"#,
            hex.to_uppercase()
        );
        Catalog::parse(text.as_bytes(), "x").expect("a catalog").expect("good")
    }

    fn chosen(range: &str, provider: Option<&str>, arch: &str) -> Result<Choice> {
        let range = if range.is_empty() { Range::default() } else { Range::parse(range)? };
        catalog().choose(&Wanted { range, provider, arch }, "x")
    }

    #[test]
    fn the_newest_readable_box_of_the_range_is_taken() {
        let url = |range, provider, arch| chosen(range, provider, arch).expect("there").url;
        assert_eq!(url("", None, "amd64"), "l.box");
        assert_eq!(url("", None, "arm64"), "r.box");
        assert_eq!(url("< 1.10", None, "amd64"), "a.box");
        assert_eq!(url("< 1.10", None, "arm64"), "a.box", "alone, and for nobody else");
        assert_eq!(url("", Some("virtualbox"), "amd64"), "v.box");
        assert_eq!(url(">= 3.0.0-alpha", None, "amd64"), "b.box");
        let choice = chosen("", None, "amd64").expect("there");
        assert_eq!(choice.checksum, Some("ab".repeat(32)), "in any case");
        assert_eq!(chosen("", None, "arm64").expect("there").checksum, None, "md5 proves nothing");
        for (range, provider, arch) in
            [("2.0.0", None, "amd64"), ("9", None, "amd64"), ("", Some("hyperv"), "amd64")]
        {
            let e = chosen(range, provider, arch).expect_err("nothing").to_string();
            assert!(e.contains("1.10.0 (virtualbox for amd64, libvirt for amd64"), "{e}");
        }
    }

    #[test]
    fn what_is_no_catalog_or_a_wrong_one_is_told_apart() {
        assert!(Catalog::parse(b"QFI\xfb", "x").is_none());
        assert!(Catalog::parse(b"", "x").is_none());
        for bad in [
            "{}",
            "{",
            "{\"versions\": 1}",
            "{\"versions\": [], \"versions\": []}",
            "{\"versions\": [{}]}",
        ] {
            assert!(Catalog::parse(bad.as_bytes(), "x").expect("looks like one").is_err(), "{bad}");
        }
        let text = r#"{"versions": [{"version": "1", "providers": [{"name": "libvirt", "url": "u", "checksum": "zz", "checksum_type": "sha256"}]}]}"#;
        let one = Catalog::parse(text.as_bytes(), "x").expect("one").expect("good");
        let e = one.choose(&Wanted { arch: "amd64", ..Wanted::default() }, "x").expect_err("wrong");
        assert!(e.to_string().contains("wrong checksum"), "{e}");
    }
}
