//! From stored elements to floats.
//!
//! Blocks are described as ggml lays them out: scales are half-precision, little-endian; of a byte
//! with two values of four bits, the low half comes first in the row's first half.

use half::{bf16, f16};

use super::k_quants::{q2_k, q3_k, q4_k, q5_k, q6_k, q8_k};
use super::types::GgmlType;

/// Expands rows: `bytes` are whole blocks of that type, `out` has room for their elements.
pub(crate) fn dequantize(kind: GgmlType, bytes: &[u8], out: &mut [f32]) {
    debug_assert_eq!(kind.row_bytes(out.len()), Some(bytes.len()));
    match kind {
        GgmlType::F32 => blocks(bytes, out, |b, [y]: &mut [f32; 1]| *y = f32::from_le_bytes(*b)),
        GgmlType::F16 => blocks(bytes, out, |b: &[u8; 2], [y]: &mut [f32; 1]| *y = half(*b)),
        GgmlType::BF16 => blocks(bytes, out, |b, [y]: &mut [f32; 1]| {
            *y = bf16::from_le_bytes(*b).to_f32();
        }),
        GgmlType::Q4_0 => blocks(bytes, out, q4_0),
        GgmlType::Q4_1 => blocks(bytes, out, q4_1),
        GgmlType::Q5_0 => blocks(bytes, out, q5_0),
        GgmlType::Q5_1 => blocks(bytes, out, q5_1),
        GgmlType::Q8_0 => blocks(bytes, out, q8_0),
        GgmlType::Q2K => blocks(bytes, out, q2_k),
        GgmlType::Q3K => blocks(bytes, out, q3_k),
        GgmlType::Q4K => blocks(bytes, out, q4_k),
        GgmlType::Q5K => blocks(bytes, out, q5_k),
        GgmlType::Q6K => blocks(bytes, out, q6_k),
        GgmlType::Q8K => blocks(bytes, out, q8_k),
    }
}

/// Expands block by block, `B` bytes to `N` elements.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    expand: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        expand(block, y);
    }
}

/// The half-precision number in two bytes.
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// A scale, then 32 values of four bits less 8.
fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = half([*d0, *d1]);
    for (j, q) in quants.iter().enumerate() {
        y[j] = d * (f32::from(q & 15) - 8.0);
        y[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

/// A scale and a minimum, then 32 values of four bits.
fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let [d0, d1, m0, m1, quants @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    for (j, q) in quants.iter().enumerate() {
        y[j] = d * f32::from(q & 15) + m;
        y[j + 16] = d * f32::from(q >> 4) + m;
    }
}

/// A scale, the fifth bits of 32 values, then their lower four bits; less 16.
fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let [d0, d1, h0, h1, h2, h3, quants @ ..] = block;
    let d = half([*d0, *d1]);
    let high = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
    for (j, q) in quants.iter().enumerate() {
        let (low_value, high_value) = five_bits(*q, high, j);
        y[j] = d * (low_value - 16.0);
        y[j + 16] = d * (high_value - 16.0);
    }
}

/// A scale and a minimum, the fifth bits of 32 values, then their lower four bits.
fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let [d0, d1, m0, m1, h0, h1, h2, h3, quants @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    let high = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
    for (j, q) in quants.iter().enumerate() {
        let (low_value, high_value) = five_bits(*q, high, j);
        y[j] = d * low_value + m;
        y[j + 16] = d * high_value + m;
    }
}

/// The two values of a byte, with their fifth bits from bits `j` and `j + 16`.
fn five_bits(q: u8, high: u32, j: usize) -> (f32, f32) {
    let bit = |i: usize| ((high >> i) & 1) as u8 * 16;
    (f32::from(q & 15 | bit(j)), f32::from(q >> 4 | bit(j + 16)))
}

/// A scale, then 32 signed bytes.
fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = half([*d0, *d1]);
    for (y, q) in y.iter_mut().zip(quants) {
        *y = d * f32::from(*q as i8);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::gguf::file::GgufFile;
    use crate::gguf::fixtures::gguf;

    /// What gguf-py makes of blocks of random bytes, and of rows of the committed files.
    #[derive(Deserialize)]
    struct Expected {
        blocks: BTreeMap<String, Block>,
        rows: Vec<Row>,
    }

    #[derive(Deserialize)]
    struct Block {
        bytes: String,
        values: Vec<f32>,
    }

    #[derive(Deserialize)]
    struct Row {
        file: String,
        tensor: String,
        r#type: String,
        shape: Vec<usize>,
        #[serde(rename = "row")]
        index: usize,
        every_16th: Vec<f32>,
    }

    fn expected() -> Expected {
        serde_json::from_slice(&std::fs::read(gguf("dequantized.json")).unwrap()).unwrap()
    }

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            // A product and a sum may be rounded in another order.
            assert!((a - b).abs() <= 1e-6 * b.abs().max(0.1), "{what}, {i}: {a} {b}");
        }
    }

    #[test]
    fn blocks_are_those_of_gguf_py() {
        let blocks = expected().blocks;
        for kind in GgmlType::ALL {
            let block = &blocks[kind.name()];
            let hex = block.bytes.as_bytes().chunks(2);
            let digits = hex.map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
            let mut found = vec![f32::NAN; block.values.len()];
            dequantize(kind, &bytes, &mut found);
            assert_close(&found, &block.values, kind.name());
        }
    }

    #[test]
    fn rows_of_the_committed_files_are_those_of_gguf_py() {
        for row in expected().rows {
            let file = GgufFile::open(&gguf(&row.file)).unwrap();
            let tensor = file.get(&row.tensor).unwrap();
            assert_eq!((&tensor.shape, tensor.kind.name()), (&row.shape, row.r#type.as_str()));
            let bytes = tensor.kind.row_bytes(tensor.row_len()).unwrap();
            let mut found = vec![f32::NAN; tensor.row_len()];
            dequantize(tensor.kind, &tensor.data[row.index * bytes..][..bytes], &mut found);
            let found: Vec<f32> = found.into_iter().step_by(16).collect();
            assert_close(&found, &row.every_16th, &format!("{} {}", row.file, row.tensor));
        }
    }

    #[cfg(feature = "candle")]
    mod against_candle {
        use std::borrow::Cow;

        use arrow_buffer::Buffer;
        use candle_core::Device;
        use candle_core::quantized::{QStorage, QTensor};
        use proptest::collection::vec;
        use proptest::prelude::{any, prop_assert_eq, proptest};

        use super::*;
        use crate::ops::candle::dtype;

        proptest! {
            #[test]
            fn any_bytes_become_the_same_numbers(bytes in vec(any::<u8>(), 2 * 292)) {
                for kind in GgmlType::ALL {
                    let bytes = Buffer::from(&bytes[..2 * kind.block_bytes()]);
                    let mut found = vec![0.0; 2 * kind.block_len()];
                    dequantize(kind, &bytes, &mut found);
                    let storage = Cow::Borrowed(bytes.as_slice());
                    let storage = QStorage::from_data(storage, &Device::Cpu, dtype(kind)).unwrap();
                    let tensor = QTensor::new(storage, found.len()).unwrap();
                    let expected: Vec<f32> =
                        tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
                    // Any scale occurs, NaN and infinity too.
                    for (a, b) in found.iter().zip(&expected) {
                        let close = (a - b).abs() <= 1e-5 * b.abs().max(0.1);
                        prop_assert_eq!(close || a == b || a.is_nan() && b.is_nan(), true, "{:?} {} {}", kind, a, b);
                    }
                }
            }
        }
    }
}
