//! What happens in a server's namespaces before it: this program once more, as `devbox folder-server`.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind_recursive, mount_remount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

use crate::error::{Error, Result};
use crate::exec::mounts;

/// The verb of the command line.
pub(super) const VERB: &str = "folder-server";
/// Its option.
pub(super) const READ_ONLY: &str = "--read-only";
/// What comes through the gate when the namespace has its ids.
pub(super) const GO: &[u8] = b"go";

/// Waits for its ids, makes the folder `read_only` so for all that follows, and becomes `program`. Standard
/// input is the server's socket, standard output the gate.
///
/// # Errors
/// The folder cannot be made read-only, or `program` cannot be started. Nothing is served then.
pub fn serve(read_only: Option<&Path>, program: &[OsString]) -> Result<()> {
    let mut gate = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut word = [0; GO.len()];
    if gate.read_exact(&mut word).is_err() || word != GO {
        return Err(Error::failed("nobody waits for this server"));
    }
    if let Some(source) = read_only {
        seal(source).map_err(|e| {
            Error::failed(format!("`{}` cannot be made read-only", source.display())).cause(e)
        })?;
    }
    keep_rights()?;
    more_files();
    let Some((program, words)) = program.split_first() else {
        return Err(Error::usage("no program is named"));
    };
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    // Returns only if it fails.
    let e = Command::new(program).args(words).stdout(Stdio::from(log)).exec();
    Err(Error::failed(format!("cannot start `{}`", program.display())).cause(e))
}

/// A server makes each file as its owner in the guest. Whoever goes to root and back to another user loses
/// his capabilities, if nothing is done about it (capabilities(7), `SECBIT_NO_SETUID_FIXUP`).
fn keep_rights() -> io::Result<()> {
    let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    Ok(set_capabilities_secure_bits(bits)?)
}

/// Each name that a guest knows is an open file of its server.
fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    // With fewer the server works, too.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Makes the folder and all that is mounted in it read-only in this mount namespace.
fn seal(source: &Path) -> io::Result<()> {
    mount_bind_recursive(source, source)?;
    for (place, flags) in mounts::beneath(source)? {
        let sealed = mount_remount(&place, flags | MountFlags::BIND | MountFlags::RDONLY, "");
        // What counts is what a write would find there. A mount below another one has no name any more.
        match statvfs(&place) {
            Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => {}
            Err(Errno::NOENT) => {}
            Ok(_) => sealed.and(Err(Errno::ROFS))?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
