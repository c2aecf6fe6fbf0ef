//! Random numbers that are the same for the same seed. Owns the generator. Must never know what is decided with it.

/// SplitMix64.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x2545_f491_4f6c_dd1d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `most`, itself included.
    pub fn upto(&mut self, most: i64) -> i64 {
        let span = u64::try_from(most).unwrap_or(0).wrapping_add(1).max(1);
        i64::try_from(self.next() % span).unwrap_or(0)
    }

    /// From `low` to `high`, both included.
    pub fn span(&mut self, low: i64, high: i64) -> i64 {
        low + self.upto(high - low)
    }

    /// One of so many things.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// True in so many of 10,000 cases.
    pub fn chance(&mut self, of_ten_thousand: u32) -> bool {
        self.next() % 10_000 < u64::from(of_ten_thousand)
    }

    /// Mostly short, seldom long: a delay in ms with a long tail up to `most`.
    pub fn delay(&mut self, most: i64) -> i64 {
        match self.next() % 16 {
            0..=11 => self.upto(1),
            12..=14 => self.upto((most / 8).max(2)),
            _ => self.upto(most),
        }
    }
}
