//! The element types of GGUF tensors.

use crate::error::{Error, Result};

/// How a tensor's elements are stored: as they are, or in blocks of integers with scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
}

impl GgmlType {
    /// All that are supported.
    pub(crate) const ALL: [Self; 14] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q8K,
    ];

    /// The number in the file, the name, and the elements and the bytes of a block.
    const fn facts(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::BF16 => (30, "BF16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q2K => (10, "Q2_K", 256, 84),
            Self::Q3K => (11, "Q3_K", 256, 110),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
            Self::Q8K => (15, "Q8_K", 256, 292),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.facts().1
    }

    /// Elements of a block; 1 for floats.
    pub(crate) const fn block_len(self) -> usize {
        self.facts().2
    }

    /// Bytes of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        self.facts().3
    }

    /// Bytes of a row of that many elements; `None` if they are no whole blocks or too many.
    pub(crate) fn row_bytes(self, elements: usize) -> Option<usize> {
        let blocks = elements / self.block_len();
        let whole = elements.is_multiple_of(self.block_len());
        whole.then(|| blocks.checked_mul(self.block_bytes())).flatten()
    }

    /// The type with that number in the file.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for the others, by name.
    pub(crate) fn from_number(number: u32, tensor: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|kind| kind.facts().0 == number);
        known.ok_or_else(|| {
            let found = other_name(number).map_or(format!("type {number}"), str::to_owned);
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            Error::UnsupportedModel {
                reason: format!(
                    "tensor {tensor:?} is stored as {found}; supported are {}",
                    names.join(", ")
                ),
            }
        })
    }
}

/// Names of the types that are not supported.
fn other_name(number: u32) -> Option<&'static str> {
    Some(match number {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(GgmlType::F16.row_bytes(3), Some(6));
        assert_eq!(GgmlType::Q4_0.row_bytes(64), Some(36));
        assert_eq!(GgmlType::Q4_0.row_bytes(65), None);
        assert_eq!(GgmlType::Q6K.row_bytes(512), Some(420));
        assert_eq!(GgmlType::F32.row_bytes(usize::MAX), None);
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for (number, name) in [(23, "IQ4_XS"), (39, "MXFP4"), (35, "TQ2_0"), (99, "type 99")] {
            let error = GgmlType::from_number(number, "some.weight").unwrap_err();
            assert_eq!(error.code(), "unsupported_model");
            let message = error.to_string();
            for part in [name, "some.weight", "Q4_0", "Q6_K"] {
                assert!(message.contains(part), "{message}");
            }
        }
        for kind in GgmlType::ALL {
            assert_eq!(GgmlType::from_number(kind.facts().0, "").unwrap(), kind);
        }
    }
}
