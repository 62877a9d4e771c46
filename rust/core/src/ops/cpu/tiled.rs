//! The matrix product on AMX tiles, as exact as single precision and several times as fast.
//!
//! A float is the sum of two bfloat16, but for the last of its bits: high·high + high·low + low·high
//! is the product to 2⁻¹⁷, far within what float16 weights have lost already (their own two parts are
//! exact). The products are summed in single precision, k ascending in steps of 32, whatever tile an
//! output falls into.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

use half::f16;

use super::amx::{Amx, Block, TILE, byte_product, split_product, two_byte_product};
use super::integer::{Inputs, Place, Quantized, Sums};
use super::matmul::{Finish, Panels};
use super::simd::{LANES, Simd};
use super::views::{Rows, RowsMut, expect_shapes};
use crate::weights::panels::BLOCK;

/// k of one step, in bfloat16 and in bytes.
const STEP: usize = 32;
const BYTES: usize = 64;

/// Steps at a time: so many tiles of two panels stay in the first-level cache while the rows pass by.
const STEPS: usize = 6;

/// Rows of a tile.
const TILE_ROWS: usize = 16;

/// A step's tile, aligned as tile loads like it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Tile([u8; TILE]);

/// The operands as tiles.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    a: Vec<Tile>,
    w: Vec<Tile>,
    sums: Vec<Block>,
}

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd>(
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
        scratch.sums.clear();
        scratch.sums.resize(row_tiles.div_ceil(2), [[0.0; 2 * LANES]; 2 * TILE_ROWS]);
        for first_step in (0..steps).step_by(STEPS) {
            let some = (steps - first_step).min(STEPS);
            for (i, panel) in panels.into_iter().enumerate() {
                let part = &panel[(first_step * STEP * LANES).min(panel.len())..];
                split_panel(part, some, &mut scratch.w, 2 * i);
            }
            for (first, sums) in (0..row_tiles).step_by(2).zip(&mut scratch.sums) {
                let rows =
                    |tile: usize| scratch.a[2 * (tile * steps + first_step)..][..2 * some].as_ptr();
                let more = (row_tiles - first > 1).then(|| rows(first + 1).cast());
                let (a, w) = (rows(first).cast(), scratch.w[..4 * some].as_ptr().cast());
                // SAFETY: the slices have been taken with that many tiles.
                unsafe { split_product(&mut tiles, some, a, more, w, sums) };
            }
        }
        for (first, sums) in (0..a.count).step_by(2 * TILE_ROWS).zip(&scratch.sums) {
            for (row, sums) in (first..a.count).zip(sums) {
                for c in (0..columns).step_by(LANES) {
                    // SAFETY: a row of sums holds 32 floats.
                    let v = unsafe { simd.load(sums[c..c + LANES].as_ptr()) };
                    let v = finish.finish(simd, row, column + c, v);
                    out.store(simd, row, column + c, (columns - c).min(LANES), v);
                }
            }
        }
    }
}

/// Rows as tiles of their high and low parts.
#[inline(always)]
fn split_rows(a: Rows<'_>, steps: usize, tiles: &mut [Tile]) {
    for row in 0..a.count.next_multiple_of(TILE_ROWS) {
        let floats = if row < a.count { &a.data[row * a.stride..][..a.width] } else { &[] };
        let tiles = &mut tiles[2 * steps * (row / TILE_ROWS)..][..2 * steps];
        let line = row % TILE_ROWS * 64;
        for (step, pair) in tiles.chunks_exact_mut(2).enumerate() {
            let k = (step * STEP).min(floats.len());
            let floats = &floats[k..floats.len().min(k + STEP)];
            let mut padded = [0.0; STEP];
            let from = if floats.len() == STEP {
                floats.as_ptr()
            } else {
                padded[..floats.len()].copy_from_slice(floats);
                padded.as_ptr()
            };
            // SAFETY: 32 floats are readable at `from`; a line of a tile is 64 bytes.
            unsafe {
                let (first, second) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
                let (first_high, second_high) = (rounded(first), rounded(second));
                let first_low = rounded(_mm512_sub_ps(first, as_f32(first_high)));
                let second_low = rounded(_mm512_sub_ps(second, as_f32(second_high)));
                _mm512_store_si512(
                    pair[0].0.as_mut_ptr().add(line).cast(),
                    packed(first_high, second_high),
                );
                _mm512_store_si512(
                    pair[1].0.as_mut_ptr().add(line).cast(),
                    packed(first_low, second_low),
                );
            }
        }
    }
}

/// The nearest bfloat16, as a float's bits. Ties away from zero; NaN stays NaN, infinity infinity.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn rounded(x: __m512) -> __m512i {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let half = _mm512_set1_epi32(0x8000);
        let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        _mm512_and_si512(_mm512_add_epi32(bits, half), mask)
    }
}

/// Bits as floats.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn as_f32(bits: __m512i) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe { _mm512_castsi512_ps(bits) }
}

/// 16 and 16 bfloat16 given by float bits, one after the other.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn packed(first: __m512i, second: __m512i) -> __m512i {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let first = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(first));
        let second = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(second));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
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
                let even_low = _mm512_castps_si512(_mm512_sub_ps(even, as_f32(even_high)));
                let odd_low = _mm512_castps_si512(_mm512_sub_ps(odd, as_f32(odd_high)));
                let high_pair = _mm512_or_si512(_mm512_srli_epi32::<16>(even_high), odd_high);
                // What is left of a float16 has three bits: nothing is cut off.
                let low_pair = _mm512_or_si512(_mm512_srli_epi32::<16>(even_low), odd_low);
                _mm512_store_si512(high.add(pair * 64).cast(), high_pair);
                _mm512_store_si512(low.add(pair * 64).cast(), low_pair);
            }
        }
    }
}

/// [`super::integer::matmul`] in bytes.
#[inline(always)]
pub(super) fn matmul_int8<S: Simd>(
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
    let mut sums: Sums = [[0; 2 * LANES]; 2 * TILE_ROWS];
    let mut tiles = amx.tiles();
    let panel_len = weight.panel_len();
    for column in out.columns.clone().step_by(2 * LANES) {
        let panels = &weight.data[column / LANES * panel_len..];
        for (block, first) in (0..a.width).step_by(BLOCK).enumerate() {
            let bytes = (a.width - first).min(BLOCK).next_multiple_of(4);
            let steps = bytes.div_ceil(BYTES);
            let whole = bytes.is_multiple_of(BYTES);
            let mut w = [std::ptr::null(); 2];
            for (i, w) in w.iter_mut().enumerate() {
                // Without a second panel the first one is computed twice, and nobody looks at it.
                let panel = panels.chunks(panel_len).nth(i).unwrap_or(&panels[..panel_len]);
                let part = &panel[first * LANES..(first + bytes) * LANES];
                *w = if whole { part.as_ptr().cast() } else { scratch.padded(i * steps, part) };
            }
            for row in (0..a.count).step_by(2 * TILE_ROWS) {
                let rows = (a.count - row).min(2 * TILE_ROWS);
                let second = if rows > TILE_ROWS { row + TILE_ROWS } else { row };
                let at =
                    |row: usize| inputs.groups[row * inputs.stride + first / 4..].as_ptr().cast();
                // SAFETY: `quantize` has made whole tiles of rows, of whole lines of 64 bytes; `w` are
                // `steps` tiles each, of the file or of the scratch memory.
                unsafe {
                    byte_product(
                        &mut tiles,
                        steps,
                        [at(row), at(second)],
                        4 * inputs.stride,
                        w,
                        &mut sums,
                    );
                }
                let place = Place { row, column, rows, columns: 2 * LANES, block };
                place.add(simd, &sums, inputs, &weight, out, finish);
            }
        }
    }
}

/// [`super::integer::matmul`] of 12 by 12 bits, each in two bytes of 8 and of 4 bits. The product of the
/// two lower ones is left out; it is a tenth of what rounding to 12 bits has lost.
#[inline(always)]
pub(super) fn matmul_int16<S: Simd>(
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
    scratch.reserve(a.count.div_ceil(TILE_ROWS) * 2 * low / TILE, 2 * BLOCK.div_ceil(BYTES));
    split_inputs(inputs, a, stride, &mut scratch.a);
    let mut sums: Sums = [[0; 2 * LANES]; 2 * TILE_ROWS];
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
                for sums in &mut sums[..rows] {
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
                place.add(simd, &sums, inputs, &weight, out, finish);
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

impl Scratch {
    fn reserve(&mut self, a: usize, w: usize) {
        let zero = Tile([0; TILE]);
        if self.a.len() < a {
            self.a.resize(a, zero);
        }
        if self.w.len() < w {
            self.w.resize(w, zero);
        }
    }

    /// Bytes as tiles, from the `at`th on, the last one filled with zeros.
    fn padded(&mut self, at: usize, bytes: &[i8]) -> *const u8 {
        for (tile, bytes) in self.w[at..].iter_mut().zip(bytes.chunks(TILE)) {
            tile.0.fill(0);
            for (to, &byte) in tile.0.iter_mut().zip(bytes) {
                *to = byte as u8;
            }
        }
        self.w[at..].as_ptr().cast()
    }
}
