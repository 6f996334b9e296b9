//! A box that comes in piece by piece while machines run on it. What is fetched when is for the caller to say.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Job, Plan, Prepared};
use crate::chunks::index::{Index, MAX_INDEX};
use crate::chunks::plan::{Numbered, Request, Wanted};
use crate::chunks::{Target, Weave};
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::registry::address::{Address, Which};
use crate::registry::boot;
use crate::registry::described::Described;
use crate::registry::{Moved, Options};
use crate::store::{BoxConfig, BoxRef, Existing, Partial, Store};

/// What is known of a box before any of its disk is here.
#[derive(Debug, Clone)]
pub struct Known {
    /// The address, with the digest of the manifest that was found there.
    pub address: Address,
    /// What the box says of itself.
    pub config: BoxConfig,
    /// SHA-256 of its disk's file.
    pub disk: FileDigest,
    /// Bytes of its disk's file.
    pub size: u64,
    /// Bytes of all that there is to fetch.
    pub shipped: u64,
    /// The digest of its manifest in the store, once it is there.
    pub manifest: FileDigest,
    /// What a boot of it reads, where somebody recorded it.
    pub boot: Option<Vec<u8>>,
}

/// Reads what is said of the box at `address`, and whether it may come into the store.
///
/// # Errors
/// It is not there, or is no box; there is no room for it; its name is taken by another content.
pub async fn known(
    store: &Store,
    address: &Address,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Known> {
    let existing = Existing::Refuse;
    let (job, manifest) = Job::new(store, address, existing, options, events, cancel).await?;
    job.may_add()?;
    let what = "read the index of the disk";
    let index = Index::parse(&job.remote.blob(what, &job.shipped.index, MAX_INDEX).await?)?;
    job.check(&index)?;
    let (disk, size) = (job.shipped.disk, index.weave.size);
    // Machines start on it before it is here as a whole; what comes later has the digest that was judged.
    job.accept()?;
    // Without it the box arrives, too.
    let boot = boot::found(&job.remote, manifest, disk).await.ok().flatten();
    Ok(Known {
        address: Address { place: address.place.clone(), which: Some(Which::Digest(manifest)) },
        disk,
        size,
        shipped: job.shipped.size(),
        manifest: Store::manifest_of(&job.config, disk, size)?,
        boot,
        config: job.config,
    })
}

/// Whether there is anything to fetch.
#[derive(Debug)]
pub enum Begun {
    /// The disk was here.
    Here(Box<BoxRef>),
    /// It arrives.
    Arriving(Box<Arriving>),
}

/// A box on its way.
#[derive(Debug)]
pub struct Arriving {
    job: Job,
    plan: Plan,
    partial: Partial,
    target: Arc<Target>,
    missing: Vec<Numbered>,
    described: Described,
}

/// Begins with the box at `address`, or goes on with it: what is here of it is verified and put in. Waits while another devbox
/// fetches the same disk.
///
/// # Errors
/// As [`super::pull`]; that its name is taken is none.
pub async fn begin(
    store: &Store,
    address: &Address,
    described: &Described,
    options: &Options,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Begun> {
    let existing = Existing::Refuse;
    let (mut job, _) = Job::new(store, address, existing, options, events, cancel).await?;
    job.in_use = true;
    match job.prepare(described).await? {
        Prepared::Here(image, _) => {
            job.remember(&image)?;
            Ok(Begun::Here(image))
        }
        Prepared::Missing { plan, partial, target, missing } => {
            let described = described.clone();
            let arriving = Arriving { job, plan, partial, target, missing, described };
            Ok(Begun::Arriving(Box::new(arriving)))
        }
    }
}

impl Arriving {
    /// How the disk's file is woven.
    #[must_use]
    pub fn weave(&self) -> &Weave {
        &self.plan.index.weave
    }

    /// All chunks of the disk, in the order of the packs.
    #[must_use]
    pub fn chunks(&self) -> &[Numbered] {
        &self.plan.chunks
    }

    /// Those that were not here at the beginning, in the same order.
    #[must_use]
    pub fn missing(&self) -> &[Numbered] {
        &self.missing
    }

    /// SHA-256 of the disk's file.
    #[must_use]
    pub fn disk(&self) -> FileDigest {
        self.job.shipped.disk
    }

    /// `name:version`.
    #[must_use]
    pub fn reference(&self) -> String {
        self.job.config.reference()
    }

    /// The file that the disk is put together in, to be read.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn file(&self) -> Result<File> {
        self.partial.file()
    }

    /// What moved so far.
    #[must_use]
    pub fn moved(&self) -> Moved {
        Moved::of(&self.job.remote)
    }

    /// Fetches the chunks `wanted`, which are in the bytes `range` of one pack, and puts in those that have the right bytes. Those
    /// that had wrong ones, twice, are given back, each with what is wrong about it.
    ///
    /// # Errors
    /// They cannot be fetched, or the file cannot be written; some may have been put in.
    pub async fn fetch(
        &self,
        pack: usize,
        range: Range<u64>,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<(Wanted, Error)>> {
        let request = Request { pack, range, chunks: wanted };
        let wrong = self.job.fetch_verified(request, &self.target).await?;
        let pack = self.job.pack(pack)?;
        Ok(wrong.into_iter().map(|(wanted, e)| (wanted, self.job.wrong(pack, e))).collect())
    }

    /// Hashes the whole, and puts the box into the store. Whoever has the file from [`Arriving::file`] reads on from it.
    ///
    /// # Errors
    /// The disk is another one than the manifest names, and nothing of it is kept; the store cannot be written: then with
    /// this, to try again.
    pub async fn finish(self) -> Result<BoxRef, (Error, Option<Box<Self>>)> {
        let done = async {
            // An earlier attempt may have come so far.
            if let Some((image, _)) = self.job.add_present().await? {
                self.job.remember(&image)?;
                return Ok::<BoxRef, Error>(image);
            }
            let (plan, partial) = (self.plan.clone(), self.partial.twin()?);
            let finished = self.job.finish(plan, partial, self.target.clone(), &self.described);
            let (image, _) = finished.await?;
            self.job.remember(&image)?;
            Ok(image)
        };
        match done.await {
            Ok(image) => Ok(image),
            Err(e) if e.kind() == Kind::Undetermined => Err((e, None)),
            Err(e) => Err((e, Some(Box::new(self)))),
        }
    }
}
