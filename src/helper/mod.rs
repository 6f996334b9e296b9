//! The process that stays beside a project's machines: it is their switch, and keeps their clocks.
//!
//! `up` starts it, it ends by itself when no machine of the project runs, and nothing depends on it but what
//! it does: without it machines run on, without their private network and with the clock they have. So
//! it may be killed at any moment; the next command that changes a machine starts another one.
//!
//! What it serves is looked up, not told: the machines of the project that run, from their folders. It has
//! one folder of its own ([`place`]), with the lock that it holds, its log and its sockets.

pub mod arriving;
mod clock;
mod log;
pub mod place;
mod switch;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixDatagram;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::host::Paths;
use crate::machine::Machine;
use crate::machine::card;
use crate::machine::instance::{Instance, State};
use crate::machine::lock::Lock;
use crate::machine::process::Process;
use crate::machine::record::{Ready, Record};
use clock::{Clocks, Sleep};
use log::Log;
use place::{Held, Place, this_build};
use switch::Switch;

/// Between two looks at the machines, where no command wakes it: how long a host's sleep stays unnoticed.
const TICK: Duration = Duration::from_secs(2);
/// So often it is looked for.
const LOOKS: usize = 10;
/// Between two looks whether it has begun, or ended.
const PAUSE: Duration = Duration::from_millis(10);
/// It looks at the machines within a millisecond of being woken.
const END_WAIT: Duration = Duration::from_secs(3);

/// Has a helper run for the project in the folder `project`, of this build of devbox, and look at its
/// machines now. A failure is said, and machines run on without one.
pub async fn ensure(paths: &Paths, project: &Path, events: &Events) {
    if let Err(e) = start(&Place::of(paths, project), project).await {
        let why = e.causes().last().map_or(e.what(), |cause| cause);
        events.warn(format!(
            "the helper of this project does not run ({why}): its machines run on, without their private network and with the clocks they have; the next `devbox up` tries again"
        ));
    }
}

async fn start(place: &Place, project: &Path) -> Result<()> {
    crate::host::private_dir(place.dir())?;
    for _ in 0..LOOKS {
        if let Some(lock) = place.hold()? {
            Command::new(std::env::current_exe()?)
                .arg("helper")
                .arg(project)
                .current_dir("/")
                .stdin(lock.hand_on())
                .stdout(Stdio::null())
                .stderr(place.words()?)
                .spawn()
                .map_err(|e| Error::failed("cannot start the helper").cause(e))?;
            return Ok(());
        }
        match place.held()? {
            Held::By(Some(holder)) if holder.build != this_build() => {
                if let Some(process) = holder.process() {
                    process.kill().await?;
                }
            }
            Held::By(Some(_)) => break,
            // Somebody who only looks has the lock for microseconds, a helper that begins signs in
            // milliseconds.
            Held::By(None) | Held::Nobody => tokio::time::sleep(PAUSE).await,
        }
    }
    place.wake();
    Ok(())
}

/// Tells the project's helper, if there is one, that machines have changed.
pub fn wake(paths: &Paths, project: &Path) {
    Place::of(paths, project).wake();
}

/// After machines were destroyed: where none is left, waits until the helper has ended, and removes its
/// folder.
pub async fn end(paths: &Paths, project: &Path) {
    let place = Place::of(paths, project);
    place.wake();
    let left = Instance::of_folder(paths, project).map_or(true, |all| !all.is_empty());
    if left || !place.dir().exists() {
        return;
    }
    let ended = async {
        while !matches!(place.held(), Ok(Held::Nobody) | Err(_)) {
            place.wake();
            tokio::time::sleep(PAUSE).await;
        }
    };
    if tokio::time::timeout(END_WAIT, ended).await.is_err()
        && let Ok(Held::By(Some(holder))) = place.held()
        && let Some(process) = holder.process()
    {
        let _ = process.kill().await;
    }
    let _ = fs_err::remove_dir_all(place.dir());
}

/// Whether the project's helper runs.
#[must_use]
pub fn runs(paths: &Paths, project: &Path) -> bool {
    matches!(Place::of(paths, project).held(), Ok(Held::By(_)))
}

/// Does a helper's work for the project in the folder `project`, until no machine of it runs. Returns at
/// once where another one does it. Its standard input may be the lock, as `ensure` hands it on.
///
/// # Errors
/// Its folder cannot be made or locked.
pub fn serve(paths: &Paths, project: &Path) -> Result<()> {
    // Neither Ctrl-C nor the end of the terminal that `up` ran in is meant for it.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed("cannot start the async runtime").cause(e))?;
    runtime.block_on(async {
        let place = Place::of(paths, project);
        let mut begun = false;
        loop {
            crate::host::private_dir(place.dir())?;
            // The first time it is there already.
            let lock = if begun { None } else { place.inherited() };
            begun = true;
            let Some(mut lock) = lock.map_or_else(|| place.hold(), |lock| Ok(Some(lock)))? else {
                return Ok(());
            };
            Place::sign(&mut lock)?;
            place.turn_log();
            let log = Log::new(&place);
            log.line(format_args!("started, pid {}", std::process::id()));
            work(paths, project, &place, &lock, &log).await?;
            place.remove_sockets();
            drop(lock);
            // A command that started a machine meanwhile saw the lock, and relies on us.
            if running(paths, project).is_empty() {
                log.line(format_args!("no machine runs; ended"));
                if Instance::of_folder(paths, project).is_ok_and(|all| all.is_empty()) {
                    let _ = fs_err::remove_dir_all(place.dir());
                }
                return Ok(());
            }
        }
    })
}

/// A machine that runs.
struct Running {
    instance: Instance,
    record: Record,
    process: Process,
}

fn running(paths: &Paths, project: &Path) -> Vec<Running> {
    let all = Instance::of_folder(paths, project).unwrap_or_default();
    let look = |instance: Instance| {
        // One that is damaged is nobody's to serve.
        let record = instance.record().ok()??;
        match instance.state(&record) {
            State::Running(process) => Some(Running { instance, record, process }),
            _ => None,
        }
    };
    all.into_iter().filter_map(look).collect()
}

/// Serves until no machine runs, or its folder was taken away.
async fn work(
    paths: &Paths,
    project: &Path,
    place: &Place,
    lock: &place::Hold,
    log: &Log,
) -> Result<()> {
    let woken = place.bind_wake()?;
    let mut switch = Switch::new();
    let mut clocks = Clocks::new();
    let mut sleep = Sleep::new();
    loop {
        let machines = running(paths, project);
        if machines.is_empty() || !lock.is_in_place(place) {
            return Ok(());
        }
        ports(&mut switch, &machines, place, log);
        if let Some(slept) = sleep.since_last() {
            log.line(format_args!("the host slept for {} s", slept.as_secs()));
            clocks.all_due();
        }
        let ready = |m: &&Running| m.record.was_ready(&m.process);
        let all: BTreeMap<&str, (&Instance, Ready)> = machines
            .iter()
            .filter(ready)
            .map(|m| (m.instance.name(), (&m.instance, Ready::from(&m.process))))
            .collect();
        clocks.look(&all, log);
        for m in machines.iter().filter(|m| m.instance.files().still().exists()) {
            go_on(m, log).await;
        }
        machines.iter().for_each(|m| serve_box(paths, m, log));
        switch.report(log);
        drop(machines);
        pause(&woken).await;
    }
}

/// A machine that a devbox held still which died then: whoever attaches to it lets it go on.
async fn go_on(left: &Running, log: &Log) {
    let (files, name) = (left.instance.files(), left.instance.name());
    // Held while it is meant to stand still, and never waited for: whoever does that ends soon.
    if Lock::holder(&files.lock()).is_some() || !files.still().exists() {
        return;
    }
    let Ok(_lock) = left.instance.lock("devbox helper") else { return };
    // It is removed before the lock is let go: held again and done in between, there is nothing to mend.
    if !files.still().exists() {
        return;
    }
    let uuid = &left.record.uuid;
    let events = Events::silent();
    match Machine::attach(name, uuid, files.dir(), files.runtime(), &events).await {
        Ok(_) => log.line(format_args!("`{name}` goes on: a devbox died while it held it still")),
        Err(e) => log.line(format_args!("`{name}` cannot go on: {}", e.what())),
    }
}

/// Has the server of its box run, for a machine that reads from it.
fn serve_box(paths: &Paths, m: &Running, log: &Log) {
    let Some(from) = &m.record.arriving else { return };
    if m.instance.files().on_file().exists() {
        return;
    }
    let server = arriving::BoxServer::of(paths, from.disk);
    let job = arriving::Job {
        address: from.address.clone(),
        plain_http: from.plain_http,
        disk: from.disk,
    };
    match server.start(&job) {
        Ok(true) => {
            log.line(format_args!("the server of the box of `{}` runs again", m.instance.name()));
        }
        Ok(false) => {}
        Err(e) => log.line(format_args!(
            "the server of the box of `{}` cannot be started: {}",
            m.instance.name(),
            e.what()
        )),
    }
}

/// One port for each machine that has a card.
fn ports(switch: &mut Switch, machines: &[Running], place: &Place, log: &Log) {
    let with_card = |m: &&Running| m.record.shape.is_some_and(|shape| shape.card);
    let names: Vec<&str> = machines.iter().filter(with_card).map(|m| m.instance.name()).collect();
    switch.retain(&names);
    for m in machines.iter().filter(with_card) {
        let (name, peer) = (m.instance.name(), m.instance.files().card_socket());
        let mac = card::mac(m.instance.project(), name);
        match switch.serve(name, mac, &place.port(name), &peer) {
            Ok(true) => log.line(format_args!("`{name}` is on the private network")),
            Ok(false) => {}
            Err(e) => log.line(format_args!("`{name}` is not on the private network: {e}")),
        }
    }
}

/// Until the next tick, or until a command says that machines have changed.
async fn pause(woken: &UnixDatagram) {
    let mut word = [0; 16];
    tokio::select! {
        () = tokio::time::sleep(TICK) => {}
        _ = woken.recv(&mut word) => {
            // All that came at once count as one.
            while woken.try_recv(&mut word).is_ok() {}
        }
    }
}
