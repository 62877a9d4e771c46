//! The product of [`super::super::stored`] on tiles: weights of a GGUF file, expanded and taken apart as
//! [`super::floats`] does it.
#![allow(unsafe_code)]

use super::super::finish::Finish;
use super::super::simd::{LANES, Simd};
use super::super::stored::{CHUNK, Chunk, Expand, following, span};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::floats::{split_line, split_rows};
use super::products::{Block, EXCHANGED_PANELS, SplitRows, exchanged_product, split_product};
use super::tiles::{STEP, Scratch, TILE_ROWS, Tile};

/// Steps of a chunk.
const STEPS: usize = CHUNK / STEP;

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(in super::super) fn matmul<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: impl Expand,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    expect_shapes(a, weight.shape(), out);
    if a.count <= TILE_ROWS {
        return few_rows(simd, amx, a, weight, out, finish, scratch);
    }
    let row_tiles = a.count.div_ceil(TILE_ROWS);
    let (span, end) = (span(a.count).min(a.width), out.columns.end);
    scratch.reserve(2 * span.div_ceil(STEP) * row_tiles, 4 * STEPS);
    scratch.sums.resize(row_tiles.div_ceil(2), Block([[0.0; 2 * LANES]; 2 * TILE_ROWS]));
    let mut rows = Chunk::ZERO;
    let mut tiles = amx.tiles();
    for first in (0..a.width).step_by(span.max(1)) {
        let here = a.columns(first, (a.width - first).min(span));
        let steps = here.width.div_ceil(STEP);
        split_rows(here, steps, &mut scratch.a);
        for column in out.columns.clone().step_by(2 * LANES) {
            let columns = column..end.min(column + 2 * LANES);
            scratch.begin(simd, columns.clone(), (first > 0).then_some(&*out));
            for k in (0..here.width).step_by(CHUNK) {
                let some = (here.width - k).min(CHUNK);
                let until = first + here.width;
                let next = following(column, first + k, first..until, 2 * LANES);
                for (p, tiles) in [(0, 0), (LANES, 2)] {
                    let (here, next) = ((column + p, first + k), (next.0 + p, next.1));
                    weight.expand(simd, here, next, some, &mut rows);
                    split_weights(simd, &rows, some, &mut scratch.w, tiles);
                }
                let (k, some) = (k / STEP, some.div_ceil(STEP));
                for (pair, sums) in scratch.sums.iter_mut().enumerate() {
                    let part = |tile: usize| {
                        scratch.a[2 * (tile * steps + k)..][..2 * some].as_ptr().cast()
                    };
                    let second = 2 * pair + 1;
                    let second = (second < row_tiles).then(|| part(second));
                    let rows = SplitRows { steps: some, first: part(2 * pair), second };
                    let w = scratch.w[..4 * some].as_ptr().cast();
                    // SAFETY: the slices have been taken with that many tiles.
                    unsafe { split_product(&mut tiles, rows, w, sums) };
                }
            }
            if first + here.width == a.width {
                scratch.finish(simd, columns, out, finish);
            } else {
                scratch.finish(simd, columns, out, &super::super::finish::AsIs);
            }
        }
    }
}

/// The same of one tile's rows, with the operands exchanged: the tiles of weights have a line for each output
/// feature, as they are expanded, and it is the inputs and the sums whose rows become columns. There are fewer of
/// those. The sums are the same.
#[inline(always)]
fn few_rows<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: impl Expand,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    const COLUMNS: usize = EXCHANGED_PANELS * LANES;
    let steps = a.width.div_ceil(STEP);
    scratch.reserve(4 * steps, 2 * STEPS * EXCHANGED_PANELS);
    let (rows, inputs) = scratch.a.split_at_mut(2 * steps);
    split_rows(a, steps, rows);
    for (rows, inputs) in rows.iter().zip(&mut *inputs) {
        // SAFETY: a tile is 16 rows of 16 times 32 bits, and this is another one.
        unsafe { simd.transpose(rows.0.as_ptr().cast(), LANES, inputs.0.as_mut_ptr().cast()) };
    }
    let mut rows = Chunk::ZERO;
    let mut tiles = amx.tiles();
    for column in out.columns.clone().step_by(COLUMNS) {
        let columns = column..out.columns.end.min(column + COLUMNS);
        let mut sums = [Tile::ZERO; EXCHANGED_PANELS];
        for k in (0..a.width).step_by(CHUNK) {
            let some = (a.width - k).min(CHUNK);
            let next = following(column, k, 0..a.width, COLUMNS);
            let panels = columns.clone().step_by(LANES).zip(scratch.w.chunks_exact_mut(2 * STEPS));
            for (first, tiles) in panels {
                let next = (next.0 + first - column, next.1);
                weight.expand(simd, (first, k), next, some, &mut rows);
                let steps = tiles.as_chunks_mut::<2>().0.iter_mut().take(some.div_ceil(STEP));
                for (step, [high, low]) in steps.enumerate() {
                    let from = step * STEP;
                    for (line, row) in rows.0.iter().enumerate() {
                        split_line(&row[from..some.min(from + STEP)], high, low, line);
                    }
                }
            }
            let (k, some) = (k / STEP, some.div_ceil(STEP));
            let inputs = inputs[2 * k..][..2 * some].as_ptr().cast();
            let w = scratch.w[..2 * STEPS * EXCHANGED_PANELS].as_ptr().cast();
            // SAFETY: the slices have been taken with that many tiles, `STEPS` being at least `some`.
            unsafe { exchanged_product(&mut tiles, some, w, 2 * STEPS, inputs, &mut sums) };
        }
        for (first, sums) in columns.clone().step_by(LANES).zip(&sums) {
            let mut by_row = Tile::ZERO;
            // SAFETY: as above.
            unsafe { simd.transpose(sums.0.as_ptr().cast(), LANES, by_row.0.as_mut_ptr().cast()) };
            for (row, sums) in by_row.0.as_chunks::<64>().0.iter().take(out.count).enumerate() {
                // SAFETY: a line of a tile is 16 floats.
                let v = unsafe { simd.load(sums.as_ptr().cast()) };
                let v = finish.finish(simd, row, first, v);
                out.store(simd, row, first, (columns.end - first).min(LANES), v);
            }
        }
    }
}

/// 16 rows of weights as tiles of their high and low parts, pairs of k side by side; two tiles of every four,
/// from `at` on.
#[inline(always)]
fn split_weights<S: Simd>(simd: S, rows: &Chunk, some: usize, tiles: &mut [Tile], at: usize) {
    let (mut high, mut low) = (Tile::ZERO, Tile::ZERO);
    for (step, tiles) in tiles.chunks_exact_mut(4).take(some.div_ceil(STEP)).enumerate() {
        let from = step * STEP;
        for (line, row) in rows.0.iter().enumerate() {
            let row = &row[from..some.min(from + STEP)];
            split_line(row, &mut high, &mut low, line);
        }
        for (rows, tile) in [(&high, at), (&low, at + 1)] {
            // SAFETY: a tile is 16 rows of 16 times 32 bits, and this is another one.
            unsafe {
                simd.transpose(rows.0.as_ptr().cast(), LANES, tiles[tile].0.as_mut_ptr().cast());
            }
        }
    }
}
