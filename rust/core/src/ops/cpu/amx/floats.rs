//! The matrix product of floats on tiles, as exact as single precision and several times as fast.
//!
//! A float is the sum of two bfloat16, but for the last of its bits: high·high + high·low + low·high
//! is the product to 2⁻¹⁷, far within what float16 weights have lost already (their own two parts are
//! exact). The products are summed in single precision, k ascending in steps of 32, whatever tile an
//! output falls into.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

use half::f16;

use super::super::finish::Finish;
use super::super::matmul::Panels;
use super::super::simd::{LANES, Simd};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::bfloat16::rounded;
use super::products::{Block, SplitRows, split_product, splitting_product};
use super::tiles::{STEP, Scratch, TILE_ROWS, Tile, whole_line};

/// Steps at a time: so many tiles of two panels stay in the first-level cache while the rows pass by.
const STEPS: usize = 3;

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(in super::super) fn matmul<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: Panels<'_, f16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    let steps = a.width.div_ceil(STEP);
    let row_tiles = a.count.div_ceil(TILE_ROWS);
    scratch.reserve(2 * steps * row_tiles, 4 * STEPS);
    split_rows(a, steps, &mut scratch.a);
    let panel = LANES * a.width;
    let end = out.columns.end;
    let mut tiles = amx.tiles();
    for column in out.columns.clone().step_by(2 * LANES) {
        let columns = (end - column).min(2 * LANES);
        let mut panels = weight.data[column / LANES * panel..].chunks(panel);
        let panels = [panels.next().unwrap_or_default(), panels.next().unwrap_or_default()];
        let whole = a.width.is_multiple_of(STEP) && panels[1].len() == panel;
        scratch.sums.clear();
        scratch.sums.resize(row_tiles.div_ceil(2), Block([[0.0; 2 * LANES]; 2 * TILE_ROWS]));
        // Rows that pass by all at once need each tile only once.
        let once = whole && row_tiles <= 2;
        let at_once = if once { steps } else { STEPS };
        for first_step in (0..steps).step_by(at_once) {
            let some = (steps - first_step).min(at_once);
            let parts = panels.map(|panel| &panel[(first_step * STEP * LANES).min(panel.len())..]);
            for (pair, sums) in scratch.sums.iter_mut().enumerate() {
                let rows = |tile: usize| {
                    scratch.a[2 * (tile * steps + first_step)..][..2 * some].as_ptr().cast()
                };
                let second = 2 * pair + 1;
                let second = (second < row_tiles).then(|| rows(second));
                let rows = SplitRows { steps: some, first: rows(2 * pair), second };
                if pair == 0 && whole {
                    let from = parts.map(|part| part[..some * STEP * LANES].as_ptr().cast());
                    let w = scratch.w[..4 * STEPS].as_mut_ptr().cast();
                    // SAFETY: the slices have been taken with as much as is read. `w` has room for the
                    // tiles of `STEPS` steps, of which there are as many at most or else two are kept.
                    unsafe { splitting_product(&mut tiles, rows, from, w, !once, sums) };
                    continue;
                }
                if pair == 0 {
                    split_panel(parts[0], some, &mut scratch.w, 0);
                    split_panel(parts[1], some, &mut scratch.w, 2);
                }
                let w = scratch.w[..4 * some].as_ptr().cast();
                // SAFETY: the slices have been taken with that many tiles.
                unsafe { split_product(&mut tiles, rows, w, sums) };
            }
        }
        scratch.finish(simd, column..column + columns, out, finish);
    }
}

/// Rows as tiles of their high and low parts.
#[inline(always)]
pub(super) fn split_rows(a: Rows<'_>, steps: usize, tiles: &mut [Tile]) {
    for row in 0..a.count.next_multiple_of(TILE_ROWS) {
        let floats = if row < a.count { &a.data[row * a.stride..][..a.width] } else { &[] };
        let tiles = &mut tiles[2 * steps * (row / TILE_ROWS)..][..2 * steps];
        for (step, pair) in tiles.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let k = (step * STEP).min(floats.len());
            let floats = &floats[k..floats.len().min(k + STEP)];
            let [high, low] = pair;
            split_line(floats, high, low, row % TILE_ROWS);
        }
    }
}

/// Up to 32 numbers, and zeros, as a line of a tile of high and one of low parts.
///
/// # Panics
/// If there are more, or there is no such line.
#[inline(always)]
pub(super) fn split_line(numbers: &[f32], high: &mut Tile, low: &mut Tile, line: usize) {
    let mut padded = [0.0; STEP];
    let from = whole_line(numbers, &mut padded).as_ptr();
    let high = high.0[line * 64..][..64].as_mut_ptr();
    let low = low.0[line * 64..][..64].as_mut_ptr();
    // SAFETY: 32 floats are readable at `from`; a line of a tile is 64 bytes.
    unsafe {
        let (first, second) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
        let (first_high, second_high) = (shortened(first), shortened(second));
        let first_low = _mm512_sub_ps(first, first_high);
        let second_low = _mm512_sub_ps(second, second_high);
        _mm512_store_si512(high.cast(), rounded(first_high, second_high));
        _mm512_store_si512(low.cast(), rounded(first_low, second_low));
    }
}

/// The nearest bfloat16 as a float, ties away from zero; NaN stays NaN, infinity infinity.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn shortened(x: __m512) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let half = _mm512_set1_epi32(0x8000);
        let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let bits = _mm512_add_epi32(_mm512_castps_si512(x), half);
        _mm512_castsi512_ps(_mm512_and_si512(bits, mask))
    }
}

/// A panel as tiles of its high and low parts, pairs of k side by side; two tiles of every four, from
/// `at` on. No panel at all gives zeros.
#[inline(always)]
fn split_panel(panel: &[f16], steps: usize, tiles: &mut [Tile], at: usize) {
    for (step, tiles) in tiles.chunks_exact_mut(4).take(steps).enumerate() {
        let from = (step * STEP * LANES).min(panel.len());
        let weights = &panel[from..panel.len().min(from + STEP * LANES)];
        let mut padded = [f16::ZERO; STEP * LANES];
        let weights = if weights.len() == STEP * LANES {
            weights.as_ptr()
        } else {
            padded[..weights.len()].copy_from_slice(weights);
            padded.as_ptr()
        };
        let high = tiles[at].0.as_mut_ptr();
        let low = tiles[at + 1].0.as_mut_ptr();
        for pair in 0..STEP / 2 {
            // SAFETY: 32 k of 16 weights are readable; a tile has 16 lines of 64 bytes.
            unsafe {
                let from = weights.add(pair * 2 * LANES);
                let even = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
                let odd = _mm512_cvtph_ps(_mm256_loadu_si256(from.add(LANES).cast()));
                let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                let even_high = _mm512_and_si512(_mm512_castps_si512(even), mask);
                let odd_high = _mm512_and_si512(_mm512_castps_si512(odd), mask);
                let even_low =
                    _mm512_castps_si512(_mm512_sub_ps(even, _mm512_castsi512_ps(even_high)));
                let odd_low =
                    _mm512_castps_si512(_mm512_sub_ps(odd, _mm512_castsi512_ps(odd_high)));
                let high_pair = _mm512_or_si512(_mm512_srli_epi32::<16>(even_high), odd_high);
                // What is left of a float16 has three bits: nothing is cut off.
                let low_pair = _mm512_or_si512(_mm512_srli_epi32::<16>(even_low), odd_low);
                _mm512_store_si512(high.add(pair * 64).cast(), high_pair);
                _mm512_store_si512(low.add(pair * 64).cast(), low_pair);
            }
        }
    }
}
