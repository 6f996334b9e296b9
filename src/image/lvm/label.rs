//! The label that makes a partition a physical volume, and the header behind it.

use std::sync::Arc;

use super::area::{self, Area};
use super::checksum::sum;
use super::{SECTOR, damaged};
use crate::error::Result;
use crate::image::ReadAt;
use crate::image::field::{le32, le64, sum_holds};

/// The label stands in one of this many sectors (`LABEL_SCAN_SECTORS`).
const SECTORS: u64 = 4;
const MARK: &[u8; 8] = b"LABELONE";
/// The type of a label that a physical volume has.
const TYPE: &[u8; 8] = b"LVM2 001";
/// Bytes of a UUID as it is stored, without hyphens.
pub(super) const UUID: usize = 32;
/// Bytes of the fixed part of a physical volume's header: UUID, size of the device.
const HEADER: usize = UUID + 8;
/// Most metadata areas of one physical volume: LVM2 makes none, one or two (`--pvmetadatacopies`).
const AREAS: usize = 2;
/// Bytes of a place: offset, length.
const PLACE: usize = 16;

/// A physical volume, by its own label.
#[derive(Clone)]
pub struct Physical {
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// Its bytes, the label's sectors included.
    pub reader: Arc<dyn ReadAt>,
    /// Where copies of the group's metadata are; may be none.
    pub(super) areas: Vec<Area>,
}

impl std::fmt::Debug for Physical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Physical({})", self.uuid)
    }
}

/// Reads the label, as [`super::physical`].
pub(super) fn read(reader: &Arc<dyn ReadAt>) -> Result<Option<Physical>> {
    let sectors = (reader.size() / SECTOR).min(SECTORS);
    for number in 0..sectors {
        let mut sector = [0; SECTOR as usize];
        reader.read_at(&mut sector, number * SECTOR)?;
        // Other labels had other types (LVM1, pools); such a partition is no physical volume.
        if sector.starts_with(MARK) && sector[24..32] == *TYPE {
            return parse(reader, number, &sector).map(Some);
        }
    }
    Ok(None)
}

fn parse(reader: &Arc<dyn ReadAt>, number: u64, sector: &[u8; 512]) -> Result<Physical> {
    let bad = |why: &str| damaged("the label of a physical volume", why);
    // The checksum covers what stands behind it.
    if le64(sector, 8) != number || !sum_holds(le32(sector, 16), sum(&sector[20..])) {
        return Err(bad("its checksum or its own sector number is wrong"));
    }
    let at = le32(sector, 20) as usize;
    let header = sector.get(at..).filter(|rest| rest.len() > HEADER);
    let header = header.ok_or_else(|| bad("its header is outside its sector"))?;
    let uuid = uuid(&header[..UUID]).ok_or_else(|| bad("its UUID is not one"))?;
    // Two lists of places, each ended by an offset of 0: of data, then of metadata.
    let mut places = header[HEADER..].chunks_exact(PLACE);
    let is_place = |place: &&[u8]| le64(place, 0) != 0;
    let data = places.by_ref().take_while(is_place).count();
    let metadata: Vec<_> = places.by_ref().take_while(is_place).collect();
    // The end mark of the second list must have been there too.
    if (data + metadata.len() + 2) * PLACE > header.len() - HEADER {
        return Err(bad("its lists of places do not end"));
    }
    if metadata.len() > AREAS {
        return Err(bad("it has more than two metadata areas"));
    }
    let metadata = metadata.into_iter().map(|place| (le64(place, 0), le64(place, 8)));
    let areas = metadata.map(|(offset, size)| area::read(&**reader, offset, size));
    Ok(Physical { uuid, reader: reader.clone(), areas: areas.collect::<Result<_>>()? })
}

/// A stored UUID with hyphens, as LVM2 shows it; `None` if it holds other than letters and digits.
pub(super) fn uuid(stored: &[u8]) -> Option<String> {
    if stored.len() != UUID || !stored.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut text = String::with_capacity(UUID + 6);
    for (i, byte) in stored.iter().enumerate() {
        if i >= 6 && (i - 6) % 4 == 0 && i <= 26 {
            text.push('-');
        }
        text.push(char::from(*byte));
    }
    Some(text)
}
