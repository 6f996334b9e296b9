//! `[source]`.

mod boxed;
mod iso;

use std::path::Path;

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::quantity::GIB;
use crate::spec::reader::{At, Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Checksum, ImageSource, InputFormat, Location, Packages, Signing, Source};

/// Names that stand for another suite after each release (Debian's `dists` symlinks).
const MOVING_SUITES: &[&str] =
    &["stable", "oldstable", "oldoldstable", "testing", "unstable", "rc-buggy"];
/// Debian's public mirror.
const MIRROR: &str = "http://deb.debian.org/debian";
/// Debian's public mirror of security updates.
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Room for a Debian system with some packages.
const DISK: u64 = 2 * GIB;

pub(super) fn source(top: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Source> {
    match top.variant(&keys::SOURCE, c)? {
        ("packages", table) => packages(&table, c).map(Source::Packages),
        ("image", table) => image(&table, dir, c).map(Source::Image),
        ("iso", table) => iso::iso(&table, dir, c).map(Source::Iso),
        (_, table) => boxed::boxed(&table, dir, c).map(Source::Box),
    }
}

fn packages(table: &Reader<'_, '_>, c: &mut Collector) -> Option<Packages> {
    let suite = table.text(&keys::SUITE, c).filter(|at| is_fixed(at, c));
    let values = |list: Vec<At<String>>| list.into_iter().map(|at| at.value).collect::<Vec<_>>();
    let packages = table.set(&keys::PACKAGES, c).map(values).unwrap_or_default();
    let components = table.set(&keys::COMPONENTS, c).map(|list| {
        if list.is_empty() {
            let at = table.at();
            let problem =
                c.report(&format!("{}.components", at.path), at.span, "`components` is empty");
            problem.hint = Some("Write `components = [\"main\"]`, or remove the key.".to_owned());
        }
        values(list)
    });
    let mut address = |key, default: &str| {
        let at = table.text(key, c).map(|at| at.value);
        at.unwrap_or_else(|| default.to_owned()).trim_end_matches('/').to_owned()
    };
    let mirror = address(&keys::MIRROR, MIRROR);
    let security_mirror = address(&keys::SECURITY_MIRROR, SECURITY_MIRROR);
    let disk_size = table.size(&keys::SOURCE_DISK, c).map_or(DISK, |at| at.value);
    Some(Packages {
        suite: suite?.value,
        packages,
        mirror,
        security_mirror,
        components: components.unwrap_or_else(|| vec!["main".to_owned()]),
        disk_size,
    })
}

/// Whether a suite's name will mean the same next year; reports it if not.
fn is_fixed(suite: &At<String>, c: &mut Collector) -> bool {
    let moving = MOVING_SUITES.contains(&suite.value.as_str());
    if moving {
        let what = format!("`{}` names another suite after each release", shown(&suite.value));
        c.report(&suite.path, suite.span.clone(), what).hint =
            Some("Write the code name, such as `bookworm`.".to_owned());
    }
    !moving
}

fn image(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<ImageSource> {
    let located = located(
        table,
        dir,
        [&keys::IMAGE_PATH, &keys::IMAGE_URL, &keys::IMAGE_SHA256, &keys::IMAGE_CHECKSUMS],
        c,
    );
    let format = table.text(&keys::IMAGE_FORMAT, c).map(|at| match at.value.as_str() {
        "raw" => InputFormat::Raw,
        "qcow2" => InputFormat::Qcow2,
        _ => InputFormat::Vhd,
    });
    let (location, checksum, signing) = located?;
    Some(ImageSource { location, checksum, format, signing })
}

/// A file by path or address, what it must match, and who has to have signed that: the four keys for the first two.
fn located(
    table: &Reader<'_, '_>,
    dir: &Path,
    [path, url, sha256, checksums]: [&'static Key; 4],
    c: &mut Collector,
) -> Option<(Location, Checksum, Option<Signing>)> {
    let path = table.text(path, c);
    let path = path.map(|at| Location::Path(resolve(&at, dir, Expect::File, c)));
    let url = table.text(url, c).map(|at| Location::Url(at.value));
    let sha256 = table.text(sha256, c);
    let sha256 = sha256.map(|at| Checksum::Sha256(at.value.to_ascii_lowercase()));
    let checksums = table.text(checksums, c);
    let checksums = checksums.and_then(|at| location(&at, dir, c)).map(Checksum::File);
    let signing = signing(table, dir, checksums.is_some(), c);
    Some((path.or(url)?, sha256.or(checksums)?, signing))
}

/// Who has to have signed the checksum file; `listed` says whether the spec names one.
fn signing(table: &Reader<'_, '_>, dir: &Path, listed: bool, c: &mut Collector) -> Option<Signing> {
    let keys = table.set(&keys::IMAGE_KEYS, c);
    let fingerprints = table.set(&keys::IMAGE_FINGERPRINTS, c);
    let signature = table.text(&keys::IMAGE_SIGNATURE, c);
    let named = keys.as_ref().is_some_and(|keys| !keys.is_empty());
    let at = table.at();
    let mut wrong = |name: &str, what: &str, hint: &str| {
        let path = format!("{}.{name}", at.path);
        c.report(&path, at.span.clone(), what).hint = Some(hint.to_owned());
    };
    let without = |name: &str| format!("`{name}` says nothing without `keys`");
    let hint = "Name the file with the publisher's public key in `keys`.";
    match (named, signature.is_some(), fingerprints.is_some(), keys.is_some()) {
        (true, ..) if !listed => wrong(
            "keys",
            "`keys` is for a checksum file, and the spec names none",
            "Name the checksum file with `checksums`, or remove the key: with `sha256`, nothing is left to be signed.",
        ),
        (true, ..) => {}
        (_, true, ..) => wrong("signature", &without("signature"), hint),
        (_, _, true, _) => wrong("fingerprints", &without("fingerprints"), hint),
        (_, _, _, true) => wrong("keys", "`keys` is empty", "Name a file, or remove the key."),
        _ => {}
    }
    if let Some(at) = keys.iter().flatten().find(|at| at.value.contains("://"))
        && fingerprints.is_none()
    {
        let what = "a key that comes from an address is known by nothing but that address";
        c.report(&at.path, at.span.clone(), what).hint = Some(
            "Write the key's fingerprint into `fingerprints`, from a page of the publisher."
                .to_owned(),
        );
    }
    let keys = keys?.iter().filter_map(|at| location(at, dir, c)).collect();
    let signature = match &signature {
        Some(at) => Some(location(at, dir, c)?),
        None => None,
    };
    let fingerprints =
        fingerprints.unwrap_or_default().iter().map(|at| at.value.to_ascii_uppercase()).collect();
    Some(Signing { keys, fingerprints, signature })
}

/// A path, or an address where the text has a scheme.
fn location(at: &At<String>, dir: &Path, c: &mut Collector) -> Option<Location> {
    if !at.value.contains("://") {
        return Some(Location::Path(resolve(at, dir, Expect::File, c)));
    }
    if crate::spec::grammar::URL.accepts(&at.value) {
        return Some(Location::Url(at.value.clone()));
    }
    let what = format!("`{}` is not valid here", shown(&at.value));
    c.report(&at.path, at.span.clone(), what).expected =
        Some(crate::spec::grammar::URL.expected.to_owned());
    None
}
