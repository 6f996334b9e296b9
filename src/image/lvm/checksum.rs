//! LVM2's checksum: CRC-32 with a start value of its own, nothing inverted (lib/misc/crc.c).

/// `INITIAL_CRC` of lib/misc/crc.h.
const START: u32 = 0xf597_a6cf;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// The checksum of `data`.
pub(super) fn sum(data: &[u8]) -> u32 {
    let step = |crc: u32, b: &u8| (crc >> 8) ^ TABLE[((crc ^ u32::from(*b)) & 0xff) as usize];
    data.iter().fold(START, step)
}
