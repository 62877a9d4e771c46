//! Operations on single rows: embedding sums, norms and rotations.
#![allow(unsafe_code)]

use half::f16;
use half::slice::HalfFloatSliceExt;

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
    // The row as floats, a block at a time.
    let mut floats = [0.0; 16 * LANES];
    for (block, out) in out.chunks_mut(floats.len()).enumerate() {
        let floats = &mut floats[..out.len()];
        let from = block * 16 * LANES;
        let scale = match table {
            TableData::Float32(data) => {
                floats.copy_from_slice(&data[here.clone()][from..][..out.len()]);
                1.0
            }
            TableData::Float16(data) => {
                data[here.clone()][from..][..out.len()].convert_to_f32_slice(floats);
                1.0
            }
            TableData::Int8(data, scales) => {
                for (float, &byte) in floats.iter_mut().zip(&data[here.clone()][from..]) {
                    *float = f32::from(byte);
                }
                scales[row]
            }
        };
        let scale = simd.splat(scale);
        for (out, floats) in out.chunks_mut(LANES).zip(floats.chunks(LANES)) {
            let n = out.len();
            // SAFETY: both chunks hold `n` floats.
            unsafe {
                let sum = load_upto(simd, n, out.as_ptr());
                let sum = simd.mul_add(load_upto(simd, n, floats.as_ptr()), scale, sum);
                store_upto(simd, n, sum, out.as_mut_ptr());
            }
        }
    }
}

/// A normalisation's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormJob<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) epsilon: f32,
    /// Whether the mean is taken off.
    pub(super) centred: bool,
}

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` in place; where the mean stays, the variance is the
/// mean of squares.
///
/// # Panics
/// If the three differ in length.
#[inline(always)]
pub(super) fn norm_row<S: Simd>(simd: S, x: &mut [f32], job: &NormJob<'_>) {
    assert!(x.len() == job.weight.len(), "width of a norm");
    assert!(job.bias.is_none_or(|bias| bias.len() == x.len()), "width of a norm's bias");
    let n = x.len() as f32;
    let zero = simd.splat(0.0);
    let mean =
        if job.centred { simd.splat(sum_of_powers::<S, 1>(simd, x, zero) / n) } else { zero };
    let variance = sum_of_powers::<S, 2>(simd, x, mean) / n;
    let scale = simd.splat((1.0 / f64::from(variance + job.epsilon).sqrt()) as f32);
    let normalise = |x: &mut [f32], at: usize, n: usize| {
        // SAFETY: `x`, weight and bias are of one length (checked above), and have `n` ≤ 16 floats from `at` on.
        unsafe {
            let x = x.as_mut_ptr().add(at);
            let centred = simd.sub(load_upto(simd, n, x), mean);
            let weight = load_upto(simd, n, job.weight.as_ptr().add(at));
            let bias = job.bias.map_or(zero, |bias| load_upto(simd, n, bias.as_ptr().add(at)));
            store_upto(simd, n, simd.mul_add(simd.mul(centred, scale), weight, bias), x);
        }
    };
    // How many there are is known, but at the end: to ask for each sixteen would take as long as all else.
    let whole = x.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        normalise(x, at, LANES);
    }
    if whole < x.len() {
        normalise(x, whole, x.len() - whole);
    }
}

/// Rotates a head's first half against its second, by the cosines and sines of its position.
///
/// # Panics
/// If the head is not twice as wide as each of these.
#[inline(always)]
pub(super) fn rotate_head<S: Simd>(simd: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(cos.len() == sin.len() && head.len() == 2 * cos.len(), "width of a rotated head");
    let (first, second) = head.split_at_mut(cos.len());
    let angles = cos.chunks(LANES).zip(sin.chunks(LANES));
    for ((x, y), (cos, sin)) in first.chunks_mut(LANES).zip(second.chunks_mut(LANES)).zip(angles) {
        let n = x.len();
        // SAFETY: the four chunks hold `n` ≤ 16 floats each, as their slices are of one length.
        unsafe {
            let (a, b) = (load_upto(simd, n, x.as_ptr()), load_upto(simd, n, y.as_ptr()));
            let (cos, sin) = (load_upto(simd, n, cos.as_ptr()), load_upto(simd, n, sin.as_ptr()));
            let minus_b = simd.sub(simd.splat(0.0), b);
            store_upto(simd, n, simd.mul_add(minus_b, sin, simd.mul(a, cos)), x.as_mut_ptr());
            store_upto(simd, n, simd.mul_add(a, sin, simd.mul(b, cos)), y.as_mut_ptr());
        }
    }
}

/// Σ (x - mean)ᴾ for P = 1 or 2.
#[inline(always)]
fn sum_of_powers<S: Simd, const P: usize>(simd: S, x: &[f32], mean: S::V) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = simd.splat(0.0);
    for chunk in chunks {
        // SAFETY: the chunk holds 16 floats.
        let d = simd.sub(unsafe { simd.load(chunk.as_ptr()) }, mean);
        sums = if P == 1 { simd.add(sums, d) } else { simd.mul_add(d, d, sums) };
    }
    let mean = simd.largest(mean);
    let rest: f32 = rest.iter().map(|x| (x - mean).powi(P as i32)).sum();
    simd.sum(sums) + rest
}
