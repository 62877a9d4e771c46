//! Scaled dot-product attention of one sequence in bfloat16 on tiles, head by head; scores, their softmax
//! and the sums are in single precision.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::attention::AttentionJob;
use super::super::simd::{LANES, Simd};
use super::super::views::RowsMut;
use super::bfloat16::rounded;
use super::products::{Block, Operands, Output, bfloat16_product};
use super::tiles::{STEP, TILE_ROWS, Tile, grow};
use super::{Amx, Tiles};

/// Queries whose scores are held at a time: what a product computes.
const QUERIES: usize = 2 * TILE_ROWS;

/// Memory that attention needs beside its input and output.
#[derive(Debug, Default)]
pub(in super::super) struct Scratch {
    queries: Vec<Tile>,
    keys: Vec<Tile>,
    values: Vec<Tile>,
    /// A block of scores, rows of `[QUERIES, padded tokens]`, which become the weights.
    scores: Vec<f32>,
    weights: Vec<Tile>,
}

/// `out` is `[rows, heads.count * heads.head_dim]`; only the columns of the heads are written.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(in super::super) fn attention<S: Simd>(
    simd: S,
    amx: Amx,
    job: &AttentionJob<'_>,
    mut out: RowsMut<'_>,
    scratch: &mut Scratch,
) {
    let dim = job.heads.head_dim;
    let tokens = job.keys.count;
    if tokens == 0 {
        return;
    }
    let mut tiles = amx.tiles();
    let sizes =
        Sizes { tokens, dim, key_steps: dim.div_ceil(STEP), value_steps: tokens.div_ceil(STEP) };
    scratch.reserve(sizes);
    let mut packed = None;
    for head in job.share.clone() {
        let kv_head = job.kv_head(head);
        if packed.replace(kv_head) != Some(kv_head) {
            let (keys, values) =
                (job.keys.columns(kv_head * dim, dim), job.values.columns(kv_head * dim, dim));
            pack_keys(keys.iter(), sizes, &mut scratch.keys);
            pack_values(&values.iter(), sizes, &mut scratch.values);
        }
        for first in (0..out.count).step_by(QUERIES) {
            let count = (out.count - first).min(QUERIES);
            let seen = Seen(job.seen(first..first + count, STEP));
            let queries = job.queries.rows(first..first + count).columns(head * dim, dim);
            pack_rows(queries.iter(), sizes.key_steps, &mut scratch.queries);
            scratch.score(&mut tiles, sizes, &seen);
            let mut sums = [0.0; QUERIES];
            for (row, sum) in sums[..count].iter_mut().enumerate() {
                *sum = scratch.softmax_without_division(simd, job, head, (first, row), &seen);
            }
            let mut out = out.part(first..first + count, head * dim, dim);
            scratch.weigh(&mut tiles, sizes, &seen, |column, block: &Block<f32>| {
                for (row, (block, sum)) in block.0[..count].iter().zip(sums).enumerate() {
                    for c in (column..dim.min(column + 2 * LANES)).step_by(LANES) {
                        // SAFETY: a row of a block holds 32 floats.
                        let v = unsafe { simd.load(block[c - column..][..LANES].as_ptr()) };
                        let v = simd.div(v, simd.splat(sum));
                        out.store(simd, row, c, (dim - c).min(LANES), v);
                    }
                }
            });
        }
    }
}

/// How large things are within a sequence.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    dim: usize,
    /// Steps of a product over a head's dimensions, and over the tokens.
    key_steps: usize,
    value_steps: usize,
}

/// The keys that a block of queries is multiplied with, in whole steps.
#[derive(Debug)]
struct Seen(Range<usize>);

impl Seen {
    /// Their steps, of those of all keys.
    fn steps(&self) -> Range<usize> {
        self.0.start / STEP..self.0.end / STEP
    }

    /// Floats from one row of scores to the next: an odd number of cache lines, so that rows do not
    /// compete for the same sets.
    fn score_stride(&self) -> usize {
        self.0.len() + LANES
    }
}

impl Scratch {
    fn reserve(&mut self, sizes: Sizes) {
        let Sizes { dim, key_steps, value_steps, .. } = sizes;
        grow(&mut self.queries, 2 * key_steps);
        grow(&mut self.keys, 2 * value_steps * key_steps);
        grow(&mut self.values, dim.div_ceil(LANES) * value_steps);
        grow(&mut self.weights, 2 * value_steps);
    }

    /// The queries' scores with the keys that some of them see.
    #[inline(always)]
    fn score(&mut self, tiles: &mut Tiles, sizes: Sizes, seen: &Seen) {
        let (steps, stride) = (sizes.key_steps, seen.score_stride());
        if self.scores.len() < QUERIES * stride {
            self.scores.resize(QUERIES * stride, 0.0);
        }
        let at = |tiles: &[Tile], i: usize| tiles[i * steps..][..steps].as_ptr().cast();
        for (i, pair) in seen.steps().enumerate() {
            let operands = Operands {
                steps,
                a: [at(&self.queries, 0), at(&self.queries, 1)],
                a_stride: 64,
                a_step: size_of::<Tile>(),
                w: [at(&self.keys, 2 * pair), at(&self.keys, 2 * pair + 1)],
                ahead: at(&self.keys, 2 * pair),
            };
            let scores = &mut self.scores[i * STEP..QUERIES * stride];
            let out = Output { to: scores.as_mut_ptr(), stride: 4 * stride, add: false };
            // SAFETY: the slices have been taken with that many tiles; rows of scores end `LANES` before
            // the next one.
            unsafe { bfloat16_product(tiles, operands, out) };
        }
    }

    /// Makes a row of scores, that of query `first + row`, a row of weights and returns their sum.
    #[inline(always)]
    fn softmax_without_division<S: Simd>(
        &mut self,
        simd: S,
        job: &AttentionJob<'_>,
        head: usize,
        (first, row): (usize, usize),
        seen: &Seen,
    ) -> f32 {
        let scores = &mut self.scores[row * seen.score_stride()..][..seen.0.len()];
        let sum = job.softmax_without_division(simd, head, (first + row, seen.0.start), scores);
        let tiles = &mut self.weights[row / TILE_ROWS * seen.steps().len()..];
        let line = row % TILE_ROWS;
        for (weights, tile) in scores.as_chunks::<STEP>().0.iter().zip(tiles) {
            tile.set_line(line, weights);
        }
        sum
    }

    /// The weights times the values, 32 dimensions from `column` on at a time.
    #[inline(always)]
    fn weigh(
        &self,
        tiles: &mut Tiles,
        sizes: Sizes,
        seen: &Seen,
        mut take: impl FnMut(usize, &Block<f32>),
    ) {
        let steps = seen.steps().len();
        let weights = |i: usize| self.weights[i * steps..][..steps].as_ptr().cast();
        let values = |panel: usize| {
            let panel = &self.values[panel * sizes.value_steps..][..sizes.value_steps];
            panel[seen.steps()].as_ptr().cast()
        };
        let panels = sizes.dim.div_ceil(LANES);
        let mut block = Block([[0.0; 2 * LANES]; QUERIES]);
        for panel in (0..panels).step_by(2) {
            let second = (panel + 1).min(panels - 1);
            let operands = Operands {
                steps,
                a: [weights(0), weights(1)],
                a_stride: 64,
                a_step: size_of::<Tile>(),
                w: [values(panel), values(second)],
                ahead: values(panel),
            };
            let out = Output { to: block.0.as_mut_ptr().cast(), stride: 128, add: false };
            // SAFETY: the slices have been taken with that many tiles; a block has 32 rows.
            unsafe { bfloat16_product(tiles, operands, out) };
            take(panel * LANES, &block);
        }
    }
}

/// Rows as tiles, those of 16 rows after one another.
#[inline(always)]
fn pack_rows<'a>(rows: impl Iterator<Item = &'a [f32]>, steps: usize, tiles: &mut [Tile]) {
    for (i, row) in rows.enumerate() {
        let tiles = &mut tiles[i / TILE_ROWS * steps..];
        for (numbers, tile) in row.chunks(STEP).zip(tiles) {
            tile.set_line(i % TILE_ROWS, numbers);
        }
    }
}

/// A head's keys as panels of 16 tokens, pairs of dimensions side by side; zeros behind the last token.
#[inline(always)]
fn pack_keys<'a>(keys: impl Iterator<Item = &'a [f32]>, sizes: Sizes, panels: &mut [Tile]) {
    let panels = &mut panels[..2 * sizes.value_steps * sizes.key_steps];
    for tile in &mut panels[sizes.tokens / TILE_ROWS * sizes.key_steps..] {
        *tile = Tile::ZERO;
    }
    pack_rows(keys, sizes.key_steps, panels);
    for tile in panels {
        tile.transpose();
    }
}

/// A head's values as panels of 16 dimensions, pairs of tokens side by side; zeros behind the last token.
#[inline(always)]
fn pack_values<'a>(
    values: &(impl Iterator<Item = &'a [f32]> + Clone),
    sizes: Sizes,
    panels: &mut [Tile],
) {
    for (first, panel) in (0..sizes.dim).step_by(LANES).zip(panels.chunks_mut(sizes.value_steps)) {
        let count = (sizes.dim - first).min(LANES);
        let mut values = values.clone();
        for tile in panel {
            for line in tile.0.as_chunks_mut::<64>().0 {
                let mut pair = [[0.0; LANES]; 2];
                for (numbers, value) in pair.iter_mut().zip(&mut values) {
                    numbers[..count].copy_from_slice(&value[first..first + count]);
                }
                // SAFETY: a pair are twice 16 floats, a line has room for as many bfloat16.
                unsafe {
                    let [first, second] = pair.map(|numbers| _mm512_loadu_ps(numbers.as_ptr()));
                    let both = _mm512_permutexvar_epi16(alternate(), rounded(first, second));
                    _mm512_storeu_si512(line.as_mut_ptr().cast(), both);
                }
            }
        }
    }
}

/// The order that brings 32 elements from one half after the other to taking turns.
#[inline(always)]
fn alternate() -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) }
}

impl Tile {
    /// Rows of 16 pairs become columns of them.
    #[inline(always)]
    fn transpose(&mut self) {
        let lines = self.0.as_mut_ptr();
        // SAFETY: a tile has 16 lines of 64 bytes; the processor has AVX-512.
        unsafe {
            let zero = _mm512_setzero_si512();
            let mut a = [zero; 16];
            for (i, line) in a.iter_mut().enumerate() {
                *line = _mm512_load_si512(lines.add(i * 64).cast());
            }
            // First within quarters of 128 bits: pairs of rows, then four rows.
            let mut b = [zero; 16];
            for i in 0..8 {
                b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
                b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
            }
            for g in (0..16).step_by(4) {
                a[g] = _mm512_unpacklo_epi64(b[g], b[g + 2]);
                a[g + 1] = _mm512_unpackhi_epi64(b[g], b[g + 2]);
                a[g + 2] = _mm512_unpacklo_epi64(b[g + 1], b[g + 3]);
                a[g + 3] = _mm512_unpackhi_epi64(b[g + 1], b[g + 3]);
            }
            // Then the quarters: `a[4 g + c]` has, of rows 4 g to 4 g + 3, the columns c, c + 4, c + 8, c + 12.
            for c in 0..4 {
                b[c] = _mm512_shuffle_i32x4::<0x88>(a[c], a[4 + c]);
                b[4 + c] = _mm512_shuffle_i32x4::<0xdd>(a[c], a[4 + c]);
                b[8 + c] = _mm512_shuffle_i32x4::<0x88>(a[8 + c], a[12 + c]);
                b[12 + c] = _mm512_shuffle_i32x4::<0xdd>(a[8 + c], a[12 + c]);
            }
            for c in 0..4 {
                a[c] = _mm512_shuffle_i32x4::<0x88>(b[c], b[8 + c]);
                a[8 + c] = _mm512_shuffle_i32x4::<0xdd>(b[c], b[8 + c]);
                a[4 + c] = _mm512_shuffle_i32x4::<0x88>(b[4 + c], b[12 + c]);
                a[12 + c] = _mm512_shuffle_i32x4::<0xdd>(b[4 + c], b[12 + c]);
            }
            for (i, line) in a.into_iter().enumerate() {
                _mm512_store_si512(lines.add(i * 64).cast(), line);
            }
        }
    }
}
