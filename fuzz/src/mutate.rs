//! Mutations that know what an input is: they change bytes that the parser of the base reads.

use std::ops::Range;

use crate::input::{Change, FARTHEST, Input};

/// Most changes of one input: a crash should have few.
const MOST: usize = 48;

/// What a base offers: its size and the ranges that its parser reads.
pub struct Places<'a> {
    /// Bytes of the base.
    pub size: u64,
    /// Ranges, none empty.
    pub read: &'a [Range<u64>],
    /// The base's bytes of one range.
    pub bytes: &'a dyn Fn(u64, usize) -> Vec<u8>,
}

/// Numbers from a seed (xorshift64*, Vigna 2016).
pub struct Numbers(u64);

impl Numbers {
    /// Starts.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Numbers((u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// Changes `input` in one to four ways. `bytes` mutates a byte string as libFuzzer does, which knows
/// what the parser compared with.
pub fn mutate(
    input: &mut Input,
    places: &Places<'_>,
    numbers: &mut Numbers,
    bytes: &mut dyn FnMut(&mut Vec<u8>),
) {
    for _ in 0..=numbers.below(4) {
        one(input, places, numbers, bytes);
    }
    input.changes.truncate(MOST);
}

fn one(
    input: &mut Input,
    places: &Places<'_>,
    numbers: &mut Numbers,
    bytes: &mut dyn FnMut(&mut Vec<u8>),
) {
    let at = numbers.index(input.changes.len());
    match (numbers.below(16), input.changes.get_mut(at)) {
        (0, _) => input.base = numbers.below(256) as u8,
        (1, Some(_)) => drop(input.changes.remove(at)),
        (2, _) if numbers.below(8) == 0 => {
            input.changes.push(Change { offset: size(places, numbers), bytes: vec![] });
        }
        (3, Some(change)) => {
            change.offset = change.offset.wrapping_add(numbers.below(64)) & FARTHEST
        }
        (4..=6, Some(change)) if !change.bytes.is_empty() => {
            bytes(&mut change.bytes);
            change.bytes.truncate(255);
            if change.bytes.is_empty() {
                change.bytes.push(0);
            }
        }
        _ => {
            let offset = place(places, numbers);
            input.changes.push(Change { offset, bytes: value(offset, places, numbers) });
        }
    }
}

/// A place that the parser reads. Each range counts the same, and its beginning more than the rest: a
/// table of a megabyte shall not hide a header.
fn place(places: &Places<'_>, numbers: &mut Numbers) -> u64 {
    let Some(range) = places.read.get(numbers.index(places.read.len())) else {
        return numbers.below(places.size);
    };
    let len = range.end - range.start;
    let reach = match numbers.below(4) {
        0 => len.min(64),
        1 => len.min(1024),
        _ => len,
    };
    range.start + numbers.below(reach)
}

fn size(places: &Places<'_>, numbers: &mut Numbers) -> u64 {
    match numbers.below(4) {
        0 => places.size.saturating_sub(numbers.below(4096)),
        1 => numbers.below(places.size),
        2 => places.size + numbers.below(1 << 20),
        _ => places.size << numbers.below(16) & FARTHEST,
    }
}

/// New bytes for `offset`: numbers at the edges of their types, small ones, near what is there, what
/// stands elsewhere, noise.
fn value(offset: u64, places: &Places<'_>, numbers: &mut Numbers) -> Vec<u8> {
    let width = [1, 2, 4, 8][numbers.index(4)];
    let old = (places.bytes)(offset, width);
    let number = |v: u64, numbers: &mut Numbers| {
        let all =
            if numbers.below(2) == 0 { v.to_le_bytes().to_vec() } else { v.to_be_bytes().to_vec() };
        if numbers.below(2) == 0 { all[..width].to_vec() } else { all[8 - width..].to_vec() }
    };
    match numbers.below(8) {
        0 => vec![0; width],
        1 => vec![0xff; width],
        2 => number(1 << numbers.below(64), numbers),
        3 => number((1u64 << numbers.below(64)).wrapping_sub(1), numbers),
        4 => {
            let small = numbers.below(300);
            number(small, numbers)
        }
        5 => {
            let mut near = old;
            if let Some(byte) = near.first_mut() {
                *byte = match numbers.below(3) {
                    0 => *byte ^ 1 << numbers.below(8),
                    1 => byte.wrapping_add(1 + numbers.below(8) as u8),
                    _ => byte.wrapping_sub(1 + numbers.below(8) as u8),
                };
            }
            near
        }
        6 => {
            let from = place(places, numbers);
            let len = 1 + numbers.index(64);
            (places.bytes)(from, len)
        }
        _ => (0..width).map(|_| numbers.below(256) as u8).collect(),
    }
}
