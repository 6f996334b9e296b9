//! `[trust]`: which boxes are taken from where.

use crate::spec::grammar;
use crate::spec::shape::Presence::{Default, Required};
use crate::spec::shape::{Key, Shape, Table};

keys! {
    /// `trust`.
    TRUST: "trust", Shape::Table(&TRUST_TABLE), Default("boxes need no signature"), "Who has to have signed the boxes that are pulled; no part of the image. It stands in a person's own `config.toml` too, and both hold.";
    /// `trust.required`.
    TRUST_REQUIRED: "required", Shape::Boolean, Default("false"), "Whether a box from a place that no rule covers is refused; else it needs no signature.";
    /// `trust.rules`.
    TRUST_RULES: "rules", Shape::List(&TRUST_RULES_TABLE), Default("none"), "Places and the keys that sign for them. Where several rules cover a place, the keys of all of them may.";
    /// `trust.rules.names`.
    TRUST_NAMES: "names", Shape::Set(&Shape::Text(&grammar::BOX_PATTERN)), Required, "Addresses of places without tags; `*` stands for any characters, `/` too, and `?` for one.";
    /// `trust.rules.keys`.
    TRUST_KEYS: "keys", Shape::Set(&Shape::Text(&grammar::SIGNER)), Required, "Keys one of which has to have signed. Without any, nothing is taken from there.";
}

/// `[trust]`.
pub static TRUST_TABLE: Table = Table {
    path: "trust",
    about: "Boxes are pulled from the places below only if one of the keys has signed them as what they are: place, name, version and architecture. See [trust](trust.md).",
    keys: &[&TRUST_REQUIRED, &TRUST_RULES],
};

/// `[[trust.rules]]`.
pub static TRUST_RULES_TABLE: Table = Table {
    path: "trust.rules",
    about: "Who signs for some places.",
    keys: &[&TRUST_NAMES, &TRUST_KEYS],
};
