//! The matrix product of integers on tiles, see [`super::super::integer`].
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

use super::super::finish::Finish;
use super::super::integer::{Inputs, Place, Quantized};
use super::super::simd::{LANES, Simd};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::products::{Block, Operands, Output, byte_product, two_byte_product};
use super::tiles::{BYTES, Next, Scratch, TILE_ROWS, Tile};
use crate::weights::panels::BLOCK;

/// [`super::super::integer::matmul`] in bytes.
#[inline(always)]
pub(in super::super) fn matmul_int8<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: Quantized<'_, i8>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    (inputs, scratch): (&mut Inputs, &mut Scratch),
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    inputs.quantize::<S, i8>(simd, a);
    scratch.reserve(0, 2 * BLOCK.div_ceil(BYTES));
    let mut sums = Block([[0; 2 * LANES]; 2 * TILE_ROWS]);
    let mut tiles = amx.tiles();
    let panel_len = weight.panel_len();
    for column in out.columns.clone().step_by(2 * LANES) {
        let panels = &weight.data[column / LANES * panel_len..];
        for (block, first) in (0..a.width).step_by(BLOCK).enumerate() {
            let steps = (a.width - first).min(BLOCK).div_ceil(BYTES);
            let w = scratch.whole_tiles(panels, panel_len, first * LANES, steps);
            let following =
                if first + BLOCK < a.width { (first + BLOCK) * LANES } else { 2 * panel_len };
            let next = Next::new(panels.as_ptr().wrapping_add(following).cast(), panel_len);
            for row in (0..a.count).step_by(2 * TILE_ROWS) {
                let rows = (a.count - row).min(2 * TILE_ROWS);
                let second = if rows > TILE_ROWS { row + TILE_ROWS } else { row };
                let at =
                    |row: usize| inputs.groups[row * inputs.stride + first / 4..].as_ptr().cast();
                // SAFETY: `quantize` has made whole tiles of rows, of whole lines of 64 bytes; `w` are
                // `steps` tiles each, of the file or of the scratch memory.
                unsafe {
                    let operands = Operands {
                        steps,
                        a: [at(row), at(second)],
                        a_stride: 4 * inputs.stride,
                        a_step: BYTES,
                        w,
                        ahead: next.share(row / (2 * TILE_ROWS), steps),
                    };
                    let to = sums.0.as_mut_ptr().cast();
                    byte_product(&mut tiles, operands, Output { to, stride: 128, add: false });
                }
                let place = Place { row, column, rows, columns: 2 * LANES, block };
                place.add(simd, &sums.0, inputs, &weight, out, finish);
            }
        }
    }
}

/// [`super::super::integer::matmul`] of 12 by 12 bits, each in two bytes of 8 and of 4 bits. The product of the
/// two lower ones is left out; it is a tenth of what rounding to 12 bits has lost.
#[inline(always)]
pub(in super::super) fn matmul_int16<S: Simd>(
    simd: S,
    amx: Amx,
    a: Rows<'_>,
    weight: Quantized<'_, i16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    (inputs, scratch): (&mut Inputs, &mut Scratch),
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    inputs.quantize::<S, i16>(simd, a);
    // Rows of bytes, those of a tile with high and then with low ones.
    let stride = a.width.next_multiple_of(BYTES);
    let low = TILE_ROWS * stride;
    scratch.reserve(
        a.count.div_ceil(TILE_ROWS) * 2 * low / size_of::<Tile>(),
        2 * BLOCK.div_ceil(BYTES),
    );
    split_inputs(inputs, a, stride, &mut scratch.a);
    let mut sums = Block([[0; 2 * LANES]; 2 * TILE_ROWS]);
    let mut tiles = amx.tiles();
    let panel_len = weight.panel_len();
    for column in out.columns.clone().step_by(LANES) {
        let data = &weight.data[column / LANES * panel_len..];
        for (block, first) in (0..a.width).step_by(BLOCK).enumerate() {
            let width = (a.width - first).min(BLOCK).next_multiple_of(2);
            let steps = width.div_ceil(BYTES);
            split_weights(
                &data[first * LANES..(first + width) * LANES],
                &mut scratch.w[..2 * steps],
            );
            for row in (0..a.count).step_by(2 * TILE_ROWS) {
                let rows = (a.count - row).min(2 * TILE_ROWS);
                let second = if rows > TILE_ROWS { row + TILE_ROWS } else { row };
                let bytes = scratch.a.as_ptr().cast::<u8>();
                // SAFETY: `reserve` made two times `low` bytes for each tile of rows, and `w` has two
                // tiles for each step.
                unsafe {
                    let at = |row: usize| bytes.add(row / TILE_ROWS * 2 * low + first);
                    let w = scratch.w.as_ptr().cast();
                    two_byte_product(
                        &mut tiles,
                        steps,
                        [at(row), at(second)],
                        (stride, low),
                        w,
                        &mut sums,
                    );
                }
                for sums in &mut sums.0[..rows] {
                    // SAFETY: a row of sums holds two times 16.
                    unsafe {
                        let (high, mixed) = (sums.as_ptr(), sums[LANES..].as_ptr());
                        let (high, mixed) =
                            (_mm512_loadu_si512(high.cast()), _mm512_loadu_si512(mixed.cast()));
                        let (high, mixed) =
                            (_mm512_slli_epi32::<8>(high), _mm512_slli_epi32::<4>(mixed));
                        _mm512_storeu_si512(
                            sums.as_mut_ptr().cast(),
                            _mm512_add_epi32(high, mixed),
                        );
                    }
                }
                let place = Place { row, column, rows, columns: LANES, block };
                place.add(simd, &sums.0, inputs, &weight, out, finish);
            }
        }
    }
}

/// Integers of 12 bits as bytes of their upper 8 and lower 4 bits.
#[inline(always)]
fn split_inputs(inputs: &Inputs, a: Rows<'_>, stride: usize, tiles: &mut [Tile]) {
    for row in 0..a.count {
        let integers = &inputs.groups[row * inputs.stride..][..inputs.stride];
        let at = row / TILE_ROWS * 2 * TILE_ROWS * stride + row % TILE_ROWS * stride;
        for (i, integers) in integers.chunks_exact(LANES).enumerate() {
            // SAFETY: 16 pairs are readable; they belong to 32 of the `stride` bytes of a row.
            unsafe {
                let pairs = _mm512_loadu_si512(integers.as_ptr().cast());
                let (high, low) = two_bytes(pairs);
                let to = tiles.as_mut_ptr().cast::<u8>().add(at + i * 2 * LANES);
                _mm256_storeu_si256(to.cast(), _mm512_cvtepi16_epi8(high));
                _mm256_storeu_si256(to.add(TILE_ROWS * stride).cast(), _mm512_cvtepi16_epi8(low));
            }
        }
    }
}

/// x = 16 high + low for 12 bits, both within a signed byte.
///
/// # Safety
/// The processor has AVX-512 BW.
#[inline(always)]
unsafe fn two_bytes(x: __m512i) -> (__m512i, __m512i) {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let rounded = _mm512_srai_epi16::<4>(_mm512_add_epi16(x, _mm512_set1_epi16(8)));
        let high = _mm512_min_epi16(rounded, _mm512_set1_epi16(127));
        (high, _mm512_sub_epi16(x, _mm512_slli_epi16::<4>(high)))
    }
}

/// A block of a panel as tiles of high and of low bytes, in groups of four.
#[inline(always)]
fn split_weights(panel: &[i16], tiles: &mut [Tile]) {
    for (step, tiles) in tiles.chunks_exact_mut(2).enumerate() {
        let from = (step * BYTES * LANES).min(panel.len());
        let weights = &panel[from..panel.len().min(from + BYTES * LANES)];
        let mut padded = [0; BYTES * LANES];
        let weights = if weights.len() == BYTES * LANES {
            weights.as_ptr()
        } else {
            padded[..weights.len()].copy_from_slice(weights);
            padded.as_ptr()
        };
        let (high, low) = (tiles[0].0.as_mut_ptr(), tiles[1].0.as_mut_ptr());
        for quad in 0..BYTES / 4 {
            // SAFETY: 64 k of 16 weights are readable; a tile has 16 lines of 64 bytes.
            unsafe {
                let from = weights.add(quad * 4 * LANES);
                let first = two_bytes(_mm512_loadu_si512(from.cast()));
                let second = two_bytes(_mm512_loadu_si512(from.add(2 * LANES).cast()));
                _mm512_store_si512(high.add(quad * 64).cast(), quads(first.0, second.0));
                _mm512_store_si512(low.add(quad * 64).cast(), quads(first.1, second.1));
            }
        }
    }
}

/// 16 pairs and the next 16 pairs as 16 groups of four bytes.
///
/// # Safety
/// The processor has AVX-512 BW.
#[inline(always)]
unsafe fn quads(first: __m512i, second: __m512i) -> __m512i {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        // Each quarter has four pairs of the first and four of the second operand.
        let packed = _mm512_packs_epi16(first, second);
        let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
        _mm512_shuffle_epi8(packed, _mm512_broadcast_i32x4(order))
    }
}
