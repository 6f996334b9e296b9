//! `[source]` with `type = "box"`.

use std::path::Path;

use semver::VersionReq;

use crate::digest::FileDigest;
use crate::spec::decode::place;
use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::reader::{Collector, Reader};
use crate::spec::types::{BoxPlace, BoxSource, Wish};

pub(super) fn boxed(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<BoxSource> {
    let from = table.text(&keys::BOX_FROM, c);
    let version = table.text(&keys::BOX_VERSION, c);
    let channel = table.text(&keys::BOX_CHANNEL, c);
    let digest: Option<FileDigest> = from
        .as_ref()
        .and_then(|at| at.value.split_once('@'))
        .and_then(|(_, digest)| digest.parse().ok());
    let several = [version.is_some(), channel.is_some(), digest.is_some()];
    if several.iter().filter(|there| **there).count() > 1 {
        let at = table.at();
        let what = "the source says twice which box it means";
        c.report(&at.path, at.span, what).hint =
            Some("Keep one of `version`, `channel` and `@sha256:…` behind `box`.".to_owned());
    }
    let from = from?.value;
    let from = from.split_once('@').map_or(&*from, |(from, _)| from);
    let from = match from.contains(':') {
        true => BoxPlace::At(place(from, dir)),
        false => BoxPlace::Store(from.to_owned()),
    };
    if let (BoxPlace::Store(_), Some(at)) = (&from, &channel) {
        let what = "a box of your own store has no channels";
        c.report(&at.path, at.span.clone(), what).hint =
            Some("Write `version`, or name a registry in `box`.".to_owned());
    }
    let wish = match (digest, channel, version) {
        (Some(digest), ..) => Wish::Digest(digest),
        (_, Some(at), _) => Wish::Channel(at.value),
        (_, _, Some(at)) => match Wish::version(&at.value) {
            Ok(wish) => wish,
            Err(why) => {
                let what =
                    format!("`{}` is neither a version nor a range: {why}", shown(&at.value));
                c.report(&at.path, at.span, what).hint =
                    Some("Write a version such as `1.2.0`, or a range such as `^1.2`.".to_owned());
                return None;
            }
        },
        _ => Wish::Range(VersionReq::STAR),
    };
    Some(BoxSource { from, wish, pinned: None })
}
