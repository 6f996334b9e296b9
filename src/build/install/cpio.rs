//! Writes an archive that Linux unpacks behind its initial RAM disk: cpio, the form `newc` (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

use crate::error::{Error, Result};

const FILE: u32 = 0o100_644;
const FOLDER: u32 = 0o040_755;

/// These files by their paths, with the folders that they lie in. The same bytes for the same files.
pub(super) fn archive(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let folders: BTreeSet<&str> = files
        .iter()
        .flat_map(|(path, _)| path.match_indices('/').map(|(end, _)| &path[..end]))
        .collect();
    let mut out = vec![];
    let mut inode = 1;
    for folder in folders {
        entry(&mut out, inode, folder, FOLDER, &[])?;
        inode += 1;
    }
    for (path, bytes) in files {
        entry(&mut out, inode, path, FILE, bytes)?;
        inode += 1;
    }
    entry(&mut out, 0, "TRAILER!!!", 0, &[])?;
    Ok(out)
}

fn entry(out: &mut Vec<u8>, inode: u32, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let large = |_| Error::failed(format!("`{path}` is too large for an initial RAM disk"));
    let size = u32::try_from(bytes.len()).map_err(large)?;
    let name = u32::try_from(path.len() + 1).map_err(large)?;
    let links = if mode == FOLDER { 2 } else { 1 };
    // Inode, mode, owner, group, links, time, size, device, device of a special file, length of the name, sum.
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn another_reader_finds_folders_and_files() {
        let files = [
            ("preseed.cfg".to_owned(), b"d-i\n".to_vec()),
            ("a/b/c".to_owned(), b"12345".to_vec()),
        ];
        let bytes = archive(&files).expect("made");
        assert_eq!(bytes, archive(&files).expect("made"));
        let dir = tempfile::tempdir().expect("dir");
        let mut cpio = Command::new("cpio");
        cpio.args(["-i", "--quiet"]).current_dir(dir.path()).stdin(Stdio::piped());
        let Ok(mut child) = cpio.spawn() else {
            let _ = writeln!(std::io::stderr(), "not run: a cpio archive: `cpio` is not installed");
            return;
        };
        child.stdin.take().expect("piped").write_all(&bytes).expect("written");
        assert!(child.wait().expect("ends").success());
        for (path, bytes) in files {
            assert_eq!(std::fs::read(dir.path().join(path)).expect("unpacked"), bytes);
        }
    }
}
