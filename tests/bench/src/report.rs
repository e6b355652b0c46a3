//! What is printed and written: tables for people, one line for machines.

use std::fmt;

use crate::stats::Spread;

/// One table with a heading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// What was measured, and how.
    pub(crate) about: String,
    pub(crate) header: &'static [&'static str],
    /// Cells, one for each of `header`.
    pub(crate) rows: Vec<Vec<String>>,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.about)?;
        writeln!(f, "| {} |", self.header.join(" | "))?;
        // The first column names, the others count.
        writeln!(f, "| --- |{}", " ---: |".repeat(self.header.len().saturating_sub(1)))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// `min`, `median` and `max` as cells with so many decimals.
pub(crate) fn cells(spread: Spread, decimals: usize) -> [String; 3] {
    [spread.min, spread.median, spread.max].map(|value| format!("{value:.decimals$}"))
}

/// A number of bytes with separators: every digit counts here.
pub(crate) fn bytes(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(" ")
}

/// The line that machines read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Speeds as ratios to llama.cpp's own loop, medians.
    pub(crate) decode_ratio: f64,
    pub(crate) prefill_ratio: f64,
    pub(crate) batch4_ratio: f64,
    pub(crate) batch8_ratio: f64,
    /// Tokens per second that a guest sees, as a ratio to the engine alone.
    pub(crate) wasm_ratio: f64,
    /// One token from host to guest, µs.
    pub(crate) token_us: f64,
    pub(crate) instantiate_p50_us: f64,
    pub(crate) instantiate_p99_us: f64,
    /// Resident memory of an instance that waits, KiB.
    pub(crate) instance_kib: f64,
    /// From the file to its plan, ms.
    pub(crate) plan_ms: f64,
    /// Largest difference between planned and allocated bytes of one kind.
    pub(crate) plan_error_bytes: u64,
    /// Prediction error over the zoo, millionths of the plan: the middle one without sign, the one furthest from zero.
    pub(crate) prediction_median_ppm: u64,
    pub(crate) prediction_worst_ppm: i64,
    /// Bytes of weights that are not clean pages of their file.
    pub(crate) anon_weight_bytes: u64,
    /// From the question to freed bytes beside a running answer, ms.
    pub(crate) freed_p50_ms: f64,
    pub(crate) freed_p99_ms: f64,
    /// First token of a session from disk ÷ computed again.
    pub(crate) restore_ratio: f64,
    /// Largest difference between ledger and `smaps_rollup`, as a share of the ledger.
    pub(crate) ledger_error: f64,
    /// What the HTTP layer adds to a request, and to a token of a stream, µs.
    pub(crate) http_added_p50_us: f64,
    pub(crate) http_added_p99_us: f64,
    pub(crate) token_added_us: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "figures: decode_ratio={:.3} prefill_ratio={:.3} batch4_ratio={:.3} batch8_ratio={:.3} wasm_ratio={:.3} \
             token_us={:.3} instantiate_p50_us={:.1} instantiate_p99_us={:.1} instance_kib={:.1} plan_ms={:.2} \
             plan_error_bytes={} prediction_median_ppm={} prediction_worst_ppm={} anon_weight_bytes={} \
             freed_p50_ms={:.1} freed_p99_ms={:.1} restore_ratio={:.4} ledger_error={:.4} \
             http_added_p50_us={:.1} http_added_p99_us={:.1} token_added_us={:.3}",
            self.decode_ratio,
            self.prefill_ratio,
            self.batch4_ratio,
            self.batch8_ratio,
            self.wasm_ratio,
            self.token_us,
            self.instantiate_p50_us,
            self.instantiate_p99_us,
            self.instance_kib,
            self.plan_ms,
            self.plan_error_bytes,
            self.prediction_median_ppm,
            self.prediction_worst_ppm,
            self.anon_weight_bytes,
            self.freed_p50_ms,
            self.freed_p99_ms,
            self.restore_ratio,
            self.ledger_error,
            self.http_added_p50_us,
            self.http_added_p99_us,
            self.token_added_us,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_one_line_of_words_and_numbers() {
        let figures = Figures {
            decode_ratio: 1.0,
            prefill_ratio: 0.99,
            batch4_ratio: 1.0,
            batch8_ratio: 1.0,
            wasm_ratio: 0.9986,
            token_us: 0.31,
            instantiate_p50_us: 10.0,
            instantiate_p99_us: 20.0,
            instance_kib: 40.0,
            plan_ms: 20.0,
            plan_error_bytes: 0,
            prediction_median_ppm: 0,
            prediction_worst_ppm: 0,
            anon_weight_bytes: 0,
            freed_p50_ms: 12.0,
            freed_p99_ms: 90.0,
            restore_ratio: 0.01,
            ledger_error: 0.02,
            http_added_p50_us: 90.0,
            http_added_p99_us: 300.0,
            token_added_us: 1.5,
        };
        assert_eq!(
            figures.to_string(),
            "figures: decode_ratio=1.000 prefill_ratio=0.990 batch4_ratio=1.000 batch8_ratio=1.000 wasm_ratio=0.999 \
             token_us=0.310 instantiate_p50_us=10.0 instantiate_p99_us=20.0 instance_kib=40.0 plan_ms=20.00 \
             plan_error_bytes=0 prediction_median_ppm=0 prediction_worst_ppm=0 anon_weight_bytes=0 \
             freed_p50_ms=12.0 freed_p99_ms=90.0 restore_ratio=0.0100 ledger_error=0.0200 \
             http_added_p50_us=90.0 http_added_p99_us=300.0 token_added_us=1.500"
        );
    }

    #[test]
    fn a_section_is_a_markdown_table() {
        let section = Section {
            title: "T".to_owned(),
            about: "A.".to_owned(),
            header: &["what", "n"],
            rows: vec![vec!["x".to_owned(), bytes(1_234_567)]],
        };
        assert_eq!(section.to_string(), "## T\n\nA.\n\n| what | n |\n| --- | ---: |\n| x | 1 234 567 |\n");
        assert_eq!((bytes(0), bytes(999), bytes(1000)), ("0".to_owned(), "999".to_owned(), "1 000".to_owned()));
    }
}
