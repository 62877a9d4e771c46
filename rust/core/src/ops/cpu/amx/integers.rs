//! The matrix product of bytes on tiles, see [`super::super::integer`].
#![allow(unsafe_code)]

use super::super::finish::Finish;
use super::super::integer::{Inputs, Place, Quantized};
use super::super::simd::{LANES, Simd};
use super::super::views::{Rows, RowsMut, expect_shapes};
use super::Amx;
use super::products::{Block, Operands, Output, byte_product};
use super::tiles::{BYTES, Next, Scratch, TILE_ROWS};
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
