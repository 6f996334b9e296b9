//! The two checksums of ext4: CRC-32C for `metadata_csum`, CRC-16 for `gdt_csum`.
//!
//! Both as the kernel uses them: the caller gives the running value, nothing is inverted at the end.

pub(super) use crate::image::crc32c::{START, crc32c, crc32c_without};

/// CRC-16 (polynomial 0x8005, reflected).
pub(super) fn crc16(seed: u16, data: &[u8]) -> u16 {
    data.iter().fold(seed, |crc, &b| {
        (0..8).fold(
            crc ^ u16::from(b),
            |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        // Check value of CRC-16/MODBUS (start 0xffff) for "123456789".
        assert_eq!(crc16(0xffff, b"123456789"), 0x4b37);
    }
}
