//! Matrices as integers with scales, as the CPU kernels multiply them.
//!
//! Symmetric: in each row and each [`BLOCK`] of input features the largest absolute value becomes the
//! largest integer, 2047 with int16. With int8 the scale is a little larger where two neighbours of one
//! sign would otherwise sum to more than 128: an AVX2 instruction adds the products of two neighbours
//! with bytes of at most 255 in 16 bits, which then never overflow.

use super::panels::BLOCK;

/// A quantized matrix, row-major.
pub(super) struct Integers<T> {
    pub(super) values: Vec<T>,
    /// `[blocks, out_features]`: what an integer stands for.
    pub(super) scales: Vec<f32>,
    /// `[blocks, out_features]`: sum of the integers.
    pub(super) sums: Vec<f32>,
}

/// Integers of 12 bits.
pub(super) fn int16(values: &[f32], in_features: usize) -> Integers<i16> {
    quantize(values, in_features, |block| largest(block) / 2047.0, |x| x as i16)
}

/// Integers of 8 bits.
pub(super) fn int8(values: &[f32], in_features: usize) -> Integers<i8> {
    // With 127 for two neighbours together, rounding both up stays within 128.
    let scale = |block: &[f32]| largest(block).max(largest_sum_of_two(block)) / 127.0;
    quantize(values, in_features, scale, |x| x as i8)
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// The largest absolute sum of two neighbours of one sign.
fn largest_sum_of_two(block: &[f32]) -> f32 {
    let sum = |pair: &[f32; 2], sign: f32| (pair[0] * sign).max(0.0) + (pair[1] * sign).max(0.0);
    let pairs = block.as_chunks::<2>().0;
    pairs.iter().fold(0.0, |most, pair| most.max(sum(pair, 1.0)).max(sum(pair, -1.0)))
}

fn quantize<T: Copy + Default + Into<f32>>(
    values: &[f32],
    in_features: usize,
    scale_of: impl Fn(&[f32]) -> f32,
    integer: impl Fn(f32) -> T,
) -> Integers<T> {
    let width = in_features.max(1);
    let (out_features, blocks) = (values.len() / width, width.div_ceil(BLOCK));
    let mut integers = Integers {
        values: vec![T::default(); values.len()],
        scales: vec![1.0; blocks * out_features],
        sums: vec![0.0; blocks * out_features],
    };
    let rows = values.chunks_exact(width).zip(integers.values.chunks_exact_mut(width));
    for (o, (row, quantized)) in rows.enumerate() {
        let parts = row.chunks(BLOCK).zip(quantized.chunks_mut(BLOCK));
        for (block, (part, quantized)) in parts.enumerate() {
            // A block of zeros has any scale; 1 keeps readers that divide by it from dividing by zero.
            let scale = Some(scale_of(part)).filter(|&scale| scale > 0.0).unwrap_or(1.0);
            for (x, quantized) in part.iter().zip(quantized.iter_mut()) {
                *quantized = integer((x / scale).round_ties_even());
            }
            integers.scales[block * out_features + o] = scale;
            integers.sums[block * out_features + o] = quantized.iter().map(|&q| q.into()).sum();
        }
    }
    integers
}

/// The numbers that row-major integers stand for.
pub(super) fn dequantize(integers: &mut [f32], scales: &[f32], in_features: usize) {
    let width = in_features.max(1);
    let out_features = integers.len() / width;
    for (o, row) in integers.chunks_exact_mut(width).enumerate() {
        for (block, part) in row.chunks_mut(BLOCK).enumerate() {
            let scale = scales[block * out_features + o];
            for x in part {
                *x *= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neighbours_never_overflow_sixteen_bits(
            values in prop::collection::vec(-1.0_f32..1.0, 800),
        ) {
            let integers = int8(&values, 800).values;
            for pair in integers.as_chunks::<2>().0 {
                for (a, b) in [(255, 255), (255, 0), (0, 255)] {
                    let sum = a * i32::from(pair[0]) + b * i32::from(pair[1]);
                    prop_assert!(i16::try_from(sum).is_ok(), "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn integers_scales_and_sums_belong_together() {
        let width = BLOCK + 2;
        let mut values = vec![0.0_f32; 2 * width];
        values[0] = 0.5;
        values[BLOCK] = -2.0;
        values[BLOCK + 1] = 1.0;
        let sixteen = int16(&values, width);
        assert_eq!(sixteen.scales, [0.5 / 2047.0, 1.0, 2.0 / 2047.0, 1.0]);
        assert_eq!((sixteen.values[0], sixteen.values[BLOCK]), (2047, -2047));
        assert_eq!(sixteen.sums, [2047.0, 0.0, -1023.0, 0.0]);
        let mut read: Vec<f32> = sixteen.values.iter().map(|&q| f32::from(q)).collect();
        dequantize(&mut read, &sixteen.scales, width);
        assert!(values.iter().zip(read).all(|(x, read)| (x - read).abs() <= 1.0 / 2047.0));
    }
}
