//! All that somebody else needs to find out why a machine does not do what it should, in one file.
//!
//! No keys: the folder of ssh and the seed stay out. Values of the steps' variables, the user's home, and
//! the host's name are replaced.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use fs_err as fs;

use crate::error::{Error, Result};
use crate::exec::{self, tools};
use crate::machine::Machine;
use crate::machine::instance::Instance;
use crate::machine::serial;
use crate::project::status::Status;
use crate::spec::Spec;

/// Of a log, so many bytes from its end.
const LOG_TAIL: u64 = 1 << 20;
/// A shorter value would be found in places where it means nothing.
const SHORTEST_SECRET: usize = 4;
/// What stands in place of what was taken out.
const REDACTED: &str = "[redacted]";

/// What a bundle is about, besides the machine's files.
#[derive(Debug, Default)]
pub struct About<'a> {
    /// The failure, with the phase that was reached.
    pub failure: Option<&'a Error>,
    /// The conversation with QEMU's monitor.
    pub trace: Vec<String>,
    /// The spec, for the values that are taken out; without it the spec's text stays out.
    pub spec: Option<&'a Spec>,
}

/// Writes the bundle of one machine to `file`, readable by this user only.
///
/// # Errors
/// The file cannot be written.
pub fn write(instance: &Instance, about: &About<'_>, file: &Path) -> Result<()> {
    let hide = Hidden::new(about.spec);
    let files = instance.files();
    let mut parts: Vec<(&str, Vec<u8>)> =
        vec![("README.txt", readme(instance, about).into_bytes())];
    if let Some(failure) = about.failure {
        parts.push(("failure.txt", format!("{failure}\n").into_bytes()));
    }
    parts.push(("versions.txt", versions().into_bytes()));
    let status = Status::look(instance).json(instance, about.spec.map(|_| true));
    parts.push(("status.json", format!("{status:#}\n").into_bytes()));
    if !about.trace.is_empty() {
        parts.push(("qmp.log", (about.trace.join("\n") + "\n").into_bytes()));
    }
    for (name, path) in [
        ("machine.json", files.record()),
        ("qemu.command", files.command_line()),
        ("qemu.log", files.qemu_log()),
        ("serial.log", files.serial_log()),
        ("serial.log.1", files.serial_log_before()),
    ] {
        if let Some(bytes) = tail(&path) {
            parts.push((name, bytes));
        }
    }
    if about.spec.is_some()
        && let Ok(text) = fs::read(instance.project().join(crate::spec::FILE_NAME))
    {
        parts.push(("devbox.toml", text));
    }
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    let mut tar = tar::Builder::new(GzEncoder::new(&mut new, Compression::default()));
    for (name, bytes) in parts {
        add(&mut tar, name, hide.apply(&String::from_utf8_lossy(&bytes)).as_bytes())?;
    }
    // A picture has no text to look through.
    if let Ok(picture) = fs::read(files.screenshot()) {
        add(&mut tar, "screen.png", &picture)?;
    }
    tar.into_inner()?.finish()?.flush()?;
    new.persist(file).map_err(|e| Error::from(e.error))?;
    Ok(())
}

/// A new picture of the machine's screen and the conversation with QEMU, if it runs.
pub async fn of_running(machine: &Machine) -> Vec<String> {
    // A machine that cannot be asked has no picture; the rest of the bundle says more.
    let _ = machine.screenshot().await;
    machine.qmp().trace()
}

/// The name of a bundle that is made now.
#[must_use]
pub fn file_name(machine: &str) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    PathBuf::from(format!("devbox-{machine}-{now}.tar.gz"))
}

fn add(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(jiff::Timestamp::now().as_second().try_into().unwrap_or(0));
    tar.append_data(&mut header, name, bytes)?;
    Ok(())
}

fn readme(instance: &Instance, about: &About<'_>) -> String {
    let spec = match about.spec {
        Some(_) => "",
        None => "The spec is not in it: it could not be read, so its secrets could not be found.\n",
    };
    format!(
        "What devbox knows about the machine `{}`, for people who look for a fault.\n\
         Made {}.\n\n\
         Keys and the cloud-init seed are not in it. Values of the steps' variables, your home and\n\
         the host's name were replaced. What the guest printed on its console is as it was.\n{spec}",
        instance.name(),
        jiff::Timestamp::now()
    )
}

fn versions() -> String {
    let of = |tool: exec::Tool| match tool.command() {
        Ok(mut command) => {
            let out = exec::output(command.arg("--version")).unwrap_or_default();
            String::from_utf8_lossy(&out).lines().next().unwrap_or("unknown").to_owned()
        }
        Err(e) => e.what().to_owned(),
    };
    let uname = rustix::system::uname();
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    format!(
        "devbox {}\nqemu: {}\nqemu-img: {}\nhost: {} {} on {}\nsystem: {}\n",
        env!("CARGO_PKG_VERSION"),
        of(tools::QEMU_X86),
        of(tools::QEMU_IMG),
        uname.sysname().to_string_lossy(),
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy(),
        system.trim_matches('"')
    )
}

/// The end of a file, without what would move a terminal's cursor.
fn tail(path: &Path) -> Option<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL))).ok()?;
    let mut bytes = vec![];
    file.take(LOG_TAIL).read_to_end(&mut bytes).ok()?;
    Some(serial::plain(&String::from_utf8_lossy(&bytes)).into_bytes())
}

/// What is taken out of every text, longest first.
#[derive(Debug)]
struct Hidden(Vec<(String, &'static str)>);

impl Hidden {
    fn new(spec: Option<&Spec>) -> Self {
        let mut hidden = vec![];
        for step in spec.iter().flat_map(|spec| &spec.steps) {
            let values = step.env.values().filter(|v| v.len() >= SHORTEST_SECRET);
            hidden.extend(values.map(|v| (v.clone(), REDACTED)));
        }
        if let Some(home) = std::env::var_os("HOME").filter(|h| h.len() > 1) {
            hidden.push((home.to_string_lossy().into_owned(), "~"));
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if name.len() >= SHORTEST_SECRET && name != "localhost" {
            hidden.push((name, "[host]"));
        }
        hidden.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Hidden(hidden)
    }

    fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (what, with)| text.replace(what, with))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_secret_is_taken_out_before_one_that_it_contains() {
        let hidden =
            Hidden(vec![("secret-token".to_owned(), REDACTED), ("secret".to_owned(), "x")]);
        assert_eq!(hidden.apply("a secret-token and a secret"), "a [redacted] and a x");
    }
}
