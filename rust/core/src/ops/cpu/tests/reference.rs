//! What the kernels should compute, in float64: slow and obvious.

use half::bf16;

use super::super::isa::Isa;
use crate::ops::Activation;
use crate::weights::DType;
use crate::weights::panels::BLOCK;

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
}

pub(super) fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// Inputs as the kernels round them: to bfloat16 with AMX; integers so that their Euclidean norm is below
/// 2¹⁵, or to 255 steps between the lowest and the highest, of each row and block.
pub(super) fn rounded(x: &[f32], width: usize, dtype: DType, isa: Isa) -> Vec<f64> {
    if dtype == DType::BFloat16 && isa.name() == "amx" {
        return x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
    }
    let round = |block: &[f32]| -> Vec<f64> {
        let low = block.iter().fold(0.0_f32, |low, &x| low.min(x));
        let high = block.iter().fold(0.0_f32, |high, &x| high.max(x));
        let scale = match dtype {
            DType::Int16 => norm(block) / 32756.0,
            DType::Int8 => (high - low) / 255.0,
            _ => return block.iter().map(|&x| f64::from(x)).collect(),
        };
        if scale == 0.0 {
            return vec![0.0; block.len()];
        }
        let inverse = 1.0 / scale;
        let zero = if dtype == DType::Int8 { (-low / scale).round_ties_even() } else { 0.0 };
        let (least, most) = if dtype == DType::Int8 { (0.0, 255.0) } else { (-32767.0, 32767.0) };
        let integer = |x: f32| (x * inverse + zero).round_ties_even().clamp(least, most) - zero;
        block.iter().map(|&x| f64::from(integer(x)) * f64::from(scale)).collect()
    };
    x.chunks(width).flat_map(|row| row.chunks(BLOCK).flat_map(round)).collect()
}

/// The Euclidean norm in the kernels' order: 64 sums, of which halves are added to each other.
fn norm(block: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 64];
    for (i, x) in block.iter().enumerate() {
        sums[i % 64] += x * x;
    }
    let pairs = |step: usize, sums: &[f32]| -> Vec<f32> {
        (0..sums.len()).filter(|i| i & step == 0).map(|i| sums[i] + sums[i + step]).collect()
    };
    [16, 16, 8, 4, 2, 1].iter().fold(sums.to_vec(), |sums, &step| pairs(step, &sums))[0].sqrt()
}

/// The nearest number of half precision: 11 bits, of which the last is worth 2⁻²⁴ at least. (`f16::from_f64` rounds to
/// single precision first.)
fn in_half_precision(x: f64) -> f64 {
    let last = (x.abs().log2().floor().max(-14.0) - 10.0).exp2();
    (x / last).round_ties_even() * last
}

/// A row of inputs times a row of weights in half precision, step by step: sums of 64 products are rounded to half
/// precision after each, and inputs to at most 2 by a power of two before.
pub(super) fn product_in_halves(x: &[f32], weights: &[f64]) -> f64 {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = if largest == 0.0 { 1.0 } else { f64::from(largest).log2().floor().exp2() };
    let chunk = |(x, weights): (&[f32], &[f64])| {
        let add = |sum: f64, (&x, &weight): (&f32, &f64)| {
            in_half_precision(sum + in_half_precision(f64::from(x) / scale) * weight)
        };
        x.iter().zip(weights).fold(0.0, add) * scale
    };
    x.chunks(64).zip(weights.chunks(64)).map(chunk).sum()
}
