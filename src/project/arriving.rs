//! Machines that start before their box is here.

use std::time::Duration;

use crate::chunks::boot::Records;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::helper::arriving::{BoxServer, Job};
use crate::machine::record::{Arriving, BaseImage, Record};
use crate::project::Run;
use crate::registry::address::Place;
use crate::registry::{self, Address, Known, Options};
use crate::store::Store;

/// Between two looks at how far a server is.
const LOOK: Duration = Duration::from_millis(100);
/// The box's own words, where a look shows trouble.
const SAID: usize = 4;

/// A box that is to be read while it arrives.
#[derive(Debug, Clone)]
pub(super) struct Lazy {
    /// What machines lie on, once it is here.
    pub(super) base: BaseImage,
    /// Where it comes from.
    pub(super) arriving: Arriving,
}

impl Lazy {
    /// The box at `address`, which has to be `reference`.
    ///
    /// # Errors
    /// There is none, or it is another one.
    pub(super) async fn find(
        address: &Address,
        options: &Options,
        reference: &str,
        run: Run<'_>,
    ) -> Result<Self> {
        let store = Store::open(&run.paths.store)?;
        let known = registry::known(&store, address, options, run.events, run.cancel).await?;
        let found = known.config.reference();
        if found != reference {
            return Err(Error::failed(format!("`{address}` is `{found}` and not `{reference}`"))
                .hint("Name another address, or set `name` and `version` of devbox.toml to those of the box."));
        }
        let records = Records::new(&run.paths.cache);
        if let Some(boot) = &known.boot
            && records.bytes(known.disk).is_none()
        {
            // That it cannot be kept only costs time.
            let _ = records.keep(known.disk, boot);
        }
        Self::of(&store, &known, options)
    }

    fn of(store: &Store, known: &Known, options: &Options) -> Result<Self> {
        let mut address = known.address.clone();
        if let Place::Folder(folder) = &mut address.place {
            // Others read it, in other folders.
            *folder = std::path::absolute(&folder)?;
        }
        Ok(Lazy {
            base: BaseImage {
                reference: known.config.reference(),
                manifest: known.manifest.to_string(),
                disk: std::path::absolute(store.disk_at(known.disk))?,
                size: known.config.disk_size,
            },
            arriving: Arriving {
                address: address.to_string(),
                plain_http: options.plain_http,
                disk: known.disk,
            },
        })
    }
}

/// Has a server run for the box of this machine, if that is not here, and waits until it can be read from.
///
/// # Errors
/// It cannot be begun with, or the work was cancelled.
pub(super) async fn ensure(record: &Record, run: Run<'_>, events: &Events) -> Result<()> {
    let Some(arriving) = record.awaited() else { return Ok(()) };
    let server = BoxServer::of(run.paths, arriving.disk);
    let job = Job {
        address: arriving.address.clone(),
        plain_http: arriving.plain_http,
        disk: arriving.disk,
    };
    let started = server.start(&job)?;
    if started {
        events.phase(format!("Beginning to fetch {}", record.base.reference));
    }
    loop {
        if server.progress().is_some_and(|progress| progress.serves) || record.awaited().is_none() {
            return Ok(());
        }
        if !server.runs() {
            if let Some(lines) = server.failure() {
                return Err(failed(&record.base.reference, &lines));
            }
            // It ended well, since nobody needed it then.
            server.start(&job)?;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = run.cancel.cancelled() => {
                return Err(Error::interrupted(format!(
                    "interrupted while {} was begun with", record.base.reference
                )));
            }
        }
    }
}

fn failed(reference: &str, lines: &[String]) -> Error {
    let error = Error::failed(format!("cannot begin to fetch {reference}"));
    let error = lines.iter().take(SAID).fold(error, Error::cause);
    error.hint(
        "Check the address and the network, then run the same command again: what arrived is kept.",
    )
}

/// Says while a machine starts why nothing arrives. Never returns but for a box that
/// is wrong itself.
pub(super) async fn watch(record: &Record, run: Run<'_>, events: &Events) -> Error {
    let Some(arriving) = &record.arriving else { return std::future::pending().await };
    let server = BoxServer::of(run.paths, arriving.disk);
    let (mut told, mut still) = (None::<String>, false);
    loop {
        tokio::time::sleep(LOOK * 5).await;
        let Some(progress) = server.progress() else { continue };
        if progress.hopeless {
            let why = progress.trouble.unwrap_or_default();
            return Error::failed(format!("{} cannot be fetched", record.base.reference))
                .cause(why)
                .hint("Push the box again from a host that has it; nothing wrong of it was read by the machine.");
        }
        if progress.waits && progress.trouble != told && progress.trouble.is_some() {
            let why = progress.trouble.clone().unwrap_or_default();
            events.warn(format!(
                "`{}` stands still until more of its box arrives: {why}",
                record.name
            ));
            (told, still) = (progress.trouble.clone(), true);
        } else if still && !progress.waits {
            events.note(format!("more of the box arrives; `{}` goes on", record.name));
            (told, still) = (None, false);
        }
    }
}
