//! What can be wrong with a btrfs filesystem, in the words a user meets.

use std::fmt::Display;

use crate::error::Error;
use crate::image::limits::Limit;

/// `object` contradicts itself or its checksum.
pub(super) fn damaged(object: impl Display, why: impl Display) -> Error {
    Error::undetermined(format!("{object} of the btrfs filesystem is damaged")).cause(why).hint(
        "Make the image again, or run `btrfs check --readonly` on a copy of it to see what is wrong.",
    )
}

/// `object` does not have the checksum that is stored for it.
pub(super) fn checksum(object: impl Display) -> Error {
    damaged(object, "its checksum does not hold")
}

/// A feature of the format that is not read here.
pub(super) fn unsupported(feature: impl Display) -> Error {
    Error::undetermined(format!("the btrfs filesystem uses {feature}"))
        .cause("devbox does not read btrfs filesystems that use it")
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
    Error::undetermined(format!("the btrfs filesystem has more than {most} {what}"))
        .cause("this is the limit that protects devbox from hostile images")
}
