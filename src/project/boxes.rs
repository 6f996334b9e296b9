//! How the box of a spec gets into the store: pulled from where it lives, if it is the same one there, or built.

use std::time::{Duration, Instant};

use bytesize::ByteSize;

use crate::build::{self, Keep, Pinned, base};
use crate::delta;
use crate::digest::{FileDigest, SpecDigest};
use crate::error::{Error, Kind, Result};
use crate::lock::{self, Lock};
use crate::project::Run;
use crate::project::arriving::Lazy;
use crate::project::up::Options;
use crate::registry::address::{Address, Which};
use crate::registry::{self, Described, Offered, Policy, Retry};
use crate::source;
use crate::spec::{self, Arch, BoxSource, Source, Spec};
use crate::store::{BoxRef, Existing, Store};

/// How long a registry may take to say what it has: a build is worth that, and more of it is a standstill.
const ASK: Duration = Duration::from_secs(20);

/// The spec's box; puts it into the store if it is not there.
pub(super) async fn ensure(spec: &Spec, options: &Options, run: Run<'_>) -> Result<BoxRef> {
    let locked = options.locked;
    if let Some(source) = spec.is_box() {
        if locked {
            Pinned::of(spec, true, run.events)?;
        }
        let source = pinned(spec, source)?;
        if source.pinned.is_none() && Lock::of(spec)?.is_some() {
            run.events.warn(format!(
                "`{}` is stale: it is about another source; `devbox box update` makes it anew",
                lock::path(spec).display()
            ));
        }
        let base = base::resolve(spec, &source, run.paths, run.events, run.cancel).await?;
        return Ok(base.image);
    }
    let store = Store::open(&run.paths.store)?;
    let lock = Pinned::of(spec, locked, run.events)?;
    let stored = match store.find(&spec.name, &spec.version)? {
        Some(image) => Some(delta::whole(&store, image, run.events, run.cancel).await?),
        None => None,
    };
    if let Some(image) = stored.clone().filter(|_| !locked) {
        tell_other(spec, lock.as_ref(), &image, run);
        return Ok(image);
    }
    let reference = format!("{}:{}", spec.name, spec.version);
    match &spec.registry {
        // The build says whether that is the one.
        _ if stored.is_some() => {}
        None => {
            run.events.note(format!("the box {reference} is not in the store; building it first"));
        }
        Some(place) => {
            let address =
                Address { which: Some(Which::Tag(spec.version.clone())), ..Address::parse(place)? };
            let image = pulled(spec, &reference, &address, run).await?;
            if let Some(image) = image.filter(|_| !locked) {
                return Ok(image);
            }
        }
    }
    let options = build::Options {
        lock,
        outputs: false,
        sandbox: options.sandbox,
        ..build::Options::default()
    };
    let built = build::run(spec, run.paths, &options, run.events, run.cancel).await?;
    Ok(built.image)
}

/// Says of a stored box that it was built from other inputs than the locked ones.
fn tell_other(spec: &Spec, lock: Option<&Pinned>, image: &BoxRef, run: Run<'_>) {
    let Some(Pinned { lock, .. }) = lock.filter(|lock| lock.keep == Keep::Inputs) else { return };
    let digest = lock.input(lock::SOURCE).and_then(|digest| digest.parse().ok());
    let other = match spec::digest::spec1(spec, digest.as_ref()) {
        Ok(spec1) if spec1 != image.config().spec1 => {
            Some("it was built from other inputs".to_owned())
        }
        // The versions of its packages are no part of that digest.
        _ if matches!(spec.source, Source::Packages(_)) => {
            build::lock::other_package(image, lock).ok().flatten()
        }
        _ => None,
    };
    if let Some(other) = other {
        run.events.warn(format!(
            "{} in the store is not what `{}` has: {other}; `devbox build` or `devbox up --locked` builds what is locked",
            image.config().reference(),
            lock::path(spec).display()
        ));
    }
}

/// The spec's box as one that is to be read while it arrives, if that is asked for and it is not here.
pub(super) async fn lazy(spec: &Spec, options: &Options, run: Run<'_>) -> Result<Option<Lazy>> {
    let reference = format!("{}:{}", spec.name, spec.version);
    if spec.is_box().is_some()
        || Store::open(&run.paths.store)?.find(&spec.name, &spec.version)?.is_some()
    {
        return Ok(None);
    }
    let said = |address: &Address| {
        run.events.note(format!(
            "the box {reference} is not in the store; it arrives from {address} while its machines run"
        ));
    };
    let arch = Some(spec.arch.as_str().to_owned());
    if let Some((address, how)) = &options.from {
        let trust = Policy::load(Some(spec), &run.paths.settings)?;
        let how = registry::Options { arch, trust, ..how.clone() };
        let found = Lazy::find(address, &how, &reference, run).await?;
        said(address);
        return Ok(Some(found));
    }
    let Some(place) = spec.registry.as_ref().filter(|_| options.lazy) else { return Ok(None) };
    let address =
        Address { which: Some(Which::Tag(spec.version.clone())), ..Address::parse(place)? };
    // Whatever speaks against it is said by the one who pulls or builds it then.
    let Ok(Some(offered)) = ask(&address, spec.arch, run).await else { return Ok(None) };
    if !matches!(is_ours(spec, &offered, run).await, Ok(Ok(()))) {
        return Ok(None);
    }
    let trust = Policy::load(Some(spec), &run.paths.settings)?;
    let how = registry::Options { arch, ..registry::Options::new(trust) };
    let found = Lazy::find(&offered.address, &how, &reference, run).await?;
    said(&address);
    Ok(Some(found))
}

/// The source with the box that the lock names, if there is a lock and it is about this source.
pub(super) fn pinned(spec: &Spec, source: &BoxSource) -> Result<BoxSource> {
    let pinned = Lock::of(spec)?.and_then(|lock| lock.pinned_box(source));
    Ok(BoxSource { pinned, ..source.clone() })
}

/// Pulls the box from where it lives; if that is not to be, says why in one line.
async fn pulled(
    spec: &Spec,
    reference: &str,
    address: &Address,
    run: Run<'_>,
) -> Result<Option<BoxRef>> {
    let failed = |what: &str, e: Error| match e.kind() {
        Kind::Interrupted | Kind::Trust => Err(e),
        _ => {
            let why = [&[e.what().to_owned()], e.causes()].concat().join(": ");
            run.events.warn(format!("{what}: {why}; building {reference}"));
            Ok(None)
        }
    };
    let offered = match ask(address, spec.arch, run).await {
        Err(e) => return failed(&format!("`{address}` was not asked"), e),
        Ok(offered) => offered,
    };
    let (offered, same) = match offered {
        None => {
            let what =
                format!("the box {reference} is neither in the store nor at {}", address.place);
            run.events.note(format!("{what}; building it first"));
            return Ok(None);
        }
        Some(offered) => match is_ours(spec, &offered, run).await {
            Err(e) => return failed(&format!("`{address}` is not used"), e),
            Ok(same) => (offered, same),
        },
    };
    if let Err(other) = same {
        let then = match spec.version.contains('-') {
            true => format!("building {reference} here"),
            false => format!(
                "building {reference} here, which cannot be pushed: a release never changes, so raise `version`"
            ),
        };
        run.events.warn(format!("`{address}` {other}; {then}"));
        return Ok(None);
    }
    run.events.note(format!("the box {reference} is not in the store; pulling it from {address}"));
    let begun = Instant::now();
    let store = Store::open(&run.paths.store)?;
    let described = Described::new(&run.paths.cache);
    let trust = Policy::load(Some(spec), &run.paths.settings)?;
    let options = registry::Options::new(trust);
    let pulled = registry::pull(
        &store,
        &offered.address,
        Existing::Refuse,
        &described,
        &options,
        run.events,
        run.cancel,
    );
    match pulled.await {
        Err(e) => failed(&format!("`{address}` was not pulled"), e),
        Ok(pulled) => {
            let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
            let (came, here) = (size(pulled.moved.received), size(pulled.reused));
            run.events.done(format!("pulled {came}; {here} were here"), begun.elapsed());
            Ok(Some(pulled.image))
        }
    }
}

/// What is at `address`, if that can be found out soon.
async fn ask(address: &Address, arch: Arch, run: Run<'_>) -> Result<Option<Offered>> {
    let options = registry::Options {
        arch: Some(arch.as_str().to_owned()),
        retry: Retry { without_progress: 2, ..Retry::default() },
        ..registry::Options::new(Policy::none())
    };
    let asked = registry::look(address, &options, run.events, run.cancel);
    tokio::time::timeout(ASK, asked).await.unwrap_or_else(|_| {
        Err(Error::failed("it did not answer").cause(format!("after {} s", ASK.as_secs())))
    })
}

/// Whether a box was built from what the spec asks for; the inner error says why not.
async fn is_ours(spec: &Spec, offered: &Offered, run: Run<'_>) -> Result<Result<(), String>> {
    let found = &offered.config;
    let (arch, wanted) = (spec.arch.as_str(), format!("{}:{}", spec.name, spec.version));
    if found.reference() != wanted || found.arch != arch {
        return Ok(Err(format!("is {} for {}", found.reference(), found.arch)));
    }
    Ok(match spec1(spec, run).await? {
        None => Err("cannot be told from other ones: the digest of the source's file is not known before it is fetched".to_owned()),
        Some(ours) if ours == found.spec1 => Ok(()),
        Some(ours) => Err(format!("was built from other inputs ({} there, {ours} here)", found.spec1)),
    })
}

/// What the spec asks for; none if that depends on a file that is not here.
async fn spec1(spec: &Spec, run: Run<'_>) -> Result<Option<SpecDigest>> {
    if let Source::Box(source) = &spec.source {
        let (source, arch) = (pinned(spec, source)?, spec.arch.as_str());
        let disk = base::disk(&source, arch, run.paths, run.events, run.cancel).await?;
        return spec::digest::spec1(spec, Some(&disk)).map(Some);
    }
    let file: Option<FileDigest> = match Lock::of(spec) {
        Ok(Some(lock)) => lock.input(lock::SOURCE).and_then(|digest| digest.parse().ok()),
        _ => None,
    };
    // The lock may be of another spec.
    if let Some(file) = &file
        && let Ok(digest) = spec::digest::spec1(spec, Some(file))
    {
        return Ok(Some(digest));
    }
    let file = source::image::announced(&spec.source, run.events, run.cancel).await?;
    match (&file, spec.source.file()) {
        (None, Some(_)) => Ok(None),
        (file, _) => spec::digest::spec1(spec, file.as_ref()).map(Some),
    }
}
