//! Targets whose input is an image: a base of `bases/` with changes.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::checks::{self, limits};
use super::whole;
use crate::error::Result;
use crate::image::container::source::Source;
use crate::image::container::{self, Options};
use crate::image::filesystem::{btrfs, ext4, vfat, xfs};
use crate::image::limits::Limits;
use crate::image::{ReadAt, lvm, partition};
use crate::input::Input;
use crate::mutate::{self, Numbers, Places};
use crate::sparse::Sparse;
use crate::trace::Traced;

/// Bytes that a packed disk may have. What may be unpacked before a limit ends it, 4 GiB of zeros, takes
/// seconds by itself, and instrumented, beside other work, more than an input has.
const UNPACKED: u64 = 256 << 20;

/// A parser of images and the images it starts from.
pub struct Images {
    /// The name of the target, and of its folder in `bases/`.
    name: &'static str,
    read: fn(Arc<dyn ReadAt>) -> Result<()>,
    bases: OnceLock<Vec<Base>>,
}

struct Base {
    image: Sparse,
    read: Vec<Range<u64>>,
}

macro_rules! targets {
    ($($(#[$doc:meta])* $static:ident = $name:literal, $read:expr;)+) => {
        $($(#[$doc])*
        pub static $static: Images = Images { name: $name, read: $read, bases: OnceLock::new() };)+

        /// All of them, by name.
        pub static IMAGES: &[&Images] = &[$(&$static),+];
    };
}

targets! {
    /// qcow2: header, tables, compressed clusters.
    QCOW2 = "qcow2", |reader| disk(reader, &limits());
    /// VMDK, all kinds in one file.
    VMDK = "vmdk", |reader| disk(reader, &limits());
    /// VHD.
    VHD = "vhd", |reader| disk(reader, &limits());
    /// VHDX with its log.
    VHDX = "vhdx", |reader| disk(reader, &limits());
    /// gzip, xz, zstd and tar around a disk.
    PACKED = "packed", |reader| disk(reader, &Limits { disk_size: UNPACKED, ..limits() });
    /// GPT and MBR.
    PARTITION = "partition", |reader| {
        let table = partition::read(&*reader)?;
        for part in &table.partitions {
            assert!(part.length > 0 && part.start + part.length <= reader.size());
            part.reader(&reader)?;
        }
        for gap in &table.gap {
            assert!(gap.start < gap.end && gap.end <= reader.size());
        }
        assert!(table.records.iter().all(|at| at + 512 <= reader.size()));
        Ok(())
    };
    /// ext2, ext3, ext4 with their journal.
    EXT4 = "ext4", |reader| {
        ext4::probe(&*reader)?;
        checks::filesystem(&ext4::Ext4::open(reader, &limits())?)
    };
    /// XFS with its log.
    XFS = "xfs", |reader| {
        xfs::probe(&*reader)?;
        checks::filesystem(&xfs::Xfs::open(reader, &limits())?)
    };
    /// btrfs.
    BTRFS = "btrfs", |reader| {
        btrfs::probe(&*reader)?;
        checks::filesystem(&btrfs::Btrfs::open(reader, &limits())?)
    };
    /// One physical volume of LVM2.
    LVM = "lvm", |reader| {
        let Some(found) = lvm::physical(&reader)? else { return Ok(()) };
        let (groups, _) = lvm::assemble(&[found])?;
        groups.iter().flat_map(|group| &group.volumes).try_for_each(|v| checks::reader(&*v.reader))
    };
    /// FAT12, FAT16, FAT32.
    VFAT = "vfat", |reader| {
        vfat::probe(&*reader)?;
        checks::filesystem(&vfat::Vfat::open(reader, &limits())?)
    };
    /// A whole disk, from its container to its digest.
    IMAGE = "image", whole::read;
}

/// A container of any format, found by its content.
fn disk(reader: Arc<dyn ReadAt>, limits: &Limits) -> Result<()> {
    let options = Options { limits: *limits, ..Options::default() };
    let container = container::open_source(Source::memory(reader), &options)?;
    checks::reader(&*container.reader)
}

impl Images {
    /// The target's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Reads an image as the parser does.
    ///
    /// # Errors
    /// The parser's.
    pub fn read(&self, image: Arc<dyn ReadAt>) -> Result<()> {
        (self.read)(image)
    }

    /// Runs one input.
    pub fn run(&self, data: &[u8]) {
        let input = Input::parse(data);
        let image = input.apply(&self.base(input.base).image);
        if let Err(e) = self.read(Arc::new(image)) {
            checks::error(&e);
        }
    }

    /// Mutates the first `size` bytes of `data`, and says how many bytes the result has.
    pub fn mutate(&self, data: &mut [u8], size: usize, max: usize, seed: u32) -> usize {
        let mut input = Input::parse(&data[..size]);
        let base = self.base(input.base);
        let bytes = |at: u64, len: usize| {
            let len = base.image.size().saturating_sub(at).min(len as u64);
            let mut bytes = vec![0; len as usize];
            base.image.read_at(&mut bytes, at).map_or_else(|_| vec![0], |()| bytes)
        };
        let places = Places { size: base.image.size(), read: &base.read, bytes: &bytes };
        mutate::mutate(&mut input, &places, &mut Numbers::new(seed), &mut |bytes| {
            let len = bytes.len();
            bytes.resize(len + 8, 0);
            let now = libfuzzer_sys::fuzzer_mutate(bytes, len, len + 8);
            bytes.truncate(now);
        });
        let mut out = input.write();
        while out.len() > max && input.changes.pop().is_some() {
            out = input.write();
        }
        data[..out.len()].copy_from_slice(&out);
        out.len()
    }

    fn base(&self, number: u8) -> &Base {
        let bases = self.bases.get_or_init(|| self.load());
        &bases[usize::from(number) % bases.len()]
    }

    /// The bases in the order of their names. Each is read once, to see what the parser looks at; if it
    /// refuses one, as a feature that is not read yet, it says so.
    fn load(&self) -> Vec<Base> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bases").join(self.name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.expect("a folder that can be listed").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no base", folder.display());
        let load = |file: &std::path::PathBuf| {
            let image = fs::read(file).and_then(|bytes| Sparse::unpack(&bytes));
            let image = image.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let traced = Arc::new(Traced::new(Arc::new(image.clone())));
            if let Err(e) = self.read(traced.clone()) {
                eprintln!("{} is refused: {e}", file.display());
            }
            Base { image, read: traced.ranges() }
        };
        files.iter().map(load).collect()
    }
}
