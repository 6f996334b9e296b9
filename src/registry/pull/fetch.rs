//! What is missing is fetched, some requests at once, and each chunk verified before it is put in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Job;
use crate::blocking::blocking;
use crate::chunks::Target;
use crate::chunks::index::{Entry, Index};
use crate::chunks::local::Local;
use crate::chunks::pack::unpack;
use crate::chunks::plan::{self, Numbered, Request, Wanted};
use crate::crash;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::registry::AT_ONCE;
use crate::registry::manifest::Blob;

impl Job {
    /// The tables of the packs: those that are known, and those that are fetched, several with one request.
    pub(super) async fn tables(&self, index: &Index, local: &Local) -> Result<Vec<Vec<Entry>>> {
        let size = |number: usize| self.shipped.packs.get(number).map_or(0, |pack| pack.size);
        let (mut tables, mut parts) = (vec![vec![]; index.packs.len()], vec![]);
        for (number, (head, place)) in index.packs.iter().zip(index.tables()).enumerate() {
            let fits = |table: &&[Entry]| {
                let sum = table.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.packed));
                sum == size(number) && table.len() as u64 == head.chunks
            };
            match local.table(head.table).filter(fits) {
                Some(table) => tables[number] = table.to_vec(),
                None => parts.push((number, place)),
            }
        }
        let what = "read the index of the disk";
        let places = index.tables();
        let fetched = stream::iter(plan::joined(&parts)).map(|(range, numbers)| async move {
            let start = range.start;
            let bytes = self.remote.part(what, &self.shipped.tables, range).await?;
            Ok::<_, Error>((start, bytes, numbers))
        });
        let mut fetched = fetched.buffer_unordered(AT_ONCE);
        while let Some((start, bytes, numbers)) = fetched.try_next().await? {
            for number in numbers {
                let (Some(place), Some(head)) = (places.get(number), index.packs.get(number))
                else {
                    continue;
                };
                let from = usize::try_from(place.start - start).unwrap_or(usize::MAX);
                let to = usize::try_from(place.end - start).unwrap_or(usize::MAX);
                tables[number] =
                    head.read_table(bytes.get(from..to).unwrap_or(&[]), size(number))?;
            }
        }
        Ok(tables)
    }

    /// Fetches chunks and puts them in, some requests at once.
    pub(super) async fn fetch(&self, missing: Vec<Numbered>, target: &Arc<Target>) -> Result<()> {
        let requests = plan::requests(&missing);
        let total: u64 =
            requests.iter().map(|request| request.range.end - request.range.start).sum();
        self.done.store(0, Ordering::Relaxed);
        self.tell(total);
        let work = stream::iter(requests).map(|request| async move {
            self.fetch_one(request, target).await?;
            self.tell(total);
            Ok::<_, Error>(())
        });
        work.buffer_unordered(AT_ONCE).try_collect().await
    }

    fn tell(&self, total: u64) {
        let what = format!("pulling {}", self.config.reference());
        let done = self.done.load(Ordering::Relaxed);
        self.events.emit(Event::Progress { what, done, total: Some(total) });
    }

    async fn fetch_one(&self, request: Request, target: &Arc<Target>) -> Result<()> {
        let pack = self.pack(request.pack)?;
        match self.fetch_verified(request, target).await?.into_iter().next() {
            Some((_, e)) => Err(self.wrong(pack, e)),
            None => Ok(()),
        }
    }

    pub(super) fn pack(&self, number: usize) -> Result<&Blob> {
        self.shipped.packs.get(number).ok_or_else(|| {
            Error::undetermined("the index of the disk names a pack that is not there")
        })
    }

    /// Fetches chunks and puts those in that have the right bytes; the others, each with what is wrong about it.
    pub(super) async fn fetch_verified(
        &self,
        request: Request,
        target: &Arc<Target>,
    ) -> Result<Vec<(Wanted, Error)>> {
        let pack = self.pack(request.pack)?;
        let what = "fetch a part of the disk";
        let (start, length) = (request.range.start, request.range.end - request.range.start);
        let bytes = self.remote.part(what, pack, request.range).await?;
        let to = target.clone();
        let chunks = request.chunks;
        let wrong = blocking("unpacking a part of the disk", move || {
            let mut wrong = vec![];
            for wanted in chunks {
                let from = usize::try_from(wanted.chunk.at - start).unwrap_or(usize::MAX);
                let packed = usize::try_from(wanted.chunk.entry.packed).unwrap_or(0);
                let packed = bytes.get(from..from.saturating_add(packed)).unwrap_or(&[]);
                match unpack(&wanted.chunk.entry, packed) {
                    Ok(bytes) => put(&to, &wanted, &bytes)?,
                    Err(_) => wrong.push(wanted),
                }
            }
            Ok(wrong)
        })
        .await?;
        let mut still_wrong = vec![];
        // What was damaged on the way comes right the second time.
        for wanted in wrong {
            let chunk = wanted.chunk;
            let range = chunk.at..chunk.at + chunk.entry.packed;
            match unpack(&chunk.entry, &self.remote.part(what, pack, range).await?) {
                Ok(bytes) => {
                    let to = target.clone();
                    blocking("writing a part of the disk", move || put(&to, &wanted, &bytes))
                        .await?;
                }
                Err(e) => still_wrong.push((wanted, e)),
            }
        }
        self.done.fetch_add(length, Ordering::Relaxed);
        crash::point("pull.part-written");
        Ok(still_wrong)
    }

    pub(super) fn wrong(&self, pack: &Blob, e: Error) -> Error {
        e.context(format!(
            "the disk of `{}` has wrong bytes where it comes from",
            self.config.reference()
        ))
        .detail(format!("in the blob {}", pack.digest))
        .hint("Push the box again from a host that has it; nothing of it was put into the store.")
    }
}

fn put(target: &Target, wanted: &Wanted, bytes: &[u8]) -> Result<()> {
    std::iter::once(&wanted.chunk)
        .chain(&wanted.also)
        .try_for_each(|chunk| target.write(chunk, bytes))
}
