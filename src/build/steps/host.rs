//! A program of the host that works on the guest: its lines are events, its failure is the step's.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use super::Running;
use crate::error::{Error, Result};
use crate::guest::ssh::Ended;
use crate::guest::work::{LAST_LINES, failure};
use crate::os;

/// How long the program may clean up after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Lines that are kept for whoever reads what the program did.
const KEPT: usize = 200;

impl Running<'_> {
    /// Runs the program in a process group of its own; gives the last lines of both its outputs.
    pub(super) async fn on_host(&self, mut command: Command) -> Result<Vec<String>> {
        os::detach(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let lost = |e| Error::failed(format!("cannot run `{name}`")).cause(e);
        let mut child =
            tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(lost)?;
        let (Some(group), Some(out), Some(err)) =
            (child.id(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::failed(format!("cannot watch `{name}`")));
        };
        let lines = RefCell::new(Vec::new());
        let take = |line: &str| {
            self.events.output(self.title, line);
            let mut lines = lines.borrow_mut();
            lines.push(line.to_owned());
            let over = lines.len().saturating_sub(KEPT);
            lines.drain(..over);
        };
        let work = async {
            tokio::join!(each(out, &take), each(err, &take));
            child.wait().await
        };
        tokio::pin!(work);
        let ended = tokio::select! {
            status = &mut work => {
                let status = status.map_err(lost)?;
                Ok(status.code().unwrap_or(-1))
            }
            () = tokio::time::sleep(self.left()) => Err(Ended::TimedOut),
            () = self.cancel.cancelled() => Err(Ended::Cancelled),
        };
        if ended.is_err() {
            os::end_group(group, true);
            if tokio::time::timeout(GRACE, &mut work).await.is_err() {
                os::end_group(group, false);
                let _ = work.await;
            }
        }
        let lines = lines.take();
        match ended {
            Ok(0) => Ok(lines),
            Ok(code) => Err(self.ended(Ended::Code(code), lines)),
            Err(ended) => Err(self.ended(ended, lines)),
        }
    }

    fn ended(&self, ended: Ended, lines: Vec<String>) -> Error {
        let lines: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let before = lines.len().saturating_sub(LAST_LINES);
        failure(self.title, ended, self.step.timeout, lines.into_iter().skip(before))
    }
}

async fn each(stream: impl AsyncRead + Unpin, take: &impl Fn(&str)) {
    let mut read = BufReader::new(stream);
    let mut raw = Vec::new();
    while read.read_until(b'\n', &mut raw).await.is_ok_and(|n| n > 0) {
        take(String::from_utf8_lossy(&raw).trim_end());
        raw.clear();
    }
}
