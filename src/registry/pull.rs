//! A box comes in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ssh_key::PublicKey;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::described::Described;
use super::manifest::Shipped;
use super::remote::{Access, Options, Remote};
use super::trust::{Accepts, Given};
use super::{Moved, look, platforms, signing};
use crate::blocking::blocking;
use crate::chunks::Target;
use crate::chunks::index::{Entry, Index, MAX_INDEX};
use crate::chunks::local::Local;
use crate::chunks::pack::{Packed, Whole};
use crate::chunks::plan::{self, Numbered};
use crate::crash;
use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::{BoxConfig, BoxRef, Existing, Outcome, Partial, Place, Store};

mod arriving;
mod fetch;
mod room;

pub use arriving::{Arriving, Begun, Known, begin, known};

/// How often it is looked whether another process has finished the same disk.
const LOOK: Duration = Duration::from_millis(300);

/// A box that is here now.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The box.
    pub image: BoxRef,
    /// What became of its name.
    pub outcome: Outcome,
    /// Digest of its manifest where it comes from.
    pub manifest: FileDigest,
    /// Bytes of the disk that were here already.
    pub reused: u64,
    /// The keys that signed it as what it is at this place, trusted or not.
    pub signers: Vec<PublicKey>,
    /// What moved.
    pub moved: Moved,
}

/// Pulls the box at `address` into the store.
///
/// # Errors
/// It is not there, is no box, arrives with other bytes; kind `Trust`: it is not signed as [`super::Policy`] demands; its name is taken by another content (see [`Existing`]);
/// `cancel` was cancelled. What arrived is kept for the next attempt.
pub async fn pull(
    store: &Store,
    address: &Address,
    existing: Existing,
    described: &Described,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Pulled> {
    let (job, manifest) = Job::new(store, address, existing, options, events, cancel).await?;
    let (image, outcome) = job.run(described).await?;
    job.remember(&image)?;
    let (reused, moved) = (job.reused.into_inner(), Moved::of(&job.remote));
    Ok(Pulled { image, outcome, manifest, reused, signers: job.trusted.signers, moved })
}

/// What is known of a box once its manifest is read, and it may be taken.
struct Found {
    remote: Arc<Remote>,
    shipped: Shipped,
    config: BoxConfig,
    /// The digest of its manifest.
    manifest: FileDigest,
    trusted: Trusted,
}

/// What is to be kept of its signatures once it is here.
#[derive(Debug)]
struct Trusted {
    accepts: Option<Accepts>,
    signatures: Vec<Vec<u8>>,
    signers: Vec<PublicKey>,
    /// Whether the channel may go back.
    back: bool,
}

/// Reads what is said of a box, and refuses what is not signed as it has to be.
async fn describe(
    store: &Store,
    address: &Address,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Found> {
    let which = look::named(address)?;
    let remote =
        Arc::new(Remote::open(&address.place, Access::Pull, options, events, cancel).await?);
    let arch = options.arch.as_deref();
    let Some(found) = platforms::find(&remote, address, which, arch).await? else {
        return Err(Error::failed(format!("there is no box `{address}`"))
            .hint("Check the address, or list the tags with `skopeo list-tags`."));
    };
    let config = look::config(&remote, &found.shipped, address).await?;
    found.check(&config, address, arch)?;
    let demanded = options.trust.covers(&address.place);
    let envelopes = signing::read(&remote, found.digest, demanded, events).await?;
    let given = Given {
        address,
        manifest: found.digest,
        shipped: &found.shipped,
        config: &config,
        envelopes: &envelopes,
    };
    let before = if demanded { store.accepted()?.of(&given.line()) } else { Place::default() };
    let trusted = Trusted {
        accepts: options.trust.judge(&given, &before)?,
        signatures: given.about_it(),
        signers: given.signers(),
        back: options.trust.allow_downgrade,
    };
    let manifest = found.digest;
    Ok(Found { remote, shipped: found.shipped, config, manifest, trusted })
}

#[derive(Debug)]
struct Job {
    store: Store,
    config: BoxConfig,
    shipped: Shipped,
    existing: Existing,
    remote: Arc<Remote>,
    events: Events,
    cancel: CancellationToken,
    /// Whether machines use the box already: it comes into the store even where its name is taken meanwhile.
    in_use: bool,
    trusted: Trusted,
    reused: AtomicU64,
    /// Bytes of packs that arrived.
    done: AtomicU64,
}

/// What is known of the disk.
#[derive(Debug, Clone)]
struct Plan {
    index: Index,
    tables: Vec<Vec<Entry>>,
    chunks: Vec<Numbered>,
}

/// What is left to do.
enum Prepared {
    /// Nothing: the disk was here.
    Here(Box<BoxRef>, Outcome),
    /// These chunks are to be fetched.
    Missing { plan: Plan, partial: Partial, target: Arc<Target>, missing: Vec<Numbered> },
}

impl Job {
    /// All that decides whether a box may be taken belongs here: it is the way of those, too, that arrive while machines run.
    async fn new(
        store: &Store,
        address: &Address,
        existing: Existing,
        options: &Options,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(Self, FileDigest)> {
        let Found { remote, shipped, config, manifest, trusted } =
            describe(store, address, options, events, cancel).await?;
        let (reused, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let (store, events, cancel) = (store.clone(), events.clone(), cancel.clone());
        let in_use = false;
        let job = Job {
            store,
            config,
            shipped,
            existing,
            remote,
            events,
            cancel,
            in_use,
            trusted,
            reused,
            done,
        };
        Ok((job, manifest))
    }

    /// Keeps the signatures with the box, which is here, and that its place gave this version.
    fn remember(&self, image: &BoxRef) -> Result<()> {
        // They are about this disk, and not about another one with the same content.
        if image.disk_digest() == self.shipped.disk {
            self.store.keep_signatures(image, &self.trusted.signatures)?;
        }
        self.accept()
    }

    fn accept(&self) -> Result<()> {
        let Some(Accepts { line, channel, version }) = &self.trusted.accepts else {
            return Ok(());
        };
        self.store.accept(line, channel.as_deref(), version, self.trusted.back)
    }

    async fn run(&self, described: &Described) -> Result<(BoxRef, Outcome)> {
        match self.prepare(described).await? {
            Prepared::Here(image, outcome) => Ok((*image, outcome)),
            Prepared::Missing { plan, partial, target, missing } => {
                let size = plan.index.clone();
                let work = async {
                    self.fetch(missing, &target).await?;
                    self.finish(plan, partial, target, described).await
                };
                work.await.map_err(|e| self.full(&size, e))
            }
        }
    }

    async fn prepare(&self, described: &Described) -> Result<Prepared> {
        if let Some(image) = self.is_here()? {
            return Ok(Prepared::Here(Box::new(image), Outcome::Same));
        }
        if !self.in_use {
            // Before the work, not after it.
            self.may_add()?;
            self.store.may_add(
                &self.config.name,
                &self.config.version,
                self.config.spec1,
                self.existing,
            )?;
        }
        if let Some((image, outcome)) = self.add_present().await? {
            return Ok(Prepared::Here(Box::new(image), outcome));
        }
        let what = "read the index of the disk";
        let index = Index::parse(&self.remote.blob(what, &self.shipped.index, MAX_INDEX).await?)?;
        self.check(&index)?;
        let Some(partial) = self.begin().await? else {
            // Of the same name, or of another one.
            if let Some(image) = self.is_here()? {
                return Ok(Prepared::Here(Box::new(image), Outcome::Same));
            }
            let gone = || Error::failed("the disk of the box was removed from the store meanwhile");
            return self
                .add_present()
                .await?
                .map(|(image, outcome)| Prepared::Here(Box::new(image), outcome))
                .ok_or_else(|| gone().hint("Run the same command again."));
        };
        let local = self.local(described).await?;
        let tables = self.tables(&index, &local).await?;
        index.check(&tables)?;
        let chunks = plan::numbered(&index, &tables);
        let plan = Plan { index, tables, chunks };
        let begun = !partial.is_empty()?;
        let target = Arc::new(Target::new(partial.file()?, &plan.index.weave)?);
        let missing = self.copy(&plan, begun, local, &target).await?;
        Ok(Prepared::Missing { plan, partial, target, missing })
    }

    /// The same box, if it is in the store under its name.
    fn is_here(&self) -> Result<Option<BoxRef>> {
        let found = self.store.find(&self.config.name, &self.config.version)?;
        Ok(found.filter(|image| {
            *image.config() == self.config && image.disk_digest() == self.shipped.disk
        }))
    }

    /// Refuses a release that is here with another content; [`Store::add`] does so too, after the work.
    fn may_add(&self) -> Result<()> {
        let found = self.store.find(&self.config.name, &self.config.version)?;
        let is_other = |image: &BoxRef| image.config().box1 != self.config.box1;
        let Some(image) = found.filter(is_other) else { return Ok(()) };
        if self.existing == Existing::Replace || self.config.version.contains('-') {
            return Ok(());
        }
        let name = image.config().reference();
        Err(Error::failed(format!("`{name}` is in the store with another content"))
            .detail(format!("here:  {}", image.config().box1))
            .detail(format!("there: {}", self.config.box1))
            .hint("Give `--replace` to move the name, or remove the box with `devbox box remove`."))
    }

    /// Adds the box if its disk is here, without a name or under another one.
    async fn add_present(&self) -> Result<Option<(BoxRef, Outcome)>> {
        let (store, config, disk) = (self.store.clone(), self.config.clone(), self.shipped.disk);
        let (existing, in_use) = (self.existing, self.in_use);
        let add = move || match in_use {
            true => store.add_present_in_use(&config, disk, existing),
            false => store.add_present(&config, disk, existing),
        };
        let added = blocking("adding the box", add).await?;
        Ok(added.map(|added| (added.image, added.outcome)))
    }

    /// The file that the disk is put together in; none if another process finished it meanwhile.
    async fn begin(&self) -> Result<Option<Partial>> {
        let mut told = false;
        loop {
            if let Some(partial) = self.store.partial(self.shipped.disk)? {
                // One who just finished has given it up before its box has a name.
                let (store, disk) = (self.store.clone(), self.shipped.disk);
                if blocking("waiting for the store", move || store.has(disk)).await? {
                    partial.discard()?;
                    return Ok(None);
                }
                return Ok(Some(partial));
            }
            if !std::mem::replace(&mut told, true) {
                self.events.note("another devbox pulls the same disk; waiting for it");
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::interrupted("interrupted")),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn local(&self, described: &Described) -> Result<Local> {
        let (store, described, name) =
            (self.store.clone(), described.clone(), self.config.name.clone());
        let (events, cancel) = (self.events.clone(), self.cancel.clone());
        blocking("looking for what is here", move || {
            described.local(&store, &name, &events, &cancel)
        })
        .await
    }

    /// Puts in what is here already: from an earlier attempt, and from other disks. What is not.
    async fn copy(
        &self,
        plan: &Plan,
        begun: bool,
        local: Local,
        target: &Arc<Target>,
    ) -> Result<Vec<Numbered>> {
        let (chunks, target) = (plan.chunks.clone(), target.clone());
        let all: u64 = chunks.iter().map(|chunk| chunk.entry.blocks).sum();
        let (in_use, weave) = (self.in_use, plan.index.weave.clone());
        let left = blocking("copying what is here", move || {
            if begun {
                target.clear_zeros(&weave);
            }
            let missing = if begun { target.missing(&chunks)? } else { chunks };
            let left = local.copy(&missing, &target)?;
            if !in_use {
                return Ok(left);
            }
            // Read before the whole is hashed: a copy counts only if it is right.
            let gone: std::collections::BTreeSet<(usize, u64)> =
                left.iter().map(|chunk| (chunk.pack, chunk.at)).collect();
            let copied: Vec<Numbered> = missing
                .into_iter()
                .filter(|chunk| !gone.contains(&(chunk.pack, chunk.at)))
                .collect();
            let mut left = [left, target.missing(&copied)?].concat();
            left.sort_by_key(|chunk| (chunk.pack, chunk.at));
            Ok(left)
        })
        .await?;
        let missing: u64 = left.iter().map(|chunk| chunk.entry.blocks).sum();
        self.reused.store((all - missing) * crate::chunks::BLOCK as u64, Ordering::Relaxed);
        Ok(left)
    }

    /// Hashes the whole, and puts the box into the store.
    async fn finish(
        &self,
        plan: Plan,
        mut partial: Partial,
        target: Arc<Target>,
        described: &Described,
    ) -> Result<(BoxRef, Outcome)> {
        crash::point("pull.whole");
        let finish = |partial: Partial| blocking("hashing the disk", move || partial.finish());
        let mut finished = finish(partial).await?;
        if finished.digest() != self.shipped.disk {
            // A disk in the store was damaged, and what came from there is.
            partial = finished.reopen()?;
            let (chunks, to) = (plan.chunks.clone(), target.clone());
            let missing =
                blocking("looking for what is wrong", move || to.missing(&chunks)).await?;
            self.events.warn("a box in the store is damaged; what came from it is fetched");
            self.fetch(missing, &target).await?;
            finished = finish(partial).await?;
        }
        if finished.digest() != self.shipped.disk {
            let found = finished.digest();
            finished.reopen()?.discard()?;
            return Err(Error::undetermined(format!(
                "the disk of `{}` is another one than its manifest names",
                self.config.reference()
            ))
            .detail(format!("expected {}", self.shipped.disk))
            .detail(format!("found    {found}"))
            .hint("Push the box again; nothing of it was put into the store."));
        }
        let (store, config, existing) = (self.store.clone(), self.config.clone(), self.existing);
        let in_use = self.in_use;
        let add = move || match in_use {
            true => store.add_in_use(&config, finished, existing),
            false => store.add_finished(&config, finished, existing),
        };
        let added = blocking("adding the box", add).await?;
        let packs =
            self.shipped.packs.iter().map(|pack| Packed { digest: pack.digest, size: pack.size });
        described.keep(
            &Whole { index: plan.index, tables: plan.tables, packs: packs.collect() },
            &self.events,
        );
        Ok((added.image, added.outcome))
    }
}
