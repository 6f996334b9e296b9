//! POSIX ACLs in the form that programs see, whatever a filesystem stores.
//!
//! Linux, include/uapi/linux/posix_acl_xattr.h.

const VERSION: u32 = 2;
const USER: u16 = 2;
const GROUP: u16 = 8;
/// The other tags: owner, owning group, mask, others. These have no id.
const WITHOUT_ID: [u16; 4] = [1, 4, 0x10, 0x20];
/// What stands in place of an id.
pub(super) const NO_ID: u32 = !0;

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) tag: u16,
    pub(super) id: u32,
    pub(super) permissions: u16,
}

/// Whether entries with `tag` name somebody; `None` for a tag that is none.
pub(super) fn has_id(tag: u16) -> Option<bool> {
    match tag {
        USER | GROUP => Some(true),
        _ => WITHOUT_ID.contains(&tag).then_some(false),
    }
}

/// The attribute form, entries by tag and id.
pub(super) fn to_xattr(mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_unstable();
    let mut out = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        out.extend(entry.tag.to_le_bytes());
        out.extend(entry.permissions.to_le_bytes());
        out.extend(entry.id.to_le_bytes());
    }
    out
}
