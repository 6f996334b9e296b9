//! Which member of an archive is the disk, and what else the archive says about it.
//!
//! Sources: DMTF DSP0243 (OVF 1.1 and later, section 5 "OVF Package"), Google Compute Engine's
//! documentation of image import (`disk.raw` in a tar.gz), Vagrant's documentation of box files.

use serde::Deserialize;

use super::compression::Compression;
use super::manifest;
use super::oci;
use super::tar::{self, Member};
use crate::error::{Error, Result};
use crate::image::container::source::Source;
use crate::image::container::vmdk;
use crate::image::container::{Format, Options, open_as, sniff};
use crate::image::{Limits, ReadAt as _};

/// Most names that a message lists.
const NAMED: usize = 8;
/// Longest `metadata.json` of a Vagrant box in bytes; real ones have some hundred.
const METADATA: u64 = 1 << 20;
/// Where an ISO 9660 volume has its mark (ECMA-119, 8.4: sector 16).
const ISO_MARK: (u64, &[u8]) = (16 * 2048 + 1, b"CD001");
/// What names of disk images end in; needed for disks that have no mark of their own.
const ENDINGS: [&str; 7] = [".raw", ".img", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi"];

/// The disk in an archive.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) member: String,
    /// What kind of archive it is.
    pub(super) kind: &'static str,
    pub(super) notes: Vec<String>,
}

/// The only disk of the archive `file`.
///
/// # Errors
/// Kind `Undetermined`: as [`tar::members`]; there is no disk or there are several; or a digest of
/// an OVA's manifest does not hold.
pub(super) fn disk(file: &Source, limits: &Limits) -> Result<Found> {
    let tar::Members { files: members, special } = tar::members(file, limits)?;
    if let Some((layer, kind)) = oci::layer(file, &members, limits)? {
        let (source, member) = (file.inside(&layer.name, layer.bytes.clone()), layer.name.clone());
        return Ok(Found { source, member, kind, notes: vec![] });
    }
    let metadata = metadata(file, &members)?;
    let ends = |ending: &str| members.iter().any(|member| member.name.ends_with(ending));
    let kind = match (&metadata, ends(".ovf")) {
        (Some(_), _) => "Vagrant box",
        (None, true) if ends("Vagrantfile") || ends("box.ovf") => "Vagrant box",
        (None, true) => "OVA",
        (None, false) => "tar archive",
    };
    // A plain archive can be one of a filesystem, with a disk in it; those two are for disks alone.
    if let (Some((what, name)), true) = (special.first(), kind != "tar archive") {
        return Err(Error::undetermined(format!("the {kind} `{}` holds a {what}", file.name()))
            .cause(format!("`{name}` is one, and a disk needs none"))
            .hint("Unpack it, look at what is in it, and use the disk image by itself."));
    }
    let mut disks = vec![];
    let mut others = vec![];
    let mut seeds = vec![];
    for member in &members {
        let source = file.inside(&member.name, member.bytes.clone());
        if looks_like_disk(&source, &member.name)? {
            disks.push((member, source));
        } else {
            others.push(member.name.as_str());
        }
    }
    let mut notes = vec![];
    if kind != "tar archive" {
        notes.extend(manifest::check(file, &members, limits)?);
    }
    // The descriptor of a VMDK in pieces, of which each alone is none.
    let descriptor = disks.iter().find(|(_, source)| is_descriptor(source).unwrap_or(false));
    if let Some((member, _)) = descriptor.filter(|_| disks.len() > 1) {
        return Err(Error::undetermined(format!(
            "the {kind} `{}` holds a VMDK in pieces, which is read from files alone",
            file.name()
        ))
        .hint(format!("Unpack all of it into one folder, and use `{}` there.", member.name)));
    }
    if disks.len() > 1 {
        // What a machine is told at its first boot can be on a disk of its own.
        let (cds, left): (Vec<_>, Vec<_>) =
            disks.into_iter().partition(|(_, source)| is_cd(source, limits));
        seeds.extend(cds.iter().map(|(member, _)| member.name.as_str()));
        disks = left;
    }
    if disks.len() > 1 {
        let names: Vec<_> = disks.iter().map(|(member, _)| member.name.as_str()).collect();
        return Err(Error::undetermined(format!(
            "the {kind} `{}` holds {} disks",
            file.name(),
            disks.len()
        ))
        .detail(list(&names))
        .hint("Unpack the one that you mean, and use it by itself."));
    }
    let Some((member, source)) = disks.pop() else {
        let followed = special
            .iter()
            .map(|(what, name)| format!("`{name}` is a {what}, which is not followed"));
        let error =
            Error::undetermined(format!("the {kind} `{}` holds no disk image", file.name()))
                .detail(if others.is_empty() {
                    "it holds no file".to_owned()
                } else {
                    list(&others)
                });
        return Err(followed
            .take(NAMED)
            .fold(error, Error::detail)
            .hint("Check that the file is the right one."));
    };
    if let Some(metadata) = &metadata {
        check_metadata(file, member, &seeds, &source, metadata)?;
        notes.extend(metadata.provider.as_ref().map(|provider| {
            format!("the Vagrant box is for the provider `{}`", provider.escape_debug())
        }));
    }
    let isos = others.iter().copied().filter(|name| name.ends_with(".iso"));
    let images: Vec<_> = isos.chain(seeds).collect();
    if !images.is_empty() {
        notes.push(format!("CD images of the archive are not looked at: {}", list(&images)));
    }
    Ok(Found { source, member: member.name.clone(), kind, notes })
}

/// Whether a member is a disk: by its content, or where a disk may have no mark by its name.
fn looks_like_disk(source: &Source, name: &str) -> Result<bool> {
    let (at, mark) = ISO_MARK;
    if source.read_up_to(at, mark.len())? == mark {
        return Ok(false);
    }
    let head = source.read_up_to(0, 1024)?;
    let sector =
        head.get(510..512) == Some(&[0x55, 0xaa]) || head.get(512..520) == Some(b"EFI PART");
    let lower = name.to_ascii_lowercase();
    let named = ENDINGS.iter().any(|ending| lower.ends_with(ending)) && source.size() > 0;
    let packed = Compression::of(&head).is_some()
        && ENDINGS.iter().any(|ending| lower.contains(&format!("{ending}.")));
    Ok(sector || named || packed || sniff::has_mark(source)?)
}

/// Whether a qcow2 holds a CD. Nothing but its header and one place in it are read.
fn is_cd(source: &Source, limits: &Limits) -> bool {
    let options = Options { limits: *limits, ..Options::default() };
    let (at, mark) = ISO_MARK;
    let mut found = vec![0; mark.len()];
    matches!(sniff::format_of(source), Ok(found) if found.format == Format::Qcow2)
        && open_as(source.clone(), Format::Qcow2, &options)
            .is_ok_and(|disk| disk.reader.read_at(&mut found, at).is_ok())
        && found == mark
}

/// Whether a disk is the text that names the files with its bytes.
fn is_descriptor(source: &Source) -> Result<bool> {
    let head = source.read_up_to(0, vmdk::MARK.len())?;
    Ok(head.eq_ignore_ascii_case(vmdk::MARK))
}

/// What a Vagrant box says about itself (version 2).
#[derive(Deserialize)]
struct Metadata {
    provider: Option<String>,
    /// The libvirt provider's name of the disk's format.
    format: Option<String>,
    /// The libvirt provider's disks, where there can be several.
    #[serde(default)]
    disks: Vec<DiskMetadata>,
}

#[derive(Deserialize)]
struct DiskMetadata {
    path: Option<String>,
    format: Option<String>,
}

fn metadata(file: &Source, members: &[Member]) -> Result<Option<Metadata>> {
    let Some(member) = members.iter().find(|member| member.name == "metadata.json") else {
        return Ok(None);
    };
    let bad = |why: String| {
        Error::undetermined(format!("`metadata.json` of `{}` cannot be read", file.name()))
            .cause(why)
            .hint("Fetch the box again, or unpack it and use the disk image inside.")
    };
    let size = member.bytes.size();
    if size > METADATA {
        return Err(bad(format!("it has {size} bytes; the limit is {METADATA} bytes")));
    }
    let text = file.inside(&member.name, member.bytes.clone()).read_up_to(0, METADATA as usize)?;
    serde_json::from_slice(&text).map(Some).map_err(|e| bad(e.to_string()))
}

/// What `metadata.json` says of the disk has to be so.
fn check_metadata(
    file: &Source,
    member: &Member,
    seeds: &[&str],
    disk: &Source,
    metadata: &Metadata,
) -> Result<()> {
    let wrong = |what: String| {
        Error::undetermined(what)
            .hint("Unpack it, look at the disk image inside, and use it by itself.")
    };
    let mut paths = metadata.disks.iter().filter_map(|disk| disk.path.as_deref());
    let elsewhere = paths.find(|path| {
        let path = path.strip_prefix("./").unwrap_or(path);
        path != member.name && !seeds.contains(&path)
    });
    if let Some(path) = elsewhere {
        return Err(wrong(format!(
            "`metadata.json` of `{}` names the disk `{}`, which is not there",
            file.name(),
            path.escape_debug()
        )));
    }
    let formats = metadata.disks.iter().map(|disk| &disk.format).chain([&metadata.format]);
    for said in formats.flatten() {
        if !is_format(disk, said)? {
            return Err(wrong(format!(
                "the disk in `{}` is not of the format `{}` that `metadata.json` claims",
                file.name(),
                said.escape_debug()
            )));
        }
    }
    Ok(())
}

/// Whether `disk` is of the format `said`. A raw disk whose guest wrote another format's mark, or
/// that of a layer, must not be read as that.
fn is_format(disk: &Source, said: &str) -> Result<bool> {
    let head = disk.read_up_to(0, tar::BLOCK)?;
    if Compression::of(&head).is_some() || tar::is_tar(&head) {
        return Ok(false);
    }
    if said == "raw" {
        return Ok(!sniff::has_mark(disk)?);
    }
    let format = sniff::format_of(disk).ok().map(|found| found.format);
    Ok(format.is_some_and(|format| [format.as_str(), format.qemu_driver()].contains(&said)))
}

/// Some of the names.
fn list(names: &[&str]) -> String {
    let mut text: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    if names.len() > NAMED {
        text.push(format!("and {} more", names.len() - NAMED));
    }
    text.join(", ")
}
