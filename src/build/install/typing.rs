//! Does what a boot command says, in a running machine.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::machine::{Machine, serial};
use crate::spec::boot_command::Action;

/// Between two looks for a text.
const LOOK: Duration = Duration::from_millis(500);
/// Of a serial log that grew since the last text was found, so much is looked through.
const TAIL: u64 = 256 << 10;

/// Types everything, after `wait`.
///
/// # Errors
/// A text that is waited for does not come in time, with what is there instead; QEMU refuses.
pub(super) async fn type_all(
    actions: &[Action],
    wait: Duration,
    machine: &Machine,
    events: &Events,
) -> Result<()> {
    tokio::time::sleep(wait).await;
    let mut seen = 0;
    for action in actions {
        match action {
            Action::Tap(keys) => machine.tap(keys).await?,
            Action::Press(keys) => machine.keys(keys, true).await?,
            Action::Release(keys) => {
                let reversed: Vec<&str> = keys.iter().rev().copied().collect();
                machine.keys(&reversed, false).await?;
            }
            Action::Wait(pause) => tokio::time::sleep(*pause).await,
            Action::WaitFor { text, timeout } => {
                seen = wait_for(text, *timeout, seen, machine).await?;
                events.note(format!("`{}` is there", text.escape_debug()));
            }
        }
    }
    events.note("the boot command was typed");
    Ok(())
}

/// Waits for a text behind the byte `seen` of the serial log, or on the screen. Gives the place in the log behind which
/// the next text is looked for.
async fn wait_for(text: &str, timeout: Duration, seen: u64, machine: &Machine) -> Result<u64> {
    let start = Instant::now();
    loop {
        let (log, end) = since(machine.serial_log(), seen)?;
        if log.contains(text) {
            return Ok(end);
        }
        let screen = machine.screen_text().await?;
        if screen.iter().any(|line| line.contains(text)) {
            return Ok(end);
        }
        if start.elapsed() > timeout {
            let what = format!(
                "`{}` did not come within {} s, neither on the serial console nor on the screen",
                text.escape_debug(),
                timeout.as_secs()
            );
            return Err(on_screen(Error::failed(what), &screen)
                .hint("Correct the text of `<waitfor>`, or give it more time: `<waitfor \"text\" 10m>`. A screen that shows pixels has no text."));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Adds what a text screen shows.
pub(super) fn on_screen(mut error: Error, screen: &[String]) -> Error {
    let lines: Vec<&String> = screen.iter().filter(|line| !line.trim().is_empty()).collect();
    if !lines.is_empty() {
        error = error.detail("the screen, if it shows text:");
    }
    for line in lines {
        error = error.detail(format!("  | {line}"));
    }
    error
}

/// What the guest wrote on its console behind a place, and where that ends.
fn since(log: &Path, place: u64) -> Result<(String, u64)> {
    let mut file = match fs::File::open(log) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((String::new(), 0)),
        Err(e) => return Err(e.into()),
    };
    let end = file.metadata()?.len();
    let from = place.max(end.saturating_sub(TAIL));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![];
    file.take(end.saturating_sub(from)).read_to_end(&mut bytes)?;
    Ok((serial::plain(&String::from_utf8_lossy(&bytes)), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_there_before_is_not_found_again() {
        let dir = tempfile::tempdir().expect("dir");
        let log = dir.path().join("serial.log");
        assert_eq!(since(&log, 0).expect("no log yet"), (String::new(), 0));
        std::fs::write(&log, "boot: \x1b[1mlinux\x1b[0m\r\n").expect("written");
        let (text, end) = since(&log, 0).expect("read");
        assert_eq!(text, "boot: linux\n");
        assert_eq!(since(&log, end).expect("read"), (String::new(), end));
    }
}
