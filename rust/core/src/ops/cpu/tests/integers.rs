//! Integers of 16 bits at the ends of their range.

use proptest::prelude::*;

use super::super::integer::Inputs;
use super::super::isa::{self, Isa};
use super::super::kernels::{LinearJob, LinearScratch, Then};
use super::super::scalar::Scalar;
use super::super::views::{Rows, RowsMut};
use super::{matrix, numbers};
use crate::weights::DType;
use crate::weights::panels::{BLOCK, LARGEST_INPUTS};

/// No product of as large a sum is possible as that of a block with itself.
#[test]
fn products_of_sixteen_bits_that_are_as_large_as_can_be_fit() {
    let (rows, width) = (14, 2 * BLOCK + 50);
    for power in [1, 9] {
        // Of one size, and of very different ones.
        let weights: Vec<f32> = numbers(3, rows * width).iter().map(|x| x.powi(power)).collect();
        let (matrix, values) = matrix(weights, width, DType::Int16);
        for (isa, size) in
            Isa::available().into_iter().flat_map(|isa| [1e-30, -1.0, 1e30].map(|size| (isa, size)))
        {
            let x: Vec<f32> = values.iter().map(|&w| (w * size) as f32).collect();
            let job = LinearJob {
                x: &x,
                weight: matrix.weights(),
                in_features: width,
                out_features: rows,
                bias: None,
                then: Then::Nothing,
                halves: false,
            };
            let mut found = vec![f32::NAN; rows * rows];
            let view = RowsMut::new(&mut found, rows, rows, rows);
            isa::linear(isa, &job, view, &mut LinearScratch::default());
            for (r, x) in values.chunks(width).enumerate() {
                let norm: f64 = x.iter().map(|w| w * w).sum();
                let found = f64::from(found[r * rows + r]) / size;
                assert!(
                    (found - norm).abs() < 1e-4 * norm,
                    "{} {size} {r}: {found} {norm}",
                    isa.name()
                );
            }
        }
    }
}

/// The Euclidean norms of the integers that a row is rounded to, block by block.
fn norms(row: &[f32]) -> Vec<f64> {
    let mut inputs = Inputs::default();
    inputs.quantize::<_, i16>(Scalar, Rows::new(row, 1, row.len(), row.len()));
    let integers = inputs.groups.iter().flat_map(|&pair| [pair as i16, (pair >> 16) as i16]);
    let squares: Vec<f64> = integers.take(row.len()).map(|q| f64::from(q).powi(2)).collect();
    squares.chunks(BLOCK).map(|block| block.iter().sum::<f64>().sqrt()).collect()
}

proptest! {
    #[test]
    fn inputs_have_the_norm_that_there_is_room_for(
        seed: u64,
        width in 1_usize..900,
        power in 0_i32..9,
        // Squares of the first and the last are no numbers of float32.
        size in -38_i32..37,
    ) {
        let size = 10_f32.powi(size);
        let row: Vec<f32> =
            numbers(seed, width).iter().map(|x| x.powi(2 * power + 1) * size).collect();
        for (norm, block) in norms(&row).into_iter().zip(row.chunks(BLOCK)) {
            prop_assert!(norm <= f64::from(LARGEST_INPUTS), "{norm}");
            // As much as there is room for is used, unless nothing is left of the numbers.
            let tiny = block.iter().fold(0.0_f32, |most, x| most.max(x.abs())) < 1e-33;
            prop_assert!(norm > 32_740.0 || tiny, "{norm}");
        }
    }
}

#[test]
fn rounding_takes_no_norm_beyond_its_bound() {
    for width in 1..=BLOCK {
        // What is worst for the norm is to round all up by a half.
        let least = (32_756.0 / (width as f32).sqrt()).floor() + 0.501;
        for value in [1.0, least / 32_756.0, 1e-18, 3e-15, -1.8e19, f32::MAX] {
            let one = std::iter::once(value).chain(std::iter::repeat_n(0.0, width - 1)).collect();
            for row in [vec![value; width], one] {
                let norm = norms(&row)[0];
                assert!(
                    norm <= f64::from(LARGEST_INPUTS) && norm > 32_740.0,
                    "{width} {value} {norm}"
                );
            }
        }
    }
}
