//! LZO1X, as the kernel's documentation describes the stream (`Documentation/staging/lzo.rst`), in
//! the frame that btrfs puts around it (`fs/btrfs/lzo.c`).

/// Longest run of zero bytes that lengthen a length: more than fits any extent.
const LONGER: usize = 1 << 20;

/// Unpacks an extent: its length in 32 bits, itself included, then segments, each its length in 32
/// bits and a stream of at most a sector of contents. The length of a segment never crosses a border
/// of sectors of the packed extent. Appends at most `most` bytes to `out`; `None` if it is damaged.
pub(super) fn extent(packed: &[u8], sector: usize, out: &mut Vec<u8>, most: usize) -> Option<()> {
    let length = |at: usize| -> Option<usize> {
        let bytes = packed.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let end = length(0)?;
    if end > packed.len() {
        return None;
    }
    let whole = out.len().checked_add(most)?;
    let mut at = 4;
    while at < end && out.len() < whole {
        let segment = length(at)?;
        at += 4;
        let next = at.checked_add(segment)?;
        stream(packed.get(at..next)?, out, sector)?;
        at = next;
        let left = sector - at % sector;
        if left < 4 {
            at += left;
        }
    }
    out.truncate(whole);
    Some(())
}

/// Unpacks one stream that gives at most `most` bytes.
fn stream(input: &[u8], out: &mut Vec<u8>, most: usize) -> Option<()> {
    let mut stream = Stream { input, at: 0, start: out.len(), most, out };
    stream.run()?;
    (stream.at == input.len()).then_some(())
}

struct Stream<'a> {
    input: &'a [u8],
    at: usize,
    /// Where this stream's contents start in `out`.
    start: usize,
    most: usize,
    out: &'a mut Vec<u8>,
}

impl Stream<'_> {
    fn run(&mut self) -> Option<()> {
        // How many literals the last instruction copied; 4 stands for more than 3.
        let mut state = 0;
        if let Some(&first) = self.input.first().filter(|first| **first > 17) {
            self.at = 1;
            let count = usize::from(first - 17);
            self.literals(count)?;
            state = count.min(4);
        }
        loop {
            let op = self.byte()?;
            let bits = usize::from(op);
            let (length, distance, literals) = match op {
                0..=15 if state == 0 => {
                    let count = 3 + self.longer(bits, 15)?;
                    self.literals(count)?;
                    state = 4;
                    continue;
                }
                0..=15 => {
                    let (length, near) = if state == 4 { (3, 2049) } else { (2, 1) };
                    (length, (self.number()? << 2) + (bits >> 2) + near, bits & 3)
                }
                16..=31 => {
                    let length = 2 + self.longer(bits & 7, 7)?;
                    let pair = self.pair()?;
                    let distance = (1 << 14) + ((bits & 8) << 11) + (pair >> 2);
                    if distance == 1 << 14 {
                        return Some(());
                    }
                    (length, distance, pair & 3)
                }
                32..=63 => {
                    let length = 2 + self.longer(bits & 31, 31)?;
                    let pair = self.pair()?;
                    (length, (pair >> 2) + 1, pair & 3)
                }
                64..=127 => (3 + (bits >> 5 & 1), self.near(bits)?, bits & 3),
                128..=255 => (5 + (bits >> 5 & 3), self.near(bits)?, bits & 3),
            };
            self.repeat(length, distance)?;
            self.literals(literals)?;
            state = literals;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<usize> {
        self.byte().map(usize::from)
    }

    /// 16 bits, little-endian.
    fn pair(&mut self) -> Option<usize> {
        Some(self.number()? | self.number()? << 8)
    }

    /// A distance of up to 2 KiB.
    fn near(&mut self, bits: usize) -> Option<usize> {
        Some((self.number()? << 3) + (bits >> 2 & 7) + 1)
    }

    /// A length whose `bits` are 0 goes on in the next bytes.
    fn longer(&mut self, bits: usize, most: usize) -> Option<usize> {
        if bits != 0 {
            return Some(bits);
        }
        let mut length = most;
        loop {
            let byte = self.number()?;
            if byte != 0 {
                return Some(length + byte);
            }
            length += 255;
            if length > LONGER {
                return None;
            }
        }
    }

    fn room(&self, count: usize) -> Option<()> {
        (self.out.len() - self.start + count <= self.most).then_some(())
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        self.room(count)?;
        self.out.extend_from_slice(self.input.get(self.at..self.at + count)?);
        self.at += count;
        Some(())
    }

    /// Copies what was unpacked `distance` bytes ago; it may overlap what it makes.
    fn repeat(&mut self, length: usize, distance: usize) -> Option<()> {
        self.room(length)?;
        let from = self.out.len().checked_sub(distance).filter(|from| *from >= self.start)?;
        if distance >= length {
            self.out.extend_from_within(from..from + length);
            return Some(());
        }
        for at in from..from + length {
            self.out.push(*self.out.get(at)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        stream(input, &mut out, 100)?;
        Some(out.split_off(6))
    }

    #[test]
    fn literals_and_repeats_come_out() {
        // 4 literals, then 3 bytes from 1 back (0x40 | 0 << 2, high 0), then the end.
        let abcd = [21, b'a', b'b', b'c', b'd', 0x40, 0, 17, 0, 0];
        assert_eq!(unpack(&abcd).as_deref(), Some(&b"abcdddd"[..]));
        // A length that goes on: 2 + 31 + 10 bytes from 4 back.
        let long = [21, b'a', b'b', b'c', b'd', 0x20, 10, 3 << 2, 0, 17, 0, 0];
        assert_eq!(unpack(&long).unwrap().len(), 4 + 43);
        assert_eq!(unpack(&[17, 0, 0]).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn damage_is_seen_and_nothing_reaches_beyond_the_stream() {
        // Back into what stood there before, beyond the input, too long, without an end, behind it.
        for bad in [
            &[21, b'a', b'b', b'c', b'd', 0x50, 0, 17, 0, 0][..],
            &[21, b'a', b'b'],
            &[21, b'a', b'b', b'c', b'd', 0x20, 200, 3 << 2, 0, 17, 0, 0],
            &[21, b'a', b'b', b'c', b'd', 0x40, 0],
            &[17, 0, 0, 0],
            &[],
        ] {
            assert_eq!(unpack(bad), None, "{bad:?}");
        }
        assert_eq!(unpack(&[0; 10_000]), None);
    }
}
