//! The process that serves a disk while it arrives: it lets clients in, fetches, and ends when nobody needs it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::disk::Disk;
use super::machines::{Continued, Users};
use crate::chunks::boot::Records;
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::helper::arriving::{Begun, BoxServer, Job, Progress};
use crate::host::Paths;
use crate::registry::{self, Address, Arriving, Described, Options, Policy, Retry};
use crate::store::Store;

/// Between two looks at the machines, and at how far it is.
const TICK: Duration = Duration::from_secs(1);
/// Without a client and a machine that runs, it ends after this: machines are restarted, and `up` needs a moment.
const ALONE: Duration = Duration::from_secs(30);
/// Most clients at once.
const CLIENTS: usize = 64;
/// Requests that are under way at once, see [`Disk::next`].
const WORKERS: usize = 6;
/// Between two attempts after one that failed.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// Until what came with wrong bytes is asked for again.
const FORGIVE: Duration = Duration::from_secs(5);
/// Until the store is tried again.
const FINISH_PAUSE: Duration = Duration::from_secs(5);
/// Once all is done, it is there for a moment to say so.
const LINGER: Duration = Duration::from_secs(3);
/// While a machine starts, only what it needs moves; one that takes longer does not hold up the rest.
const STARTS: Duration = Duration::from_secs(600);
/// So long after machines are ready only what they read moves still: they finish their boot, and whoever waited for them reads first.
const SETTLES: Duration = Duration::from_secs(3);

/// Serves the disk with this digest, as the job beside its lock says. Returns at once where another one does it.
///
/// # Errors
/// The box cannot be begun with; why is left in its folder, too.
pub fn serve(paths: &Paths, disk: FileDigest) -> Result<()> {
    // Neither Ctrl-C nor the end of the terminal that `up` ran in is meant for it.
    let _ = rustix::process::setsid();
    let server = BoxServer::of(paths, disk);
    let Some(begun) = server.begin()? else { return Ok(()) };
    let Some(job) = server.job() else {
        return Err(Error::failed("nothing says what this server is to do"));
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::failed("cannot start the async runtime").cause(e))?;
    begun.log(format_args!("started, pid {}, for {}", std::process::id(), job.address));
    let served = runtime.block_on(work(paths, &server, &job, &begun));
    match &served {
        Ok(()) => begun.log(format_args!("ended")),
        Err(e) => {
            begun.log(format_args!("{e}"));
            let lines = std::iter::once(e.what().to_owned()).chain(e.causes().iter().cloned());
            begun.fail(&lines.collect::<Vec<_>>());
        }
    }
    runtime.shutdown_background();
    begun.end(served.is_ok());
    served
}

async fn work(paths: &Paths, server: &BoxServer, job: &Job, begun: &Begun) -> Result<()> {
    let address = Address::parse(&job.address)?;
    let store = Store::open(&paths.store)?;
    let described = Described::new(&paths.cache);
    let (events, cancel) = (Events::silent(), CancellationToken::new());
    // Failures have to show soon, since guests wait; the attempts never end.
    let retry = Retry { without_progress: 2, ..Retry::default() };
    // Whoever started it has judged the box, whose digest the address has.
    let trust = Policy::none();
    let options = Options { plain_http: job.plain_http, retry, ..Options::new(trust) };
    let blob = store.disk_at(job.disk);
    let mut arriving = None;
    if !blob.exists() {
        match begin(&store, &address, &described, &options, begun, &cancel, &events).await? {
            registry::Begun::Here(_) => {}
            registry::Begun::Arriving(found) if found.disk() == job.disk => {
                arriving = Some(*found);
            }
            registry::Begun::Arriving(found) => {
                return Err(Error::undetermined(format!(
                    "`{address}` is another box than the one that is waited for"
                ))
                .detail(format!("its disk is {}", found.disk())));
            }
        }
    }
    let disk = Arc::new(match &arriving {
        Some(found) => Disk::new(found.file()?, found.weave(), found.chunks(), found.missing()),
        None => {
            let file = fs_err::File::open(&blob)?.into_parts().0;
            let size = file.metadata()?.len();
            Disk::whole(file, size)
        }
    });
    if let Some(ranges) = Records::new(&paths.cache).find(job.disk) {
        disk.boot(&ranges);
    }
    let socket = server.socket();
    let _ = fs_err::remove_file(&socket);
    let listener = listen(&socket)?;
    let (total, left) = disk.amount();
    begun.log(format_args!("serves; {left} of {total} bytes are to be fetched"));
    let serving = Serving {
        disk,
        users: Users::new(paths, job.disk, blob),
        begun,
        moved: Arc::default(),
        last: None,
        told: None,
    };
    serving.run(listener, &socket, arriving).await
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(socket)
        .map_err(|e| Error::failed(format!("cannot listen on `{}`", socket.display())).cause(e))?;
    fs_err::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Begins with the box; a connection that is lost is tried again for as long as somebody waits.
async fn begin(
    store: &Store,
    address: &Address,
    described: &Described,
    options: &Options,
    begun: &Begun,
    cancel: &CancellationToken,
    events: &Events,
) -> Result<registry::Begun> {
    let mut tried = 0;
    loop {
        match registry::begin(store, address, described, options, events, cancel).await {
            Err(e) if e.kind() == Kind::Failed && tried < PAUSES.len() => {
                begun.log(format_args!("cannot begin: {e}"));
                tokio::time::sleep(PAUSES[tried]).await;
                tried += 1;
            }
            other => return other,
        }
    }
}

struct Serving<'a> {
    disk: Arc<Disk>,
    users: Users,
    begun: &'a Begun,
    moved: Arc<std::sync::atomic::AtomicU64>,
    last: Option<Progress>,
    /// The trouble that was written down.
    told: Option<String>,
}

/// How the work of fetching ended.
enum Fetched {
    /// The box is in the store.
    Whole,
    /// It never will be.
    Never(Error),
}

impl Serving<'_> {
    async fn run(
        mut self,
        mut listener: UnixListener,
        socket: &Path,
        arriving: Option<Arriving>,
    ) -> Result<()> {
        let mut clients = JoinSet::new();
        let mut fetching = JoinSet::new();
        if let Some(arriving) = arriving {
            fetching.spawn(fetch(arriving, self.disk.clone(), self.moved.clone()));
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (started, mut needed, mut whole_at) = (Instant::now(), Instant::now(), Instant::now());
        let mut started_last = Instant::now();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    while clients.try_join_next().is_some() {}
                    if let Ok((stream, _)) = accepted
                        && clients.len() < CLIENTS
                    {
                        let disk = self.disk.clone();
                        clients.spawn(async move {
                            let _counted = disk.client();
                            // Why a client goes is its own affair.
                            let _ = connection::serve(stream, disk.clone()).await;
                        });
                    }
                }
                Some(ended) = fetching.join_next() => match ended {
                    Ok(Fetched::Whole) => {
                        self.disk.set_whole();
                        whole_at = Instant::now();
                        self.begun.log(format_args!("the box is in the store"));
                    }
                    Ok(Fetched::Never(e)) => {
                        self.begun.log(format_args!("{e}"));
                        self.disk.set_trouble(&e, true);
                    }
                    Err(e) => return Err(Error::failed("fetching the box was stopped").cause(e)),
                },
                _ = tick.tick() => {
                    let users = self.users.look().await;
                    if users > 0 || self.disk.clients() > 0 {
                        needed = Instant::now();
                    }
                    if self.users.starts() && started.elapsed() < STARTS {
                        started_last = Instant::now();
                    }
                    self.disk.fetch_all(users > 0 && started_last.elapsed() >= SETTLES);
                    let whole = self.disk.is_whole();
                    let done = whole && self.users.switch(self.begun).await;
                    if self.disk.waits() {
                        self.users.may_stand_still();
                    } else if !whole {
                        let continued = self.users.go_on().await;
                        self.log_continued(continued);
                    }
                    self.tell();
                    let done = done && self.disk.clients() == 0 && whole_at.elapsed() > LINGER;
                    let alone = needed.elapsed() > ALONE || done;
                    if alone || !self.begun.is_in_place() {
                        return Ok(());
                    }
                    // Something cleaned up after somebody: the next machine has to find it.
                    if !socket.exists()
                        && let Ok(again) = listen(socket)
                    {
                        listener = again;
                    }
                }
            }
        }
    }

    fn log_continued(&self, continued: Vec<Continued>) {
        for Continued(name) in continued {
            self.begun.log(format_args!("`{name}` goes on"));
        }
    }

    fn tell(&mut self) {
        let (total, left) = self.disk.amount();
        let trouble = self.disk.trouble().filter(|_| !self.disk.is_whole());
        let progress = Progress {
            serves: true,
            whole: self.disk.is_whole(),
            total,
            left,
            moved: self.moved.load(std::sync::atomic::Ordering::Relaxed),
            hopeless: trouble.as_ref().is_some_and(|trouble| trouble.hopeless),
            waits: !self.disk.is_whole() && self.disk.waits(),
            trouble: trouble.map(|trouble| trouble.text),
        };
        if self.last.as_ref() == Some(&progress) {
            return;
        }
        if progress.trouble != self.told {
            match &progress.trouble {
                Some(text) => self.begun.log(format_args!("{text}")),
                None => self.begun.log(format_args!("bytes arrive again")),
            }
            self.told.clone_from(&progress.trouble);
        }
        self.begun.tell(&progress);
        self.last = Some(progress);
    }
}

/// Fetches until all is here, and puts the box into the store.
async fn fetch(
    arriving: Arriving,
    disk: Arc<Disk>,
    moved: Arc<std::sync::atomic::AtomicU64>,
) -> Fetched {
    let arriving = Arc::new(arriving);
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(worker(number, arriving.clone(), disk.clone(), moved.clone()));
    }
    let mut forgive = tokio::time::interval(FORGIVE);
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                None => break,
                Some(Ok(())) => {}
                Some(Err(e)) => {
                    return Fetched::Never(Error::failed("fetching the box was stopped").cause(e));
                }
            },
            _ = forgive.tick() => disk.forgive(),
        }
    }
    let mut arriving = Arc::into_inner(arriving);
    loop {
        let Some(whole) = arriving.take() else {
            return Fetched::Never(Error::failed("fetching the box was stopped"));
        };
        match whole.finish().await {
            Ok(_) => return Fetched::Whole,
            Err((e, None)) => return Fetched::Never(e),
            // A full disk, mostly.
            Err((e, Some(again))) => {
                disk.set_trouble(&e, false);
                arriving = Some(*again);
                tokio::time::sleep(FINISH_PAUSE).await;
            }
        }
    }
}

async fn worker(
    number: usize,
    arriving: Arc<Arriving>,
    disk: Arc<Disk>,
    moved: Arc<std::sync::atomic::AtomicU64>,
) {
    let mut failures = 0;
    while !disk.is_complete() {
        let Some(fetch) = disk.next(number) else {
            disk.wanted().await;
            continue;
        };
        let chunks = disk.chunks(&fetch.items);
        match arriving.fetch(fetch.pack, fetch.range, chunks).await {
            Ok(wrong) => {
                failures = 0;
                disk.arrived(&fetch.items, &wrong);
            }
            Err(e) => {
                disk.lost(&fetch.items);
                disk.set_trouble(&e, false);
                tokio::time::sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
                failures += 1;
            }
        }
        moved.store(arriving.moved().received, std::sync::atomic::Ordering::Relaxed);
    }
}
