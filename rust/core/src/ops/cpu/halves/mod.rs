//! The matrix product of floats in half precision, twice as many products an instruction as in single.
//!
//! AVX-512 FP16 (Intel Sapphire Rapids 2023 and later) multiplies and adds 32 half-precision numbers at once. Weights
//! of float16 are multiplied as the file has them. Inputs are rounded to half precision, which keeps 11 bits, and so
//! are the sums of [`CHUNK`] products; these are added in single precision. Each row of inputs is scaled by a power of
//! two to at most 2 first, so that no usual size of inputs leaves the range of half precision; sums would, with weights of
//! more than 500 on average. Every output is the sum over k in ascending order, in the same chunks whatever tile it
//! falls into.
//!
//! [`operands`] is what is done to inputs and weights, [`tile`] the product in registers.
#![allow(unsafe_code)]

mod operands;
mod tile;

use half::f16;

pub(super) use operands::Operands;
use operands::pair_up;
use tile::{Apart, Lines, Paired, Tile};

use super::avx512::Avx512;
use super::finish::Finish;
use super::matmul::Panels;
use super::simd::{LANES, Simd};
use super::tiling::{self, Next};
use super::views::{Rows, RowsMut, expect_shapes};

/// Products whose sum is in half precision. The loss grows with it, the cost of adding sums up falls: see
/// docs/architecture/performance.md, "Half precision".
const CHUNK: usize = 64;

/// Input features of a block: the weights of the widest tile (36 KiB) stay in the first-level cache while the rows
/// pass by.
const BLOCK: usize = 3 * CHUNK;

/// Output features that an instruction multiplies: two panels.
const WIDTH: usize = 2 * LANES;

/// How many rows the registers hold beside one pair of panels, two and three.
const TILES: &[usize] = &[12, 12, 8];

/// Columns of the widest tile.
const MAX_COLUMNS: usize = 3 * WIDTH;
const MAX_TILE: usize = tiling::MAX_ROWS * MAX_COLUMNS;

/// Proof that the processor has AVX-512 FP16, and with it F, BW, VL and VNNI, AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halves(());

impl Halves {
    /// Beside the instructions of [`super::avx512::Avx512`].
    pub(super) fn detect(_: Avx512) -> Option<Self> {
        (is_x86_feature_detected!("avx512fp16") && is_x86_feature_detected!("avx512vl"))
            .then_some(Self(()))
    }
}

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
pub(super) fn matmul<S: Simd>(
    simd: S,
    halves: Halves,
    a: Rows<'_>,
    weight: Panels<'_, f16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    operands: &mut Operands,
) {
    // SAFETY: `Halves` prove the instructions.
    unsafe { compiled(simd, halves, a, weight, out, finish, operands) }
}

/// A function of its own, unlike the other products: that which they are inlined into is large enough.
///
/// # Safety
/// As [`Halves`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn compiled<S: Simd>(
    simd: S,
    halves: Halves,
    a: Rows<'_>,
    weight: Panels<'_, f16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    operands: &mut Operands,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    operands.round(halves, a);
    let Operands { inputs, scales, weights } = operands;
    let panel_len = weight.panel_len();
    let end = out.columns.end;
    let widest = tiling::panels(TILES, a.count);
    // Rows that pass by in one tile need each line of weights once.
    let at_once = a.count <= TILES[widest - 1];
    for (column, pairs) in tiling::groups(out.columns.clone(), widest, WIDTH) {
        let columns = (end - column).min(pairs * WIDTH);
        let panels = &weight.data[column / LANES * panel_len..];
        let count = columns.div_ceil(LANES);
        for (block, k) in (0..a.width).step_by(BLOCK).enumerate() {
            let steps = (a.width - k).min(BLOCK);
            let apart = at_once && count == 2 * pairs;
            let from = if apart {
                let last = &panels[(count - 1) * panel_len..][k * LANES..];
                assert!(last.len() >= steps * LANES, "panels");
                Lines::Apart(Apart { first: panels[k * LANES..].as_ptr().cast(), panel_len })
            } else {
                pair_up(halves, panels, panel_len, count, k..k + steps, weights);
                Lines::Paired(Paired(weights[..steps * pairs].as_ptr().cast()))
            };
            let following =
                if k + BLOCK < a.width { (k + BLOCK) * LANES } else { count * panel_len };
            let next = Next::new(panels, following, panel_len, count, BLOCK * LANES);
            let row_blocks = tiling::row_blocks(TILES, a.count, pairs);
            let shares = next.shares(row_blocks.len());
            for (rows, ahead) in row_blocks.zip(shares) {
                let row = rows.start;
                let mut part = out.part(rows.clone(), column, columns);
                let tile = Tile {
                    rows: rows.len(),
                    panels: pairs,
                    a: inputs[(block * a.count + row) * BLOCK..][..rows.len() * BLOCK].as_ptr(),
                    steps,
                    scales: scales[rows.clone()].as_ptr(),
                    first: k == 0,
                    ahead,
                };
                part.through_whole_panels::<_, WIDTH, MAX_TILE>(simd, |to, stride| {
                    // SAFETY: the slices have been taken with as much as is read; there is room for whole pairs of
                    // panels at `to`; `halves` proves the instructions.
                    unsafe { tile.run(from, to, stride) };
                });
                if k + steps == a.width {
                    part.finish_with_bias(simd, row, column, finish);
                }
            }
        }
    }
}
