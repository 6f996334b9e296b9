//! Reads a sealed disk and proves that it is sealed: each value of the seal's table, no file time
//! after the epoch, a clean journal, a maker of host keys, a guest agent where it is the only way in, the build's key and the host's mirror in
//! no file, and no secret of the steps anywhere on the disk.

mod agent;
mod findings;
mod table;
mod volume;

pub use findings::{Finding, Findings};

use volume::Volume;

use super::{Values, planted};
use crate::build::seed;
use crate::build::steps::secrets::Trace;
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::disk::Disk;

/// What is known of a disk that should be sealed.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Seconds since 1970 UTC that no file time may be later than.
    epoch: Option<i64>,
    /// The name in `/etc/hostname`.
    hostname: Option<&'a str>,
    /// Whether the guest agent is the only way into a machine of the image.
    by_agent: bool,
    /// The build's account.
    user: &'a str,
    /// What the build alone knows, which must be in no file.
    keys: &'a [String],
    forbidden: &'a [String],
    secrets: &'a [Trace],
}

impl<'a> Expected<'a> {
    /// Of an image that somebody hands over: what the build alone knew is not looked for.
    #[must_use]
    pub fn of_image(epoch: Option<i64>, hostname: Option<&'a str>, by_agent: bool) -> Self {
        let (keys, forbidden, secrets) = (&[], &[], &[]);
        Expected { epoch, hostname, by_agent, user: seed::USER, keys, forbidden, secrets }
    }
}

impl<'a> From<&'a Values> for Expected<'a> {
    fn from(values: &'a Values) -> Self {
        Expected {
            epoch: Some(values.epoch),
            hostname: Some(&values.hostname),
            by_agent: values.by_agent,
            user: &values.user,
            keys: &values.keys,
            forbidden: &values.forbidden,
            secrets: &values.secrets,
        }
    }
}

/// Checks the disk of a build.
///
/// # Errors
/// The disk cannot be read, or it is not sealed: every finding is named, up to a dozen.
pub fn check(disk: &Disk, values: &Values) -> Result<()> {
    look(disk, &values.into())?.verdict()
}

/// What of a disk is not as a seal leaves it.
///
/// # Errors
/// The disk cannot be read.
pub fn look(disk: &Disk, expected: &Expected<'_>) -> Result<Findings> {
    let mut found = Findings::default();
    let mut roots = 0;
    for at in disk.filesystems() {
        let fs = at.filesystem;
        if fs.identity().kind.starts_with("ext") && !cleanly_unmounted(&**at.reader)? {
            found.add("end", format!("{} was not cleanly unmounted", at.holder));
        }
        let tree = fs.tree()?;
        let volume = Volume::new(&**fs, &tree)?;
        volume.everywhere(expected, fs.identity().kind, &mut found)?;
        if volume.is_root() {
            roots += 1;
            volume.root(expected, &mut found)?;
        }
    }
    if roots == 0 {
        found.add("begin", "no filesystem has an /etc/passwd");
    }
    planted::search(&*disk.container.reader, expected.secrets, &mut found)?;
    Ok(found)
}

/// Whether an ext filesystem's journal is empty and its state clean (kernel documentation,
/// "ext4 Data Structures and Algorithms", section "Super Block").
fn cleanly_unmounted(reader: &dyn ReadAt) -> Result<bool> {
    const NEEDS_RECOVERY: u8 = 0x4;
    const CLEAN: u8 = 0x1;
    let mut superblock = [0; 0x64];
    reader.read_at(&mut superblock, 1024)?;
    Ok(superblock[0x60] & NEEDS_RECOVERY == 0 && superblock[0x3a] & CLEAN != 0)
}
