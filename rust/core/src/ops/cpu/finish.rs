//! What happens to the sums of a tile: what they begin with, where they are written, and what they become then.
#![allow(unsafe_code)]

use super::simd::{LANES, Simd, combine};
use super::tiling::{MAX_COLUMNS, MAX_ROWS};
use super::views::RowsMut;

/// What happens to outputs while they are near.
///
/// A trait and not a closure: only a function that is always inlined is compiled with the
/// instructions of the kernel around it.
pub(super) trait Finish<S: Simd> {
    /// What is added to each output feature first.
    fn bias(&self) -> Option<&[f32]> {
        None
    }

    /// The final value of output features `column..column + 16` of a row, whose bias is not added yet.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX calls it"))]
    fn finish(&self, simd: S, row: usize, column: usize, v: S::V) -> S::V;

    /// What happens after the bias to `outputs` of a row, of which the first is that `column`'s.
    fn after_bias(&self, simd: S, row: usize, column: usize, outputs: &mut [f32]);
}

/// Nothing happens.
pub(super) struct AsIs;

impl<S: Simd> Finish<S> for AsIs {
    #[inline(always)]
    fn finish(&self, _: S, _: usize, _: usize, v: S::V) -> S::V {
        v
    }

    #[inline(always)]
    fn after_bias(&self, _: S, _: usize, _: usize, _: &mut [f32]) {}
}

/// The biases of a tile's columns, or zeros, in whole panels: what its sums begin with.
#[repr(align(64))]
pub(super) struct Biases([f32; MAX_COLUMNS]);

impl Biases {
    /// # Panics
    /// If the columns are more than those of the widest tile.
    #[inline(always)]
    pub(super) fn of<S: Simd>(finish: &impl Finish<S>, column: usize, columns: usize) -> Self {
        let mut biases = Self([0.0; MAX_COLUMNS]);
        if let Some(bias) = finish.bias() {
            biases.0[..columns].copy_from_slice(&bias[column..column + columns]);
        }
        biases
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr()
    }
}

impl RowsMut<'_> {
    /// Has a tile of these rows written at a place with room for whole panels of `WIDTH` columns: where the rows
    /// are, or if their last panel has fewer, in a tile of `LEN` floats elsewhere.
    #[inline(always)]
    pub(super) fn through_whole_panels<S: Simd, const WIDTH: usize, const LEN: usize>(
        &mut self,
        simd: S,
        write: impl FnOnce(*mut f32, usize),
    ) {
        let mut padded = None;
        let (to, stride) = if self.width.is_multiple_of(WIDTH) {
            self.raw()
        } else {
            let padded = padded.insert([0.0; LEN]);
            self.copy_to(simd, padded, LEN / MAX_ROWS);
            (padded.as_mut_ptr(), LEN / MAX_ROWS)
        };
        // In one place, or the compiler would make a function of it that is called for every tile.
        write(to, stride);
        if let Some(padded) = padded {
            self.copy_from(simd, &padded, LEN / MAX_ROWS);
        }
    }

    #[inline(always)]
    fn copy_to<S: Simd>(&self, simd: S, padded: &mut [f32], stride: usize) {
        for (r, padded) in padded.chunks_exact_mut(stride).take(self.count).enumerate() {
            for c in (0..self.width).step_by(LANES) {
                let v = self.load(simd, r, c, (self.width - c).min(LANES));
                // SAFETY: a row of `padded` holds the widest tile.
                unsafe { simd.store(v, padded[c..c + LANES].as_mut_ptr()) };
            }
        }
    }

    #[inline(always)]
    fn copy_from<S: Simd>(&mut self, simd: S, padded: &[f32], stride: usize) {
        for (r, padded) in padded.chunks_exact(stride).take(self.count).enumerate() {
            for c in (0..self.width).step_by(LANES) {
                // SAFETY: a row of `padded` holds the widest tile.
                let v = unsafe { simd.load(padded[c..c + LANES].as_ptr()) };
                self.store(simd, r, c, (self.width - c).min(LANES), v);
            }
        }
    }

    /// Finishes a tile to which the bias is not added yet.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AVX-512 needs it"))]
    #[inline(always)]
    pub(super) fn finish_with_bias<S: Simd>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
        finish: &impl Finish<S>,
    ) {
        if let Some(bias) = finish.bias() {
            for r in 0..self.count {
                combine(simd, self.row_mut(r), &bias[column..], S::add);
            }
        }
        self.finish(simd, row, column, finish);
    }

    /// Finishes a tile to which the bias is added, and whose first element is at (`row`, `column`) of the whole
    /// output. Apart from the product, because an activation beside it would push its sums out of the registers.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
        finish: &impl Finish<S>,
    ) {
        for r in 0..self.count {
            finish.after_bias(simd, row + r, column, self.row_mut(r));
        }
    }
}
