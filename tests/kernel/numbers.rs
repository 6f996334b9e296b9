//! Random numbers that are the same everywhere (xorshift64*, Vigna 2016).

/// A generator; one seed gives one sequence.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Seeds that are near each other give first numbers that are.
        for _ in 0..8 {
            numbers.next();
        }
        numbers
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Whether one of `n` cases is here.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `list`, which has some.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// A length: mostly small, now and then up to `most`.
    pub(crate) fn length(&mut self, most: u64) -> u64 {
        let bits = self.below(u64::from(most.ilog2()) + 1);
        self.below((2u64 << bits).min(most))
    }

    /// Bytes without a pattern, or of one that packs well.
    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        let packs = self.one_in(3);
        let byte = self.next() as u8;
        (0..length)
            .map(|i| if packs { byte.wrapping_add((i / 64) as u8) } else { self.next() as u8 })
            .collect()
    }
}
