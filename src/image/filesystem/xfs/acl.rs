//! POSIX ACLs: XFS stores them in SGI's form; programs see the v2 attribute form.
//!
//! Linux, fs/xfs/libxfs/xfs_format.h `struct xfs_acl` and fs/xfs/xfs_acl.c `xfs_acl_from_disk`.

use super::field::Fields as _;
use crate::error::{Error, Result};
use crate::image::filesystem::posix_acl::{self, Entry, NO_ID};

/// Bytes before the entries, and of an entry.
const HEADER: usize = 4;
const ENTRY: usize = 12;

/// The attribute form of an ACL in SGI's form, entries by tag and id.
///
/// # Errors
/// Why the value is none.
pub(super) fn to_xattr(disk: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::undetermined("it has a bad access control list");
    let count = disk.u32_at(0).map_err(|_| bad())? as usize;
    let (entries, rest) = disk.get(HEADER..).unwrap_or_default().as_chunks::<ENTRY>();
    if entries.len() != count || !rest.is_empty() {
        return Err(bad());
    }
    let entries = entries.iter().map(|entry| {
        let tag = u16::try_from(entry.u32_at(0)?).map_err(|_| bad())?;
        let id = if posix_acl::has_id(tag).ok_or_else(bad)? { entry.u32_at(4)? } else { NO_ID };
        Ok(Entry { tag, id, permissions: entry.u16_at(8)? })
    });
    Ok(posix_acl::to_xattr(entries.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(entries: &[(u32, u32, u16)]) -> Vec<u8> {
        let mut disk = (entries.len() as u32).to_be_bytes().to_vec();
        for (tag, id, permissions) in entries {
            disk.extend(tag.to_be_bytes());
            disk.extend(id.to_be_bytes());
            disk.extend(permissions.to_be_bytes());
            disk.extend([0, 0]);
        }
        disk
    }

    #[test]
    fn an_acl_gets_the_order_and_ids_of_the_attribute_form() {
        let xattr = to_xattr(&disk(&[(1, 0, 6), (2, 1001, 4), (2, 7, 5), (4, 0, 4), (0x20, 0, 0)]));
        let xattr = xattr.unwrap();
        assert_eq!(xattr.len(), 4 + 5 * 8);
        assert_eq!(xattr[..4], [2, 0, 0, 0]);
        assert_eq!(xattr[4..12], [1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(xattr[12..20], [2, 0, 5, 0, 7, 0, 0, 0]);
        assert_eq!(xattr[20..28], [2, 0, 4, 0, 0xe9, 3, 0, 0]);
    }

    #[test]
    fn an_unknown_tag_and_a_wrong_count_are_refused() {
        assert!(to_xattr(&disk(&[(3, 0, 6)])).is_err());
        assert!(to_xattr(&disk(&[(0x1_0001, 0, 6)])).is_err());
        assert!(to_xattr(&disk(&[(1, 0, 6)])[..12]).is_err());
        assert!(to_xattr(&[0, 0, 0, 1]).is_err());
        assert!(to_xattr(&[0]).is_err());
    }
}
