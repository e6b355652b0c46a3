//! Ids and times as the dialects write them.

use jiff::Timestamp;

/// `prefix`, a separator and 24 random hex digits.
pub(crate) fn fresh_id(prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    if getrandom::fill(&mut bytes).is_err() {
        // Without randomness of the system: unique within this process is enough for an id that is no secret.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        bytes[..8].copy_from_slice(&next.to_be_bytes());
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if prefix.is_empty() { hex } else { format!("{prefix}_{hex}") }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    Timestamp::now().as_second()
}

/// RFC 3339, UTC.
pub(crate) fn now() -> String {
    Timestamp::now().to_string()
}

/// RFC 3339 of seconds since 1970; the epoch for what no calendar holds.
pub(crate) fn time_of(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Milliseconds as whole nanoseconds, for Ollama's durations.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative becomes 0, and 584 years fit")]
pub(crate) fn nanoseconds(ms: f64) -> u64 {
    (ms * 1e6) as u64
}
