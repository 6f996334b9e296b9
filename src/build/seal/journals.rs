//! Empties the journals of a disk whose guest is down. What a clean shutdown leaves in one are old transactions, in other
//! places and another order with each build: nobody reads them, each version of a box would move them, and copies of
//! what a filesystem no longer holds may be among them. The kernel does the same for `EXT4_IOC_CHECKPOINT` with
//! `EXT4_IOC_CHECKPOINT_FLAG_ZEROOUT` (Documentation/filesystems/ext4, "Journal"), which a guest has no program for.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::image::container::Container;
use crate::image::disk::Disk;
use crate::image::slice::{Whole, joined};
use crate::image::{Limits, ReadAt};

/// A disk with zeros where old transactions are.
pub(in crate::build) struct Emptied {
    disk: Arc<dyn ReadAt>,
    /// In order and apart from each other.
    zeros: Vec<Range<u64>>,
}

impl Emptied {
    /// The disk in `container`. A journal that has something to replay, or that is not read here, stays as it is.
    pub(in crate::build) fn new(container: Container) -> Self {
        let disk = container.reader.clone();
        Emptied { zeros: spent(container).unwrap_or_default(), disk }
    }

    /// Where zeros are read in place of what the disk holds.
    pub(in crate::build) fn zeros(&self) -> &[Range<u64>] {
        &self.zeros
    }

    /// The ranges that end behind `at`.
    fn from(&self, at: u64) -> &[Range<u64>] {
        &self.zeros[self.zeros.partition_point(|range| range.end <= at)..]
    }
}

/// The places on the disk.
fn spent(mut container: Container) -> Result<Vec<Range<u64>>> {
    container.reader = Arc::new(Whole(container.reader));
    let disk = Disk::read(container, &Limits::default())?;
    let mut found = vec![];
    for at in disk.filesystems() {
        for range in at.filesystem.spent().unwrap_or_default() {
            found.extend(at.reader.on_disk(range).into_iter().flatten());
        }
    }
    Ok(joined(found))
}

impl ReadAt for Emptied {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        for range in self.from(offset).iter().take_while(|range| range.start < end) {
            // Both are inside of `buf`.
            let within = range.start.max(offset) - offset..range.end.min(end) - offset;
            buf[within.start as usize..within.end as usize].fill(0);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let mut at = offset;
        while let Some(data) = self.disk.next_data(at)? {
            let start = data.start.max(at);
            match self.from(start).first() {
                Some(zeros) if zeros.start <= start => at = zeros.end,
                Some(zeros) => return Ok(Some(start..data.end.min(zeros.start))),
                None => return Ok(Some(start..data.end)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::image::container::{self, Format};
    use crate::image::oracle::{Memory, Numbers, mount, patchwork, run, tool};

    #[test]
    fn zeros_are_read_where_they_are_and_the_disk_everywhere_else() {
        let mut numbers = Numbers::new(41);
        let bytes = patchwork(1 << 20, 9);
        for _ in 0..50 {
            let mut expected = bytes.clone();
            let ranges = (0..numbers.below(6)).map(|_| {
                let start = numbers.below(1 << 20);
                start..start + numbers.below((1 << 20) - start) / 8
            });
            let zeros = joined(ranges.filter(|range| !range.is_empty()).collect());
            for range in &zeros {
                expected[range.start as usize..range.end as usize].fill(0);
            }
            let emptied = Emptied { disk: Arc::new(Memory(bytes.clone())), zeros: zeros.clone() };
            for _ in 0..50 {
                let start = numbers.below(1 << 20);
                let mut read = vec![7; numbers.below((1 << 20) - start) as usize];
                emptied.read_at(&mut read, start).expect("inside");
                assert!(read == expected[start as usize..][..read.len()], "{start}: {zeros:?}");
            }
            // What no data is said to be in is zeros, and what is emptied is not data.
            let (mut at, mut covered) = (0, vec![0; 1 << 20]);
            while let Some(data) = emptied.next_data(at).expect("a map") {
                assert!(at <= data.start && data.start < data.end, "{data:?} after {at}");
                assert!(zeros.iter().all(|zero| zero.end <= data.start || data.end <= zero.start));
                let within = data.start as usize..data.end as usize;
                covered[within.clone()].copy_from_slice(&expected[within]);
                at = data.end;
            }
            assert!(covered == expected, "{zeros:?}");
        }
    }

    /// A disk of one partition with an ext4 that a kernel wrote to and left cleanly.
    fn used(folder: &Path) -> Option<()> {
        let [mke2fs, sfdisk] = ["mke2fs", "sfdisk"].map(|name| tool(name, "emptied journals"));
        let (mke2fs, sfdisk) = (mke2fs?, sfdisk?);
        run(folder, &mke2fs, &["-q", "-t", "ext4", "-b", "4096", "-J", "size=4", "part", "60M"]);
        let point = folder.join("point");
        std::fs::create_dir(&point).expect("a folder");
        let mounted = mount(&["-o", "loop"], &folder.join("part"), &point);
        if !mounted.status.success() {
            assert!(!rustix::process::getuid().is_root(), "mount failed: {mounted:?}");
            return None;
        }
        let mounted = crate::image::oracle::Mount(point.clone());
        for number in 0..300 {
            std::fs::write(point.join(format!("file {number}")), [number as u8; 9000]).expect("it");
        }
        drop(mounted);
        std::fs::write(folder.join("table"), "label: gpt\nstart=2048, size=122880\n").expect("it");
        std::fs::write(folder.join("disk"), vec![0; 64 << 20]).expect("it");
        let table = std::fs::File::open(folder.join("table")).expect("it");
        let made = Command::new(sfdisk).arg("-q").arg(folder.join("disk")).stdin(table).status();
        assert!(made.is_ok_and(|status| status.success()));
        let part = std::fs::read(folder.join("part")).expect("it");
        write_at(&folder.join("disk"), &part, 1 << 20);
        Some(())
    }

    fn write_at(path: &Path, bytes: &[u8], at: u64) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(path).expect("it opens");
        file.write_all_at(bytes, at).expect("it is written");
    }

    fn opened(path: &Path) -> Container {
        let options =
            container::Options { format: Some(Format::Raw), ..container::Options::default() };
        container::open(path, &options).expect("it opens")
    }

    #[test]
    fn a_journal_that_a_kernel_wrote_is_emptied_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let Some(()) = used(folder) else { return };
        let disk = folder.join("disk");
        let before = Disk::read(opened(&disk), &Limits::default()).expect("it reads");
        let content = |disk: &Disk| {
            crate::parity::content::Content::read(disk).expect("it is hashed").digest()
        };
        let was = content(&before);

        let emptied = Emptied::new(opened(&disk));
        let zeros = emptied.zeros().to_vec();
        let length: u64 = zeros.iter().map(|range| range.end - range.start).sum();
        assert_eq!(length, (4 << 20) - 4096, "all but its superblock: {zeros:?}");
        let bytes = std::fs::read(&disk).expect("it");
        let held = zeros.iter().any(|zero| {
            bytes[zero.start as usize..zero.end as usize].iter().any(|byte| *byte != 0)
        });
        assert!(held, "the kernel wrote nothing into its journal");

        let mut now = vec![0; bytes.len()];
        emptied.read_at(&mut now, 0).expect("it reads");
        std::fs::write(&disk, &now).expect("it");
        let after = Disk::read(opened(&disk), &Limits::default()).expect("it reads");
        assert_eq!(content(&after), was);
        // By the filesystem's own checker, and by the kernel, which goes on with it.
        std::fs::write(folder.join("part"), &now[1 << 20..][..60 << 20]).expect("it");
        let e2fsck = tool("e2fsck", "emptied journals").expect("it comes with mke2fs");
        run(folder, &e2fsck, &["-f", "-n", "part"]);
        let point = folder.join("point");
        let mounted = mount(&["-o", "loop"], &folder.join("part"), &point);
        assert!(mounted.status.success(), "{mounted:?}");
        let mounted = crate::image::oracle::Mount(point.clone());
        assert_eq!(std::fs::read(point.join("file 77")).expect("it"), [77; 9000]);
        std::fs::write(point.join("more"), "more").expect("it");
        drop(mounted);
        run(folder, &e2fsck, &["-f", "-n", "part"]);
    }

    #[test]
    fn a_disk_that_cannot_be_read_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, patchwork(1 << 20, 3)).expect("it");
        assert!(Emptied::new(opened(&path)).zeros().is_empty());
    }
}
