//! Which extended attributes belong to a file's identity, and their canonical values.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// What an attribute's key means for identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Hashed as it is.
    Covered,
    /// Hashed after conversion to the kernel's version 2 form.
    Acl,
    /// Hashed; version 3 without a namespace becomes version 2.
    Capability,
    /// Bound to one inode, or about storage and not about what is stored: left out.
    LeftOut,
    /// Not known: an error.
    Unknown,
}

fn class(key: &[u8]) -> Class {
    match key {
        b"security.capability" => Class::Capability,
        b"security.selinux" | b"security.ima" => Class::Covered,
        // Bound to the inode; how btrfs is to pack what is written later.
        b"security.evm" | b"btrfs.compression" => Class::LeftOut,
        b"system.posix_acl_access" | b"system.posix_acl_default" => Class::Acl,
        _ if key.starts_with(b"trusted.overlay.") => Class::Unknown,
        _ if key.starts_with(b"user.") || key.starts_with(b"trusted.") => Class::Covered,
        _ => Class::Unknown,
    }
}

/// An extended attribute: full key, value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The attributes that are hashed, canonical and sorted by key.
///
/// # Errors
/// An attribute that is not on the list, is there twice, or is damaged; the message names its key.
pub fn canonical(mut xattrs: Vec<Xattr>) -> Result<Vec<Xattr>> {
    if xattrs.is_empty() {
        return Ok(xattrs);
    }
    xattrs.retain(|(key, _)| class(key) != Class::LeftOut);
    xattrs.sort();
    if let Some(pair) = xattrs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::undetermined(format!(
            "attribute `{}` is there twice",
            show(&pair[0].0)
        )));
    }
    for (key, value) in &mut xattrs {
        match class(key) {
            Class::Covered | Class::LeftOut => {}
            Class::Capability => {
                if let Cow::Owned(converted) = capability(value) {
                    *value = converted;
                }
            }
            Class::Acl => {
                *value = acl(value).ok_or_else(|| {
                    Error::undetermined(format!("attribute `{}` is not an ACL", show(key)))
                })?;
            }
            Class::Unknown => {
                return Err(Error::undetermined(format!(
                    "attribute `{}` has no rule in the digest",
                    show(key)
                ))
                .hint("Remove the attribute if the image does not need it."));
            }
        }
    }
    Ok(xattrs)
}

fn show(key: &[u8]) -> String {
    super::spelling::spell(key)
}

/// Version 3 with root id 0 as version 2, as the kernel reports it (`vfs_cap_data` in
/// `linux/capability.h`, security/commoncap.c).
fn capability(value: &[u8]) -> Cow<'_, [u8]> {
    const REVISION_MASK: u32 = 0xff00_0000;
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    let Some((magic, rest)) = value.split_first_chunk::<4>() else { return Cow::Borrowed(value) };
    let magic = u32::from_le_bytes(*magic);
    match rest.split_last_chunk::<4>() {
        Some((sets, [0, 0, 0, 0])) if value.len() == 24 && magic & REVISION_MASK == REVISION_3 => {
            let magic = magic & !REVISION_MASK | REVISION_2;
            Cow::Owned([&magic.to_le_bytes(), sets].concat())
        }
        _ => Cow::Borrowed(value),
    }
}

/// One ACL entry, in the order of the canonical form.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AclEntry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// `ACL_USER` and `ACL_GROUP` (`linux/posix_acl.h`): the tags that name somebody.
const NAMED: [u16; 2] = [0x02, 0x08];
/// All tags: owner, user, owning group, group, mask, other.
const TAGS: [u16; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];
/// The id of entries that name nobody (`ACL_UNDEFINED_ID`).
const NO_ID: u32 = 0xffff_ffff;

/// The canonical version 2 form (`linux/posix_acl_xattr.h`) of an ACL in that form or in ext4's own
/// (version 1, fs/ext4/acl.h: ids only where the tag names somebody). `None` if it is neither.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = value.split_first_chunk::<4>()?;
    let version = u32::from_le_bytes(*version);
    if !matches!(version, 1 | 2) {
        return None;
    }
    let mut entries = vec![];
    while !rest.is_empty() {
        let (tag, tail) = rest.split_first_chunk::<2>()?;
        let (permissions, tail) = tail.split_first_chunk::<2>()?;
        let tag = u16::from_le_bytes(*tag);
        let named = NAMED.contains(&tag);
        let (id, tail) = if version == 2 || named {
            let (id, tail) = tail.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*id), tail)
        } else {
            (NO_ID, tail)
        };
        if !TAGS.contains(&tag) {
            return None;
        }
        let id = if named { id } else { NO_ID };
        entries.push(AclEntry { tag, id, permissions: u16::from_le_bytes(*permissions) });
        rest = tail;
    }
    entries.sort();
    let mut out = 2u32.to_le_bytes().to_vec();
    for entry in entries {
        out.extend_from_slice(&entry.tag.to_le_bytes());
        out.extend_from_slice(&entry.permissions.to_le_bytes());
        out.extend_from_slice(&entry.id.to_le_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &[u8])]) -> Vec<Xattr> {
        list.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.to_vec())).collect()
    }

    #[test]
    fn unknown_attributes_are_errors_that_name_the_key() {
        for key in ["security.SMACK64", "trusted.overlay.opaque", "system.nfs4_acl", "btrfs.x"] {
            let e = canonical(pairs(&[("user.a", b"1"), (key, b"")])).expect_err(key);
            assert!(e.what().contains(key), "{e}");
        }
    }

    #[test]
    fn evm_and_btrfs_compression_are_left_out_and_the_rest_is_sorted() {
        let left_out: [(&str, &[u8]); 2] = [("security.evm", b"x"), ("btrfs.compression", b"lzo")];
        let got = canonical(pairs(&[("user.b", b"2"), left_out[0], left_out[1], ("user.a", b"1")]));
        assert_eq!(got.expect("known"), pairs(&[("user.a", b"1"), ("user.b", b"2")]));
    }

    #[test]
    fn a_capability_is_converted_only_without_a_namespace() {
        let v3 = |root: u8| [&[1, 0, 0, 3, 0, 0x20][..], &[0; 14], &[root, 0, 0, 0]].concat();
        let v2 = [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
        assert_eq!(capability(&v3(0)), v2);
        assert_eq!(capability(&v3(7)), v3(7));
        assert_eq!(capability(&v2), v2);
    }

    #[test]
    fn both_forms_of_an_acl_and_any_order_give_one() {
        // user::rw-, user:1000:r--, user:5:rw-, group::r--, mask::rw-, other::---
        let ext4 = [
            &[1, 0, 0, 0, 1, 0, 6, 0][..],
            &[2, 0, 4, 0, 0xe8, 3, 0, 0],
            &[2, 0, 6, 0, 5, 0, 0, 0],
            &[4, 0, 4, 0, 0x10, 0, 6, 0, 0x20, 0, 0, 0],
        ]
        .concat();
        let entry =
            |tag: u8, perm: u8, id: u32| [&[tag, 0, perm, 0][..], &id.to_le_bytes()[..]].concat();
        let sorted = [
            vec![2, 0, 0, 0],
            entry(1, 6, NO_ID),
            entry(2, 6, 5),
            entry(2, 4, 1000),
            entry(4, 4, NO_ID),
            entry(16, 6, NO_ID),
            entry(32, 0, NO_ID),
        ]
        .concat();
        let shuffled = [
            vec![2, 0, 0, 0],
            entry(32, 0, 0),
            entry(2, 4, 1000),
            entry(1, 6, 0),
            entry(16, 6, 0),
            entry(2, 6, 5),
            entry(4, 4, 0),
        ]
        .concat();
        for form in [&ext4, &sorted, &shuffled] {
            assert_eq!(acl(form), Some(sorted.clone()));
        }
        assert_eq!(acl(&ext4[..ext4.len() - 1]), None);
        assert_eq!(acl(&[3, 0, 0, 0]), None);
    }
}
