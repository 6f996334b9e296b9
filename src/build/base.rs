//! The box that a `box` source means: found in the store, or pulled into it.

use std::path::Path;

use semver::Version;
use tokio_util::sync::CancellationToken;

use crate::delta;
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::host::Paths;
use crate::registry::address::{Address, Which};
use crate::registry::{self, Described, Options, Policy};
use crate::spec::{BoxPlace, BoxSource, PinnedBox, Spec, Wish};
use crate::store::{BoxRef, Existing, Store};

/// A box that another one starts from.
#[derive(Debug, Clone)]
pub struct Base {
    /// The box in the store.
    pub image: BoxRef,
    /// The digest of its manifest where it comes from; in the store it has another one.
    pub manifest: FileDigest,
}

/// The box that `source` means, for guests of the architecture of `spec`. Nobody is asked if a lock names it and it is here.
///
/// # Errors
/// There is none that fits, or it is for other guests; it cannot be pulled, or is not signed as spec or user demand it; its name
/// is taken in the store.
pub async fn resolve(
    spec: &Spec,
    source: &BoxSource,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Base> {
    let (store, arch) = (Store::open(&paths.store)?, spec.arch.as_str());
    let base = match &source.from {
        BoxPlace::Store(name) => stored(&store, name, source, arch)?,
        BoxPlace::At(text) => {
            let address = Address::parse(text)?;
            let trust = Policy::load(Some(spec), &paths.settings)?;
            let options = Options { trust, ..for_arch(arch) };
            let cache = &paths.cache;
            at(&store, address, source, options, cache, events, cancel).await?
        }
    };
    let config = base.image.config();
    if config.arch != arch {
        return Err(Error::failed(format!(
            "the source `{}` is {} for {}, and the spec is for {arch}",
            source.from,
            config.reference(),
            config.arch
        ))
        .hint("Change `arch` of the spec, or take a box of that architecture."));
    }
    let image = delta::whole(&store, base.image, events, cancel).await?;
    Ok(Base { image, ..base })
}

/// The digest of the disk of the box that `source` means; nothing of it is pulled.
///
/// # Errors
/// As [`resolve`].
pub async fn disk(
    source: &BoxSource,
    arch: &str,
    paths: &Paths,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<FileDigest> {
    match (&source.pinned, &source.from) {
        (Some(pinned), _) => Ok(pinned.disk),
        (None, BoxPlace::Store(name)) => {
            let store = Store::open(&paths.store)?;
            Ok(stored(&store, name, source, arch)?.image.disk_digest())
        }
        (None, BoxPlace::At(text)) => {
            let (place, options) = (Address::parse(text)?.place, for_arch(arch));
            Ok(registry::choose(&place, &source.wish, &options, events, cancel).await?.disk)
        }
    }
}

/// The box with this disk that a lock names, if it is in the store.
///
/// # Errors
/// The store is damaged.
pub fn find(store: &Store, pinned: &PinnedBox) -> Result<Option<BoxRef>> {
    let mut boxes = store.list()?;
    boxes.retain(|image| image.disk_digest() == pinned.disk);
    // The same disk may have several names.
    let named = boxes.iter().position(|image| image.config().version == pinned.version);
    Ok(named.map(|at| boxes.swap_remove(at)))
}

/// The boxes `name` in the store for guests of `arch`, the newest first.
///
/// # Errors
/// The store is damaged.
pub fn in_store(store: &Store, name: &str, arch: &str) -> Result<Vec<(Version, BoxRef)>> {
    let mut all: Vec<(Version, BoxRef)> = vec![];
    for image in store.list()? {
        if image.config().name == name
            && image.config().arch == arch
            && let Ok(version) = Version::parse(&image.config().version)
        {
            all.push((version, image));
        }
    }
    all.sort_by(|a, b| b.0.cmp(&a.0));
    Ok(all)
}

fn for_arch(arch: &str) -> Options {
    Options { arch: Some(arch.to_owned()), ..Options::new(Policy::none()) }
}

fn stored(store: &Store, name: &str, source: &BoxSource, arch: &str) -> Result<Base> {
    let digest = match (&source.pinned, &source.wish) {
        (Some(pinned), _) => Some(pinned.manifest),
        (None, Wish::Digest(digest)) => Some(*digest),
        _ => None,
    };
    if let Some(manifest) = digest {
        return Ok(Base { image: store.get(manifest)?, manifest });
    }
    let all = in_store(store, name, arch)?;
    let there: Vec<String> = all.iter().map(|(version, _)| version.to_string()).collect();
    let chosen = all.into_iter().find(|(version, _)| source.wish.fits(version));
    let Some((_, image)) = chosen else {
        let none = Error::failed(format!("no box `{name}` in the store fits {}", source.wish));
        return Err(match there.is_empty() {
            true => none.hint("Build or pull it first; `devbox box list` says what is there."),
            false => none
                .detail(format!("it has {} for {arch}", there.join(", ")))
                .hint("Change `version` of the source, or build or pull such a box."),
        });
    };
    Ok(Base { manifest: image.manifest_digest(), image })
}

async fn at(
    store: &Store,
    address: Address,
    source: &BoxSource,
    mut options: Options,
    cache: &Path,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Base> {
    let (wanted, manifest, disk) = match &source.pinned {
        Some(pinned) => {
            if let Some(image) = find(store, pinned)? {
                return Ok(Base { image, manifest: pinned.manifest });
            }
            let which = Some(Which::Digest(pinned.manifest));
            (Address { which, ..address }, pinned.manifest, pinned.disk)
        }
        None => {
            let chosen = registry::choose(&address.place, &source.wish, &options, events, cancel);
            let offered = chosen.await.map_err(|e| match e.kind() {
                Kind::Interrupted => e,
                _ => e.hint("With a lock nobody has to be asked: write one with `devbox lock` where the place can be reached."),
            })?;
            let config = &offered.config;
            let here = store.find(&config.name, &config.version)?;
            let same =
                |image: &BoxRef| image.config() == config && image.disk_digest() == offered.disk;
            // What has to be signed is looked at also where it is here: the place may have gone back to it.
            let free = !options.trust.covers(&offered.address.place);
            options.trust.wish = Some(source.wish.clone());
            if let Some(image) = here.filter(|image| free && same(image)) {
                return Ok(Base { image, manifest: offered.manifest });
            }
            (offered.address, offered.manifest, offered.disk)
        }
    };
    events.note(format!("the source's box is not in the store; pulling {wanted}"));
    let described = Described::new(cache);
    let pulled =
        registry::pull(store, &wanted, Existing::Refuse, &described, &options, events, cancel);
    let image = pulled.await?.image;
    if image.disk_digest() != disk {
        return Err(Error::undetermined(format!("`{wanted}` has another disk than the lock says"))
            .detail(format!("lock: {disk}"))
            .detail(format!("box:  {}", image.disk_digest()))
            .hint("Take what is there with `devbox lock --update source`."));
    }
    Ok(Base { image, manifest })
}
