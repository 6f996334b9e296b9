//! Files and folders of the host, as they stand in `spec1`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use crate::digest::{FileDigest, Sha256};
use crate::error::{Error, Result};

/// Everything below a folder, sorted by the bytes of the path.
pub(super) fn entries(folder: &Path) -> Result<Vec<Value>> {
    let mut all: Vec<(Vec<u8>, Value)> = vec![];
    // The folder itself may be a link; what lies in it is taken as it is.
    for entry in walkdir::WalkDir::new(folder).min_depth(1).follow_links(false) {
        let entry = entry.map_err(|e| {
            Error::failed(format!("cannot read the folder `{}`", folder.display())).cause(e)
        })?;
        let path = entry.path();
        let relative = path.strip_prefix(folder).unwrap_or(path).as_os_str().as_encoded_bytes();
        let name = escaped(relative);
        let kind = entry.file_type();
        let value = if kind.is_dir() {
            json!(["d", name])
        } else if kind.is_file() {
            json!(["f", name, executable(path)?, file(path)?])
        } else if kind.is_symlink() {
            json!(["l", name, escaped(fs::read_link(path)?.as_os_str().as_encoded_bytes())])
        } else {
            return Err(Error::failed(format!("`{}` is no file, folder or link", path.display()))
                .hint("Remove it from the folder; only these can be put into a guest."));
        };
        all.push((relative.to_owned(), value));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all.into_iter().map(|(_, value)| value).collect())
}

/// Whether a `file` step makes it 0755 rather than 0644: any of the three bits counts.
#[cfg(unix)]
pub(super) fn executable(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

/// Elsewhere nothing tells, and a guess would give another digest than on Linux.
#[cfg(not(unix))]
pub(super) fn executable(path: &Path) -> Result<bool> {
    Err(Error::failed(format!(
        "whether `{}` is executable is not known on this system",
        path.display()
    ))
    .hint("Build this spec on Linux."))
}

pub(super) fn file(path: &Path) -> Result<FileDigest> {
    // One read of this size keeps the hash busy; more does not make it faster.
    const PIECE: usize = 256 << 10;
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(FileDigest::from_bytes(hash.finish())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Bytes as ASCII: everything outside 0x20 to 0x7e, and the backslash, as `\xhh`.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        if (0x20..0x7f).contains(&b) && b != b'\\' {
            out.push(char::from(b));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}
