//! Runs a program in a process group of its own, so that an interrupt ends all that it started.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::os;

/// How long a program may clean up after SIGTERM; `mmdebstrap` removes a tree of 20,000 files.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of standard error that a failure shows.
const LAST_LINES: usize = 12;

/// Runs to the end and returns standard output. Each line of standard error goes to `on_line`
/// as it comes.
///
/// # Errors
/// The program could not be started, or ended with a code other than 0 (the message holds its last
/// lines), or `cancel` was cancelled: then the whole group got SIGTERM, and SIGKILL after a grace
/// time.
pub async fn run(
    mut command: Command,
    mut on_line: impl FnMut(&str),
    cancel: &CancellationToken,
) -> Result<Vec<u8>> {
    if cancel.is_cancelled() {
        return Err(Error::interrupted("interrupted"));
    }
    os::detach(&mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (name, line) = (super::name(&command), super::line(&command));
    let start = |e| Error::failed(format!("cannot start `{name}`")).cause(e);
    let mut child =
        tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(start)?;
    let (Some(group), Some(mut out), Some(err)) =
        (child.id(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::failed(format!("cannot watch `{name}`")));
    };

    let mut stdout = Vec::new();
    let mut last: VecDeque<String> = VecDeque::new();
    let status = {
        let work = async {
            let mut err = BufReader::new(err);
            let read_err = async {
                let mut raw = Vec::new();
                while err.read_until(b'\n', &mut raw).await? > 0 {
                    let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
                    raw.clear();
                    on_line(&text);
                    if !text.is_empty() {
                        last.push_back(text);
                        if last.len() > LAST_LINES {
                            last.pop_front();
                        }
                    }
                }
                std::io::Result::Ok(())
            };
            let (a, b) = tokio::join!(out.read_to_end(&mut stdout), read_err);
            a?;
            b?;
            child.wait().await
        };
        tokio::pin!(work);
        tokio::select! {
            status = &mut work => status.map_err(start)?,
            () = cancel.cancelled() => {
                os::end_group(group, true);
                if tokio::time::timeout(GRACE, &mut work).await.is_err() {
                    os::end_group(group, false);
                    let _ = work.await;
                }
                return Err(Error::interrupted(format!("interrupted while `{name}` ran")));
            }
        }
    };
    if status.success() {
        return Ok(stdout);
    }
    let mut error =
        Error::failed(format!("`{name}` failed: {status}")).detail(format!("command: {line}"));
    for l in last {
        error = error.detail(l);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut c = Command::new("sh");
        c.args(["-c", script]).stdin(Stdio::null());
        c
    }

    #[tokio::test]
    async fn output_and_lines_are_told_apart() {
        let mut lines = vec![];
        let script = sh("echo out; echo err >&2; echo more >&2");
        let out = run(script, |l| lines.push(l.to_owned()), &CancellationToken::new()).await;
        assert_eq!(out.expect("it runs"), b"out\n");
        assert_eq!(lines, ["err", "more"]);
    }

    #[tokio::test]
    async fn a_failure_shows_the_last_lines() {
        let e = run(sh("echo why >&2; exit 3"), |_| {}, &CancellationToken::new())
            .await
            .expect_err("it fails");
        assert!(e.details().iter().any(|d| d == "why"), "{e}");
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_grandchildren_too() {
        let cancel = CancellationToken::new();
        let dir = tempfile::tempdir().expect("a folder");
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let stop = async {
            while !std::fs::read_to_string(&pid_file).is_ok_and(|s| s.ends_with('\n')) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(run(sh(&script), |_| {}, &cancel), stop);
        assert_eq!(result.expect_err("interrupted").kind(), crate::error::Kind::Interrupted);
        let pid = std::fs::read_to_string(&pid_file).expect("written");
        // The pipes close a moment before the kernel calls a process ended. A zombie that its new
        // parent has not reaped yet counts as ended.
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !ended() {
            assert!(std::time::Instant::now() < deadline, "still running");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
