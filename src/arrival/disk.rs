//! A disk of which some is here: reads wait for what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::connection::{Export, NotHere};
use super::map::{Item, Map, items};
use super::queue::{Fetch, Place, Queue, Reach};
use crate::chunks::Weave;
use crate::chunks::plan::Numbered;
use crate::error::Error;

/// A guest waits so long while nothing arrives; then it is held still, since a kernel that waits for minutes complains, and
/// programs in it give up.
const PATIENCE: Duration = Duration::from_secs(8);
/// And so long whatever arrives.
const MOST_PATIENCE: Duration = Duration::from_secs(45);
/// What came with wrong bytes so often, each time twice, is wrong where it comes from.
const HOPELESS: u32 = 3;
/// Nobody has asked for anything that was missing for so long: the link is free.
const CALM: Duration = Duration::from_secs(4);

/// Why nothing arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In words.
    pub(super) text: String,
    /// The box itself is wrong: waiting does not help.
    pub(super) hopeless: bool,
}

/// A disk, its chunks, and what is known of them. Shared by clients and workers.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    map: Map,
    items: Vec<Item>,
    queue: Mutex<Queue>,
    /// Changes when something arrived, or was given up.
    changed: watch::Sender<u64>,
    /// Wakes the workers.
    wanted: Notify,
    /// What was asked for and did not come in time.
    refused: Mutex<BTreeSet<u32>>,
    /// What came with wrong bytes, and how often.
    wrong: Mutex<BTreeMap<u32, u32>>,
    trouble: Mutex<Option<Trouble>>,
    /// When somebody last asked for what was missing.
    asked: Mutex<Option<Instant>>,
    /// Whether everything may be fetched, and not only what is needed now.
    all: AtomicBool,
    clients: AtomicUsize,
    whole: AtomicBool,
    total: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// The disk in `file`, of which `missing` is not here.
    #[must_use]
    pub(super) fn new(file: File, weave: &Weave, all: &[Numbered], missing: &[Numbered]) -> Self {
        let (items, map) = items(weave, all);
        let place = |item: &Item| Place {
            pack: item.chunk.pack,
            at: item.chunk.at,
            packed: item.chunk.entry.packed,
        };
        let mut queue = Queue::new(items.iter().map(place).collect());
        let total = queue.left_bytes();
        // An item is here if it is here wherever the file has it.
        let absent: BTreeSet<_> = missing.iter().map(|chunk| chunk.entry.id).collect();
        for (number, item) in (0u32..).zip(&items) {
            if !absent.contains(&item.chunk.entry.id) {
                queue.arrived(number);
            }
        }
        Disk {
            file,
            map,
            items,
            total,
            queue: Mutex::new(queue),
            changed: watch::Sender::new(0),
            wanted: Notify::new(),
            refused: Mutex::default(),
            wrong: Mutex::default(),
            trouble: Mutex::default(),
            asked: Mutex::default(),
            all: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            whole: AtomicBool::new(false),
        }
    }

    /// A disk that is whole, of `size` bytes.
    #[must_use]
    pub(super) fn whole(file: File, size: u64) -> Self {
        let disk = Disk::new(file, &Weave::new(size), &[], &[]);
        disk.whole.store(true, Ordering::Relaxed);
        disk
    }

    /// What a boot reads, in the order in which it does.
    pub(super) fn boot(&self, ranges: &[Range<u64>]) {
        let (mut seen, mut order) = (BTreeSet::new(), vec![]);
        for range in ranges {
            order.extend(self.map.items(range).into_iter().filter(|item| seen.insert(*item)));
        }
        lock(&self.queue).boot(order);
        self.wanted.notify_waiters();
    }

    /// Bytes of the whole disk and bytes that are missing, as they travel.
    pub(super) fn amount(&self) -> (u64, u64) {
        (self.total, lock(&self.queue).left_bytes())
    }

    /// Whether nothing is missing any more.
    pub(super) fn is_complete(&self) -> bool {
        lock(&self.queue).left() == 0
    }

    /// Whether the file is that of the store.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    pub(super) fn set_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Whether everything may be fetched.
    pub(super) fn fetch_all(&self, all: bool) {
        if self.all.swap(all, Ordering::Relaxed) != all {
            self.wanted.notify_waiters();
        }
    }

    /// Why nothing arrives at the moment.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if let Some(trouble) = lock(&self.trouble).clone() {
            return Some(trouble);
        }
        self.waits().then(|| Trouble {
            text: format!("nothing has come for {} s", PATIENCE.as_secs()),
            hopeless: false,
        })
    }

    pub(super) fn set_trouble(&self, e: &Error, hopeless: bool) {
        let text = match e.causes().last() {
            Some(cause) => format!("{}: {cause}", e.what()),
            None => e.what().to_owned(),
        };
        *lock(&self.trouble) = Some(Trouble { text, hopeless });
    }

    /// Whether somebody was told that bytes are not here which are not here still: machines stand still.
    pub(super) fn waits(&self) -> bool {
        let mut queue = lock(&self.queue);
        let mut refused = lock(&self.refused);
        refused.retain(|item| !queue.is_here(*item));
        // A guest that stands still asks for nothing: somebody has to, or it never goes on.
        let still: Vec<u32> = refused.iter().copied().collect();
        queue.ask(&still);
        if !still.is_empty() {
            self.wanted.notify_waiters();
        }
        !still.is_empty()
    }

    /// Counts a client for as long as what is given back lives.
    pub(super) fn client(self: &std::sync::Arc<Self>) -> Client {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Client(self.clone())
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// What worker `number` is to fetch now. The first two are for what is waited for alone, so that it never stands behind
    /// the rest; two more do all work; the others help where nobody waits.
    pub(super) fn next(&self, number: usize) -> Option<Fetch> {
        let all = self.all.load(Ordering::Relaxed);
        let calm = || lock(&self.asked).is_none_or(|at| at.elapsed() > CALM);
        let reach = match number {
            0 | 1 => Reach::Asked,
            2 | 3 if all => Reach::Rest,
            2 | 3 => Reach::Boot,
            _ if all && calm() => Reach::Rest,
            _ => return None,
        };
        lock(&self.queue).next(reach)
    }

    /// Until there may be something to fetch.
    pub(super) async fn wanted(&self) {
        // Whoever was told to wait and missed the word looks again by himself.
        let _ = tokio::time::timeout(Duration::from_millis(300), self.wanted.notified()).await;
    }

    /// The chunks of these items.
    pub(super) fn chunks(&self, items: &[u32]) -> Vec<Item> {
        items.iter().filter_map(|item| self.items.get(*item as usize).cloned()).collect()
    }

    /// These items were fetched, but for those that came `wrong`.
    pub(super) fn arrived(&self, items: &[u32], wrong: &[(Item, Error)]) {
        let mut queue = lock(&self.queue);
        let mut known = lock(&self.wrong);
        for item in items {
            let Some(chunk) = self.items.get(*item as usize).map(|item| item.chunk) else {
                continue;
            };
            match wrong.iter().find(|(item, _)| item.chunk == chunk) {
                Some((_, e)) => {
                    let times = known.entry(*item).or_default();
                    *times += 1;
                    self.set_trouble(e, *times >= HOPELESS);
                }
                None => {
                    known.remove(item);
                    queue.arrived(*item);
                }
            }
        }
        if known.is_empty() {
            *lock(&self.trouble) = None;
        }
        drop((queue, known));
        self.changed.send_modify(|n| *n += 1);
    }

    /// These items did not come.
    pub(super) fn lost(&self, items: &[u32]) {
        lock(&self.queue).lost(items);
    }

    /// What came with wrong bytes is asked for again: its place may have been put right.
    pub(super) fn forgive(&self) {
        let wrong: Vec<u32> = lock(&self.wrong).keys().copied().collect();
        if !wrong.is_empty() {
            self.lost(&wrong);
            self.wanted.notify_waiters();
        }
    }
}

/// A client of a disk.
pub(super) struct Client(std::sync::Arc<Disk>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.map.size()
    }

    async fn ready(&self, range: Range<u64>) -> Result<(), NotHere> {
        if self.is_whole() {
            return Ok(());
        }
        let wanted = self.map.items(&range);
        let mut changed = self.changed.subscribe();
        let begun = Instant::now();
        loop {
            changed.borrow_and_update();
            let missing: Vec<u32> = {
                let mut queue = lock(&self.queue);
                let missing: Vec<u32> =
                    wanted.iter().copied().filter(|item| !queue.is_here(*item)).collect();
                queue.ask(&missing);
                missing
            };
            if missing.is_empty() {
                return Ok(());
            }
            *lock(&self.asked) = Some(Instant::now());
            self.wanted.notify_waiters();
            let patience = PATIENCE.min(MOST_PATIENCE.saturating_sub(begun.elapsed()));
            if tokio::time::timeout(patience, changed.changed()).await.is_err() {
                lock(&self.refused).extend(missing);
                return Err(NotHere);
            }
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)?;
        if !self.is_whole() {
            self.map.clear_zeros(at, into);
        }
        Ok(())
    }
}
