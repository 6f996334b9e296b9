//! Gives back to the host what a machine's disk does not need any more.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use fs_err as fs;

use crate::crash;
use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::host;
use crate::machine::instance::{Instance, State};
use crate::machine::record::Record;
use crate::project::as_root::Script;
use crate::project::order::{self, Node};
use crate::project::suspend::not_made;
use crate::project::{Member, Run};

/// A trim goes through the guest's whole free space; an emulated guest with a slow disk takes minutes.
const TRIM: Duration = Duration::from_secs(600);

/// Trims the disks of machines that run, and rewrites those of machines that are stopped.
///
/// # Errors
/// One could not be made smaller: it stays as it is, and the others are.
pub async fn compact(members: &[&Member], run: Run<'_>) -> Result<()> {
    let node = |member: &&Member| Node {
        name: member.name().to_owned(),
        after: vec![],
        item: member.instance.clone(),
    };
    let nodes = members.iter().map(node).collect();
    let ends = order::run(nodes, async |name, instance: Instance| {
        let _lock = instance.lock("devbox compact")?;
        let Some(record) = instance.record()? else { return Err(not_made(name)) };
        let (start, before) = (Instant::now(), host::stored_bytes(&instance.files().overlay()));
        run.events.phase(format!("Compacting the disk of `{name}`"));
        match instance.state(&record) {
            State::Running(_) => trim(&instance, &record, run).await?,
            _ => rewrite(&instance, &record)?,
        }
        let after = host::stored_bytes(&instance.files().overlay());
        let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
        let done = format!("the disk of `{name}` takes {}, before {}", size(after), size(before));
        run.events.done(done, start.elapsed());
        Ok(())
    });
    order::together(ends.await, "not compacted").map(|_| ())
}

/// Has the guest say which blocks it does not use; QEMU gives them back.
async fn trim(instance: &Instance, record: &Record, run: Run<'_>) -> Result<()> {
    let title = format!("`fstrim` in `{}`", record.name);
    // That of busybox knows no `-a`.
    let text = "fstrim -a 2>/dev/null || fstrim /".to_owned();
    let script = Script { title: &title, timeout: TRIM };
    script.run(text, instance, record, run, run.events).await.map(|_| ())
}

/// Copies what is in use into a new layer, which takes the old one's place at once.
fn rewrite(instance: &Instance, record: &Record) -> Result<()> {
    record.refuse_arriving()?;
    if record.suspended.is_some() {
        return Err(Error::failed(format!("`{}` is suspended to its disk", record.name))
            .hint("Let it go on with `devbox resume`: a machine that runs is compacted too."));
    }
    if !record.snapshots.is_empty() {
        // They lie in the same file, and a copy does not take them along.
        let hint = format!(
            "Start it with `devbox up {}`: then its free space is given back.",
            record.name
        );
        return Err(Error::failed(format!("`{}` has snapshots", record.name)).hint(hint));
    }
    let overlay = instance.files().overlay();
    let new = overlay.with_extension("new");
    let mut command = tools::QEMU_IMG.command()?;
    command.args(["convert", "-f", "qcow2", "-O", "qcow2", "-F", "qcow2", "-B"]);
    command.arg(&record.base.disk).arg(&overlay).arg(&new);
    let made = exec::output(&mut command).and_then(|_| Ok(fs::File::open(&new)?.sync_all()?));
    if let Err(e) = made {
        let _ = fs::remove_file(&new);
        return Err(e);
    }
    crash::point("compact.copied");
    fs::rename(&new, &overlay)?;
    Ok(())
}
