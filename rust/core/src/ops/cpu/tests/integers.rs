//! Integers of 16 bits at the ends of their range.

use super::super::isa::{self, Isa};
use super::super::kernels::{LinearJob, LinearScratch, Then};
use super::super::views::RowsMut;
use super::{matrix, numbers};
use crate::weights::DType;
use crate::weights::panels::BLOCK;

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
