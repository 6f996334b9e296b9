//! What can be wrong with an XFS filesystem, in the words a user meets.

use std::fmt::Display;

use crate::error::Error;
use crate::image::limits::Limit;

/// `object` contradicts itself or its checksum.
pub(super) fn damaged(object: impl Display, why: impl Display) -> Error {
    Error::undetermined(format!("{object} of the XFS filesystem is damaged"))
        .cause(why)
        .hint("Make the image again, or run `xfs_repair -n` on a copy of it to see what is wrong.")
}

/// A feature of the format that is not read here.
pub(super) fn unsupported(feature: impl Display) -> Error {
    Error::undetermined(format!("the XFS filesystem has the feature `{feature}`"))
        .cause("devbox does not read filesystems with this feature")
        .hint("Make the filesystem without it, or hash it mounted, with `--root`.")
}

/// A bound for hostile input was reached that the user can move.
pub(super) fn limit(limit: Limit, what: impl Display, most: impl Display) -> Error {
    beyond(what, most).hint(limit.hint())
}

/// A bound for hostile input was reached that nobody can move.
pub(super) fn fixed_limit(what: impl Display, most: impl Display) -> Error {
    beyond(what, most).hint("Check where the image comes from, and make it smaller.")
}

fn beyond(what: impl Display, most: impl Display) -> Error {
    Error::undetermined(format!("the XFS filesystem has more than {most} {what}"))
        .cause("this is the limit that protects devbox from hostile images")
}
