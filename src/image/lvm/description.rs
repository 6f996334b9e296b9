//! A group's metadata in types: what is where, nothing read yet.

use std::collections::{HashMap, HashSet};

use super::text::{self, Section, Value, bad};
use super::{label, unsupported};
use crate::error::Result;

/// A group as its metadata has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) uuid: String,
    /// Grows with every change.
    pub(super) sequence: u64,
    /// Sectors in an extent.
    pub(super) extent: u64,
    /// Whether it was taken out of use on its host (`vgexport`).
    pub(super) exported: bool,
    pub(super) physical: Vec<Place>,
    pub(super) volumes: Vec<Volume>,
}

/// Where a physical volume keeps its extents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its name inside the metadata (`pv0`).
    pub(super) name: String,
    pub(super) uuid: String,
    /// First sector of the first extent.
    pub(super) start: u64,
    /// Number of extents.
    pub(super) count: u64,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) segments: Vec<Segment>,
}

/// A stretch of a volume that is laid out in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Extents.
    pub(super) count: u64,
    /// Sectors in a stripe; 0 where there is one stripe alone.
    pub(super) stripe: u64,
    /// Index into [`Description::physical`] and first extent there, one a stripe.
    pub(super) areas: Vec<(usize, u64)>,
}

/// Index into [`Description::physical`] by the name inside the metadata.
type Places = HashMap<Vec<u8>, usize>;

/// Reads a group's text.
///
/// # Errors
/// Kind `Undetermined`: damage, or a volume of a kind that is not read here, by name.
pub(super) fn parse(raw: &[u8]) -> Result<Description> {
    let all = text::parse(raw)?;
    if all.text("contents")? != b"Text Format Volume Group" || all.number("version")? != 1 {
        return Err(bad("it is not a volume group of version 1"));
    }
    let [(name, group)] = &all.sections[..] else {
        return Err(bad("it describes other than one group"));
    };
    if let Some(format) = group.text("format").ok().filter(|format| *format != b"lvm2") {
        return Err(unsupported(format_args!("format {}", format.escape_ascii())));
    }
    let extent = group.number("extent_size")?;
    if extent == 0 {
        return Err(bad("an extent has 0 sectors"));
    }
    let mut description = Description {
        name: (*name).to_owned(),
        uuid: uuid(group)?,
        sequence: group.number("seqno")?,
        extent,
        exported: has_flag(group, b"EXPORTED")?,
        physical: vec![],
        volumes: vec![],
    };
    for (name, place) in group.section("physical_volumes").iter().flat_map(|s| &s.sections) {
        let name = (*name).to_owned();
        let (start, count) = (place.number("pe_start")?, place.number("pe_count")?);
        description.physical.push(Place { name, uuid: uuid(place)?, start, count });
    }
    let name_of = |(i, place): (usize, &Place)| (place.name.clone().into_bytes(), i);
    let places: Places = description.physical.iter().enumerate().map(name_of).collect();
    let uuids: HashSet<_> = description.physical.iter().map(|place| &place.uuid).collect();
    if uuids.len() != description.physical.len() {
        return Err(bad("two physical volumes have one id"));
    }
    for (name, volume) in group.section("logical_volumes").iter().flat_map(|s| &s.sections) {
        let volume = description.volume(name, volume, &places)?;
        description.volumes.push(volume);
    }
    Ok(description)
}

fn uuid(section: &Section<'_>) -> Result<String> {
    let shown = section.text("id")?;
    let stored: Vec<u8> = shown.iter().copied().filter(|b| *b != b'-').collect();
    let spelled = label::uuid(&stored).filter(|uuid| uuid.as_bytes() == shown);
    spelled.ok_or_else(|| bad(format_args!("the id `{}` is not one", shown.escape_ascii())))
}

fn has_flag(section: &Section<'_>, flag: &[u8]) -> Result<bool> {
    Ok(section.list("status")?.contains(&Value::Text(flag)))
}

impl Description {
    fn volume(&self, name: &str, volume: &Section<'_>, places: &Places) -> Result<Volume> {
        let uuid = uuid(volume)?;
        let of =
            |e: crate::error::Error| e.detail(format!("volume `{name}` of group `{}`", self.name));
        // Parts of other volumes, and what is being moved: none of them is a volume of its own.
        for flag in [&b"PVMOVE"[..], b"LOCKED", b"PARTIAL_LV"] {
            if has_flag(volume, flag)? {
                return Err(of(unsupported(flag.escape_ascii())));
            }
        }
        let mut segments = vec![];
        let mut next = 0u64;
        for (number, (name, segment)) in (1u64..).zip(&volume.sections) {
            let is_next = name.strip_prefix("segment") == Some(&number.to_string());
            if !is_next || segment.number("start_extent")? != next {
                return Err(of(bad("its segments do not follow each other")));
            }
            let read = self.segment(segment, places).map_err(of)?;
            next = next.checked_add(read.count).ok_or_else(|| of(bad("it is too large")))?;
            segments.push(read);
        }
        if segments.len() as u64 != volume.number("segment_count")? {
            return Err(of(bad("it has not the number of segments that it says")));
        }
        if !has_flag(volume, b"VISIBLE")? {
            return Err(of(unsupported("hidden volume")));
        }
        Ok(Volume { name: name.to_owned(), uuid, segments })
    }

    fn segment(&self, segment: &Section<'_>, places: &Places) -> Result<Segment> {
        let kind = segment.text("type")?;
        if kind != b"striped" && kind != b"linear" {
            return Err(unsupported(kind.escape_ascii()));
        }
        let (count, stripes) = (segment.number("extent_count")?, segment.number("stripe_count")?);
        let list = segment.list("stripes")?;
        if count == 0 || stripes == 0 || list.len() as u64 != stripes.saturating_mul(2) {
            return Err(bad("a segment has no extents or not the stripes that it says"));
        }
        let stripe = if stripes > 1 { segment.number("stripe_size")? } else { 0 };
        // Stripes fill whole extents, evenly (lib/metadata/merge.c, `check_lv_segments`).
        let is_even = count % stripes == 0;
        if stripes > 1 && (!is_even || stripe == 0 || !self.extent.is_multiple_of(stripe)) {
            return Err(bad("the stripes of a segment do not fill its extents"));
        }
        let mut areas = vec![];
        for pair in list.chunks_exact(2) {
            let [Value::Text(name), Value::Number(first)] = pair else {
                return Err(bad("a stripe is not a name and a number"));
            };
            let index = *places.get(*name).ok_or_else(|| {
                bad(format_args!(
                    "a stripe lies on `{}`, which is no physical volume",
                    name.escape_ascii()
                ))
            })?;
            let end = first.checked_add(count / stripes);
            if end.is_none_or(|end| end > self.physical[index].count) {
                return Err(bad("a stripe lies outside its physical volume"));
            }
            areas.push((index, *first));
        }
        Ok(Segment { count, stripe, areas })
    }
}
