//! Operations on single rows: embedding sums and layer norm.
#![allow(unsafe_code)]

use half::f16;

use super::simd::{LANES, Simd, load_upto, store_upto};

/// Rows of an embedding table.
#[derive(Debug, Clone, Copy)]
pub(super) enum TableData<'a> {
    Float32(&'a [f32]),
    Float16(&'a [f16]),
    /// With the scale of each row.
    Int8(&'a [i8], &'a [f32]),
}

/// `out += table[row]`
///
/// # Panics
/// If the table has no such row of `out`'s width.
#[inline(always)]
pub(super) fn add_table_row<S: Simd>(simd: S, table: TableData<'_>, row: usize, out: &mut [f32]) {
    let width = out.len();
    let here = row * width..(row + 1) * width;
    match table {
        TableData::Float32(data) => add_row(simd, &data[here], |x| x, 1.0, out),
        TableData::Float16(data) => add_row(simd, &data[here], f16::to_f32, 1.0, out),
        TableData::Int8(data, scales) => add_row(simd, &data[here], f32::from, scales[row], out),
    }
}

#[inline(always)]
fn add_row<S: Simd, W: Copy>(
    simd: S,
    row: &[W],
    to_f32: impl Fn(W) -> f32,
    scale: f32,
    out: &mut [f32],
) {
    let scale = simd.splat(scale);
    for (out, row) in out.chunks_mut(LANES).zip(row.chunks(LANES)) {
        let mut floats = [0.0; LANES];
        for (float, &element) in floats.iter_mut().zip(row) {
            *float = to_f32(element);
        }
        // SAFETY: `floats` holds 16 floats, `out` the number of them that is named.
        unsafe {
            let sum = load_upto(simd, out.len(), out.as_ptr());
            let sum = simd.mul_add(simd.load(floats.as_ptr()), scale, sum);
            store_upto(simd, out.len(), sum, out.as_mut_ptr());
        }
    }
}

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` in place.
///
/// # Panics
/// If the three differ in length.
#[inline(always)]
pub(super) fn layer_norm<S: Simd>(
    simd: S,
    x: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    assert!(x.len() == weight.len() && x.len() == bias.len(), "layer norm width");
    let n = x.len() as f32;
    let mean = simd.splat(sum(simd, x, |v| v) / n);
    let variance = sum(simd, x, |v| {
        let d = simd.sub(v, mean);
        simd.mul(d, d)
    });
    // The lanes past a ragged end are zeros, which the sum of squares has counted as (0 - mean)².
    let padding = (x.len().next_multiple_of(LANES) - x.len()) as f32;
    let mean_value = simd.largest(mean);
    let variance = (variance - padding * mean_value * mean_value) / n;
    let scale = simd.splat(1.0 / (variance + epsilon).sqrt());
    for ((x, weight), bias) in x.chunks_mut(LANES).zip(weight.chunks(LANES)).zip(bias.chunks(LANES))
    {
        let n = x.len();
        // SAFETY: the three chunks hold `n` ≤ 16 floats each, as their slices are of one length.
        unsafe {
            let centred = simd.sub(load_upto(simd, n, x.as_ptr()), mean);
            let weight = load_upto(simd, n, weight.as_ptr());
            let bias = load_upto(simd, n, bias.as_ptr());
            let y = simd.mul_add(simd.mul(centred, scale), weight, bias);
            store_upto(simd, n, y, x.as_mut_ptr());
        }
    }
}

/// Σ f(x)
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], f: impl Fn(S::V) -> S::V) -> f32 {
    let mut sums = simd.splat(0.0);
    for chunk in x.chunks(LANES) {
        // SAFETY: the chunk holds as many floats as are named.
        sums = simd.add(sums, f(unsafe { load_upto(simd, chunk.len(), chunk.as_ptr()) }));
    }
    simd.sum(sums)
}
