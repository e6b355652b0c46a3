//! What is counted, over one laptop and over the fleet.

/// One policy on one laptop for its whole time. Bytes and numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Written to swap at moments at which the same laptop without anything held would not have written.
    pub swap_caused: u64,
    /// Of it: for weights that are read for each token and do not fit beside what else is wanted.
    pub swap_for_weights: u64,
    /// Taken by the compressor in the same sense (macOS).
    pub compressed_caused: u64,
    /// Kills by the kernel that would not have happened.
    pub kills: u64,
    /// Requests that came.
    pub requests: u64,
    /// Answered to the end.
    pub answered: u64,
    /// Answered, but with fewer tokens than asked for.
    pub shortened: u64,
    /// Refused, at once or after a wait.
    pub refused: u64,
    /// Refused and asked again later.
    pub retries: u64,
    /// Waited until nobody wanted the answer any more.
    pub gave_up: u64,
    /// Of those: held back to save energy or heat.
    pub held_for_energy: u64,
    /// Of those: their model was there and nothing but the speed of the laptop held them up.
    pub overloaded: u64,
    /// Of refused and otherwise given up: those that would have fitted, see `Host::would_fit`.
    pub false_refusals: u64,
    /// Begun and not ended: aborted by the policy, by a GPU without memory, or killed.
    pub aborted: u64,
    /// Models unloaded for memory or for another model.
    pub evictions: u64,
    /// Of evictions: those within a minute of a load of the same model that itself followed an eviction within a minute.
    pub flips: u64,
    /// Parts of models given back: caches, cells of idle sessions, clean pages.
    pub reclaims: u64,
    /// Models unloaded because nobody used them.
    pub idle_unloads: u64,
    /// Loads of a model that had been loaded before.
    pub reloads: u64,
    /// Read from disk for weights beyond the first load of each model.
    pub reload_bytes: u64,
    /// Demands for bytes to apps.
    pub tightenings: u64,
    /// Runs of apps that were stopped.
    pub stopped: u64,
    /// From arrival to the first step of each request that a person waits for and that began, ms.
    pub waits: Vec<u32>,
    /// The same for those that nobody waits for, ms.
    pub background_waits: Vec<u32>,
    /// What must be true and was not.
    pub violations: Vec<String>,
}

/// One policy on the fleet.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Sums over the laptops; `waits` of all of them.
    pub sum: Figures,
    /// Swap caused, one figure for each laptop.
    pub swap: Vec<u64>,
    /// Processor time of all laptops, µs.
    pub took_us: u64,
}

impl Fleet {
    /// Adds one laptop.
    pub fn add(&mut self, laptop: Figures, took_us: u64) {
        let Figures { waits, background_waits, violations, .. } = &laptop;
        self.swap.push(laptop.swap_caused);
        self.took_us += took_us;
        let sum = &mut self.sum;
        sum.waits.extend(waits);
        sum.background_waits.extend(background_waits);
        sum.violations.extend(violations.iter().cloned());
        sum.swap_caused += laptop.swap_caused;
        sum.swap_for_weights += laptop.swap_for_weights;
        sum.compressed_caused += laptop.compressed_caused;
        sum.kills += laptop.kills;
        sum.requests += laptop.requests;
        sum.answered += laptop.answered;
        sum.shortened += laptop.shortened;
        sum.refused += laptop.refused;
        sum.retries += laptop.retries;
        sum.gave_up += laptop.gave_up;
        sum.held_for_energy += laptop.held_for_energy;
        sum.overloaded += laptop.overloaded;
        sum.false_refusals += laptop.false_refusals;
        sum.aborted += laptop.aborted;
        sum.evictions += laptop.evictions;
        sum.flips += laptop.flips;
        sum.reclaims += laptop.reclaims;
        sum.idle_unloads += laptop.idle_unloads;
        sum.reloads += laptop.reloads;
        sum.reload_bytes += laptop.reload_bytes;
        sum.tightenings += laptop.tightenings;
        sum.stopped += laptop.stopped;
    }

    /// False refusals of all requests, 0 to 1.
    #[must_use]
    pub fn false_refusal_rate(&self) -> f64 {
        self.sum.false_refusals as f64 / self.sum.requests.max(1) as f64
    }

    /// A percentile of the waits that nobody notices, ms.
    pub fn background_wait(&mut self, percent: usize) -> u32 {
        percentile(&mut self.sum.background_waits, percent)
    }

    /// A percentile of the waits of people, ms.
    pub fn wait(&mut self, percent: usize) -> u32 {
        percentile(&mut self.sum.waits, percent)
    }

    /// A percentile over the laptops of the swap caused, bytes; 100 is the worst.
    pub fn swap(&mut self, percent: usize) -> u64 {
        percentile(&mut self.swap, percent)
    }

    /// Mean processor time of one laptop, ms.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.took_us as f64 / 1000.0 / self.swap.len().max(1) as f64
    }
}

/// The nearest-rank percentile; 0 without values.
fn percentile<T: Ord + Copy + Default>(values: &mut [T], percent: usize) -> T {
    let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
    if values.is_empty() { T::default() } else { *values.select_nth_unstable(rank).1 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(super::percentile(&mut values, 50), 100);
        assert_eq!(super::percentile(&mut values, 99), 198);
        assert_eq!(super::percentile(&mut values, 100), 200);
        assert_eq!(super::percentile::<u64>(&mut [], 99), 0);
    }
}
