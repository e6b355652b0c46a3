//! Notices that an answer has run into a loop.
//!
//! Greedy sampling over a long input repeats itself for ever, and penalties do not stop it. The rule is Rapid-MLX's, which
//! is proven in the field: a stretch of pieces that repeats three times and is long enough to be no list or table.

/// Longest stretch that is looked for, in pieces.
const MAX_PERIOD: usize = 128;
/// Copies of a stretch.
const COPIES: usize = 3;
/// Pieces that the copies have together, at least.
const MIN_PIECES: usize = 72;
/// Stretches shorter than this are common in honest text (rules, rows of zeros) and need more.
const SHORT_PERIOD: usize = 6;
/// What those need, in pieces.
const MIN_PIECES_SHORT: usize = 256;

/// Watches the pieces of one answer.
#[derive(Debug)]
pub(crate) struct RepetitionGuard {
    /// Digests of the last pieces; place `n % MAX_PERIOD` holds piece n.
    recent: [u64; MAX_PERIOD],
    seen: usize,
    /// For each period p (at p - 1), how many pieces in a row equal the one p pieces before.
    runs: [usize; MAX_PERIOD],
}

impl Default for RepetitionGuard {
    fn default() -> Self {
        Self { recent: [0; MAX_PERIOD], seen: 0, runs: [0; MAX_PERIOD] }
    }
}

impl RepetitionGuard {
    /// Takes a piece; true if the answer repeats itself by now.
    pub(crate) fn push(&mut self, piece: &str) -> bool {
        let digest = fnv(piece.as_bytes());
        let mut looping = false;
        let mut short_span = 0;
        for period in 1..=MAX_PERIOD.min(self.seen) {
            let run = &mut self.runs[period - 1];
            *run = if self.recent[(self.seen - period) % MAX_PERIOD] == digest { *run + 1 } else { 0 };
            // The first copy is not counted in the run.
            let span = *run + period;
            if period < SHORT_PERIOD {
                looping |= *run > 0 && span >= MIN_PIECES_SHORT;
                short_span = short_span.max(span);
            } else {
                // A row of one piece is a row of any number of them; the shortest stretch counts.
                looping |= *run > 0 && span > short_span && span >= MIN_PIECES.max(COPIES * period);
            }
        }
        self.recent[self.seen % MAX_PERIOD] = digest;
        self.seen += 1;
        looping
    }
}

/// FNV-1a, 64 bit: not for secrets, only to tell pieces apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The piece at which the guard speaks up.
    fn stops_at(pieces: impl IntoIterator<Item = String>) -> Option<usize> {
        let mut guard = RepetitionGuard::default();
        pieces.into_iter().position(|piece| guard.push(&piece))
    }

    #[test]
    fn a_sentence_that_comes_again_and_again_is_stopped() {
        let sentence = (0..500).map(|n| format!("word{}", n % 10));
        assert_eq!(stops_at(sentence), Some(MIN_PIECES - 1));
        let paragraph = (0..500).map(|n| format!("word{}", n % 100));
        assert_eq!(stops_at(paragraph), Some(3 * 100 - 1));
        assert_eq!(stops_at((0..500).map(|_| "0".into())), Some(MIN_PIECES_SHORT - 1));
    }

    #[test]
    fn honest_text_goes_on() {
        assert_eq!(stops_at((0..5000).map(|n| format!("word{n}"))), None);
        assert_eq!(stops_at((0..200).map(|_| "-".into())), None, "a rule");
        let table = (0..300).flat_map(|row| ["|".into(), " a ".into(), "|".into(), format!("{row}"), "|\n".into()]);
        assert_eq!(stops_at(table), None, "rows that differ");
    }
}
