//! Random numbers of the zoo and of other tests: the same on every machine and in every version of every dependency.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mix per 64 bits, fast enough to fill files of a gigabyte.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator for one named purpose: its numbers do not depend on what other purposes draw.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a spreads similar names (`blk.1.`, `blk.2.`) over the state space.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait, reason = "it never ends, and an iterator would")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0. The bias is below 2^-32 for the vocabularies it serves.
    pub fn below(&mut self, limit: usize) -> usize {
        // The cast cannot truncate: the remainder is below a `usize`.
        (self.next() % limit as u64) as usize
    }

    /// A nearly normal number (mean 0, deviation 1, within ±3.5): the sum of four uniform ones. No logarithm or
    /// cosine, whose last bits differ between machines.
    pub(crate) fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        // Mean 2 * 65535, variance 4 * 65536^2 / 12.
        (sum as f32 - 131_070.0) / 37_837.23
    }

    /// Fills with random bytes.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        let mut words = out.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        let rest = words.into_remainder();
        let last = self.next().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
