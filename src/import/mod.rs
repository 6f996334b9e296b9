//! What others made becomes a box of the store: disks, Vagrant boxes and catalogs of them, OVAs, containerDisks, disks of podman's
//! machines; from files, addresses, registries and OCI image layouts.
//!
//! Archives are never unpacked into files: a disk is read where it lies in them (`image::container`), so no name of an archive ever
//! becomes a path.

mod catalog;
pub mod offer;
mod version;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use self::catalog::{Catalog, Wanted};
use self::version::{Range, Version};
use crate::build::adopt::{Adopted, adopt};
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::host::{Paths, private_dir};
use crate::image::Limits;
use crate::image::container;
use crate::registry::address::Place;
use crate::registry::foreign;
use crate::registry::{self, Address};
use crate::source::address::Address as Web;
use crate::source::fetch::{Fetcher, hash_file, hash_file_like, kind};
use crate::spec::grammar;
use crate::store::{Added, Existing, Store};

/// What is to be imported, and as what.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// A file, a folder with an OCI image layout, an address, or the address of a registry.
    pub what: String,
    /// `NAME:VERSION`, or NAME where the version follows from what it is.
    pub name: Option<String>,
    /// Of a catalog: the range of versions.
    pub version: Option<String>,
    /// Of a catalog: the provider.
    pub provider: Option<String>,
    /// Debian's name of the architecture.
    pub arch: Option<String>,
    /// SHA-256 of the file, in hex.
    pub sha256: Option<String>,
    /// Move the name if it is taken.
    pub replace: bool,
}

/// What the work needs.
#[derive(Debug)]
pub struct Means<'a> {
    /// The folders of this user.
    pub paths: &'a Paths,
    /// How registries are spoken to, and what of them has to be signed.
    pub options: &'a registry::Options,
    /// What a disk may claim, and how long reading it may take.
    pub limits: &'a Limits,
    /// Told what happens.
    pub events: &'a Events,
    /// Stops the work.
    pub cancel: &'a CancellationToken,
}

/// A box that was imported.
#[derive(Debug)]
pub struct Imported {
    /// The box.
    pub added: Added,
    /// What it was, for people.
    pub from: String,
    /// SHA-256 of the file that it came in.
    pub sha256: FileDigest,
}

/// A file with a disk, and what is known of it.
struct Found {
    /// Those that may be the file: layers of an image.
    files: Vec<(PathBuf, FileDigest)>,
    name: Option<String>,
    version: Option<String>,
    arch: Option<String>,
    from: String,
}

/// Imports what is asked for.
///
/// # Errors
/// It is not there, is no disk or several, has another digest than was said, has no name; kind `Trust`: its place gives signed
/// boxes alone. The store is as it was then.
pub async fn run(store: &Store, asked: &Asked, means: &Means<'_>) -> Result<Imported> {
    let found = find(asked, means).await?;
    let (name, version) = named(asked, &found)?;
    let existing = if asked.replace { Existing::Replace } else { Existing::Refuse };
    let reading = container::Options {
        scratch: Some(scratch(means.paths)?),
        limits: *means.limits,
        ..container::Options::default()
    };
    let mut failed: Option<Error> = None;
    let several = found.files.len() > 1;
    // The upper layers hide what is below them.
    for (path, sha256) in found.files.iter().rev() {
        let arch = asked.arch.clone().or_else(|| found.arch.clone());
        let adopted = Adopted { name: name.clone(), version: version.clone(), arch, from: *sha256 };
        let work = adopt(store, path, &reading, &adopted, existing, means.cancel);
        // A file of the cache is known by where it came from, without the secrets of an address.
        let from = Web::parse(&asked.what).map_or(asked.what.clone(), |web| web.to_string());
        let (file, inside) = (path.display().to_string(), path.starts_with(&means.paths.cache));
        let known = |e: Error| match inside {
            true => e.with_texts(|text| text.replace(&file, &from)),
            false => e,
        };
        match work.await.map_err(known) {
            Ok((added, notes)) => {
                for note in notes {
                    means.events.note(note);
                }
                return Ok(Imported { added, from: found.from, sha256: *sha256 });
            }
            Err(e) if several && e.kind() == Kind::Failed => failed = Some(e),
            Err(e) => return Err(e),
        }
    }
    let nothing = || Error::failed(format!("`{}` has no file", asked.what));
    Err(failed.unwrap_or_else(nothing))
}

/// Where compressed disks are unpacked, into files without a name: beside the store, and not where memory is the disk.
fn scratch(paths: &Paths) -> Result<PathBuf> {
    let folder = paths.cache.join("import");
    private_dir(&folder)?;
    Ok(folder)
}

fn downloads(paths: &Paths) -> Result<PathBuf> {
    let folder = paths.cache.join("downloads");
    private_dir(&folder)?;
    Ok(folder)
}

async fn find(asked: &Asked, means: &Means<'_>) -> Result<Found> {
    let what = asked.what.as_str();
    if what.starts_with("oci://") || what.starts_with("dir:") {
        return of_registry(asked, &Address::parse(what)?, means).await;
    }
    if what.starts_with("https://") || what.starts_with("http://") {
        return of_web(asked, what, means).await;
    }
    let path = Path::new(what.strip_prefix("file://").unwrap_or(what));
    let meta = fs::metadata(path).map_err(|e| {
        Error::from(e).with_kind(Kind::Usage).hint(
            "Name a file, a folder with an OCI image layout, `https://…`, or `oci://HOST/REPOSITORY:TAG`.",
        )
    })?;
    if meta.is_dir() {
        if !path.join("oci-layout").exists() {
            return Err(Error::usage(format!("the folder `{what}` is no OCI image layout"))
                .cause("it has no file `oci-layout`")
                .hint(
                    "Name the file of the disk that is in it; a VMDK in pieces by its descriptor.",
                ));
        }
        let address = Address { place: Place::Folder(path.to_owned()), which: None };
        return of_registry(asked, &address, means).await;
    }
    if !meta.is_file() {
        return Err(
            Error::usage(format!("`{what}` is no regular file")).hint("Name a file with a disk.")
        );
    }
    match catalog_of(path, what)? {
        Some(catalog) => {
            let choice = choose(&catalog, asked, what)?;
            of_choice(asked, &catalog, &choice, Origin::Path(path), means).await
        }
        None => of_file(asked, path, asked.sha256.as_deref(), means).await,
    }
}

/// Where a catalog is, against which its addresses are relative.
enum Origin<'a> {
    Path(&'a Path),
    Web(&'a str),
}

/// The catalog in a small file; none if it is something else.
fn catalog_of(path: &Path, what: &str) -> Result<Option<Catalog>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() > catalog::LONGEST {
        return Ok(None);
    }
    let mut text = vec![];
    file.take(catalog::LONGEST).read_to_end(&mut text)?;
    Catalog::parse(&text, what).transpose()
}

fn choose(catalog: &Catalog, asked: &Asked, at: &str) -> Result<catalog::Choice> {
    let range = asked.version.as_deref().map(Range::parse).transpose()?.unwrap_or_default();
    let provider = asked.provider.as_deref();
    catalog
        .choose(&Wanted { range, provider, arch: asked.arch.as_deref().unwrap_or(host_arch()) }, at)
}

/// Debian's name of this host's architecture.
fn host_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

async fn of_file(
    asked: &Asked,
    path: &Path,
    expected: Option<&str>,
    means: &Means<'_>,
) -> Result<Found> {
    if let Some(expected) = expected {
        let found = hash_file_like(expected, path, means.events, means.cancel).await?;
        if found != expected {
            let kind = kind(expected);
            return Err(Error::failed(format!("`{}` is not the expected file", path.display()))
                .detail(format!("expected {kind}:{expected}"))
                .detail(format!("found    {kind}:{found}"))
                .hint("Check that the file is whole and the right version."));
        }
    }
    let hex = hash_file(path, means.events, means.cancel).await?;
    Ok(Found {
        files: vec![(path.to_owned(), digest(&hex)?)],
        name: None,
        version: None,
        arch: None,
        from: asked.what.clone(),
    })
}

fn digest(hex: &str) -> Result<FileDigest> {
    format!("sha256:{hex}")
        .parse()
        .map_err(|_| Error::usage(format!("`{hex}` is no SHA-256")).hint("Write 64 hex digits."))
}

async fn of_web(asked: &Asked, what: &str, means: &Means<'_>) -> Result<Found> {
    let (address, fetcher) = (Web::parse(what)?, Fetcher::new()?);
    refuse_covered(what, &address, means)?;
    if let Some(expected) = &asked.sha256 {
        let folder = downloads(means.paths)?;
        let path = fetcher.fetch(&address, expected, &folder, means.events, means.cancel).await?;
        return of_file(asked, &path, None, means).await;
    }
    let unproven = || {
        Error::failed(format!("nothing says what the bytes of `{address}` have to be"))
            .cause("it is no catalog of boxes, and no digest was given")
            .hint("Give its SHA-256 with `--sha256`, from a place that you trust.")
    };
    let text = fetcher.small(&address, catalog::LONGEST, means.cancel).await;
    let text =
        text.map_err(|e| if e.what().contains("is longer than") { unproven() } else { e })?;
    let catalog = Catalog::parse(&text, &address.to_string()).transpose()?.ok_or_else(unproven)?;
    if !address.is_protected() {
        means.events.warn(format!(
            "the catalog `{address}` comes without TLS: whoever can change it on its way can change the box too"
        ));
    }
    let choice = choose(&catalog, asked, &address.to_string())?;
    of_choice(asked, &catalog, &choice, Origin::Web(what), means).await
}

/// A place whose boxes have to be signed gives nothing else, whatever the protocol.
fn refuse_covered(what: &str, shown: &Web, means: &Means<'_>) -> Result<()> {
    let Ok(mut url) = Url::parse(what) else { return Ok(()) };
    url.set_query(None);
    url.set_fragment(None);
    means.options.trust.refuse_foreign(&Place::Site(url), &shown.to_string())
}

/// The box that a catalog names.
async fn of_choice(
    asked: &Asked,
    catalog: &Catalog,
    choice: &catalog::Choice,
    origin: Origin<'_>,
    means: &Means<'_>,
) -> Result<Found> {
    let expected = asked.sha256.clone().or_else(|| choice.checksum.clone());
    let mut found = match located(&choice.url, &origin)? {
        Location::Path(path) => of_file(asked, &path, expected.as_deref(), means).await?,
        Location::Web(url) => {
            let address = Web::parse(&url)?;
            refuse_covered(&url, &address, means)?;
            let expected = expected.ok_or_else(|| {
                Error::failed(format!("nothing says what the bytes of `{address}` have to be"))
                    .cause("the catalog has no SHA-256 or SHA-512 of it")
                    .hint("Give its SHA-256 with `--sha256`, from a place that you trust.")
            })?;
            let folder = downloads(means.paths)?;
            let fetcher = Fetcher::new()?;
            let path =
                fetcher.fetch(&address, &expected, &folder, means.events, means.cancel).await?;
            of_file(asked, &path, None, means).await?
        }
    };
    found.name = catalog.name.as_deref().map(label);
    found.version = choice.version.of_box();
    found.arch = choice.arch.clone();
    found.from = format!("{} of the provider {}", asked.what, choice.provider);
    Ok(found)
}

enum Location {
    Path(PathBuf),
    Web(String),
}

/// Where the address in a catalog leads: one on the web to the web alone.
fn located(url: &str, origin: &Origin<'_>) -> Result<Location> {
    let wrong = |why: &str| {
        Error::failed("the catalog names an address that is not followed")
            .cause(why.to_owned())
            .hint("Fetch the box by hand, and import the file.")
    };
    match origin {
        Origin::Web(base) => {
            let joined = Url::parse(base).and_then(|base| base.join(url));
            let joined = joined.map_err(|e| wrong(&e.to_string()))?;
            match joined.scheme() {
                "https" | "http" => Ok(Location::Web(joined.into())),
                other => Err(wrong(&format!("its scheme is `{other}`"))),
            }
        }
        Origin::Path(file) => {
            if url.starts_with("https://") || url.starts_with("http://") {
                return Ok(Location::Web(url.to_owned()));
            }
            let path = url.strip_prefix("file://").unwrap_or(url);
            if path.contains("://") || path.is_empty() {
                return Err(wrong("it is neither a path nor an address of the web"));
            }
            Ok(Location::Path(file.parent().unwrap_or(Path::new("")).join(path)))
        }
    }
}

async fn of_registry(asked: &Asked, address: &Address, means: &Means<'_>) -> Result<Found> {
    let Means { options, events, cancel, .. } = means;
    let source = foreign::Source::open(address, options, events, cancel).await?;
    let arch = asked.arch.as_deref().unwrap_or(host_arch());
    let disk = source.look(address, arch).await?;
    let files = source.fetch(&disk, &downloads(means.paths)?, events, cancel).await?;
    let last = match &address.place {
        Place::Registry { repository, .. } => repository.rsplit('/').next().map(label),
        _ => None,
    };
    let version = address.tag().and_then(Version::parse).and_then(|version| version.of_box());
    let from = format!("{} of {address}, manifest {}", disk.kind, disk.manifest);
    Ok(Found { files, name: last, version, arch: disk.arch.clone(), from })
}

/// The last part of somebody else's name, as a box may be called.
fn label(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    last.replace(['_', '.', ' '], "-")
}

/// Name and version: those that were given, else those that follow from what it is.
fn named(asked: &Asked, found: &Found) -> Result<(String, String)> {
    let (name, version) = match asked.name.as_deref().map(|text| text.split_once(':')) {
        Some(Some((name, version))) => (Some(name.to_owned()), Some(version.to_owned())),
        Some(None) => (asked.name.clone(), found.version.clone()),
        None => (found.name.clone(), found.version.clone()),
    };
    let missing = |what: &str| {
        Error::usage(format!("`{}` does not say which {what} the box has", asked.what))
            .hint("Give both, as in `--name debian:12.0.0`.")
    };
    let name = name.ok_or_else(|| missing("name"))?;
    let version = version.ok_or_else(|| missing("version"))?;
    for (text, of, what) in
        [(&name, &grammar::LABEL, "name"), (&version, &grammar::VERSION, "version")]
    {
        if !of.accepts(text) {
            let shown: String = text.chars().take(100).collect();
            return Err(Error::usage(format!("`{shown}` is no {what} of a box"))
                .cause(format!("expected {}", of.expected))
                .hint("Give both, as in `--name debian:12.0.0`."));
        }
    }
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_web_leads_to_the_web_alone() {
        let web = Origin::Web("https://h.example/a/catalog.json");
        let to = |url: &str, origin: &Origin<'_>| match located(url, origin) {
            Ok(Location::Web(url)) => url,
            Ok(Location::Path(path)) => path.display().to_string(),
            Err(e) => e.causes().join(", "),
        };
        assert_eq!(to("b.box", &web), "https://h.example/a/b.box");
        assert_eq!(to("/etc/passwd", &web), "https://h.example/etc/passwd");
        assert_eq!(to("file:///etc/passwd", &web), "its scheme is `file`");
        assert_eq!(to("http://o.example/x", &web), "http://o.example/x");
        let file = Origin::Path(Path::new("/srv/c/catalog.json"));
        assert_eq!(to("b.box", &file), "/srv/c/b.box");
        assert_eq!(to("file:///x/b.box", &file), "/x/b.box");
        assert_eq!(to("https://h/b.box", &file), "https://h/b.box");
        assert!(to("s3://h/b.box", &file).contains("neither"));
    }

    #[test]
    fn a_name_is_the_one_that_was_given_or_that_follows() {
        let found = |name: Option<&str>, version: Option<&str>| Found {
            files: vec![],
            name: name.map(label),
            version: version.map(str::to_owned),
            arch: None,
            from: String::new(),
        };
        let of = |asked: Option<&str>, found: &Found| {
            let asked = Asked { name: asked.map(str::to_owned), ..Asked::default() };
            named(&asked, found).map(|(name, version)| format!("{name}:{version}"))
        };
        let both = found(Some("generic/Debian_12"), Some("4.3.12"));
        assert_eq!(of(None, &both).expect("follows"), "debian-12:4.3.12");
        assert_eq!(of(Some("deb"), &both).expect("follows"), "deb:4.3.12");
        assert_eq!(of(Some("deb:1.0.0-dev"), &both).expect("given"), "deb:1.0.0-dev");
        let none = found(None, None);
        for (name, found) in [
            (None, &none),
            (Some("deb"), &none),
            (Some("Deb:1.0.0"), &both),
            (Some("deb:1"), &both),
            (Some("../x:1.0.0"), &both),
        ] {
            assert_eq!(of(name, found).expect_err("no name").kind(), Kind::Usage);
        }
    }
}
