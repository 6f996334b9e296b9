//! macOS: what its kernel does in another way than Linux.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::Bond;

/// A Unix socket's path holds so many bytes (unix(4): 104 with the zero behind it).
pub const SOCKET_PATH: usize = 103;

/// The words in front of a program: none, since macOS has neither `setsid` nor a signal at the parent's
/// death. A group of its own keeps Ctrl-C away, and a program without a terminal sees none end.
#[must_use]
pub fn in_front(_bond: Bond) -> &'static [&'static str] {
    &[]
}

/// What ends a program with devbox while it is held.
#[derive(Debug)]
pub struct Tie {
    watcher: Child,
}

/// Looks once a second whether devbox and the program are there; ends the program when devbox is gone.
const WATCH: &str = r#"while kill -0 "$1" && kill -0 "$2"; do sleep 1; done 2> /dev/null; kill -0 "$1" 2> /dev/null || kill -9 "$2""#;

/// Ties a program that was started to devbox: a shell watches both.
///
/// # Errors
/// The shell cannot be started.
pub fn tie(child: &Child) -> std::io::Result<Tie> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", WATCH, "sh"])
        .arg(std::process::id().to_string())
        .arg(child.id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok(Tie { watcher: command.spawn()? })
}

impl Drop for Tie {
    /// The program has ended: nothing is left to watch.
    fn drop(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        assert!(in_front(Bond::Starter).is_empty() && SOCKET_PATH < 107);
        command.arg("62").spawn().expect("sleep runs")
    }

    #[test]
    fn the_watcher_goes_with_the_program_and_ends_nothing_that_is_not_orphaned() {
        let mut child = sleeper();
        let tie = tie(&child).expect("watched");
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert!(child.try_wait().expect("asked").is_none(), "its starter lives");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        drop(tie);
    }

    #[test]
    fn the_watcher_ends_the_program_when_its_starter_is_gone() {
        let mut child = sleeper();
        let mut starter = sleeper();
        let mut watch = Command::new("/bin/sh");
        watch.args(["-c", WATCH, "sh"]).arg(starter.id().to_string()).arg(child.id().to_string());
        let mut watch = watch.spawn().expect("sh runs");
        starter.kill().expect("killed");
        starter.wait().expect("reaped");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().expect("ended")),
            Some(9)
        );
        watch.wait().expect("ended");
    }
}
