//! The product of [`super::super::stored`] on tiles: weights of a GGUF file, expanded and taken apart as
//! [`super::floats`] does it.
#![allow(unsafe_code)]

use super::super::matmul::Finish;
use super::super::simd::{LANES, Simd};
use super::super::stored::{CHUNK, Chunk, Stored, following, span};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::floats::{split_line, split_rows};
use super::products::{Block, SplitRows, split_product};
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
    weight: Stored<'_>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
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
                scratch.finish(simd, columns, out, &super::super::matmul::AsIs);
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
