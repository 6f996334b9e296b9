//! The files that a descriptor names. They are opened only if they are plain files beside it: a
//! descriptor comes from outside, and must not make anybody read another file of this host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::error::{Error, Result};
use crate::image::container::raw::Raw;
use crate::image::container::source::Source;

/// Opens the file `name` beside the descriptor `image`.
pub(super) fn open(image: &Source, name: &Path) -> Result<Source> {
    let refused = |why: String| {
        let name = name.as_os_str().as_bytes().escape_ascii();
        Error::undetermined(format!("`{}` names a file `{name}`, which was not opened", image.name()))
            .cause(why)
            .hint("Join the disk into one file with `qemu-img convert -O qcow2`, if you trust it, and use the result.")
    };
    if !image.is_file() {
        return Err(refused("the descriptor itself is packed in another file".to_owned()));
    }
    plain(name.as_os_str()).map_err(|why| refused(why.to_owned()))?;
    if image.path().file_name() == Some(name.as_os_str()) {
        return Err(refused("it is the descriptor itself".to_owned()));
    }
    let path = image.path().parent().unwrap_or(Path::new("")).join(name);
    // Looked at before it is opened: opening alone can have effects, on a device or a pipe.
    let meta = std::fs::symlink_metadata(&path)
        .map_err(|e| refused(format!("it cannot be found: {e}")))?;
    if !meta.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    Ok(Source::from(Raw::open_no_link(&path)?))
}

/// A name without a folder, as every program writes it.
fn plain(name: &OsStr) -> Result<(), &'static str> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err("it is not a file name"),
        bytes if bytes.iter().any(|b| b"/\\\0".contains(b)) => Err("it is not in the same folder"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oracle::Memory;

    #[test]
    fn only_a_plain_file_in_the_same_folder_is_opened() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("in")).expect("mkdir");
        for name in ["in/disk.vmdk", "in/flat", "outside"] {
            std::fs::write(at(name), name).expect("write");
        }
        std::os::unix::fs::symlink(at("outside"), at("in/link")).expect("link");
        let image = Source::open(&at("in/disk.vmdk")).expect("open");
        let file = open(&image, Path::new("flat")).expect("beside");
        assert_eq!(file.path(), at("in/flat"));
        let absolute = at("in/flat");
        for name in [
            Path::new("../outside"),
            Path::new("..\\outside"),
            Path::new("./flat"),
            Path::new(""),
            Path::new("."),
            Path::new(".."),
            Path::new("link"),
            Path::new("missing"),
            Path::new("disk.vmdk"),
            Path::new("/dev/null"),
            &absolute,
        ] {
            let e = open(&image, name).map(|_| ()).expect_err("refused");
            assert!(e.what().contains("which was not opened"), "{e}");
        }
        let packed = image.inside("member", Memory::shared(vec![]));
        assert!(open(&packed, Path::new("flat")).is_err());
    }
}
