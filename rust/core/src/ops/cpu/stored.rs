//! The matrix product with weights as a GGUF file stores them.
//!
//! Some rows of weights are expanded to floats at a time, exchanged with columns into a panel in the
//! first-level cache, and multiplied there by the product of [`super::matmul`]. Nothing of the matrix is
//! kept in another form. What an expansion costs is shared by all rows of inputs, so that micro-batches
//! of such a model are larger.
#![allow(unsafe_code)]

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::expand::expand;
use super::finish::Finish;
use super::matmul::Part;
use super::simd::{LANES, Simd};
use super::tiling::{self, Next};
use super::views::{Rows, RowsMut, expect_shapes};
use crate::gguf::rows::StoredRows;

/// Input features that are expanded at a time: the longest block.
pub(super) const CHUNK: usize = 256;

/// Numbers of inputs that stay in the second-level cache while all columns of the output pass by.
const INPUTS: usize = 1 << 18;

/// A matrix `[out_features, in_features]` in parts that lie one below the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    parts: &'a [StoredRows],
    pub(super) out_features: usize,
    pub(super) in_features: usize,
}

impl<'a> Stored<'a> {
    /// # Panics
    /// If the parts have not that shape together.
    pub(super) fn new(parts: &'a [StoredRows], out_features: usize, in_features: usize) -> Self {
        assert!(parts.iter().all(|part| part.width() == in_features), "width");
        assert_eq!(parts.iter().map(StoredRows::len).sum::<usize>(), out_features, "rows");
        Self { parts, out_features, in_features }
    }

    /// Whether all elements are integers with scales.
    pub(super) fn quantized(&self) -> bool {
        self.parts.iter().all(StoredRows::quantized)
    }

    /// The part that a row is in, and which one of it that is.
    #[inline(always)]
    fn find(&self, mut row: usize) -> Option<(&'a StoredRows, usize)> {
        for part in self.parts {
            if row < part.len() {
                return Some((part, row));
            }
            row -= part.len();
        }
        None
    }
}

/// A matrix whose rows become floats some at a time.
pub(super) trait Expand: Copy {
    /// `[out_features, in_features]`
    fn shape(&self) -> [usize; 2];

    /// Expands 16 rows from `first` on, those behind the last one as zeros; of each, up to a chunk of input
    /// features from `k` on, both of which are `here`. Meanwhile it brings near the same of what comes `next`.
    fn expand<S: Simd>(
        &self,
        simd: S,
        here: (usize, usize),
        next: (usize, usize),
        steps: usize,
        rows: &mut Chunk,
    );
}

impl Expand for Stored<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.out_features, self.in_features]
    }

    #[inline(always)]
    fn expand<S: Simd>(
        &self,
        simd: S,
        (first, k): (usize, usize),
        next: (usize, usize),
        steps: usize,
        rows: &mut Chunk,
    ) {
        for (i, out) in rows.0.iter_mut().enumerate() {
            if let Some((part, row)) = self.find(next.0 + i) {
                for line in part.bytes(row, next.1, CHUNK).chunks(64) {
                    simd.prefetch(line.as_ptr());
                }
            }
            let out = &mut out[..steps];
            match self.find(first + i) {
                Some((part, row)) => expand(simd, part.kind(), part.bytes(row, k, steps), out),
                None => out.fill(0.0),
            }
        }
    }
}

/// Input features that all columns of the output pass before the next ones, with so many rows of inputs: whole
/// chunks.
pub(super) fn span(rows: usize) -> usize {
    (INPUTS / rows.max(1)).max(1).next_multiple_of(CHUNK)
}

/// 16 rows of a chunk, at a distance that spreads them over the cache.
#[repr(C, align(64))]
pub(super) struct Chunk(pub(super) [[f32; Self::STRIDE]; LANES]);

impl Chunk {
    pub(super) const STRIDE: usize = CHUNK + LANES;
    #[allow(clippy::large_stack_arrays)] // 17 KiB, of two MiB that a thread has
    pub(super) const ZERO: Self = Self([[0.0; Self::STRIDE]; LANES]);
}

/// Panels of a tile at most: more would not stay in the first-level cache.
const MAX_PANELS: usize = 2;

/// The panels of a tile.
#[repr(C, align(64))]
struct Panels([[f32; LANES * CHUNK]; MAX_PANELS]);

impl Panels {
    #[allow(clippy::large_stack_arrays)] // 32 KiB
    const ZERO: Self = Self([[0.0; LANES * CHUNK]; MAX_PANELS]);
}

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd>(
    simd: S,
    a: Rows<'_>,
    weight: impl Expand,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
) {
    expect_shapes(a, weight.shape(), out);
    let mut rows = Chunk::ZERO;
    let mut panels = Panels::ZERO;
    let (span, end) = (span(a.count), out.columns.end);
    let widest = tiling::panels(S::TILES, a.count).min(MAX_PANELS);
    for first in (0..a.width).step_by(span) {
        let last = a.width.min(first + span);
        for (column, group) in tiling::groups(out.columns.clone(), widest, LANES) {
            let columns = (end - column).min(group * LANES);
            for k in (first..last).step_by(CHUNK) {
                let steps = (last - k).min(CHUNK);
                let next = following(column, k, first..last, group * LANES);
                for (p, panel) in panels.0[..group].iter_mut().enumerate() {
                    let p = p * LANES;
                    let (here, next) = ((column + p, k), (next.0 + p, next.1));
                    weight.expand(simd, here, next, steps, &mut rows);
                    to_panel(simd, &rows, steps, panel);
                }
                // What is expanded next brings itself near.
                let here =
                    Next::new(panels.0.as_flattened(), 0, LANES * CHUNK, group, CHUNK * LANES);
                let part = Part { column, columns, group, k, steps, next: here };
                part.multiply(simd, a, panels.0.as_flattened(), LANES * CHUNK, out, finish);
            }
        }
    }
}

/// Which column and which input feature come after these: those of the next chunk, or at the end of the span
/// the first ones of the next columns.
pub(super) fn following(
    column: usize,
    k: usize,
    span: Range<usize>,
    columns: usize,
) -> (usize, usize) {
    if k + CHUNK < span.end { (column, k + CHUNK) } else { (column + columns, span.start) }
}

/// Exchanges rows with columns.
#[inline(always)]
fn to_panel<S: Simd>(simd: S, rows: &Chunk, steps: usize, panel: &mut [f32; LANES * CHUNK]) {
    for (i, square) in panel.as_chunks_mut::<{ LANES * LANES }>().0.iter_mut().enumerate() {
        if i * LANES < steps {
            let from = rows.0.as_flattened()[i * LANES..].as_ptr();
            // SAFETY: a square begins within the first chunk of each of the 16 rows, which are longer than
            // that by 16.
            unsafe { simd.transpose(from, Chunk::STRIDE, square.as_mut_ptr()) };
        }
    }
}
