//! How a `file` step puts files into a guest: owner, mode and time come from the spec, never from
//! the host.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;

use crate::error::Result;
use crate::exec::{quote, tools};

/// An owner by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Where a file goes: into the folder if `target` ends with `/`.
pub(super) fn target(source: &Path, target: &str) -> String {
    match source.file_name() {
        Some(name) if target.ends_with('/') => format!("{target}{}", name.to_string_lossy()),
        _ => target.to_owned(),
    }
}

/// The wished mode, or 0755 for an executable file and 0644 for another one.
pub(super) fn mode(source: &Path, wished: Option<u32>) -> Result<u32> {
    if let Some(mode) = wished {
        return Ok(mode);
    }
    let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
    Ok(if executable { 0o755 } else { 0o644 })
}

/// The script that takes a file's bytes on standard input. The file appears at once and whole.
pub(super) fn put_file(target: &str, mode: u32, ids: Ids, epoch: i64) -> String {
    let target = quote(OsStr::new(target));
    let Ids { uid, gid } = ids;
    format!(
        "set -eu; umask 022; t={target}; \
         if [ -d \"$t\" ]; then echo \"$t is a folder; end \\`target\\` with / to put the file into it\" >&2; exit 1; fi; \
         mkdir -p \"$(dirname \"$t\")\"; n=$t.devbox-new; rm -f \"$n\"; cat > \"$n\"; \
         chown {uid}:{gid} \"$n\"; chmod {mode:04o} \"$n\"; touch -d @{epoch} \"$n\"; mv -f \"$n\" \"$t\""
    )
}

/// The script that takes [`tar`]'s archive on standard input. The folder itself gets owner and mode
/// only if it is new, so that a folder of the system stays as it is.
pub(super) fn put_folder(target: &str, mode: Option<u32>, ids: Ids) -> String {
    let target = quote(OsStr::new(target));
    let Ids { uid, gid } = ids;
    let mode = mode.unwrap_or(0o755);
    format!(
        "set -eu; umask 022; t={target}; \
         if [ ! -d \"$t\" ]; then mkdir -p \"$t\"; chown {uid}:{gid} \"$t\"; chmod {mode:04o} \"$t\"; fi; \
         tar -x -p -f - -C \"$t\""
    )
}

/// Writes what is in `source` as an archive to standard output: folders and executable files 0755,
/// other files 0644.
pub(super) fn tar(source: &Path, ids: Ids, epoch: i64) -> Result<Command> {
    let mut names: Vec<_> =
        fs::read_dir(source)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.sort();
    let mut command = tools::TAR.command()?;
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
    command.args(["--create", "--file=-", "--format=gnu", "--sort=name", "--numeric-owner"]);
    // With a name in front, which is not stored: GNU tar 1.34 ignores the form `+0`.
    command.arg(format!("--owner=owner:{}", ids.uid)).arg(format!("--group=group:{}", ids.gid));
    command.arg("--mode=u=rwX,go=rX").arg(format!("--mtime=@{epoch}"));
    command.arg("--directory").arg(source).arg("--no-unquote");
    if names.is_empty() {
        command.args(["--files-from", "/dev/null"]);
    } else {
        command.arg("--").args(names);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn me() -> Ids {
        Ids { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    fn sh(script: &str, input: &Path) -> std::process::Output {
        let stdin = std::fs::File::open(input).expect("opens");
        Command::new("sh").arg("-c").arg(script).stdin(stdin).output().expect("runs")
    }

    #[test]
    fn a_file_gets_the_specs_mode_and_time_and_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let source = dir.path().join("source file");
        fs::write(&source, "new\n").expect("written");
        fs::set_permissions(&source, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        assert_eq!(mode(&source, None).expect("mode"), 0o644, "never the host's own");
        let path = dir.path().join("a b/it's");
        for _ in 0..2 {
            let script = put_file(&path.to_string_lossy(), 0o4750, me(), 1_000_000_000);
            let out = sh(&script, &source);
            assert!(out.status.success(), "{out:?}");
            let meta = fs::metadata(&path).expect("there");
            assert_eq!(meta.mode() & 0o7777, 0o4750);
            assert_eq!(meta.mtime(), 1_000_000_000);
            assert_eq!(fs::read(&path).expect("reads"), b"new\n");
        }
        let folder = put_file(&dir.path().to_string_lossy(), 0o644, me(), 0);
        let out = sh(&folder, &source);
        assert!(String::from_utf8_lossy(&out.stderr).contains("is a folder"), "{out:?}");
        assert_eq!(target(&source, "/etc/"), "/etc/source file");
    }

    #[test]
    fn an_archive_has_the_specs_owner_and_not_the_hosts() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("file"), "x").expect("written");
        for (uid, gid) in [(0, 0), (7, 0), (0, 7), (100_001, 100_002)] {
            let packed = tar(dir.path(), Ids { uid, gid }, 5).expect("tar");
            let archive = dir.path().with_extension("tar");
            fs::write(&archive, crate::exec::output(&mut { packed }).expect("packs"))
                .expect("written");
            let mut list = tools::TAR.command().expect("tar");
            list.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(&archive);
            let listed = crate::exec::output(&mut list).expect("lists");
            let listed = String::from_utf8_lossy(&listed).into_owned();
            fs::remove_file(&archive).expect("removed");
            assert!(listed.contains(&format!(" {uid}/{gid} ")), "{uid}:{gid} in {listed}");
        }
    }

    #[test]
    fn a_folder_is_put_with_fixed_modes_and_leaves_an_existing_one_as_it_is() {
        let dir = tempfile::tempdir().expect("folder");
        let (source, target) = (dir.path().join("s"), dir.path().join("t"));
        fs::create_dir_all(source.join("sub")).expect("made");
        fs::write(source.join("sub/-x"), "x").expect("written");
        fs::write(source.join("run"), "#!/bin/sh\n").expect("written");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        };
        mode(&source.join("run"), 0o700);
        mode(&source.join("sub"), 0o700);
        std::os::unix::fs::symlink("run", source.join("link")).expect("linked");
        fs::create_dir(&target).expect("made");
        mode(&target, 0o711);
        let archive = dir.path().join("tar");
        let out = crate::exec::output(&mut tar(&source, me(), 5).expect("tar")).expect("packs");
        fs::write(&archive, &out).expect("written");
        let again = crate::exec::output(&mut tar(&source, me(), 5).expect("tar")).expect("packs");
        assert_eq!(out, again);
        let result = sh(&put_folder(&target.to_string_lossy(), None, me()), &archive);
        assert!(result.status.success(), "{result:?}");
        let stat = |name: &str| {
            let meta = fs::symlink_metadata(target.join(name)).expect("there");
            (meta.mode() & 0o7777, meta.mtime())
        };
        assert_eq!(fs::metadata(&target).expect("there").mode() & 0o7777, 0o711);
        assert_eq!(stat("run"), (0o755, 5));
        assert_eq!(stat("sub/-x"), (0o644, 5));
        assert_eq!(stat("sub"), (0o755, 5));
        assert_eq!(fs::read_link(target.join("link")).expect("link").as_os_str(), "run");
        fs::remove_dir_all(&source).expect("removed");
        fs::create_dir(&source).expect("made");
        crate::exec::output(&mut tar(&source, me(), 5).expect("tar")).expect("an empty folder");
    }
}
