//! Whether what a place gives is what was asked for, by somebody who may say so: before anything of the disk moves, and without a
//! clock.

use semver::Version;
use ssh_key::PublicKey;

use super::{Demand, Policy, Rule};
use crate::attest::placed::{Placed, Predicate, Signed};
use crate::attest::sign::fingerprint;
use crate::digest::FileDigest;
use crate::error::{Error, Kind, Result};
use crate::registry::address::Address;
use crate::registry::manifest::Shipped;
use crate::spec::Wish;
use crate::store::{self, BoxConfig};

/// Most signatures that a message names.
const SHOWN: usize = 4;

/// What a place gives.
pub(in crate::registry) struct Given<'a> {
    /// What was asked for.
    pub(in crate::registry) address: &'a Address,
    /// SHA-256 of the manifest.
    pub(in crate::registry) manifest: FileDigest,
    /// The manifest.
    pub(in crate::registry) shipped: &'a Shipped,
    /// What the box says of itself.
    pub(in crate::registry) config: &'a BoxConfig,
    /// The signatures that are there.
    pub(in crate::registry) envelopes: &'a [Vec<u8>],
}

/// What is to be remembered once the box is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepts {
    /// Where it comes from: the place, and the architecture, each of which has versions of its own.
    pub line: String,
    /// The name by which it was asked for, if it is one that moves.
    pub channel: Option<String>,
    /// Its version.
    pub version: String,
}

impl Given<'_> {
    fn place(&self) -> String {
        self.address.place.names().into_iter().next().unwrap_or_default()
    }

    /// The place, and the architecture, each of which has versions of its own.
    pub(in crate::registry) fn line(&self) -> String {
        format!("{} {}", self.place(), self.config.arch)
    }

    /// What a signature of it says.
    pub(in crate::registry) fn placed(&self) -> Placed {
        Placed {
            manifest: self.manifest,
            of: Predicate {
                place: self.place(),
                name: self.config.name.clone(),
                version: self.config.version.clone(),
                arch: self.config.arch.clone(),
                config: self.shipped.config.digest,
                disk: self.shipped.disk,
            },
        }
    }

    /// Those of its signatures that are about this box, wherever it may be: they are kept with it.
    pub(in crate::registry) fn about_it(&self) -> Vec<Vec<u8>> {
        let expected = self.placed().of;
        let is_about = |text: &&Vec<u8>| {
            Signed::parse(text).is_ok_and(|signed| {
                let place = signed.placed.of.place.clone();
                signed.placed.of == Predicate { place, ..expected.clone() }
            })
        };
        self.envelopes.iter().filter(is_about).cloned().collect()
    }

    /// The keys that signed exactly this.
    pub(in crate::registry) fn signers(&self) -> Vec<PublicKey> {
        let expected = self.placed();
        let signed = self.envelopes.iter().filter_map(|text| Signed::parse(text).ok());
        let mut keys: Vec<PublicKey> = vec![];
        for key in signed.filter(|one| one.placed == expected).flat_map(|one| one.keys) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Whether a tag is a version, which never means another one.
#[must_use]
pub fn is_release_tag(tag: &str) -> bool {
    Version::parse(tag).is_ok()
}

impl Policy {
    /// Whether the box may be taken, as far as somebody demands something of this place; what is to be remembered then.
    ///
    /// # Errors
    /// Kind `Trust`: it is unsigned, signed by somebody else or as something else, another version than was asked for, or an
    /// older one than before.
    pub(in crate::registry) fn judge(
        &self,
        given: &Given<'_>,
        before: &store::Place,
    ) -> Result<Option<Accepts>> {
        if !self.covers(&given.address.place) {
            return Ok(None);
        }
        for demand in &self.demands {
            demand.judge(given)?;
        }
        let version = &given.config.version;
        if let Some(asked) = self.version(given)
            && asked != *version
        {
            return Err(refused(given, "is another version than was asked for")
                .detail(format!("expected: version {asked}"))
                .detail(format!("found:    version {version}, in the manifest {}", given.manifest))
                .hint("Somebody moved the tag of a version; ask who keeps the place, and do not use the box."));
        }
        self.refuse_older(given, before)?;
        Ok(Some(Accepts {
            line: given.line(),
            channel: self.channel(given).map(str::to_owned),
            version: version.clone(),
        }))
    }

    /// The version that was asked for, if it was one.
    fn version(&self, given: &Given<'_>) -> Option<String> {
        match &self.wish {
            Some(Wish::Exact(version)) => Some(version.to_string()),
            Some(_) => None,
            None => given.address.tag().filter(|tag| is_release_tag(tag)).map(str::to_owned),
        }
    }

    /// The name that moves by which it was asked for.
    fn channel<'a>(&'a self, given: &'a Given<'_>) -> Option<&'a str> {
        match &self.wish {
            Some(Wish::Channel(channel)) => Some(channel),
            Some(_) => None,
            None => given.address.tag().filter(|tag| !is_release_tag(tag)),
        }
    }

    /// Refuses what a channel or a range gives that is older than what it gave before.
    fn refuse_older(&self, given: &Given<'_>, before: &store::Place) -> Result<()> {
        let version = &given.config.version;
        let Ok(found) = Version::parse(version) else { return Ok(()) };
        let mut newest = None;
        if let Some(channel) = self.channel(given) {
            let last = before.channels.get(channel).and_then(|last| Version::parse(last).ok());
            newest = last.map(|last| (last, format!("the channel `{channel}`")));
        }
        if let Some(Wish::Range(range)) = &self.wish {
            let known = before.versions.iter().filter_map(|one| Version::parse(one).ok());
            let best = known.filter(|one| range.matches(one)).max();
            newest = best.map(|best| (best, format!("the range `{range}`")));
        }
        match newest {
            Some((newest, by)) if found < newest && !self.allow_downgrade => {
                Err(refused(given, "is older than what came from there before")
                    .detail(format!("expected: version {newest} or a newer one, as {by} gave it"))
                    .detail(format!("found:    version {version}, in the manifest {}", given.manifest))
                    .hint(format!("If it was taken back on purpose, give `devbox box pull --allow-downgrade`, or ask for the version `{version}` itself.")))
            }
            _ => Ok(()),
        }
    }
}

/// Why a signature is not good enough; what comes later is nearer to a good one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Unsigned,
    Damaged(String),
    OtherKey(Vec<String>),
    OtherThing(String),
}

impl Demand {
    fn judge(&self, given: &Given<'_>) -> Result<()> {
        let place = &given.address.place;
        let rules: Vec<&Rule> = self.rules_for(place).collect();
        if rules.is_empty() {
            if !self.required {
                return Ok(());
            }
            return Err(refused(given, "comes from a place that nobody may sign for")
                .detail(format!(
                    "expected: a rule of `trust` in `{}` for `{}`",
                    self.from,
                    given.place()
                ))
                .detail("found:    none, and `trust.required` stands there")
                .hint(format!(
                    "Add the place and the key of who signs for it to `trust.rules` in `{}`.",
                    self.from
                )));
        }
        let expected = given.placed();
        let mut reason = Reason::Unsigned;
        for text in given.envelopes {
            let found = match Signed::parse(text) {
                Err(e) => Reason::Damaged([&[e.what().to_owned()], e.causes()].concat().join(": ")),
                Ok(signed) if !signed.keys.iter().any(|key| may(&rules, key)) => {
                    Reason::OtherKey(signed.keys.iter().map(fingerprint).collect())
                }
                Ok(signed) if signed.placed == expected => return Ok(()),
                Ok(signed) => Reason::OtherThing(said(&signed.placed)),
            };
            reason = match (reason, found) {
                (Reason::OtherKey(mut all), Reason::OtherKey(more)) => {
                    all.extend(more);
                    Reason::OtherKey(all)
                }
                (reason, found) => reason.max(found),
            };
        }
        Err(self.why(given, &rules, &expected, reason))
    }

    fn why(&self, given: &Given<'_>, rules: &[&Rule], expected: &Placed, reason: Reason) -> Error {
        let mut keys: Vec<String> =
            rules.iter().flat_map(|rule| &rule.keys).map(ToString::to_string).collect();
        keys.sort();
        keys.dedup();
        let keys = if keys.is_empty() { "nobody".to_owned() } else { keys.join(" or ") };
        let wanted = format!("expected: signed by {keys}, as `{}` demands it", self.from);
        let sign = format!(
            "Have it signed with `devbox box sign {}@{} --key KEYFILE` by somebody who may.",
            given.address.place, given.manifest
        );
        match reason {
            Reason::Unsigned => refused(given, "is not signed")
                .detail(wanted)
                .detail(format!("found:    no signature of the manifest {}", given.manifest))
                .hint(sign),
            Reason::Damaged(why) => refused(given, "has a signature that does not hold")
                .detail(wanted)
                .detail(format!("found:    {why}"))
                .hint(sign),
            Reason::OtherKey(mut found) => {
                found.sort();
                found.dedup();
                let more = found.len().saturating_sub(SHOWN);
                found.truncate(SHOWN);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                refused(given, "is signed by a key that is not trusted for it")
                    .detail(wanted)
                    .detail(format!("found:    signed by {}{more}", found.join(", ")))
                    .hint(format!("If you know whose key it is, add it to `trust.rules` in `{}`; else do not use the box.", self.from))
            }
            Reason::OtherThing(found) => refused(given, "is signed as something else")
                .detail(format!("expected: {}", said(expected)))
                .detail(format!("found:    {found}"))
                .hint("Somebody moved the signature or the box; ask who keeps the place, and do not use the box."),
        }
    }
}

fn may(rules: &[&Rule], key: &PublicKey) -> bool {
    let id = fingerprint(key);
    rules.iter().flat_map(|rule| &rule.keys).any(|key| key.fingerprint == id)
}

fn said(placed: &Placed) -> String {
    let of = &placed.of;
    format!("{} for {} at {}, manifest {}", of.reference(), of.arch, of.place, placed.manifest)
}

fn refused(given: &Given<'_>, what: &str) -> Error {
    Error::new(Kind::Trust, format!("`{}` {what}", given.address))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
