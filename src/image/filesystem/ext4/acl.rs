//! POSIX ACLs: ext4 stores them in a private short form; programs see the v2 attribute form.
//!
//! Kernel, fs/ext4/acl.c `ext4_acl_from_disk`.

use super::field::Fields;
use crate::error::{Error, Result};
use crate::image::filesystem::posix_acl::{self, Entry, NO_ID};

const DISK_VERSION: u32 = 1;

/// The attribute form of an ACL in ext4's form, entries by tag and id.
///
/// # Errors
/// Why the value is none.
pub(super) fn to_xattr(disk: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::undetermined("it has a bad access control list");
    if disk.u32_at(0).map_err(|_| bad())? != DISK_VERSION {
        return Err(bad());
    }
    let mut entries = Vec::new();
    let mut at = 4;
    while at < disk.len() {
        let tag = disk.u16_at(at).map_err(|_| bad())?;
        let permissions = disk.u16_at(at + 2).map_err(|_| bad())?;
        let id = if posix_acl::has_id(tag).ok_or_else(bad)? {
            at += 4;
            disk.u32_at(at).map_err(|_| bad())?
        } else {
            NO_ID
        };
        at += 4;
        entries.push(Entry { tag, id, permissions });
    }
    Ok(posix_acl::to_xattr(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_gets_ids_and_order() {
        let mut disk = 1u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (1u16, 6u16, None),
            (2, 4, Some(1001u32)),
            (2, 5, Some(7)),
            (4, 4, None),
            (0x20, 0, None),
        ] {
            disk.extend(tag.to_le_bytes());
            disk.extend(permissions.to_le_bytes());
            disk.extend(id.iter().flat_map(|id: &u32| id.to_le_bytes()));
        }
        let xattr = to_xattr(&disk).unwrap();
        assert_eq!(xattr.len(), 4 + 5 * 8);
        assert_eq!(xattr[..4], [2, 0, 0, 0]);
        assert_eq!(xattr[4..12], [1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(xattr[12..20], [2, 0, 5, 0, 7, 0, 0, 0]);
        assert_eq!(xattr[20..28], [2, 0, 4, 0, 0xe9, 3, 0, 0]);
    }

    #[test]
    fn another_version_an_unknown_tag_and_a_cut_entry_are_refused() {
        assert!(to_xattr(&[2, 0, 0, 0]).is_err());
        assert!(to_xattr(&[1, 0, 0, 0, 3, 0, 0, 0]).is_err());
        assert!(to_xattr(&[1, 0, 0, 0, 2, 0, 0, 0, 1]).is_err());
        assert!(to_xattr(&[1]).is_err());
    }
}
