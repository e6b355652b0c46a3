//! The fleet's random numbers: the same on every machine and in every version of every dependency.

/// SplitMix64 (Steele, Lea, Flood 2014). Integers only: the last bits of a logarithm differ between machines.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator for one named purpose of one laptop: its numbers do not depend on what other purposes draw.
    pub(crate) fn new(seed: u64, laptop: u64, purpose: &str) -> Self {
        // FNV-1a spreads similar names over the state space.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut rng =
            Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ laptop.wrapping_mul(0xd1b5_4a32_d192_ed03));
        // Neighbouring laptops start from states that differ in few bits; one round mixes them.
        let mixed = rng.next();
        Self(mixed)
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `least` to `most`, both included; `least` when the range is empty.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        let drawn = self.next();
        least + drawn % most.saturating_sub(least).saturating_add(1)
    }

    /// A number from `least` to `most` that is more often small than large (the smaller of two).
    pub(crate) fn mostly_small(&mut self, least: u64, most: u64) -> u64 {
        self.within(least, most).min(self.within(least, most))
    }

    /// True `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of the values, by their weights, which must not all be 0.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> Option<T> {
        let sum: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.next() % sum.max(1);
        choices.iter().find_map(|(weight, value)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit.then_some(*value)
        })
    }
}
