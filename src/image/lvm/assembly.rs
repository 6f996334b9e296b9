//! Puts the physical volumes of one disk together to groups.

use std::sync::Arc;

use super::area::Area;
use super::description::{self, Description, Segment};
use super::label::Physical;
use super::mapped::{Mapped, Stretch};
use super::{Group, Logical, SECTOR, damaged};
use crate::error::{Error, Result};
use crate::image::ReadAt;

/// The groups that `physical` makes up, and for each of `physical` the index of its group; `None`
/// where it is in no group.
///
/// Groups are in the order of the first of their physical volumes.
///
/// # Errors
/// Kind `Undetermined`: damage, a volume of a kind that is not read here (by name), a physical
/// volume that is not on this disk, or two with one UUID.
pub fn assemble(physical: &[Physical]) -> Result<(Vec<Group>, Vec<Option<usize>>)> {
    check_unique(physical)?;
    let descriptions = descriptions(physical)?;
    let mut order: Vec<usize> = vec![];
    let mut owners = vec![];
    for one in physical {
        let mut groups = (0..descriptions.len())
            .filter(|i| descriptions[*i].physical.iter().any(|place| place.uuid == one.uuid));
        let owner = groups.next();
        if groups.next().is_some() {
            let why = format_args!("the physical volume {} is in two groups", one.uuid);
            return Err(damaged("the metadata", why));
        }
        // What names a group that does not name it was taken out while it was away.
        if owner.is_none() && one.areas.iter().any(|area| matches!(area, Area::Text(_))) {
            let why =
                format_args!("no group has the physical volume {}, whose copy names one", one.uuid);
            return Err(damaged("the metadata", why));
        }
        owners.push(owner.map(|owner| match order.iter().position(|seen| *seen == owner) {
            Some(index) => index,
            None => {
                order.push(owner);
                order.len() - 1
            }
        }));
    }
    let groups = order.iter().map(|i| group(&descriptions[*i], physical));
    Ok((groups.collect::<Result<_>>()?, owners))
}

fn check_unique(physical: &[Physical]) -> Result<()> {
    for (i, one) in physical.iter().enumerate() {
        if physical[..i].iter().any(|other| other.uuid == one.uuid) {
            let what = format!("two partitions are the LVM physical volume {}", one.uuid);
            return Err(
                Error::undetermined(what).hint("Erase the label of the copy with `wipefs`.")
            );
        }
    }
    Ok(())
}

/// Most bytes of metadata of one disk, which are all held in memory: eight whole texts.
const TEXTS: usize = 32 << 20;

/// Fails if the copies of the metadata on one disk are more than any disk has.
///
/// # Errors
/// Kind `Undetermined`.
pub fn check_texts(physical: &[Physical]) -> Result<()> {
    let areas = physical.iter().flat_map(|one| &one.areas);
    let bytes: usize =
        areas.map(|area| if let Area::Text(text) = area { text.len() } else { 0 }).sum();
    if bytes > TEXTS {
        let why = format_args!("its copies have more than {TEXTS} bytes together");
        return Err(damaged("the metadata", why));
    }
    Ok(())
}

/// The newest description of each group.
fn descriptions(physical: &[Physical]) -> Result<Vec<Description>> {
    let mut texts: Vec<&[u8]> = vec![];
    for area in physical.iter().flat_map(|one| &one.areas) {
        if let Area::Text(text) = area
            && !texts.contains(&text.as_slice())
        {
            texts.push(text);
        }
    }
    let mut newest: Vec<Description> = vec![];
    for text in texts {
        let new = description::parse(text)?;
        match newest.iter_mut().find(|old| old.uuid == new.uuid) {
            None => newest.push(new),
            Some(old) if new.sequence > old.sequence => *old = new,
            Some(old) if new.sequence == old.sequence && *old != new => {
                let why =
                    format_args!("two copies of group `{}` differ and are of one age", new.name);
                return Err(damaged("the metadata", why));
            }
            Some(_) => {}
        }
    }
    for (i, one) in newest.iter().enumerate() {
        if newest[..i].iter().any(|other| other.name == one.name) {
            let what = format!("two LVM groups have the name `{}`", one.name);
            return Err(
                Error::undetermined(what).hint("Rename one with `vgrename` where it is in use.")
            );
        }
    }
    Ok(newest)
}

fn group(of: &Description, physical: &[Physical]) -> Result<Group> {
    let mut readers: Vec<Arc<dyn ReadAt>> = vec![];
    for place in &of.physical {
        let found = physical.iter().find(|one| one.uuid == place.uuid).ok_or_else(|| {
            Error::undetermined(format!("the LVM group `{}` is not on this disk as a whole", of.name))
                .cause(format!("its physical volume {} is not here", place.uuid))
                .hint("A group over several disks cannot be read; move it to one with `pvmove` where it is in use.")
        })?;
        let end = of.extent.checked_mul(place.count).and_then(|n| n.checked_add(place.start));
        let end = end.and_then(|sectors| sectors.checked_mul(SECTOR));
        if end.is_none_or(|end| end > found.reader.size()) {
            let what = format_args!("the physical volume {}", place.uuid);
            return Err(damaged(what, "its extents end behind its partition"));
        }
        readers.push(found.reader.clone());
    }
    check_overlaps(of)?;
    let volumes = of.volumes.iter().map(|volume| {
        let mut end = 0;
        let stretches = volume.segments.iter().map(|segment| {
            end += bytes(of, segment.count);
            stretch(of, segment, end, &readers)
        });
        let mapped = Mapped::new(stretches.collect());
        Logical { name: volume.name.clone(), uuid: volume.uuid.clone(), reader: Arc::new(mapped) }
    });
    let mut notes = vec![];
    if of.exported {
        notes.push("it was exported, and is read all the same".to_owned());
    }
    Ok(Group {
        name: of.name.clone(),
        uuid: of.uuid.clone(),
        physical: of.physical.iter().map(|place| place.uuid.clone()).collect(),
        volumes: volumes.collect(),
        notes,
    })
}

/// Bytes of `extents`; those of one physical volume were seen to fit it, and no two volumes share one.
fn bytes(of: &Description, extents: u64) -> u64 {
    extents * of.extent * SECTOR
}

fn stretch(of: &Description, segment: &Segment, end: u64, readers: &[Arc<dyn ReadAt>]) -> Stretch {
    let one = |(index, first): &(usize, u64)| {
        let start = of.physical[*index].start * SECTOR + bytes(of, *first);
        (readers[*index].clone(), start)
    };
    let stripe = match segment.stripe {
        0 => bytes(of, segment.count),
        sectors => sectors * SECTOR,
    };
    Stretch { end, stripe, areas: segment.areas.iter().map(one).collect() }
}

/// Fails if two stretches use one extent: then the sizes of volumes are bounded by the disk's.
fn check_overlaps(of: &Description) -> Result<()> {
    let segments = of.volumes.iter().flat_map(|volume| &volume.segments);
    let mut used: Vec<(usize, u64, u64)> = segments
        .flat_map(|segment| {
            let count = segment.count / segment.areas.len().max(1) as u64;
            segment.areas.iter().map(move |(index, first)| (*index, *first, first + count))
        })
        .collect();
    used.sort_unstable();
    match used.windows(2).find(|two| two[0].0 == two[1].0 && two[0].2 > two[1].1) {
        Some(two) => {
            let place = &of.physical[two[1].0].name;
            let why = format_args!("two volumes use extent {} of `{place}`", two[1].1);
            Err(damaged("the metadata", why))
        }
        None => Ok(()),
    }
}
