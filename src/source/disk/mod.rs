//! A root tree in, a bootable disk out: no root, no mount, no loop device, no boot loader's
//! installer, and the same bytes each time.

mod esp;
mod ext4;
pub mod gpt;
mod grub;
mod layout;
mod loader;
pub(crate) mod preflight;
pub mod scratch;

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

pub use self::layout::{Ids, Layout, SECTOR, ids};
pub use self::loader::Loader;
use self::scratch::Scratch;
use crate::error::{Error, Result};

/// Bytes copied at a time; runs of zeros of this length stay holes.
const COPY: usize = 64 << 10;

/// Makes a bootable raw disk at `out` (which must not exist) from the root tree in `root_tar`.
///
/// The tree brings its kernel and a `/boot/grub/grub.cfg`; GRUB finds it by the UUID of the root
/// filesystem, [`Ids::root`]. The disk boots by UEFI, and on amd64 by BIOS too. The same tar, layout and versions
/// of the host's tools give the same bytes.
///
/// # Errors
/// A tool is missing, the tree does not fit (the message names the size that it needs), the host's
/// disk is full, or `cancel` was cancelled. Then there is no file at `out`.
pub async fn assemble(
    root_tar: &Path,
    out: &Path,
    layout: &Layout,
    cancel: &CancellationToken,
) -> Result<()> {
    layout.check()?;
    preflight::assembly(layout.arch, layout.loader)?;
    let scratch = Scratch::new()?;
    scratch::prove(&scratch, cancel).await?;
    assemble_in(&scratch, root_tar, out, layout, cancel).await
}

/// As [`assemble`], in a scratch folder that the caller has.
pub(crate) async fn assemble_in(
    scratch: &Scratch,
    root_tar: &Path,
    out: &Path,
    layout: &Layout,
    cancel: &CancellationToken,
) -> Result<()> {
    let ids = layout.ids();
    let root = ext4::make(layout, root_tar, scratch, cancel).await?;
    let efi = loader::files(layout, root_tar, scratch, cancel).await?;
    let esp = esp::make(layout, &efi, scratch, cancel).await?;
    let mut table =
        gpt::table(layout.size / SECTOR, layout.seed.uuid("disk"), &layout.partitions());
    let mut core = vec![];
    if layout.has_bios() {
        let bios = grub::bios(ids.root, layout.bios_boot(), scratch, cancel).await?;
        table.head[..bios.code.len()].copy_from_slice(&bios.code);
        core = bios.core;
    }
    let parts = Parts { table, core, esp, root };
    let (layout, target) = (layout.clone(), out.to_owned());
    let write = tokio::task::spawn_blocking(move || parts.write(&layout, &target));
    let written =
        write.await.map_err(|e| Error::failed("writing the disk ended early").cause(e))?;
    if written.is_err() {
        let _ = fs::remove_file(out);
    }
    written
}

/// All that goes onto a disk.
struct Parts {
    table: gpt::Table,
    core: Vec<u8>,
    esp: std::path::PathBuf,
    root: std::path::PathBuf,
}

impl Parts {
    fn write(&self, layout: &Layout, out: &Path) -> Result<()> {
        let mut disk = fs::File::create_new(out)?;
        disk.set_len(layout.size)?;
        disk.write_all(&self.table.head)?;
        disk.seek(SeekFrom::Start(layout.bios_boot().offset))?;
        disk.write_all(&self.core)?;
        copy_sparse(&self.esp, &mut disk, layout.esp().offset)?;
        copy_sparse(&self.root, &mut disk, layout.root().offset)?;
        disk.seek(SeekFrom::Start(self.table.tail_offset))?;
        disk.write_all(&self.table.tail)?;
        disk.sync_all()?;
        Ok(())
    }
}

/// Copies a file to `offset` of the disk. Holes and zeros stay holes.
fn copy_sparse(from: &Path, disk: &mut fs::File, offset: u64) -> Result<()> {
    let mut from = fs::File::open(from)?;
    let size = from.metadata()?.len();
    let mut buf = vec![0; COPY];
    let mut at = 0;
    while at < size {
        // Skips holes where the filesystem knows them.
        at = match rustix::fs::seek(from.file(), rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data - data % COPY as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        from.seek(SeekFrom::Start(at))?;
        let want = usize::try_from(size - at).map_or(COPY, |left| left.min(COPY));
        from.read_exact(&mut buf[..want])?;
        if buf[..want].iter().any(|&b| b != 0) {
            disk.seek(SeekFrom::Start(offset + at))?;
            disk.write_all(&buf[..want])?;
        }
        at += want as u64;
    }
    Ok(())
}
