//! Rows of floats as integers, with a range for each row and block of input features.
#![allow(unsafe_code)]

use super::super::simd::{LANES, Simd, load_upto};
use super::super::views::Rows;
use super::Element;
use crate::weights::panels::{BLOCK, LARGEST_INPUTS};

/// Rows whose ranges are found before they are quantized: few enough to stay in the first-level cache.
const ROWS_AT_ONCE: usize = 4;

/// Quantized rows.
#[derive(Debug, Default)]
pub(in super::super) struct Inputs {
    /// Groups, `[rows, stride]`.
    pub(in super::super) groups: Vec<i32>,
    pub(in super::super) stride: usize,
    /// `[rows, blocks]`: scale and zero.
    pub(super) ranges: Vec<(f32, f32)>,
    pub(super) blocks: usize,
}

impl Inputs {
    /// Quantizes rows; as many more as fill the last tile are left as they are.
    #[inline(always)]
    pub(in super::super) fn quantize<S: Simd, W: Element>(&mut self, simd: S, rows: Rows<'_>) {
        self.blocks = rows.width.div_ceil(BLOCK);
        // Whole lines of 64 bytes, which is what AMX reads.
        self.stride = (rows.width.div_ceil(W::GROUP)).next_multiple_of(LANES);
        let len = rows.count.next_multiple_of(LANES) * self.stride;
        if self.groups.len() < len {
            self.groups.resize(len, 0);
        }
        self.ranges.clear();
        // The ranges of some rows first: nothing waits for a range, then, while those of others are found.
        for first in (0..rows.count).step_by(ROWS_AT_ONCE) {
            let some = first..rows.count.min(first + ROWS_AT_ONCE);
            let row = |row: usize| &rows.data[row * rows.stride..][..rows.width];
            for floats in some.clone().flat_map(|i| row(i).chunks(BLOCK)) {
                self.ranges.push(W::range(simd, floats));
            }
            for i in some {
                let groups = &mut self.groups[i * self.stride..][..self.stride];
                let ranges = &self.ranges[i * self.blocks..];
                for ((block, floats), &range) in row(i).chunks(BLOCK).enumerate().zip(ranges) {
                    // SAFETY: a row of groups holds the rounded-up number of inputs.
                    unsafe {
                        let to = groups.as_mut_ptr();
                        quantize_block::<S, W>(simd, floats, range, to, block * BLOCK);
                    }
                }
            }
        }
    }
}

/// Writes the integers of a block from the `at`th on.
///
/// # Safety
/// As many as the block has, rounded up to 16, are writable there.
#[inline(always)]
unsafe fn quantize_block<S: Simd, W: Element>(
    simd: S,
    floats: &[f32],
    (scale, zero): (f32, f32),
    to: *mut i32,
    at: usize,
) {
    // A NaN of a scale stays in the results whatever the integers are; what has too small a scale to be divided by is
    // nothing.
    let inverse = 1.0 / scale;
    let inverse = simd.splat(if inverse.is_finite() { inverse } else { 0.0 });
    let zero = simd.splat(zero);
    // Not `mul_add`, which rounds twice where the processor has no such instruction.
    let integers = |x: S::V| simd.add(simd.mul(x, inverse), zero);
    let (chunks, rest) = floats.as_chunks::<LANES>();
    for (i, chunk) in chunks.iter().enumerate() {
        // SAFETY: the chunk is of 16 floats; there is room for them.
        unsafe { W::store(simd, integers(simd.load(chunk.as_ptr())), to, at + i * LANES) };
    }
    if !rest.is_empty() {
        // SAFETY: as many floats are read as there are; there is room for 16.
        unsafe {
            let x = load_upto(simd, rest.len(), rest.as_ptr());
            W::store(simd, integers(x), to, at + chunks.len() * LANES);
        }
    }
}

/// What a block's norm is scaled to, so that those of the integers stay within [`LARGEST_INPUTS`]. Rounding changes each by up to
/// a half, and so their norm by up to half the root of their number, which is 9.8; what [`scale_of_norm`] is rounded by is
/// less than a part in a hundred thousand, which is 0.4.
const LARGEST_NORM: f32 = 32756.0;
const _: () = assert!(BLOCK == 384 && LARGEST_INPUTS == 32767);

/// The scale with which a block's integers have a Euclidean norm of at most [`LARGEST_INPUTS`]; NaN if one of its
/// numbers is not finite.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(super) fn scale_of_norm<S: Simd>(simd: S, floats: &[f32]) -> f32 {
    // Several at once, as each waits for the one before. The order is the same with every instruction set, and so are integers.
    const CHAINS: usize = 4;
    let mut squares = [simd.splat(0.0); CHAINS];
    // Not `mul_add`, as in `quantize_block`.
    let add_square = |sum: S::V, x: S::V| simd.add(sum, simd.mul(x, x));
    let (chunks, rest) = floats.as_chunks::<{ CHAINS * LANES }>();
    for chunk in chunks {
        for i in 0..CHAINS {
            // SAFETY: the chunk holds as many floats as are read.
            let x = unsafe { simd.load(chunk[i * LANES..].as_ptr()) };
            squares[i] = add_square(squares[i], x);
        }
    }
    for (sum, chunk) in squares.iter_mut().zip(rest.chunks(LANES)) {
        // SAFETY: the chunk holds as many floats as are read.
        let x = unsafe { load_upto(simd, chunk.len(), chunk.as_ptr()) };
        *sum = add_square(*sum, x);
    }
    let sum =
        simd.sum(simd.add(simd.add(squares[0], squares[1]), simd.add(squares[2], squares[3])));
    // Of smaller numbers, squares lose bits, those of larger ones are infinite.
    if (1e-30..f32::MAX).contains(&sum) { sum.sqrt() / LARGEST_NORM } else { of_extremes(floats) }
}

/// [`scale_of_norm`] of numbers whose squares float32 does not hold.
#[cold]
fn of_extremes(floats: &[f32]) -> f32 {
    let sum: f64 = floats.iter().map(|&x| f64::from(x).powi(2)).sum();
    if sum.is_finite() { (sum.sqrt() / f64::from(LARGEST_NORM)) as f32 } else { f32::NAN }
}

/// The lowest and the highest of some numbers and zero; NaN if one of them is not finite.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(super) fn extremes<S: Simd>(simd: S, floats: &[f32]) -> (f32, f32) {
    // Several at once, as each waits for the one before.
    const CHAINS: usize = 4;
    let zero = simd.splat(0.0);
    let mut low = [zero; CHAINS];
    let mut high = [zero; CHAINS];
    let mut finite = [zero; CHAINS];
    let (chunks, rest) = floats.as_chunks::<{ CHAINS * LANES }>();
    for chunk in chunks {
        for i in 0..CHAINS {
            // SAFETY: the chunk holds as many floats as are read.
            let x = unsafe { simd.load(chunk[i * LANES..].as_ptr()) };
            low[i] = simd.min(low[i], x);
            high[i] = simd.max(high[i], x);
            finite[i] = simd.mul_add(x, zero, finite[i]);
        }
    }
    for chunk in rest.chunks(LANES) {
        // SAFETY: the chunk holds as many floats as are read.
        let x = unsafe { load_upto(simd, chunk.len(), chunk.as_ptr()) };
        low[0] = simd.min(low[0], x);
        high[0] = simd.max(high[0], x);
        finite[0] = simd.mul_add(x, zero, finite[0]);
    }
    for i in 1..CHAINS {
        low[0] = simd.min(low[0], low[i]);
        high[0] = simd.max(high[0], high[i]);
        finite[0] = simd.add(finite[0], finite[i]);
    }
    let finite = simd.sum(finite[0]);
    (finite - simd.largest(simd.sub(zero, low[0])), finite + simd.largest(high[0]))
}
