//! What the seal's script said on the serial console.

use std::path::Path;

use crate::error::Result;

/// In front of each of the script's lines.
const PREFIX: &str = "devbox-seal: ";
/// Most bytes of a serial log that are read: a guest can write without end.
const MAX_LOG: u64 = 16 << 20;

/// One path that the seal changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The step that did it.
    pub step: String,
    /// What it did: `absent`, `hollow`, `empty`, `fixed`.
    pub what: String,
    /// On which path.
    pub path: String,
}

/// All that the script said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The steps that were begun, in order.
    pub steps: Vec<String>,
    /// The paths that were changed, in order.
    pub changes: Vec<Change>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What went wrong, as `step: reason`.
    pub failures: Vec<String>,
    /// The script came to its end, and all steps worked.
    pub complete: bool,
}

impl Report {
    /// Reads the serial log at `path`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        use std::io::Read as _;
        let mut bytes = vec![];
        fs_err::File::open(path)?.take(MAX_LOG).read_to_end(&mut bytes)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// What the script said in a serial log.
    pub(crate) fn parse(log: &str) -> Self {
        let mut report = Report::default();
        for line in log.lines() {
            let Some((_, said)) = line.split_once(PREFIX) else { continue };
            let said = said.trim_end();
            let (what, rest) = said.split_once(' ').unwrap_or((said, ""));
            match what {
                "begin" => {}
                "step" => report.steps.push(rest.to_owned()),
                "note" => report.notes.push(rest.to_owned()),
                "fail" => report.failures.push(rest.to_owned()),
                "end" => report.complete = rest == "sealed",
                _ => report.changes.push(Change {
                    step: report.steps.last().cloned().unwrap_or_default(),
                    what: what.to_owned(),
                    path: rest.to_owned(),
                }),
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_others_are_found() {
        let log = "[ 1.0] kernel\r\ndevbox-seal: begin seal/1\r\ndevbox-seal: step ssh\r\n\
                   [ 2.0] devbox-seal: absent /etc/ssh/ssh_host_rsa_key\r\n\
                   devbox-seal: note no fstrim\r\ndevbox-seal: end sealed\r\n";
        let report = Report::parse(log);
        assert_eq!(report.steps, ["ssh"]);
        assert_eq!(report.changes[0].path, "/etc/ssh/ssh_host_rsa_key");
        assert_eq!(report.changes[0].step, "ssh");
        assert_eq!(report.notes, ["no fstrim"]);
        assert!(report.complete);
    }

    #[test]
    fn a_failed_step_and_a_cut_log_are_not_complete() {
        let failed = Report::parse(
            "devbox-seal: step ssh\ndevbox-seal: fail ssh: no generator\ndevbox-seal: end failed\n",
        );
        assert_eq!(failed.failures, ["ssh: no generator"]);
        assert!(!failed.complete);
        assert!(!Report::parse("devbox-seal: step ssh\n").complete);
        assert!(!Report::parse("").complete);
    }
}
