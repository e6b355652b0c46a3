//! Random weights in ggml's number formats.
//!
//! A quantised block is random bits with fixed scale fields, so that its values have mean 0 and the wanted deviation:
//! nothing is quantised, and a file is written as fast as the disk takes it. Layouts: `ggml-common.h`.

use locara_gguf::GgmlType;

use crate::rng::Rng;

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Random values of mean 0 and this deviation.
    Random(f32),
    /// This value everywhere; only in the float formats.
    Constant(f32),
}

/// Deviation of the 4-bit numbers 0..=15.
const DEV_4: f32 = 4.61;
/// Deviation of the 6-bit numbers -32..=31.
const DEV_6: f32 = 18.47;
/// Deviation of the 8-bit numbers -127..=127.
const DEV_8: f32 = 73.3;
/// Scale of a sub-block in the K-quants: 6 bits, so 32 is in the middle.
const SUB_SCALE: f32 = 32.0;
/// The twelve bytes that give all eight sub-blocks of a 4-bit K-quant block the scale and the minimum 32: the low six
/// bits of bytes 0..8 hold the first four of each; the upper bits and bytes 8..12 the others (32 = 0b10_0000).
const SUB_SCALES: [u8; 12] = [160, 160, 160, 160, 160, 160, 160, 160, 0, 0, 0, 0];

/// Formats that [`block`] can write.
pub(crate) fn is_writable(kind: GgmlType) -> bool {
    use GgmlType::{BF16, F16, F32, Q4_0, Q4K, Q6K, Q8_0};
    matches!(kind, F32 | F16 | BF16 | Q4_0 | Q8_0 | Q4K | Q6K)
}

/// Writes one block of `kind` to `out`, which has its length. Only for formats that [`is_writable`].
pub(crate) fn block(kind: GgmlType, fill: Fill, rng: &mut Rng, out: &mut [u8]) {
    let mut value = || match fill {
        Fill::Random(sigma) => sigma * rng.normal(),
        Fill::Constant(value) => value,
    };
    match kind {
        GgmlType::F32 => out.copy_from_slice(&value().to_le_bytes()),
        GgmlType::F16 => out.copy_from_slice(&f16_bits(value()).to_le_bytes()),
        // The upper half of an f32 is a bf16, rounded towards zero.
        GgmlType::BF16 => out.copy_from_slice(&value().to_le_bytes()[2..]),
        _ => {
            rng.fill(out);
            set_scales(kind, fill, out);
        }
    }
}

fn set_scales(kind: GgmlType, fill: Fill, out: &mut [u8]) {
    let sigma = match fill {
        Fill::Random(sigma) => sigma,
        // Only float tensors are constant (`Draft::check`); a silent zero here would be found by its test.
        Fill::Constant(_) => 0.0,
    };
    let mut put = |at: usize, value: f32| out[at..at + 2].copy_from_slice(&f16_bits(value).to_le_bytes());
    match kind {
        GgmlType::Q4_0 => put(0, sigma / DEV_4),
        GgmlType::Q8_0 => {
            put(0, sigma / DEV_8);
            // -128 is never written by ggml's own quantiser.
            out[2..].iter_mut().filter(|byte| **byte == 0x80).for_each(|byte| *byte = 0);
        }
        GgmlType::Q4K => {
            let scale = sigma / (SUB_SCALE * DEV_4);
            put(0, scale);
            // Values are scale * q - minimum, so the middle of 0..=15 becomes 0.
            put(2, scale * 7.5);
            out[4..16].copy_from_slice(&SUB_SCALES);
        }
        GgmlType::Q6K => {
            put(208, sigma / (SUB_SCALE * DEV_6));
            out[192..208].fill(32);
        }
        // `Draft::check` lets no other format through.
        _ => {}
    }
}

/// The nearest 16-bit float (ties away from zero); too large becomes infinite, too small becomes 0.
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    // The casts below keep the bits that the masks leave.
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    let mantissa = (bits & 0x7f_ffff) | 0x80_0000;
    if exponent >= 31 {
        return sign | 0x7c00;
    }
    // A subnormal loses one more bit for each step of its exponent.
    let drop = if exponent > 0 { 13 } else { 14 - exponent };
    if drop > 24 {
        return sign;
    }
    let rounded = (mantissa + (1 << (drop - 1))) >> drop;
    // The hidden bit of a normal number carries into the exponent, as does a rounding overflow.
    let base = if exponent > 0 { ((exponent - 1) as u32) << 10 } else { 0 };
    sign | (base + rounded) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_of_known_values() {
        let known = [
            (0.0, 0x0000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (0.5, 0x3800),
            (65_504.0, 0x7bff),
            (65_536.0, 0x7c00),
            (0.333_251_95, 0x3555),
            (6.103_515_6e-5, 0x0400),
            (5.960_464_5e-8, 0x0001),
            (1e-9, 0x0000),
        ];
        for (value, bits) in known {
            assert_eq!(f16_bits(value), bits, "{value}");
        }
    }

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let mut rng = Rng::new(1, "normal");
        let count = 100_000;
        let numbers: Vec<f64> = (0..count).map(|_| f64::from(rng.normal())).collect();
        let mean = numbers.iter().sum::<f64>() / f64::from(count);
        let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(count)).sqrt();
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((deviation - 1.0).abs() < 0.01, "deviation {deviation}");
    }
}
