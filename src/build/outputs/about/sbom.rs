//! What is installed in the image, as SPDX 2.3 in JSON, from its package databases.
//!
//! Sources: SPDX Specification 2.3, chapters 6 "Document creation", 7 "Package", 11 "Relationships";
//! package-url "purl-spec" and its types `apk`, `deb`, `rpm`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::date;
use crate::build::outputs::{Work, open};
use crate::digest::hex;
use crate::error::{Kind, Result};
use crate::event::Events;
use crate::image::Limits;
use crate::image::container::Format;
use crate::image::disk::Disk;
use crate::parity::canonical::Package;
use crate::parity::subject::{self, Release};

/// What SPDX has for what was not looked into.
const UNKNOWN: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

/// The document. A system whose packages cannot be told has one that says so.
///
/// # Errors
/// The disk cannot be read.
pub(super) fn document(work: &Work, events: &Events) -> Result<Value> {
    let config = work.image.config();
    let disk = Disk::read(open(work.image.disk_path(), Format::Qcow2)?, &Limits::default())?;
    let release = subject::release(&disk).unwrap_or_default();
    let (installed, comment) = match subject::packages(&disk) {
        Ok(packages) => {
            let all: Vec<Package> =
                packages.list().iter().filter(|p| is_there(p)).cloned().collect();
            (all, None)
        }
        Err(e) if e.kind() == Kind::Undetermined => {
            events.warn(format!("the SBOM lists no packages: {}", e.what()));
            (vec![], Some(format!("The packages of this system could not be told: {}.", e.what())))
        }
        Err(e) => return Err(e),
    };
    let mut packages = vec![json!({
        "SPDXID": IMAGE,
        "name": config.name,
        "versionInfo": config.version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "summary": format!("{}, {}", config.box1, config.bytes1),
    })];
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    for (number, package) in installed.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}", number + 1);
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        packages.push(entry(&id, package, &release));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": work.base(),
        "documentNamespace": format!("urn:uuid:{}", uuid(&work.identity().uuid("sbom"))),
        "creationInfo": {
            "created": date(work)?,
            "creators": [format!("Tool: devbox-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if let Some(comment) = comment {
        document["comment"] = json!(comment);
    }
    Ok(document)
}

/// Whether files of a package are in the image, and not only its configuration (dpkg(1), "Package states";
/// the words of a status stand with commas between them).
fn is_there(package: &Package) -> bool {
    !package.status.ends_with(b",config-files")
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn entry(id: &str, package: &Package, release: &Release) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut entry = json!({
        "SPDXID": id,
        "name": text(&package.name),
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
    });
    if !package.version.is_empty() {
        entry["versionInfo"] = json!(text(&package.version));
    }
    if let Some(purl) = purl(package, release) {
        entry["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    entry
}

/// `pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12`; none if the system does not say what it is.
fn purl(package: &Package, release: &Release) -> Option<String> {
    let namespace = release.id.as_deref()?;
    let (mut version, mut epoch) = (&package.version[..], None);
    if package.kind == "rpm"
        && let Some(at) = version.iter().position(|b| *b == b':')
    {
        epoch = Some(&version[..at]);
        version = &version[at + 1..];
    }
    let mut purl = format!("pkg:{}/", package.kind);
    encode(&mut purl, namespace.as_bytes());
    purl.push('/');
    encode(&mut purl, &package.name);
    if !version.is_empty() {
        purl.push('@');
        encode(&mut purl, version);
    }
    let distro = release.version.as_ref().map(|version| format!("{namespace}-{version}"));
    let qualifiers = [
        ("arch", Some(&package.arch[..]).filter(|arch| !arch.is_empty())),
        ("distro", distro.as_deref().map(str::as_bytes)),
        ("epoch", epoch.filter(|epoch| *epoch != b"0")),
    ];
    let mut separator = '?';
    for (key, value) in qualifiers {
        let Some(value) = value else { continue };
        let _ = write!(purl, "{separator}{key}=");
        encode(&mut purl, value);
        separator = '&';
    }
    Some(purl)
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
fn encode(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let text = hex(bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(kind: &'static str, name: &str, arch: &str, version: &str, status: &str) -> Package {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Package {
            kind,
            name: bytes(name),
            arch: bytes(arch),
            version: bytes(version),
            status: bytes(status),
        }
    }

    #[test]
    fn package_urls_are_as_the_types_want_them() {
        let debian = Release { id: Some("debian".into()), version: Some("12".into()) };
        let deb = package("deb", "libstdc++6", "amd64", "1:2.36-9+deb12u1", "install,ok,installed");
        assert_eq!(
            purl(&deb, &debian).as_deref(),
            Some("pkg:deb/debian/libstdc%2B%2B6@1%3A2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12")
        );
        let fedora = Release { id: Some("fedora".into()), version: None };
        let rpm = package("rpm", "bash", "x86_64", "2:5.2-1.fc40", "");
        assert_eq!(
            purl(&rpm, &fedora).as_deref(),
            Some("pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64&epoch=2")
        );
        assert_eq!(purl(&deb, &Release::default()), None);
    }

    #[test]
    fn what_only_left_its_configuration_is_not_there() {
        for (status, there) in [
            ("install,ok,installed", true),
            ("install,ok,half-configured", true),
            ("", true),
            ("deinstall,ok,config-files", false),
        ] {
            assert_eq!(is_there(&package("deb", "a", "", "1", status)), there, "{status}");
        }
    }
}
