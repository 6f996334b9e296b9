//! Where in an image's own file the bytes of its disk stand.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Place, Qcow2, open};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::container::source::Source;
use crate::image::container::{Container, Format, Options};

/// A disk whose [`ReadAt::on_disk`] tells places in the file that holds it.
struct Placed(Qcow2);

impl ReadAt for Placed {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.0.next_data(offset)
    }

    /// `None` if a part of it is not in the file as it is.
    fn on_disk(&self, range: Range<u64>) -> Option<Vec<Range<u64>>> {
        let mut places: Vec<Range<u64>> = vec![];
        let mut at = range.start;
        while at < range.end {
            let (place, end) = self.0.run(at, range.end).ok()?;
            let Place::Data(host) = place else { return None };
            let host = host..host.checked_add(end - at)?;
            match places.last_mut() {
                Some(last) if last.end == host.start => last.end = host.end,
                _ => places.push(host),
            }
            at = end;
        }
        Some(places)
    }
}

/// Opens the image at `path`, which must be whole in itself, as a container whose reader tells by
/// [`ReadAt::on_disk`] where in the file a part of the disk stands.
///
/// # Errors
/// As [`crate::image::container::open`].
pub fn placed(path: &Path, options: &Options) -> Result<Container> {
    let opened = open(Source::open(path)?, options)?;
    Ok(Container {
        path: path.to_path_buf(),
        format: Format::Qcow2,
        wrapping: None,
        reader: Arc::new(Placed(opened.reader)),
        notes: opened.notes,
        files: vec![],
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::image::oracle::{run, tool};

    #[test]
    fn bytes_of_the_disk_are_found_in_the_file() {
        let Some(qemu) = tool("qemu-img", "places in a qcow2") else { return };
        let dir = tempfile::tempdir().expect("folder");
        let raw = std::fs::File::create(dir.path().join("raw")).expect("file");
        raw.set_len(4 << 20).expect("size");
        raw.write_all_at(&[7; 100_000], 1 << 20).expect("written");
        raw.write_all_at(b"here", 3 << 20).expect("written");
        run(dir.path(), &qemu, &["convert", "-f", "raw", "-O", "qcow2", "raw", "q"]);
        let path = dir.path().join("q");
        let disk = placed(&path, &Options::default()).expect("opens").reader;
        let file = std::fs::read(&path).expect("read");
        let places = disk.on_disk(3 << 20..(3 << 20) + 4).expect("it is there");
        let [place] = &places[..] else { panic!("{places:?}") };
        assert_eq!(&file[place.start as usize..place.end as usize], b"here");
        let places = disk.on_disk(1 << 20..(1 << 20) + 100_000).expect("it is there");
        let bytes = places.iter().flat_map(|p| &file[p.start as usize..p.end as usize]);
        assert_eq!(bytes.filter(|b| **b == 7).count(), 100_000);
        assert_eq!(disk.on_disk(0..512), None, "zeros are nowhere");
        assert_eq!(disk.on_disk((1 << 20) - 1..1 << 20 | 1), None);
    }
}
