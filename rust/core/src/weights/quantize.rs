//! Matrices as integers with scales, as the CPU kernels multiply them.
//!
//! Symmetric, with a scale for each row and each [`BLOCK`] of input features. With int16 it is what keeps the
//! Euclidean norm within [`LARGEST_WEIGHTS`], so that no product of a block overflows 32 bits. A bound on the largest would have to
//! do for blocks of as many of that, and give weights and inputs one to two bits less each. With int8 the largest absolute value
//! becomes the largest integer; the scale is a little larger where two neighbours of one
//! sign would otherwise sum to more than 128: an AVX2 instruction adds the products of two neighbours
//! with bytes of at most 255 in 16 bits, which then never overflow.

use super::panels::{BLOCK, LARGEST_WEIGHTS, unpack};

/// A quantized matrix, row-major.
pub(super) struct Integers<T> {
    pub(super) values: Vec<T>,
    /// `[blocks, out_features]`: what an integer stands for.
    pub(super) scales: Vec<f32>,
    /// `[blocks, out_features]`: sum of the integers.
    pub(super) sums: Vec<f32>,
}

/// Integers of up to 16 bits.
pub(super) fn int16(values: &[f32], in_features: usize) -> Integers<i16> {
    // Rounding changes each by up to a half, and so their norm by half the root of their number; quotients are rounded
    // themselves, which is less than one.
    let most = f64::from(LARGEST_WEIGHTS) - (BLOCK as f64).sqrt() / 2.0 - 1.0;
    let norm = |block: &[f32]| block.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let scale = |block: &[f32]| {
        let exact = norm(block) / most;
        let rounded = exact as f32;
        // Of subnormal numbers rounding may take away a good part.
        let enough = if f64::from(rounded) < exact { rounded.next_up() } else { rounded };
        enough.max(largest(block) / 32767.0)
    };
    quantize(values, in_features, scale, |x| x as i16)
}

/// Whether no product of 16-bit integers in panels overflows, as those that [`int16`] makes never do.
pub(super) fn products_fit(panels: &[u8], shape: &[usize]) -> bool {
    let &[out_features, in_features] = shape else { return false };
    let integers: Vec<i16> = panels.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b)).collect();
    let fits = |block: &[i16]| {
        let squares: u64 = block.iter().map(|q| u64::from(q.unsigned_abs()).pow(2)).sum();
        squares <= (LARGEST_WEIGHTS as u64).pow(2)
    };
    let rows = unpack(&integers, out_features, in_features, 2);
    rows.chunks(in_features.max(1)).all(|row| row.chunks(BLOCK).all(fits))
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

    use super::super::panels::pack;
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

    fn norm(integers: &[i16]) -> f64 {
        integers.iter().map(|&q| f64::from(q).powi(2)).sum::<f64>().sqrt()
    }

    proptest! {
        #[test]
        fn products_never_overflow_thirty_two_bits(
            values in prop::collection::vec(-1.0_f32..1.0, 800),
            power in 0_i32..9,
        ) {
            // From weights of one size to very few large ones.
            let values: Vec<f32> = values.iter().map(|x| x.powi(2 * power + 1)).collect();
            let Integers { values: integers, scales, .. } = int16(&values, 800);
            for (block, values) in integers.chunks(BLOCK).zip(values.chunks(BLOCK)) {
                let norm = norm(block);
                prop_assert!(norm <= f64::from(LARGEST_WEIGHTS), "{norm}");
                let most = block.iter().map(|q| q.unsigned_abs()).max();
                // As much as there is room for is used, unless the scale has lost bits itself.
                let tiny = largest(values) < 1e-30;
                prop_assert!(norm > 65_510.0 || most >= Some(32_766) || tiny, "{norm} {most:?}");
            }
            // The quotient is rounded twice: to a float32, by half of 2^-9 at most, and to an integer.
            for (i, (&x, &q)) in values.iter().zip(&integers).enumerate() {
                let quotient = f64::from(x) / f64::from(scales[i / BLOCK]);
                prop_assert!((quotient - f64::from(q)).abs() <= 0.501, "{x} as {q}");
            }
        }
    }

    #[test]
    fn integers_too_large_for_their_products_are_found() {
        let packed = |integers: &[i16], width: usize| -> Vec<u8> {
            pack(integers, width, 2).iter().flat_map(|q| q.to_le_bytes()).collect()
        };
        let width = BLOCK + 6;
        let mut integers = vec![0; 3 * width];
        // Just as many as fit into the first block of each row, and less in the last: 65535² is four times 32767², and 131069.
        for row in integers.chunks_mut(width) {
            row[..7].copy_from_slice(&[-32767, 32767, 32767, -32767, 362, 5, 0]);
            row[BLOCK..].copy_from_slice(&[i16::MIN, i16::MIN, i16::MIN, 0, 0, 0]);
        }
        assert_eq!(norm(&integers[..BLOCK]).powi(2).round() as u64, 65535 * 65535);
        assert!(products_fit(&packed(&integers, width), &[3, width]));
        integers[2 * width + 6] = 1;
        assert!(!products_fit(&packed(&integers, width), &[3, width]));
        assert!(!products_fit(&[], &[0]));
    }

    #[test]
    fn equal_weights_of_a_whole_block_fit_just_so() {
        for value in [1.0, -0.37, f32::MAX, f32::MIN_POSITIVE] {
            let integers = int16(&[value; BLOCK], BLOCK).values;
            assert!(integers.iter().all(|&q| q == integers[0]));
            let norm = norm(&integers);
            // Of the least value, the scale itself has eleven bits.
            assert!(norm <= 65535.0 && norm > 65535.0 - 40.0, "{norm}");
        }
        // Of a scale that has hardly a bit.
        for value in 1..3000 {
            let integers = int16(&[f32::from_bits(value); BLOCK], BLOCK).values;
            assert!(norm(&integers) <= 65535.0, "{value}");
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
        assert_eq!(sixteen.scales, [0.5 / 32767.0, 1.0, 2.0 / 32767.0, 1.0]);
        assert_eq!((sixteen.values[0], sixteen.values[BLOCK]), (32767, -32767));
        assert_eq!(sixteen.sums, [32767.0, 0.0, -16383.0, 0.0]);
        let mut read: Vec<f32> = sixteen.values.iter().map(|&q| f32::from(q)).collect();
        dequantize(&mut read, &sixteen.scales, width);
        assert!(values.iter().zip(read).all(|(x, read)| (x - read).abs() <= 1.0 / 32767.0));
    }
}
