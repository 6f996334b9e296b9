//! The other way round: a box in a Vagrant catalog, so that a plain web server with that file is a place for `vagrant box add`.

use serde_json::{Map, Value, json};

use super::catalog::LONGEST;
use super::version::Version;
use crate::attest::json;
use crate::digest::FileDigest;
use crate::error::{Error, Result};

/// A box file that the catalog is to name.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Name of the box.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian's name of its architecture, which Vagrant's is too.
    pub arch: String,
    /// Where the file will be.
    pub url: String,
    /// SHA-256 of the file.
    pub sha256: FileDigest,
    /// Whether another file may be named for the same version already.
    pub replace: bool,
}

impl Offer {
    /// The text of the catalog with this box in it; `before` is the one that is there. What others wrote into it stays.
    ///
    /// # Errors
    /// It is no catalog, or has another file for the same released version and architecture.
    pub fn added_to(&self, before: Option<&[u8]>, at: &str) -> Result<String> {
        let wrong = |why: String| {
            Error::failed(format!("`{at}` is no catalog of boxes"))
                .cause(why)
                .hint("Name another file, or remove this one: it is written anew then.")
        };
        let mut catalog = match before {
            None => json!({"name": self.name, "versions": []}),
            Some(text) if text.len() as u64 > LONGEST => {
                return Err(wrong(format!("it is larger than {LONGEST} bytes")));
            }
            Some(text) => json::parse(text).map_err(|e| wrong(e.to_string()))?,
        };
        let Some(versions) = catalog.get_mut("versions").and_then(Value::as_array_mut) else {
            return Err(wrong("it has no list `versions`".to_owned()));
        };
        let at_version =
            match versions.iter().position(|one| one["version"] == self.version.as_str()) {
                Some(found) => found,
                None => {
                    versions.push(json!({"version": self.version, "providers": []}));
                    versions.len() - 1
                }
            };
        let providers = versions[at_version]["providers"].as_array_mut();
        let providers =
            providers.ok_or_else(|| wrong("a version has no list `providers`".to_owned()))?;
        self.put(providers, at)?;
        // As people read it: the newest last.
        versions.sort_by_key(|one| one["version"].as_str().and_then(Version::parse));
        let mut text = serde_json::to_string_pretty(&catalog).map_err(|e| wrong(e.to_string()))?;
        text.push('\n');
        Ok(text)
    }

    fn put(&self, providers: &mut Vec<Value>, at: &str) -> Result<()> {
        let sha256 = self.sha256.hex();
        let is_ours =
            |one: &Value| one["name"] == "libvirt" && one["architecture"] == self.arch.as_str();
        let mut entry: Map<String, Value> = Map::new();
        match providers.iter().position(is_ours) {
            Some(found) => {
                let old = providers.remove(found);
                providers.retain(|one| !is_ours(one));
                let moves = self.replace || self.version.contains('-');
                if old["checksum"] != sha256.as_str() && !moves {
                    let shown: String = old["checksum"].to_string().chars().take(140).collect();
                    return Err(Error::failed(format!("`{at}` names another file for {} of {}", self.arch, self.version))
                        .detail(format!("there: sha256 {shown}"))
                        .detail(format!("here:  sha256 \"{sha256}\""))
                        .hint("Raise `version`: a released version never changes. `--replace` names the new file all the same."));
                }
                entry.extend(old.as_object().cloned().unwrap_or_default());
            }
            None => {
                // One of a version is taken by programs that do not ask for an architecture.
                let first = !providers
                    .iter()
                    .any(|one| one["name"] == "libvirt" && one["default_architecture"] == true);
                entry.insert("default_architecture".to_owned(), first.into());
            }
        }
        for (member, value) in [
            ("name", "libvirt"),
            ("url", &self.url),
            ("checksum_type", "sha256"),
            ("checksum", &sha256),
            ("architecture", &self.arch),
        ] {
            entry.insert(member.to_owned(), value.into());
        }
        providers.push(Value::Object(entry));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::{Catalog, Wanted};
    use super::super::version::Range;
    use super::*;

    fn offer(version: &str, arch: &str, content: &[u8]) -> Offer {
        Offer {
            name: "web".into(),
            version: version.into(),
            arch: arch.into(),
            url: format!("https://boxes.example/web-{version}-{arch}.box"),
            sha256: FileDigest::of(content),
            replace: false,
        }
    }

    #[test]
    fn what_is_offered_is_what_a_reader_of_catalogs_chooses() {
        let mut text = offer("1.9.0", "amd64", b"a").added_to(None, "x").expect("new");
        for (version, arch) in [("1.10.0", "amd64"), ("1.10.0", "arm64"), ("1.2.0", "amd64")] {
            text = offer(version, arch, b"a").added_to(Some(text.as_bytes()), "x").expect("added");
        }
        let catalog = Catalog::parse(text.as_bytes(), "x").expect("a catalog").expect("good");
        for arch in ["amd64", "arm64"] {
            let wanted = Wanted { range: Range::default(), provider: None, arch };
            let choice = catalog.choose(&wanted, "x").expect("there");
            assert_eq!(choice.url, format!("https://boxes.example/web-1.10.0-{arch}.box"));
            assert_eq!(choice.checksum, Some(FileDigest::of(b"a").hex()));
        }
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let versions: Vec<&Value> =
            value["versions"].as_array().expect("list").iter().map(|v| &v["version"]).collect();
        assert_eq!(versions, ["1.2.0", "1.9.0", "1.10.0"]);
        let default: Vec<&Value> = value["versions"][2]["providers"]
            .as_array()
            .expect("list")
            .iter()
            .map(|p| &p["default_architecture"])
            .collect();
        assert_eq!(default, [true, false]);
        assert_eq!(
            offer("1.2.0", "amd64", b"a").added_to(Some(text.as_bytes()), "x").expect("again"),
            text
        );
    }

    #[test]
    fn a_release_keeps_its_file_and_what_others_wrote_stays() {
        let before = r#"{"name": "acme/web", "description": "ours", "versions": [{"version": "1.0.0", "status": "active", "providers": [
            {"name": "virtualbox", "url": "v"}, {"name": "libvirt", "architecture": "amd64", "checksum": "00", "url": "l", "x": 1}]}]}"#;
        let other = offer("1.0.0", "amd64", b"b");
        let e = other.added_to(Some(before.as_bytes()), "x").expect_err("taken").to_string();
        assert!(e.contains("there: sha256 \"00\"") && e.contains(&other.sha256.hex()), "{e}");
        let moved = Offer { replace: true, ..other }.added_to(Some(before.as_bytes()), "x");
        let moved: Value = serde_json::from_str(&moved.expect("replaced")).expect("JSON");
        assert_eq!((&moved["name"], &moved["description"]), (&json!("acme/web"), &json!("ours")));
        let providers = &moved["versions"][0]["providers"];
        assert_eq!((&providers[0]["url"], &providers[1]["x"]), (&json!("v"), &json!(1)));
        let mut dev = offer("1.0.0-dev", "amd64", b"a").added_to(None, "x").expect("new");
        dev = offer("1.0.0-dev", "amd64", b"b").added_to(Some(dev.as_bytes()), "x").expect("moves");
        assert_eq!(dev.matches("checksum_type").count(), 1);
        for bad in
            ["", "[]", "{}", "{\"versions\": 1}", "{\"versions\": [{\"version\": \"1.0.0\"}]}"]
        {
            offer("1.0.0", "amd64", b"a").added_to(Some(bad.as_bytes()), "x").expect_err(bad);
        }
    }
}
