//! `[parity]`: what may differ between the developers' image and the clouds'.

use crate::spec::grammar;
use crate::spec::shape::Presence::{Default, Required};
use crate::spec::shape::{Key, Shape, Table};

/// Levels at which files are compared.
static LEVELS: &[&str] = &["content", "tree"];

keys! {
    /// `parity`.
    PARITY: "parity", Shape::Table(&PARITY_TABLE), Default("nothing may differ"), "What `devbox parity` compares, and what may differ; no part of the image.";
    /// `parity.require`.
    PARITY_REQUIRE: "require", Shape::Choice(LEVELS), Default("content"), "The level at which both sides must match.";
    /// `parity.delta`.
    DELTAS: "delta", Shape::List(&DELTAS_TABLE), Default("none"), "What is different on purpose, each with its reason.";
    /// `parity.delta.only`.
    DELTA_ONLY: "only", Shape::Choice(&["dev", "cloud"]), Required, "The side that differs from what both share: `dev` is the first one of `devbox parity`, `cloud` the second.";
    /// `parity.delta.op`.
    DELTA_OP: "op", Shape::Choice(&["add", "remove", "replace", "meta", "subtree", "package"]), Required, "`add`: this side alone has the path. `remove`: the other alone has it. `replace`: this side has another file there. `meta`: another mode or owner. `subtree`: this side alone has a folder with all below it. `package`: this side alone has a package.";
    /// `parity.delta.path`.
    DELTA_PATH: "path", Shape::Text(&grammar::GUEST_PATH), Default("none; needed unless `op` is `package`"), "The path in the image.";
    /// `parity.delta.file`.
    DELTA_FILE: "file", Shape::Text(&grammar::HOST_PATH), Default("for `add`: a folder, or what `link` says"), "The file that stands there on this side, beside devbox.toml: its bytes are the pin.";
    /// `parity.delta.link`.
    DELTA_LINK: "link", Shape::Text(&grammar::TITLE), Default("none"), "The target of the symbolic link that stands there on this side.";
    /// `parity.delta.mode`.
    DELTA_MODE: "mode", Shape::Text(&grammar::MODE), Default("0644, for folders 0755"), "Its permission bits on this side.";
    /// `parity.delta.uid`.
    DELTA_UID: "uid", Shape::Integer(0, 4_294_967_294), Default("0"), "Its owner on this side.";
    /// `parity.delta.gid`.
    DELTA_GID: "gid", Shape::Integer(0, 4_294_967_294), Default("0"), "Its group on this side.";
    /// `parity.delta.base`.
    DELTA_BASE: "base", Shape::Text(&grammar::TITLE), Default("none; needed for `remove`, `replace` and `meta`"), "What stands there on the other side: `sha256:` and the digest of the file; for `meta` its mode and owner, as in \"0644 0:0\".";
    /// `parity.delta.tree`.
    DELTA_TREE: "tree", Shape::Text(&grammar::TREE_DIGEST), Default("none; needed for `subtree`"), "The digest of the folder on this side; a comparison that fails for want of it says which one it found.";
    /// `parity.delta.package`.
    DELTA_PACKAGE: "package", Shape::Text(&grammar::PINNED_PACKAGE), Default("none; needed for `package`"), "The package with its version. Covered are the files in its list, if they have the packages' own checksums, and its records.";
    /// `parity.delta.protected`.
    DELTA_PROTECTED: "protected", Shape::Boolean, Default("false"), "Say that you mean it: needed for what boots, programs, libraries, PAM, setuid files and `ld.so.preload`.";
    /// `parity.delta.why`.
    DELTA_WHY: "why", Shape::Text(&grammar::TITLE), Required, "The reason, for whoever reads the report.";
    /// `parity.delta.until`.
    DELTA_UNTIL: "until", Shape::Text(&grammar::DATE), Default("no end"), "The last day (UTC) on which it holds.";
}

/// `[parity]`.
pub static PARITY_TABLE: Table = Table {
    path: "parity",
    about: "What may differ between the developers' image and the clouds', and nothing else: what is not declared, declared in vain or other than declared makes them different.",
    keys: &[&PARITY_REQUIRE, &DELTAS],
};

/// `[[parity.delta]]`.
pub static DELTAS_TABLE: Table = Table {
    path: "parity.delta",
    about: "One difference that is meant.",
    keys: &[
        &DELTA_ONLY,
        &DELTA_OP,
        &DELTA_PATH,
        &DELTA_FILE,
        &DELTA_LINK,
        &DELTA_MODE,
        &DELTA_UID,
        &DELTA_GID,
        &DELTA_BASE,
        &DELTA_TREE,
        &DELTA_PACKAGE,
        &DELTA_PROTECTED,
        &DELTA_WHY,
        &DELTA_UNTIL,
    ],
};
