//! `[[mounts]]` of one machine: what it is started with, and mounting when it runs.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::guest::folder::{self, Folder, FolderKind, Ids, Mount};
use crate::machine::config::Config;
use crate::machine::folder::tag;
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::machine::{Machine, virtiofs};
use crate::project::Run;
use crate::spec::{MountKind, Spec};

/// The ids of the first account of most systems: assumed until a machine was seen.
const FIRST_ACCOUNT: Ids = Ids { uid: 1000, gid: 1000 };

/// The folders that the spec gives a machine: those above others first, since they would hide them.
pub(super) fn of_spec(spec: &Spec, machine: &str) -> Vec<Folder> {
    let here = spec.mounts.iter().filter(|mount| mount.is_for(machine));
    let mut all: Vec<Folder> = here
        .map(|mount| Folder {
            kind: match mount.kind {
                MountKind::NineP => FolderKind::NineP,
                MountKind::Virtiofs => FolderKind::Virtiofs,
                MountKind::Rsync => FolderKind::Rsync,
            },
            source: mount.source.clone(),
            target: mount.target.clone(),
            writable: mount.writable,
            exclude: mount.exclude.clone(),
        })
        .collect();
    // Stable: those of one depth stay in the order of the spec.
    all.sort_by_key(|folder| folder.target.matches('/').count());
    all
}

/// Those that need a device, which a machine has from its start.
pub(super) fn devices(folders: &[Folder]) -> Vec<Folder> {
    folders.iter().filter(|folder| folder.kind != FolderKind::Rsync).cloned().collect()
}

fn has_virtiofs(folders: &[Folder]) -> bool {
    folders.iter().any(|folder| folder.kind == FolderKind::Virtiofs)
}

/// Why a machine of the spec cannot go on from a template, if its folders are the reason.
pub(super) fn no_template(spec: &Spec, machine: &str) -> Option<String> {
    has_virtiofs(&of_spec(spec, machine)).then(|| {
        "no template: `type = \"virtiofs\"` shares the machine's memory with the folder's server, and a template's memory is many machines'".to_owned()
    })
}

/// Gives `config` the devices' folders of `record`, and QEMU the ids that make their owner the guest's account.
///
/// # Errors
/// One of them is gone from the host.
pub(super) fn configure(config: &mut Config, record: &Record, events: &Events) -> Result<()> {
    config.folders = devices(&record.folders);
    if let Some(gone) = config.folders.iter().find(|folder| !folder.source.is_dir()) {
        let (source, name) = (gone.source.display(), &record.name);
        return Err(Error::failed(format!("the folder `{source}` of `{name}` is gone")).hint(
            format!(
                "Make it again; or start anew with `devbox halt {name}`, then `devbox up {name}`."
            ),
        ));
    }
    if has_virtiofs(&config.folders) {
        virtiofs::check()?;
    }
    if config.folders.iter().any(|folder| folder.kind == FolderKind::NineP) {
        config.owner = owner(record.account.unwrap_or(FIRST_ACCOUNT), events);
    }
    Ok(())
}

/// The ids that this user needs in the eyes of QEMU; none if they are those already, or the host does not
/// let users have other ids.
fn owner(account: Ids, events: &Events) -> Option<Ids> {
    let me = rustix::process::geteuid().as_raw();
    let same = (me, rustix::process::getegid().as_raw()) == (account.uid, account.gid);
    // Root has other ids in any case: then it makes no devices and changes no owners for a guest.
    if same && me != 0 {
        return None;
    }
    let tried = tools::UNSHARE.command().and_then(|mut unshare| {
        unshare.args(exec::as_owner(account.uid, account.gid)).args(["--", "true"]);
        exec::output(unshare.stderr(Stdio::piped()))
    });
    match tried {
        Ok(_) => Some(account),
        Err(e) => {
            let why = e.details().last().map_or_else(|| e.what(), String::as_str);
            let means = match same {
                true => "a guest that may write a folder makes devices and other owners there"
                    .to_owned(),
                false => format!(
                    "files in folders belong to {me} in the guest, and not to {}",
                    account.uid
                ),
            };
            events.warn(format!("this host allows no user namespaces ({why}): {means}"));
            None
        }
    }
}

/// Mounts what is not mounted of the machine's folders. It runs, and a login works.
///
/// # Errors
/// One could not be mounted; the others are.
pub(super) async fn mount(
    machine: &Machine,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let devices = devices(&record.folders);
    if devices.is_empty() {
        return Ok(());
    }
    let client = instance.client(record)?;
    // QEMU's ids are chosen before the guest is known, a server's are not.
    let owner = match has_virtiofs(&devices) {
        true => folder::account(&client, run.cancel).await?,
        false => record.account.unwrap_or(FIRST_ACCOUNT),
    };
    let mut failed: Option<Error> = None;
    let mut owners = vec![];
    for (n, folder) in devices.iter().enumerate() {
        let tag = tag(n);
        let place = Mount { folder, tag: &tag, client: &client, cancel: run.cancel };
        match one(machine, n, &place, owner, events).await {
            Ok(owner) => owners.extend(owner.map(|ids| (folder, ids))),
            Err(e) if e.kind() == Kind::Interrupted => return Err(e),
            Err(e) => match failed {
                None => failed = Some(e),
                Some(_) => events.warn(e.what()),
            },
        }
    }
    if !owners.is_empty() {
        let account = folder::account(&client, run.cancel).await?;
        mention_owners(&owners, account, record, events);
        if record.account != Some(account) {
            record.account = Some(account);
            instance.save(record)?;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Mounts one and says what it can do. The owner of its files, if it was not mounted before.
async fn one(
    machine: &Machine,
    n: usize,
    place: &Mount<'_>,
    owner: Ids,
    events: &Events,
) -> Result<Option<Ids>> {
    let folder = place.folder;
    match folder.kind {
        FolderKind::Virtiofs => {
            machine.insist_on_server(n, folder).await?;
            machine.serve_folder(n, folder, owner).await?;
        }
        FolderKind::NineP | FolderKind::Rsync => machine.add_folder(n, folder).await?,
    }
    if !place.mount().await? {
        return Ok(None);
    }
    let trial = place.try_out().await?;
    let can = match folder.writable {
        true => format!("writable: {trial}"),
        false => "read-only: writes are refused".to_owned(),
    };
    events.note(format!(
        "mounted `{}` on {} ({}, {can})",
        folder.source.display(),
        folder.target,
        folder.kind.as_str()
    ));
    Ok(trial.owner)
}

/// Says whose the files are in the guest, if it is not its account.
fn mention_owners(owners: &[(&Folder, Ids)], account: Ids, record: &Record, events: &Events) {
    let me = rustix::process::geteuid().as_raw();
    for (folder, owner) in owners {
        let mine = folder.source.metadata().is_ok_and(|meta| meta.uid() == me);
        if *owner == account || !(mine || folder.writable) {
            continue;
        }
        let hint = match record.account == Some(account) {
            true => String::new(),
            false => "; `devbox reload` corrects that".to_owned(),
        };
        events.warn(format!(
            "in {} files belong to {}:{} and not to `{}` ({}:{}){hint}",
            folder.target, owner.uid, owner.gid, record.user, account.uid, account.gid
        ));
    }
}

/// Unmounts the machine's folders and takes their devices away: QEMU can then save it. Those that were
/// taken are mounted again if one cannot be.
///
/// # Errors
/// Something in the guest uses one.
pub(super) async fn unmount(
    machine: &Machine,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
) -> Result<()> {
    let client = instance.client(record)?;
    let taken = async {
        // The deepest first.
        for (n, folder) in devices(&record.folders).iter().enumerate().rev() {
            if machine.has_folder(n).await? {
                machine.insist_on_server(n, folder).await?;
                let tag = tag(n);
                Mount { folder, tag: &tag, client: &client, cancel: run.cancel }.unmount().await?;
                machine.remove_folder(n).await?;
            }
        }
        Ok(())
    };
    let taken = taken.await;
    if taken.is_err() {
        mount(machine, instance, record, run, run.events).await?;
    }
    taken
}

/// Whether the guest has a device of one of its folders, so that QEMU may be unable to save it.
pub(super) async fn any(machine: &Machine, record: &Record) -> Result<bool> {
    for n in 0..devices(&record.folders).len() {
        if machine.has_folder(n).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
