//! Amounts of memory. Never used for anything but bytes, and never allowed to wrap.
//!
//! Two ways to write an amount, because both are in use: people and shops count memory of machines and files in decimal
//! units (`Display`: 1 GB = 10⁹ bytes), llama.cpp logs its buffers in binary ones ([`Bytes::binary`]: 1 MiB = 2²⁰ bytes).
//! Texts for people use `Display`; a derivation that must be comparable with an engine log uses [`Bytes::binary`].

use std::{fmt, iter::Sum, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// An amount of memory in bytes. Serialises as a plain number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be written down.
    pub const MAX: Self = Self(u64::MAX);

    /// `n` kibibytes (2¹⁰). Saturates.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }
    /// `n` mebibytes (2²⁰). Saturates.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
    /// `n` gibibytes (2³⁰). Saturates.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }
    /// `n` megabytes (10⁶). Saturates.
    #[must_use]
    pub const fn mb(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }
    /// `n` gigabytes (10⁹). Saturates.
    #[must_use]
    pub const fn gb(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// The sum, unless it cannot be written down.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
    /// The difference, unless `other` is larger.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }
    /// The product, unless it cannot be written down.
    #[must_use]
    pub const fn checked_mul(self, factor: u64) -> Option<Self> {
        match self.0.checked_mul(factor) {
            Some(product) => Some(Self(product)),
            None => None,
        }
    }
    /// The sum, or [`Bytes::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
    /// The difference, or nothing when `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// `numerator`/`denominator` of it, rounded down; saturates. A denominator of zero counts as one.
    #[must_use]
    pub const fn fraction(self, numerator: u64, denominator: u64) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator };
        let scaled = self.0 as u128 * numerator as u128 / denominator as u128;
        if scaled > u64::MAX as u128 { Self::MAX } else { Self(scaled as u64) }
    }
    /// The product of `factors`, unless it cannot be written down.
    #[must_use]
    pub fn product(factors: &[u64]) -> Option<Self> {
        factors.iter().try_fold(1u64, |product, factor| product.checked_mul(*factor)).map(Self)
    }
    /// The sum, unless it cannot be written down.
    #[must_use]
    pub fn checked_sum(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
    /// The amount in gigabytes (10⁹), for ratios and charts; loses precision above 2⁵³ bytes.
    #[must_use]
    pub fn as_gb(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// The amount in mebibytes (2²⁰), as llama.cpp logs it; loses precision above 2⁵³ bytes.
    #[must_use]
    pub fn as_mib(self) -> f64 {
        self.0 as f64 / f64::from(1u32 << 20)
    }
    /// Writes the amount in binary units, as llama.cpp's log does: `238.00 MiB`.
    #[must_use]
    pub const fn binary(self) -> Binary {
        Binary(self)
    }
}

/// Saturates: meant for totals of amounts that were checked when they were made.
impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl From<u64> for Bytes {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

/// A plain number of bytes.
impl FromStr for Bytes {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Decimal units, one digit after the point from 1 kB on: `5.1 GB`, `850.0 MB`, `57.3 kB`, `512 B`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1_000, "kB"), (1_000_000, "MB"), (1_000_000_000, "GB"), (1_000_000_000_000, "TB")];
        if self.0 < 1_000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut text = String::new();
        for (unit, name) in UNITS {
            let tenths = (u128::from(self.0) * 10 + u128::from(unit) / 2) / u128::from(unit);
            text = format!("{}.{} {name}", tenths / 10, tenths % 10);
            // Chosen after rounding: 999,950 B is 1.0 MB, never 1000.0 kB.
            if tenths < 10_000 {
                break;
            }
        }
        f.pad(&text)
    }
}

/// An amount written in binary units; see [`Bytes::binary`].
#[derive(Debug, Clone, Copy)]
pub struct Binary(Bytes);

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let bytes = self.0.get();
        for (unit, name) in UNITS {
            if bytes >= unit {
                return f.pad(&format!("{:.2} {name}", bytes as f64 / unit as f64));
            }
        }
        f.pad(&format!("{bytes} B"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_decimal_units_with_one_digit() {
        let texts = [0, 999, 1_000, 57_344, 999_949, 999_950, 3_400_000_000, 107_520_000_000, u64::MAX]
            .map(|n| Bytes(n).to_string());
        assert_eq!(
            texts,
            ["0 B", "999 B", "1.0 kB", "57.3 kB", "999.9 kB", "1.0 MB", "3.4 GB", "107.5 GB", "18446744.1 TB"]
        );
        assert_eq!(format!("{:>9}|", Bytes::gb(1)), "   1.0 GB|");
    }

    #[test]
    fn engine_logs_are_compared_in_binary_units() {
        assert_eq!(Bytes::mib(238).binary().to_string(), "238.00 MiB");
        assert_eq!(Bytes(1536).binary().to_string(), "1.50 KiB");
        assert_eq!(Bytes::gib(4).binary().to_string(), "4.00 GiB");
    }

    #[test]
    fn nothing_wraps() {
        assert_eq!(Bytes::MAX.checked_add(Bytes(1)), None);
        assert_eq!(Bytes(1).checked_sub(Bytes(2)), None);
        assert_eq!(Bytes(1).saturating_sub(Bytes(2)), Bytes::ZERO);
        assert_eq!(Bytes::product(&[u64::MAX, 2]), None);
        assert_eq!(Bytes::gib(u64::MAX), Bytes::MAX);
        assert_eq!(Bytes::MAX.fraction(3, 2), Bytes::MAX);
        assert_eq!(Bytes(100).fraction(84, 100), Bytes(84));
        assert_eq!([Bytes::MAX, Bytes(7)].into_iter().sum::<Bytes>(), Bytes::MAX);
    }

    #[test]
    fn json_is_a_plain_number() {
        assert_eq!(serde_json::to_value(Bytes(57_344)).ok(), Some(serde_json::json!(57_344)));
    }
}
