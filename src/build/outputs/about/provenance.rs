//! The provenance of the outputs: an in-toto Statement v1 with SLSA's predicate, not signed.
//!
//! Sources: in-toto Attestation Framework, "Statement" v1 and "ResourceDescriptor" v1; SLSA, "Provenance"
//! v1.

use serde_json::{Value, json};

use super::Listed;
use crate::attest::statement;
use crate::build::outputs::Work;
use crate::digest::FileDigest;
use crate::spec::{BoxPlace, ImageSource, IsoSource, Location, Source, Spec};

const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How the external parameters are to be understood: a name, not an address.
const BUILD_TYPE: &str = "urn:devbox:build:v1";
/// devbox on a host that nobody vouches for.
const BUILDER: &str = "urn:devbox:builder:local";

/// The statement. Without times: what they say is the host's, and two equal builds would differ.
pub(super) fn statement(
    work: &Work,
    spec: &Spec,
    source: Option<FileDigest>,
    files: &[Listed],
) -> Value {
    let config = work.image.config();
    let subject: Vec<Value> = files.iter().map(|file| subject(work, file)).collect();
    let outputs: Vec<_> = spec.outputs.iter().map(|format| format.as_str()).collect();
    json!({
        "_type": statement::TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "name": config.name,
                    "version": config.version,
                    "arch": config.arch,
                    "spec1": config.spec1,
                    "outputs": outputs,
                },
                "internalParameters": {
                    "epoch": config.epoch,
                    "firmware": config.firmware,
                    "seal": config.seal,
                },
                "resolvedDependencies": dependencies(spec, source),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"devbox": config.devbox}},
                "byproducts": [{
                    "name": config.reference(),
                    "digest": {"sha256": work.image.manifest_digest().hex()},
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                }],
            },
        },
    })
}

fn subject(work: &Work, file: &Listed) -> Value {
    let config = work.image.config();
    let mut digest = json!({"sha256": file.sha256.hex()});
    if file.is_disk {
        digest["devboxBytes1"] = json!(config.bytes1.hex());
        digest["devboxBox1"] = json!(config.box1.hex());
    }
    json!({"name": file.name, "digest": digest})
}

/// What the image started from. A path of this host is told by its last part.
fn dependencies(spec: &Spec, source: Option<FileDigest>) -> Vec<Value> {
    match &spec.source {
        Source::Packages(packages) => [
            format!("{}/dists/{}", packages.mirror, packages.suite),
            format!("{}/dists/{}-security", packages.security_mirror, packages.suite),
        ]
        .map(|uri| json!({"uri": uri}))
        .into(),
        Source::Image(ImageSource { location, .. }) | Source::Iso(IsoSource { location, .. }) => {
            let mut one = match location {
                Location::Url(url) => json!({"uri": url}),
                Location::Path(path) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    json!({"name": name})
                }
            };
            if let Some(digest) = source {
                one["digest"] = json!({"sha256": digest.hex()});
            }
            vec![one]
        }
        Source::Box(boxed) => {
            let mut one = match &boxed.from {
                BoxPlace::At(place)
                    if !place.starts_with("dir:") && !place.starts_with("file:") =>
                {
                    json!({"uri": place})
                }
                BoxPlace::At(_) => json!({"name": "a folder of boxes"}),
                BoxPlace::Store(name) => json!({"name": name}),
            };
            if let Some(digest) = source {
                one["digest"] = json!({"sha256": digest.hex()});
            }
            vec![one]
        }
    }
}
