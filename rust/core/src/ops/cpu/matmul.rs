//! The matrix product that nearly all time goes into: rows of floats times a matrix in panels.
//!
//! A tile of some rows by some panels ([`Simd::TILES`]) is kept in registers while k runs over a block of
//! input features: each step loads 16 weights a panel once, converts them to float32 if need be, and
//! multiplies them with one number of every row. Every output is the sum over k in ascending order, whatever
//! tile it falls into: that is why a text's vector does not depend on the batch it is computed in.
#![allow(unsafe_code)]

use std::ops::Range;

use half::{bf16, f16};

use super::finish::{Biases, Finish};
use super::simd::{Kernel, LANES, Simd};
use super::tiling::{self, MAX_TILE, Next, Operands, Product, pick_tile};
use super::views::{RowPointers, Rows, RowsMut, expect_shapes, for_each_row};
use crate::weights::panels::groups;

/// Input features of a block: a panel's block of float16 weights (12 KiB) stays in the first-level
/// cache while the rows pass by.
const K_BLOCK: usize = 384;

/// Input features of one panel that are converted to float32 at a time, for all rows: 12 KiB, and 24 KiB of
/// several panels together.
const CONVERTED_BLOCK: usize = 192;
const CONVERTED: usize = 384;

/// Blocks of rows for which weights are rather converted in registers, once for each.
const MOST_CONVERSIONS: usize = 4;

/// A matrix `[out_features, in_features]` in the layout of [`crate::weights::panels`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels<'a, W> {
    pub(super) data: &'a [W],
    pub(super) out_features: usize,
    pub(super) in_features: usize,
    /// Elements from one panel to the next.
    panel_len: usize,
}

impl<'a, W: Weight> Panels<'a, W> {
    /// # Panics
    /// If `data` has not the length that follows from the shape.
    pub(super) fn new(data: &'a [W], out_features: usize, in_features: usize) -> Self {
        let panel_len = groups(in_features, W::GROUP) * W::GROUP * LANES;
        assert_eq!(data.len(), out_features.div_ceil(LANES) * panel_len, "panel length");
        Self { data, out_features, in_features, panel_len }
    }

    /// Elements from one panel to the next.
    pub(super) fn panel_len(&self) -> usize {
        self.panel_len
    }
}

impl Panels<'_, f32> {
    /// Some of the input features, as a matrix of their own.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn inputs(self, inputs: Range<usize>) -> Self {
        assert!(inputs.start <= inputs.end && inputs.end <= self.in_features, "input features");
        let data = self.data.get(inputs.start * LANES..).unwrap_or_default();
        Self { data, in_features: inputs.len(), ..self }
    }
}

/// An element type of panels: how 16 of them become floats.
pub(super) trait Weight: Copy {
    /// Input features that stand side by side.
    const GROUP: usize;
    /// Whether they are something else before.
    const CONVERTED: bool;
    /// How they are multiplied where an instruction set has loops of its own for that.
    const PRODUCT: Option<Product>;

    /// The weights of the `i`th input feature of a group.
    ///
    /// # Safety
    /// 16 groups are readable at `from`.
    unsafe fn load<S: Simd>(simd: S, from: *const Self, i: usize) -> S::V;
}

impl Weight for f32 {
    const GROUP: usize = 1;
    const CONVERTED: bool = false;
    const PRODUCT: Option<Product> = Some(Product::Floats);

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self, _: usize) -> S::V {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { simd.load(from) }
    }
}

impl Weight for f16 {
    const GROUP: usize = 1;
    const CONVERTED: bool = true;
    const PRODUCT: Option<Product> = Some(Product::Halves);

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self, _: usize) -> S::V {
        // SAFETY: the caller vouches for 16 elements; f16 is a transparent u16.
        unsafe { simd.load_f16(from.cast()) }
    }
}

impl Weight for bf16 {
    const GROUP: usize = 2;
    const CONVERTED: bool = true;
    const PRODUCT: Option<Product> = None;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self, i: usize) -> S::V {
        // SAFETY: the caller vouches for 16 pairs; bf16 is a transparent u16.
        unsafe { simd.load_bfloat16(from.cast(), i == 1) }
    }
}

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd, W: Weight>(
    simd: S,
    a: Rows<'_>,
    weight: Panels<'_, W>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    let widest = tiling::panels(S::TILES, a.count);
    let convert = W::CONVERTED && a.count > MOST_CONVERSIONS * S::TILES[widest - 1];
    let block = if convert { CONVERTED_BLOCK.min(CONVERTED / widest) } else { K_BLOCK };
    let mut floats = Floats::ZERO;
    let end = out.columns.end;
    for (column, group) in tiling::groups(out.columns.clone(), widest, LANES) {
        let panels = &weight.data[column / LANES * weight.panel_len()..];
        let columns = (end - column).min(group * LANES);
        for k in (0..a.width).step_by(block) {
            let steps = (a.width - k).min(block);
            let stride = weight.panel_len();
            let following = if k + block < a.width { (k + block) * LANES } else { group * stride };
            let next = Next::new(panels, following, stride, group, block * LANES);
            let part = Part { column, columns, group, k, steps, next };
            let panels = &panels[k * LANES..];
            if convert {
                for (p, floats) in floats.0.chunks_mut(block * LANES).take(group).enumerate() {
                    to_floats::<S, W>(simd, &panels[p * stride..], steps, floats);
                }
                part.multiply(simd, a, &floats.0, block * LANES, out, finish);
            } else {
                part.multiply(simd, a, panels, stride, out, finish);
            }
        }
    }
}

/// Converted panels, aligned so that no load straddles two cache lines.
#[repr(align(64))]
struct Floats([f32; CONVERTED * LANES]);

impl Floats {
    #[allow(clippy::large_stack_arrays)] // 24 KiB, of two MiB that a thread has
    const ZERO: Self = Self([0.0; CONVERTED * LANES]);
}

/// Some steps of a panel as floats.
#[inline(always)]
fn to_floats<S: Simd, W: Weight>(simd: S, panel: &[W], steps: usize, floats: &mut [f32]) {
    let groups = steps.div_ceil(W::GROUP);
    let panel = &panel[..groups * W::GROUP * LANES];
    let floats = &mut floats[..steps * LANES];
    let whole = steps / W::GROUP;
    for group in 0..groups {
        let at = group * W::GROUP * LANES;
        let features = if group < whole { W::GROUP } else { steps % W::GROUP };
        for i in 0..features {
            // SAFETY: the panel has `groups` groups of 16, and there is room for each of the features of `steps`.
            unsafe {
                let weights = W::load(simd, panel.as_ptr().add(at), i);
                simd.store(weights, floats.as_mut_ptr().add(at + i * LANES));
            }
        }
    }
}

/// Some columns of the output, in a block of k.
pub(super) struct Part {
    pub(super) column: usize,
    pub(super) columns: usize,
    /// Panels that the columns lie in.
    pub(super) group: usize,
    pub(super) k: usize,
    pub(super) steps: usize,
    /// The weights after these.
    pub(super) next: Next,
}

impl Part {
    /// All rows; `panels` begin with the block of k, `stride` elements apart.
    #[inline(always)]
    pub(super) fn multiply<S: Simd, W: Weight>(
        &self,
        simd: S,
        a: Rows<'_>,
        panels: &[W],
        stride: usize,
        out: &mut RowsMut<'_>,
        finish: &impl Finish<S>,
    ) {
        let &Self { column, columns, group, k, steps, next } = self;
        let needed = (group - 1) * stride + steps.next_multiple_of(W::GROUP) * LANES;
        assert!(needed <= panels.len(), "panels");
        let bias = Biases::of(finish, column, columns);
        let row_blocks = tiling::row_blocks(S::TILES, a.count, group);
        let shares = next.shares(row_blocks.len());
        for (block, ahead) in row_blocks.zip(shares) {
            let (row, rows) = (block.start, block.len());
            let mut out = out.part(block, column, columns);
            out.through_whole_panels::<_, LANES, MAX_TILE>(simd, |to, out_stride| {
                let tile = Tile {
                    rows,
                    panels: group,
                    a: a.data[row * a.stride + k..].as_ptr(),
                    a_stride: a.stride,
                    panel: panels.as_ptr(),
                    panel_stride: stride,
                    steps,
                    out: to,
                    out_stride,
                    first: k == 0,
                    bias: bias.as_ptr(),
                    ahead,
                };
                // SAFETY: `Rows::new` checked that rows `row..row + rows` hold `k..k + steps` inputs;
                // `group` panels hold `steps` groups, as was just asserted; there is room for whole panels
                // at `to`, and there are as many biases.
                unsafe { simd.call(&tile) };
            });
            if k + steps == a.width {
                out.finish(simd, row, column, finish);
            }
        }
    }
}

/// One tile's part of a block of k: where its inputs, weights and outputs are.
struct Tile<W> {
    rows: usize,
    panels: usize,
    a: *const f32,
    a_stride: usize,
    panel: *const W,
    panel_stride: usize,
    steps: usize,
    out: *mut f32,
    out_stride: usize,
    /// Whether this is the first block of k, so that `out` holds nothing yet.
    first: bool,
    /// What each column's sums begin with, then.
    bias: *const f32,
    /// What is brought near meanwhile.
    ahead: *const u8,
}

impl<S: Simd, W: Weight> Kernel<S> for Tile<W> {
    /// Picks the product of that size.
    ///
    /// # Safety
    /// `rows` rows of `steps` floats are readable at `a`; `panels` panels of `steps` times 16 weights
    /// are readable at `panel`, and `16 panels` floats at `bias`; `rows` rows of as many are readable and writable
    /// at `out`.
    #[inline(always)]
    unsafe fn run(&self, simd: S) {
        // SAFETY: as this function's.
        unsafe { pick_tile!(S::TILES, self.multiply(simd)) }
    }
}

impl<W: Weight> Tile<W> {
    /// # Safety
    /// As [`Kernel::run`]'s, with `R` rows and `P` panels.
    // Loops over constant ranges and nothing but arithmetic in them: the compiler unrolls them and
    // keeps `sums` in registers. A branch or an iterator in here sends them through memory.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn multiply<const R: usize, const P: usize>(&self, simd: impl Simd) {
        // Of the first block, every row is that of the biases.
        let (before, stride) =
            if self.first { (self.bias, 0) } else { (self.out.cast_const(), self.out_stride) };
        let mut sums = [[simd.splat(0.0); P]; R];
        for r in 0..R {
            for p in 0..P {
                // SAFETY: `run`'s conditions, with r < R and p < P.
                sums[r][p] = unsafe { simd.load(before.add(r * stride + p * LANES)) };
            }
        }
        // SAFETY: `run`'s conditions.
        if !unsafe { self.multiply_at_once(simd, &mut sums) } {
            let mut rows = RowPointers::<_, R>::new(self.a, self.a_stride);
            for step in 0..self.steps {
                // SAFETY: `run`'s conditions, with step < steps.
                unsafe { self.step(simd, step, &rows, &mut sums) };
                rows.step(1);
            }
        }
        for r in 0..R {
            for p in 0..P {
                // SAFETY: `run`'s conditions, with r < R and p < P.
                unsafe { simd.store(sums[r][p], self.out.add(r * self.out_stride + p * LANES)) };
            }
        }
    }

    /// All steps in a loop of the instruction set's own, if it has one.
    ///
    /// # Safety
    /// As [`Kernel::run`]'s, with `R` rows and `P` panels.
    #[inline(always)]
    unsafe fn multiply_at_once<S: Simd, const R: usize, const P: usize>(
        &self,
        simd: S,
        sums: &mut [[S::V; P]; R],
    ) -> bool {
        let of = Operands {
            a: self.a.cast(),
            a_stride: self.a_stride * size_of::<f32>(),
            panel: self.panel.cast(),
            panel_stride: self.panel_stride * size_of::<W>(),
            steps: self.steps,
            ahead: self.ahead,
        };
        // SAFETY: `run`'s conditions.
        W::PRODUCT.is_some_and(|product| unsafe { simd.multiply_floats(&of, product, sums) })
    }

    /// Multiplies one input feature.
    ///
    /// # Safety
    /// As [`Self::multiply`], with `step < self.steps`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn step<S: Simd, const R: usize, const P: usize>(
        &self,
        simd: S,
        step: usize,
        rows: &RowPointers<f32, R>,
        sums: &mut [[S::V; P]; R],
    ) {
        let mut weights = [simd.splat(0.0); P];
        for p in 0..P {
            let at = p * self.panel_stride + step / W::GROUP * W::GROUP * LANES;
            // SAFETY: the caller's conditions, with p < P.
            weights[p] = unsafe { W::load(simd, self.panel.add(at), step % W::GROUP) };
        }
        for_each_row!(r in R {
            // SAFETY: the caller's conditions, with r < R.
            let a = simd.splat(unsafe { *rows.at(r, 0) });
            for p in 0..P {
                sums[r][p] = simd.mul_add(a, weights[p], sums[r][p]);
            }
        });
    }
}
