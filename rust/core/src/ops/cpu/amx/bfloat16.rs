//! The matrix product in bfloat16 on tiles: weights are multiplied where they are mapped, inputs are rounded
//! as they come. Sums are in single precision, k ascending in steps of 32, whatever tile an output falls
//! into.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::asm;
use std::arch::x86_64::*;

use half::bf16;

use super::super::finish::Finish;
use super::super::matmul::Panels;
use super::super::simd::{LANES, Simd};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::products::{Block, Operands, Output, bfloat16_product};
use super::tiles::{Next, STEP, Scratch, TILE_ROWS, Tile, whole_line};

/// Steps at a time: so many tiles of two panels stay in the first-level cache while the rows pass by.
const STEPS: usize = 6;

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(in super::super) fn matmul<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: Panels<'_, bf16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    let steps = a.width.div_ceil(STEP);
    let row_tiles = a.count.div_ceil(TILE_ROWS);
    scratch.reserve(steps * row_tiles, 2 * STEPS);
    round_rows(a, steps, &mut scratch.a);
    scratch.sums.resize(row_tiles.div_ceil(2), Block([[0.0; 2 * LANES]; 2 * TILE_ROWS]));
    let panel_len = weight.panel_len();
    let end = out.columns.end;
    let mut tiles = amx.tiles();
    for column in out.columns.clone().step_by(2 * LANES) {
        let columns = (end - column).min(2 * LANES);
        let panels = &weight.data[column / LANES * panel_len..];
        for first in (0..steps).step_by(STEPS) {
            let some = (steps - first).min(STEPS);
            let w = scratch.whole_tiles(panels, panel_len, first * STEP * LANES, some);
            let following = if first + some < steps { first + some } else { 2 * steps };
            let next = panels.as_ptr().wrapping_add(following * STEP * LANES).cast();
            let next = Next::new(next, size_of::<bf16>() * panel_len);
            for (row_tile, sums) in (0..row_tiles).step_by(2).zip(&mut scratch.sums) {
                let rows = |tile: usize| scratch.a[tile * steps + first..][..some].as_ptr().cast();
                let second = (row_tile + 1).min(row_tiles - 1);
                let operands = Operands {
                    steps: some,
                    a: [rows(row_tile), rows(second)],
                    a_stride: 64,
                    a_step: size_of::<Tile>(),
                    w,
                    ahead: next.share(row_tile / 2, some),
                };
                let out = Output { to: sums.0.as_mut_ptr().cast(), stride: 128, add: first > 0 };
                // SAFETY: the slices have been taken with that many tiles; a block of sums has 32 rows.
                unsafe { bfloat16_product(&mut tiles, operands, out) };
            }
        }
        scratch.finish(simd, column..column + columns, out, finish);
    }
}

/// Rows as tiles of bfloat16; what there is of a last tile is left as it is below the last row.
#[inline(always)]
fn round_rows(a: Rows<'_>, steps: usize, tiles: &mut [Tile]) {
    for row in 0..a.count {
        let floats = &a.data[row * a.stride..][..a.width];
        let tiles = &mut tiles[steps * (row / TILE_ROWS)..][..steps];
        for (floats, tile) in floats.chunks(STEP).zip(tiles) {
            tile.set_line(row % TILE_ROWS, floats);
        }
    }
}

impl Tile {
    /// Up to 32 numbers, and zeros, as a line of bfloat16.
    ///
    /// # Panics
    /// If there are more, or there is no such line.
    #[inline(always)]
    pub(super) fn set_line(&mut self, line: usize, numbers: &[f32]) {
        let mut padded = [0.0; STEP];
        let from = whole_line(numbers, &mut padded).as_ptr();
        let to = self.0[line * 64..][..64].as_mut_ptr();
        // SAFETY: 32 floats are readable at `from`, and 64 bytes writable at `to`.
        unsafe {
            let both = rounded(_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES)));
            _mm512_store_si512(to.cast(), both);
        }
    }
}

/// 16 and 16 floats as the nearest bfloat16, ties to even; a NaN stays one.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rounded(first: __m512, second: __m512) -> __m512i {
    let both: __m512i;
    // SAFETY: the caller vouches for the instruction. It is not among the features that the kernels are
    // compiled for, which are those of all processors with AVX-512 VNNI.
    unsafe {
        asm!(
            "vcvtne2ps2bf16 {both}, {second}, {first}",
            both = lateout(zmm_reg) both,
            first = in(zmm_reg) first,
            second = in(zmm_reg) second,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    both
}
