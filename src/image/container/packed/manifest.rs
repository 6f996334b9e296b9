//! The manifest of an OVA: digests of its members, which must hold (DSP0243, section 5.1: lines of
//! `SHA256(name)= hex`, in version 1 `SHA1(name)= hex`).

use std::collections::HashMap;

use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};

use super::tar::Member;
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::image::Limits;
use crate::image::container::source::Source;

/// Longest manifest in bytes: a line each for more members than an archive may have.
const LONGEST: u64 = 1 << 20;
/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

/// Checks the digests of all members that the manifest names, if there is one. Returns notes.
///
/// # Errors
/// Kind `Undetermined`: the manifest cannot be understood, names a member that is not there, or a
/// member has another digest.
pub(super) fn check(file: &Source, members: &[Member], limits: &Limits) -> Result<Vec<String>> {
    let mut notes = vec![];
    if members.iter().any(|member| member.name.ends_with(".cert")) {
        notes.push("the signature of the OVA is not checked".to_owned());
    }
    let by_name: HashMap<&str, &Member> = members.iter().map(|m| (m.name.as_str(), m)).collect();
    for manifest in members.iter().filter(|member| member.name.ends_with(".mf")) {
        let bad = |why: String| {
            Error::undetermined(format!("`{}` does not agree with its manifest", file.name()))
                .cause(why)
                .hint("Fetch the archive again, or unpack it and use the disk image by itself.")
        };
        let size = manifest.bytes.size();
        if size > LONGEST {
            return Err(bad(format!(
                "the manifest has {size} bytes; the limit is {LONGEST} bytes"
            )));
        }
        let source = file.inside(&manifest.name, manifest.bytes.clone());
        let text = source.read_up_to(0, LONGEST as usize)?;
        let text =
            String::from_utf8(text).map_err(|_| bad(format!("`{}` is not text", manifest.name)))?;
        // Names stand relative to the manifest.
        let folder = manifest.name.rfind('/').map_or("", |at| &manifest.name[..=at]);
        let mut checked = 0;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (algorithm, name, expected) = parse(line).ok_or_else(|| {
                bad(format!("a line is not understood: `{}`", line.escape_debug()))
            })?;
            let name = format!("{folder}{name}");
            let Some(member) = by_name.get(name.as_str()) else {
                return Err(bad(format!("it names `{}`, which is not there", name.escape_debug())));
            };
            let found = digest(member, algorithm, limits)?;
            if found != expected {
                return Err(bad(format!("`{name}` has another digest"))
                    .detail(format!("manifest: {expected}"))
                    .detail(format!("found:    {found}")));
            }
            checked += 1;
        }
        notes.push(format!("{checked} digests of the manifest `{}` hold", manifest.name));
    }
    Ok(notes)
}

/// `SHA256(name)= hex`, with spaces or without.
fn parse(line: &str) -> Option<(&'static Algorithm, &str, String)> {
    let (algorithm, rest) = line.split_once('(')?;
    let (name, digest) = rest.rsplit_once(')')?;
    let algorithm = match algorithm.trim().to_ascii_uppercase().as_str() {
        "SHA1" => &SHA1_FOR_LEGACY_USE_ONLY,
        "SHA256" => &SHA256,
        "SHA512" => &SHA512,
        _ => return None,
    };
    let digest = digest.trim_start().strip_prefix('=')?.trim().to_ascii_lowercase();
    let length = 2 * algorithm.output_len();
    (digest.len() == length && digest.bytes().all(|b| b.is_ascii_hexdigit()))
        .then_some((algorithm, name, digest))
}

fn digest(member: &Member, algorithm: &'static Algorithm, limits: &Limits) -> Result<String> {
    let mut context = Context::new(algorithm);
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    while at < member.bytes.size() {
        limits.check_time()?;
        let left = member.bytes.size() - at;
        let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        member.bytes.read_at(&mut buf[..len], at)?;
        context.update(&buf[..len]);
        at += len as u64;
    }
    Ok(hex(context.finish().as_ref()))
}
