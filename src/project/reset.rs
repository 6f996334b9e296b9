//! A machine starts over: its disk goes, its data disks stay.

use crate::crash;
use crate::error::Result;
use crate::machine::instance::Instance;
use crate::project::stop::stop;
use crate::project::suspend::{not_made, now};
use crate::project::{Run, snapshot};

/// Throws the machine's own disk away, with its snapshots and its keys; the next `up` makes it anew of
/// its spec. Data disks stay, with what is on them.
///
/// # Errors
/// The machine is not made, cannot be stopped, or a file cannot be removed.
pub async fn reset(instance: &Instance, run: Run<'_>) -> Result<()> {
    let _lock = instance.lock("devbox reset")?;
    let record = instance.record()?.ok_or_else(|| not_made(instance.name()))?;
    stop(instance, &record, None, run).await?;
    snapshot::forget_on_data_disks(&record);
    instance.clear_for_reset()?;
    let ended = instance.change_history(|history| {
        history.ended(now());
        true
    });
    if let Err(e) = ended {
        run.events.warn(e.what());
    }
    crash::point("reset.cleared");
    let name = instance.name();
    run.events.note(format!("`{name}` is reset; the next `devbox up` starts it anew"));
    for disk in record.disks.iter().filter(|disk| disk.path.exists()) {
        run.events.note(format!("its disk `{}` stays", disk.name));
    }
    Ok(())
}
