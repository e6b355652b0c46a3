//! The number formats of ggml: how many elements a block has and how many bytes it takes.
//!
//! Ids from `enum ggml_type` in `ggml.h`, sizes from the block structs in `ggml-common.h` (ggml 0.26). Ids are part of
//! the file format: they are never reused, and gaps are formats that were removed.

use std::fmt;

macro_rules! ggml_types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $block:literal, $bytes:literal;)+) => {
        /// A number format of ggml.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum GgmlType {
            $($(#[$doc])* $variant = $id,)+
        }

        impl GgmlType {
            /// Every format, by id.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The format with this id in a file; `None` for ids that ggml does not know or no longer reads.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name that llama.cpp prints.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Elements of a block; rows consist of whole blocks.
            #[must_use]
            pub const fn block_elements(self) -> u64 {
                match self { $(Self::$variant => $block,)+ }
            }

            /// Bytes of a block.
            #[must_use]
            pub const fn block_bytes(self) -> u64 {
                match self { $(Self::$variant => $bytes,)+ }
            }
        }
    };
}

ggml_types! {
    /// 32-bit float.
    F32 = 0, "f32", 1, 4;
    /// 16-bit float.
    F16 = 1, "f16", 1, 2;
    /// 4 bits, one scale.
    Q4_0 = 2, "q4_0", 32, 18;
    /// 4 bits, scale and minimum.
    Q4_1 = 3, "q4_1", 32, 20;
    /// 5 bits, one scale.
    Q5_0 = 6, "q5_0", 32, 22;
    /// 5 bits, scale and minimum.
    Q5_1 = 7, "q5_1", 32, 24;
    /// 8 bits, one scale.
    Q8_0 = 8, "q8_0", 32, 34;
    /// 8 bits with sums; activations only.
    Q8_1 = 9, "q8_1", 32, 36;
    /// 2-bit K-quant.
    Q2K = 10, "q2_K", 256, 84;
    /// 3-bit K-quant.
    Q3K = 11, "q3_K", 256, 110;
    /// 4-bit K-quant.
    Q4K = 12, "q4_K", 256, 144;
    /// 5-bit K-quant.
    Q5K = 13, "q5_K", 256, 176;
    /// 6-bit K-quant.
    Q6K = 14, "q6_K", 256, 210;
    /// 8-bit K-quant; activations only.
    Q8K = 15, "q8_K", 256, 292;
    /// 2.06 bits.
    IQ2XXS = 16, "iq2_xxs", 256, 66;
    /// 2.31 bits.
    IQ2XS = 17, "iq2_xs", 256, 74;
    /// 3.06 bits.
    IQ3XXS = 18, "iq3_xxs", 256, 98;
    /// 1.56 bits.
    IQ1S = 19, "iq1_s", 256, 50;
    /// 4 bits, non-linear.
    IQ4NL = 20, "iq4_nl", 32, 18;
    /// 3.44 bits.
    IQ3S = 21, "iq3_s", 256, 110;
    /// 2.56 bits.
    IQ2S = 22, "iq2_s", 256, 82;
    /// 4.25 bits, non-linear.
    IQ4XS = 23, "iq4_xs", 256, 136;
    /// 8-bit integer.
    I8 = 24, "i8", 1, 1;
    /// 16-bit integer.
    I16 = 25, "i16", 1, 2;
    /// 32-bit integer.
    I32 = 26, "i32", 1, 4;
    /// 64-bit integer.
    I64 = 27, "i64", 1, 8;
    /// 64-bit float.
    F64 = 28, "f64", 1, 8;
    /// 1.75 bits.
    IQ1M = 29, "iq1_m", 256, 56;
    /// 16-bit brain float.
    BF16 = 30, "bf16", 1, 2;
    /// Ternary, 1.69 bits.
    TQ1_0 = 34, "tq1_0", 256, 54;
    /// Ternary, 2.06 bits.
    TQ2_0 = 35, "tq2_0", 256, 66;
    /// OCP microscaling 4-bit float.
    MXFP4 = 39, "mxfp4", 32, 17;
    /// NVIDIA 4-bit float with E4M3 scales.
    NVFP4 = 40, "nvfp4", 64, 36;
    /// 1 bit, one scale.
    Q1_0 = 41, "q1_0", 128, 18;
    /// 2 bits, one scale.
    Q2_0 = 42, "q2_0", 64, 18;
}

/// Ids that files once used and ggml no longer reads.
const REMOVED: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

impl GgmlType {
    /// The id in a file.
    #[must_use]
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Whether ggml once read this id and no longer does.
    #[must_use]
    pub fn was_removed(id: u32) -> bool {
        REMOVED.contains(&id)
    }

    /// Bytes of a row of `elements`. `None` if that is no whole number of blocks or does not fit 64 bits.
    #[must_use]
    pub const fn row_bytes(self, elements: u64) -> Option<u64> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_removed_ids_stay_unknown() {
        for &kind in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(kind.id()), Some(kind));
            assert!(!GgmlType::was_removed(kind.id()));
        }
        for id in REMOVED {
            assert_eq!(GgmlType::from_id(id), None);
        }
        // `GGML_TYPE_COUNT` is 43: every id below it is either known or removed.
        assert_eq!((0..43).filter(|&id| GgmlType::from_id(id).is_some()).count() + REMOVED.len(), 43);
        assert_eq!(GgmlType::from_id(43), None);
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(GgmlType::Q4K.row_bytes(2048), Some(8 * 144));
        assert_eq!(GgmlType::Q4K.row_bytes(2047), None);
        assert_eq!(GgmlType::F64.row_bytes(u64::MAX), None);
    }
}
