//! The memory of one laptop: what must leave it when more is wanted than there is, and what that costs.
//!
//! Works on sums, not on pages. Deterministic, integers only, and ignorant of who decides: the same rules hold for every
//! policy, and for the *counterfactual*, the same laptop at the same moment with a host that holds nothing.
//!
//! # Assumptions
//! - The kernel keeps a fixed part, and so does the working set of the page cache: without it every program crawls.
//! - Anonymous memory (other programs, KV, compute, guests) stays until it is swapped, compressed or killed.
//! - Clean pages of weights go first and cost no swap; whoever needs them again reads them from disk.
//! - While a GPU that shares the memory works, and for [`UNWIRE_MS`] after, the weights are wired.
//! - **Clean is not free.** On Linux weights that a processor reads for each token are hot, and reclaim balances hot files
//!   against cold anonymous pages: with the default swappiness of 60 of 200, three tenths of what the hot weights lack are
//!   taken from other programs, up to the quarter of their memory that is cold. Source: `vm.swappiness`,
//!   Documentation/admin-guide/sysctl/vm.rst.
//!   Weights of a model that is held back are not read, and so not hot: then the clean pages go first and nothing is written.
//!   Looked at again because 95 % of the governor's swap came from here. It is not an artefact: pages are written once and
//!   not at every step, `available` counts the hot pages as `MemAvailable` does, and the share of three tenths is mild, since
//!   refaults of a working set push a real kernel further towards anonymous pages. Two simplifications err against the host:
//!   the counterfactual gets no credit for writing the same cold pages later, and a page that came back is written anew though
//!   a real swap cache may still hold it.
//! - Swapped pages come back when they are touched: what no longer has to be out halves in about seven minutes.
//! - zram keeps what is swapped in memory at 2.5 to 1. It counts as swap: the kernel and the person count it so.
//! - macOS compresses at 2 to 1 and swaps compressed segments once the compressor holds more than 0.6 of what is not wired;
//!   it warns above 0.5 and calls it critical above 0.657. Source: xnu `vm_pageout.c`, `vm_compressor.c`.
//! - Linux without free swap kills. The victim is the process with the most resident memory.

/// Milliseconds after its last step in which a GPU still wires what it used. Source: macOS 26 unwires after one second even
/// with residency sets; earlier releases keep it longer.
pub const UNWIRE_MS: u64 = 1_000;
/// Milliseconds in which what need not be swapped any longer shrinks by a factor of e.
const RETURN_MS: u64 = 600_000;

/// What happens to anonymous memory that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Linux without swap: the kernel kills.
    None,
    /// Linux with a swap file or partition of so many bytes.
    Disk(u64),
    /// Linux with zram of so many uncompressed bytes.
    Zram(u64),
    /// macOS: a compressor, then swap files without a bound.
    Compressor,
}

/// What is wanted at one moment, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Anonymous memory of other programs.
    pub others: u64,
    /// Anonymous memory of the host: KV, compute buffers, prompt caches, guests.
    pub host: u64,
    /// Weights that are wired for a GPU.
    pub wired: u64,
    /// Weights that a processor reads for each token now.
    pub hot: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes written to swap.
    pub written: u64,
    /// Of them: cold pages that had to make room for weights that are read for each token.
    pub for_weights: u64,
    /// Bytes that the compressor took.
    pub compressed: u64,
    /// The kernel has to kill: so many bytes have no place.
    pub lacking: u64,
}

/// What the kernel says by itself (macOS), coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Nothing.
    Normal,
    /// The compressor holds more than all that is neither wired nor compressed.
    Warning,
    /// More than 1.917 times as much.
    Critical,
}

/// The memory of one laptop. All figures are bytes.
#[derive(Debug, Clone)]
pub struct Memory {
    ram: u64,
    /// Kernel and the working set of the page cache.
    fixed: u64,
    swap: Swap,
    /// Out of memory now: swap space in use.
    out: u64,
    /// What the compressor holds, uncompressed (macOS).
    squeezed: u64,
    written: u64,
    now: Wanted,
}

impl Memory {
    /// An idle laptop.
    #[must_use]
    pub fn new(ram: u64, kernel: u64, page_cache: u64, swap: Swap) -> Self {
        let fixed = (kernel + page_cache).min(ram);
        Self { ram, fixed, swap, out: 0, squeezed: 0, written: 0, now: Wanted::default() }
    }

    /// Moves on by `dt` milliseconds to a moment at which so much is wanted.
    pub fn settle(&mut self, wanted: Wanted, dt: u64) -> Outcome {
        self.now = wanted;
        let base = self.fixed + wanted.others + wanted.host + wanted.wired;
        let excess = base.saturating_sub(self.ram);
        let thrash = wanted.hot.saturating_sub(self.ram.saturating_sub(base)) * 3 / 10;
        let thrash = thrash.min(wanted.others / 4);
        let (out, squeezed, lacking) = match self.swap {
            Swap::None => (0, 0, excess),
            Swap::Disk(size) => ((excess + thrash).min(size), 0, excess.saturating_sub(size)),
            Swap::Zram(size) => {
                // y leaves and y / 2.5 comes back compressed: y = excess × 5 / 3.
                let out = ((excess + thrash) * 5).div_ceil(3);
                (out.min(size), 0, excess.saturating_sub(size * 3 / 5))
            }
            Swap::Compressor => {
                // At 2 to 1 the compressor occupies as much as is lacking. Past its limit the rest goes to disk, compressed.
                let limit = self.loose(wanted) * 6 / 10;
                (excess.saturating_sub(limit).div_ceil(2), excess.min(limit) * 2, 0)
            }
        };
        let written = follow(&mut self.out, out, dt);
        let for_weights = written.min(thrash);
        let compressed = follow(&mut self.squeezed, squeezed, dt);
        self.written += written;
        Outcome { written, for_weights, compressed, lacking }
    }

    /// Memory that is not wired (macOS): what the compressor's bounds are parts of.
    fn loose(&self, wanted: Wanted) -> u64 {
        self.ram.saturating_sub(self.fixed + wanted.wired)
    }

    /// What leaving pages make room for, in memory.
    fn relief(&self) -> u64 {
        match self.swap {
            Swap::None => 0,
            Swap::Disk(_) => self.out,
            Swap::Zram(_) => self.out * 3 / 5,
            Swap::Compressor => self.out * 2 + self.squeezed / 2,
        }
    }

    /// Room that is left for clean pages of weights beside those that are wired.
    #[must_use]
    pub fn room_for_clean(&self) -> u64 {
        let Wanted { others, host, wired, .. } = self.now;
        let held = (self.fixed + others + host + wired).saturating_sub(self.relief());
        self.ram.saturating_sub(held)
    }

    /// What can be taken before the system swaps or warns, as `runtime/platform` reads it. Linux: `MemAvailable`, all but
    /// anonymous and wired memory and the part of the page cache that is kept. macOS: free and clean pages, and a third of what
    /// else is left before the kernel's first warning, since one byte that is wired then compresses two. Clean pages of weights
    /// are part of either.
    #[must_use]
    pub fn available(&self) -> u64 {
        let clean = self.room_for_clean();
        match self.swap {
            Swap::Compressor => {
                let headroom = self.loose(self.now).saturating_sub(self.squeezed);
                clean + headroom.saturating_sub(clean) / 3
            }
            Swap::None | Swap::Disk(_) | Swap::Zram(_) => clean,
        }
    }

    /// What the kernel says; `None` on Linux, where it says nothing that a program can poll.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        (self.swap == Swap::Compressor).then(|| {
            let compressor = self.squeezed / 2;
            let rest = self.loose(self.now).saturating_sub(compressor);
            if compressor * 1000 > rest * 1917 {
                Warning::Critical
            } else if compressor > rest {
                Warning::Warning
            } else {
                Warning::Normal
            }
        })
    }

    /// Physical memory.
    #[must_use]
    pub const fn ram(&self) -> u64 {
        self.ram
    }
    /// Kernel and the working set of the page cache.
    #[must_use]
    pub const fn fixed(&self) -> u64 {
        self.fixed
    }
    /// Swap space in use.
    #[must_use]
    pub const fn swap_used(&self) -> u64 {
        self.out
    }
    /// Swap space in all. macOS makes files as it needs them.
    #[must_use]
    pub const fn swap_total(&self) -> u64 {
        match self.swap {
            Swap::None => 0,
            Swap::Disk(size) | Swap::Zram(size) => size,
            Swap::Compressor => self.out,
        }
    }
    /// Written to swap since the laptop was started.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }
    /// What is wanted now.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        self.now
    }

    /// Whether a host that wants so much, beside other programs that want `others`, neither swaps nor, on macOS, makes the
    /// kernel warn.
    #[must_use]
    pub fn would_hold(&self, others: u64, anonymous: u64, weights: u64) -> bool {
        let excess = (self.fixed + others + anonymous + weights).saturating_sub(self.ram);
        match self.swap {
            Swap::None | Swap::Disk(_) | Swap::Zram(_) => excess == 0,
            Swap::Compressor => excess <= self.ram.saturating_sub(self.fixed + weights) / 2,
        }
    }
}

/// Moves a level to where it has to be: up at once, down as pages are touched. Answers by how much it rose.
fn follow(level: &mut u64, target: u64, dt: u64) -> u64 {
    if target >= *level {
        let rise = target - *level;
        *level = target;
        return rise;
    }
    let above = *level - target;
    *level -= above.min(above * dt.min(RETURN_MS) / RETURN_MS);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn laptop(swap: Swap) -> Memory {
        Memory::new(16 * GIB, GIB, GIB, swap)
    }

    #[test]
    fn what_fits_causes_nothing() {
        for swap in [Swap::None, Swap::Disk(4 * GIB), Swap::Zram(8 * GIB), Swap::Compressor] {
            let mut memory = laptop(swap);
            let wanted = Wanted { others: 8 * GIB, host: 2 * GIB, wired: 3 * GIB, hot: 0 };
            assert_eq!(memory.settle(wanted, 1000), Outcome::default(), "{swap:?}");
            assert_eq!(memory.room_for_clean(), GIB, "{swap:?}");
        }
    }

    #[test]
    fn the_excess_leaves_once_and_no_byte_is_lost() {
        let mut memory = laptop(Swap::Disk(4 * GIB));
        let wanted = Wanted { others: 12 * GIB, host: 3 * GIB, ..Wanted::default() };
        assert_eq!(memory.settle(wanted, 1000).written, GIB);
        assert_eq!(memory.settle(wanted, 1000).written, 0, "it is out already");
        assert_eq!(memory.swap_used(), GIB);
        // All that is wanted is either in memory or in swap.
        assert_eq!(memory.room_for_clean(), 0);
        let gone = Wanted { others: 4 * GIB, ..Wanted::default() };
        memory.settle(gone, 0);
        let before = memory.swap_used();
        memory.settle(gone, 60_000);
        assert!(memory.swap_used() < before && memory.swap_used() > 0, "pages come back as they are touched");
        assert_eq!(memory.written(), GIB, "coming back writes nothing");
    }

    #[test]
    fn without_swap_the_kernel_kills() {
        let wanted = Wanted { others: 12 * GIB, host: 3 * GIB, ..Wanted::default() };
        assert_eq!(laptop(Swap::None).settle(wanted, 1000), Outcome { lacking: GIB, ..Outcome::default() });
        let full = laptop(Swap::Disk(GIB / 2)).settle(wanted, 1000);
        assert_eq!((full.written, full.lacking), (GIB / 2, GIB / 2));
    }

    #[test]
    fn hot_weights_push_cold_pages_out_and_idle_ones_do_not() {
        let hot = Wanted { others: 10 * GIB, host: GIB, hot: 5 * GIB, wired: 0 };
        assert_eq!(laptop(Swap::Disk(4 * GIB)).settle(hot, 1000).written, 2 * GIB * 3 / 10);
        assert_eq!(laptop(Swap::None).settle(hot, 1000), Outcome::default());
        let idle = Wanted { hot: 0, ..hot };
        assert_eq!(laptop(Swap::Disk(4 * GIB)).settle(idle, 1000), Outcome::default());
    }

    #[test]
    fn whatever_is_wanted_every_byte_has_one_place() {
        let mut state = 1_u64;
        let mut draw = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) % most
        };
        for swap in [Swap::None, Swap::Disk(4 * GIB), Swap::Zram(8 * GIB), Swap::Compressor] {
            let mut memory = laptop(swap);
            let mut sum = 0;
            for _ in 0..10_000 {
                let wanted =
                    Wanted { others: draw(24 * GIB), host: draw(4 * GIB), wired: draw(4 * GIB), hot: draw(8 * GIB) };
                let outcome = memory.settle(wanted, draw(60_000));
                sum += outcome.written;
                let held = memory.fixed + wanted.others + wanted.host + wanted.wired;
                // In memory, swapped, compressed, or without a place: what is left is room, and never more than there is.
                let placed = held - held.min(memory.relief() + outcome.lacking);
                assert!(placed <= memory.ram, "{swap:?}: {placed} bytes in {} of memory", memory.ram);
                assert_eq!(memory.room_for_clean(), memory.ram.saturating_sub(held - held.min(memory.relief())));
                assert!(memory.swap_used() <= memory.swap_total());
                assert_eq!(memory.written(), sum);
                assert!(outcome.for_weights <= outcome.written);
            }
            assert_eq!(sum > 0, swap != Swap::None, "the walk is wide enough to swap");
        }
    }

    #[test]
    fn what_a_mac_calls_available_can_be_wired_without_a_warning() {
        for others in [6, 10, 12, 14, 15].map(|gib| gib * GIB) {
            let mut memory = laptop(Swap::Compressor);
            memory.settle(Wanted { others, ..Wanted::default() }, 0);
            let wired = memory.available();
            memory.settle(Wanted { others, wired, ..Wanted::default() }, 0);
            assert_eq!(memory.warning(), Some(Warning::Normal), "{others} of others");
            memory.settle(Wanted { others, wired: wired + GIB / 8, ..Wanted::default() }, 0);
            assert_eq!(memory.warning(), Some(Warning::Warning), "{others} of others: it is not less than there is");
        }
    }

    #[test]
    fn a_mac_compresses_warns_and_only_then_swaps() {
        let mut memory = laptop(Swap::Compressor);
        let want = |host| Wanted { others: 10 * GIB, host, ..Wanted::default() };
        let mild = memory.settle(want(6 * GIB), 1000);
        assert_eq!((mild.written, mild.compressed), (0, 4 * GIB));
        assert_eq!((memory.warning(), memory.available()), (Some(Warning::Normal), 10 * GIB / 3));
        let strong = memory.settle(want(12 * GIB), 1000);
        assert_eq!(strong.written, 0);
        assert_eq!((memory.warning(), memory.available()), (Some(Warning::Warning), 0));
        assert!(memory.settle(want(14 * GIB), 1000).written > 0);
        assert!(!memory.would_hold(10 * GIB, 12 * GIB, 0) && memory.would_hold(10 * GIB, 11 * GIB, 0));
    }
}
