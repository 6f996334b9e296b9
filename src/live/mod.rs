//! A host that runs, as one side of a comparison: its files are hashed over there, and only the manifest
//! comes back.
//!
//! [`address`] is what the user writes; [`binary`] is the static devbox that travels; [`session`] is one
//! `ssh` with `remote.sh` at its other end; [`databases`] reads what that script shows where no devbox
//! can run. `docs/live.md` is for users.

pub mod address;
pub mod binary;
mod databases;
mod session;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use address::Address;
use binary::Binary;
use session::{Host, Session};

use crate::error::{Error, Result};
use crate::event::Events;
use crate::parity::Level;
use crate::parity::subject::{Reference, Seen};

/// How to build a devbox that runs anywhere.
pub(crate) const STATIC: &str = "Build one with \
    `cargo rustc --release --bin devbox -- -C target-feature=+crt-static`, and name it with \
    `--host-binary FILE`.";

/// How hosts are asked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A static devbox to send.
    pub binary: Option<PathBuf>,
    /// Options of ssh, as after its `-o`.
    pub ssh: Vec<OsString>,
    /// Options of the devbox over there: the limits.
    pub words: Vec<String>,
}

/// Asks the host at `address` for what `level` needs; without one, for the strongest that it can tell: `tree`,
/// or `packages` where no devbox can run.
///
/// # Errors
/// Kind `Usage`: a level that files alone do not tell, or a binary that is none. Kind `Undetermined`: the
/// host cannot be reached, or cannot tell.
pub fn look(
    address: &Address,
    asked: Option<Level>,
    options: &Options,
    events: &Events,
) -> Result<Reference> {
    let name = address.to_string();
    let level = asked.unwrap_or(Level::Tree);
    if !level.is_of_files() {
        return Err(Error::usage(format!("level `{}` cannot be told of `{name}`", level.as_str()))
            .cause("of a host that runs, only the files are read")
            .hint("Add `--level tree` (or `times`, `packages`) for what the files alone tell."));
    }
    let binary = match (&options.binary, level) {
        (Some(path), _) => Ok(Binary::named(path)?),
        // The shell proves that level by itself.
        (None, Level::Packages) => Err("no program is needed".to_owned()),
        (None, _) => Binary::own(),
    };
    let shell_is_enough = matches!(asked, None | Some(Level::Packages));
    if let (Err(why), false) = (&binary, shell_is_enough) {
        return Err(lesser(&name, level, why));
    }
    events.phase(format!("looking at `{name}`"));
    let mut session = Session::open(address, options)?;
    let sent = binary.and_then(|binary| match unfit(&binary, session.host()) {
        None => Ok(binary),
        Some(why) => Err(why),
    });
    let sent = match sent {
        Ok(binary) => session.send(&binary)?,
        Err(why) => Err(why),
    };
    let seen = match sent {
        Ok(()) => Seen::Tree(session.manifest()?),
        Err(why) if shell_is_enough => {
            if asked.is_none() {
                events.note(format!(
                    "`{name}` is not compared at level `tree`: no devbox can run there: {why}"
                ));
            }
            Seen::Packages(session.packages()?)
        }
        Err(why) => return Err(lesser(&name, level, &why)),
    };
    Ok(Reference::Live { name, seen: Arc::new(seen) })
}

/// Why a program does not run there.
fn unfit(binary: &Binary, host: &Host) -> Option<String> {
    if host.kernel != "Linux" {
        return Some(format!("its kernel is {}, and devbox runs on Linux", host.kernel));
    }
    let fits = binary.machine.names().contains(&host.machine.as_str());
    (!fits).then(|| {
        let here = binary.machine.names()[0];
        format!("its architecture is {}, and the devbox to send is for {here}", host.machine)
    })
}

/// The shell alone cannot tell that level.
fn lesser(name: &str, level: Level, why: &str) -> Error {
    Error::undetermined(format!("cannot tell level `{}` of `{name}`", level.as_str()))
        .cause(format!("no devbox can run there: {why}"))
        .hint("Its shell alone proves level `packages`: add `--level packages`.")
        .hint(STATIC)
}
