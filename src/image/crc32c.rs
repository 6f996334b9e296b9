//! CRC-32C (Castagnoli), as the kernel uses it: the caller gives the running value, nothing is
//! inverted at the end.

/// Start value of CRC-32C.
pub(crate) const START: u32 = !0;

/// CRC-32C (Castagnoli), by the processor's own instruction where it has one.
pub(crate) fn crc32c(seed: u32, data: &[u8]) -> u32 {
    // The crate inverts before and after.
    !::crc32c::crc32c_append(!seed, data)
}

/// CRC-32C of `data` as if the `len` bytes at each of `holes` (ascending) were zeros: structures
/// carry their checksum inside.
pub(crate) fn crc32c_without(seed: u32, data: &[u8], holes: &[(usize, usize)]) -> u32 {
    let mut crc = seed;
    let mut at = 0;
    for &(hole, len) in holes {
        crc = crc32c(crc, data.get(at..hole).unwrap_or_default());
        crc = crc32c(crc, &[0; 8][..len.min(8)]);
        at = hole + len;
    }
    crc32c(crc, data.get(at..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        // Check value of CRC-32C for "123456789".
        assert_eq!(!crc32c(START, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn many_bytes_a_step_equal_one_bit_a_step() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7 + i / 3) as u8).collect();
        let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        let slow = data.iter().fold(START, |crc, b| (0..8).fold(crc ^ u32::from(*b), bit));
        assert_eq!(crc32c(START, &data), slow);
    }

    #[test]
    fn a_hole_counts_as_zeros() {
        let mut data = vec![7u8; 40];
        let with_hole = crc32c_without(START, &data, &[(10, 2), (20, 4)]);
        data[10..12].fill(0);
        data[20..24].fill(0);
        assert_eq!(with_hole, crc32c(START, &data));
    }
}
