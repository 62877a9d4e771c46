//! The matrix product in integers: rows are quantized as they come, weights are integers in the file.
//!
//! Each row of inputs and each row of weights has a scale for every [`BLOCK`] of input features. Within
//! a block all is exact integer arithmetic, which no order of summation and no instruction set changes;
//! the blocks' results are scaled and
//! summed in single precision, in ascending order. Scales of rows and not of tensors are what keeps a
//! text's vector independent of the batch it is computed in.
#![allow(unsafe_code)]

mod inputs;

pub(super) use inputs::Inputs;

use super::finish::{Biases, Finish};
use super::simd::{Kernel, LANES, Simd, load_upto};
use super::tiling::{self, MAX_COLUMNS, MAX_TILE, Next, Operands, Product, pick_tile};
use super::views::{RowPointers, Rows, RowsMut, expect_shapes, for_each_row};
use crate::weights::panels::{BLOCK, groups};

/// A quantized matrix `[out_features, in_features]` in the layout of [`crate::weights::panels`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantized<'a, W> {
    /// Panels, with the input features of each output in groups of [`Element::GROUP`].
    pub(super) data: &'a [W],
    /// `[blocks, out_features]`: what an integer stands for.
    scale: &'a [f32],
    /// `[blocks, out_features]`: sum of the block's integers.
    sum: &'a [f32],
    pub(super) out_features: usize,
    pub(super) in_features: usize,
}

impl<'a, W: Element> Quantized<'a, W> {
    /// # Panics
    /// If a length is not the one that follows from the shape.
    pub(super) fn new(
        data: &'a [W],
        scale: &'a [f32],
        sum: &'a [f32],
        out_features: usize,
        in_features: usize,
    ) -> Self {
        let width = groups(in_features, W::GROUP) * W::GROUP;
        assert_eq!(data.len(), out_features.next_multiple_of(LANES) * width, "panel length");
        let blocks = in_features.div_ceil(BLOCK);
        assert!(scale.len() == blocks * out_features && sum.len() == scale.len(), "scales");
        Self { data, scale, sum, out_features, in_features }
    }

    /// Elements from one panel to the next.
    pub(super) fn panel_len(&self) -> usize {
        groups(self.in_features, W::GROUP) * W::GROUP * LANES
    }

    /// Scales and sums of a block of some columns; `padded` holds them if they are not whole panels.
    #[inline(always)]
    fn scales<'b>(
        &'b self,
        block: usize,
        column: usize,
        columns: usize,
        padded: &'b mut [[f32; MAX_COLUMNS]; 2],
    ) -> [&'b [f32]; 2] {
        let at = block * self.out_features + column;
        let both = [&self.scale[at..at + columns], &self.sum[at..at + columns]];
        if columns.is_multiple_of(LANES) {
            return both;
        }
        for (padded, numbers) in padded.iter_mut().zip(both) {
            padded[..columns].copy_from_slice(numbers);
        }
        padded.each_ref().map(|padded| &padded[..columns.next_multiple_of(LANES)])
    }
}

/// An integer type of weights, and that of the inputs they are multiplied with.
pub(super) trait Element: Copy + Default {
    /// Input features whose products one lane of an instruction sums; four bytes of inputs.
    const GROUP: usize;
    /// How they are multiplied where an instruction set has loops of its own for that.
    const PRODUCT: Product;
    /// Whether the zero of inputs may be another integer than 0.
    const HAS_ZERO: bool;

    /// The scale and the zero of a block of inputs; a scale that is NaN if one of them is not finite.
    fn range<S: Simd>(simd: S, inputs: &[f32]) -> (f32, f32);

    /// Rounds to the nearest integers of the range, and writes them.
    ///
    /// # Safety
    /// 16 inputs are writable from the `at`th on.
    unsafe fn store<S: Simd>(simd: S, integers: S::V, to: *mut i32, at: usize);

    /// `sums + a · w` over a group.
    fn dot<S: Simd>(simd: S, sums: S::I, a: S::I, w: S::I) -> S::I;
}

/// Inputs by weights whose norms keep a block's products within 32 bits, see [`crate::weights::panels::LARGEST_INPUTS`].
impl Element for i16 {
    const GROUP: usize = 2;
    const PRODUCT: Product = Product::Pairs;
    const HAS_ZERO: bool = false;

    #[inline(always)]
    fn range<S: Simd>(simd: S, inputs: &[f32]) -> (f32, f32) {
        (inputs::scale_of_norm(simd, inputs), 0.0)
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, integers: S::V, to: *mut i32, at: usize) {
        // SAFETY: the caller vouches for the room.
        unsafe { simd.store_i16(integers, to.cast::<i16>().add(at)) }
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::I, a: S::I, w: S::I) -> S::I {
        simd.dot_pairs(sums, a, w)
    }
}

/// Unsigned bytes by signed ones. Inputs are not centred on zero, as after a GELU, and use the whole
/// range from the lowest to the highest.
impl Element for i8 {
    const GROUP: usize = 4;
    const PRODUCT: Product = Product::Quads;
    const HAS_ZERO: bool = true;

    #[inline(always)]
    fn range<S: Simd>(simd: S, inputs: &[f32]) -> (f32, f32) {
        let (low, high) = inputs::extremes(simd, inputs);
        let scale = (high - low) / 255.0;
        (scale, if scale > 0.0 { (-low / scale).round_ties_even() } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, integers: S::V, to: *mut i32, at: usize) {
        // SAFETY: the caller vouches for the room.
        unsafe { simd.store_u8(integers, to.cast::<u8>().add(at)) }
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::I, a: S::I, w: S::I) -> S::I {
        simd.dot_quads(sums, a, w)
    }
}

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd, W: Element>(
    simd: S,
    a: Rows<'_>,
    weight: Quantized<'_, W>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    inputs: &mut Inputs,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    inputs.quantize::<S, W>(simd, a);
    let blocks = inputs.blocks;
    let mut padded = [[0.0; MAX_COLUMNS]; 2];
    let widest = tiling::panels(S::TILES, a.count);
    for (column, group) in tiling::groups(out.columns.clone(), widest, LANES) {
        let panel_len = weight.panel_len();
        let panels = &weight.data[column / LANES * panel_len..];
        let columns = (out.columns.end - column).min(group * LANES);
        for (block, first) in (0..a.width).step_by(BLOCK).enumerate() {
            let steps = (a.width - first).min(BLOCK).div_ceil(W::GROUP);
            let [scale, sum] = weight.scales(block, column, columns, &mut padded);
            let bias = Biases::of(finish, column, columns);
            let following =
                if first + BLOCK < a.width { (first + BLOCK) * LANES } else { group * panel_len };
            let next = Next::new(panels, following, panel_len, group, BLOCK * LANES);
            let row_blocks = tiling::row_blocks(S::TILES, a.count, group);
            let shares = next.shares(row_blocks.len());
            for (rows, ahead) in row_blocks.zip(shares) {
                let row = rows.start;
                let mut part = out.part(rows.clone(), column, columns);
                part.through_whole_panels::<_, LANES, MAX_TILE>(simd, |to, out_stride| {
                    let tile = Tile::<W> {
                        rows: rows.len(),
                        panels: group,
                        a: inputs.groups[row * inputs.stride + first / W::GROUP..].as_ptr(),
                        a_stride: inputs.stride,
                        panel: panels[first * LANES..].as_ptr(),
                        panel_stride: panel_len,
                        steps,
                        ranges: inputs.ranges[row * blocks + block..].as_ptr(),
                        blocks,
                        scale: scale.as_ptr(),
                        sum: sum.as_ptr(),
                        out: to,
                        out_stride,
                        first: block == 0,
                        bias: bias.as_ptr(),
                        ahead,
                    };
                    // SAFETY: `quantize` has made `rows` rows of `stride` groups, of which `steps` follow,
                    // and of `blocks` ranges; `Quantized::new` checked that `group` panels have as many from
                    // `first` on; `scales` and `Biases` gave whole panels, and there is room for whole panels at `to`.
                    unsafe { simd.call(&tile) };
                });
                if block + 1 == blocks {
                    part.finish(simd, row, column, finish);
                }
            }
        }
    }
}

/// Where the sums of AMX's tiles belong, which are not in registers.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX has them"))]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) rows: usize,
    /// As many as fit into the output, at most.
    pub(super) columns: usize,
    pub(super) block: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX has them"))]
impl Place {
    /// Scales a block's sums, adds them to those of the blocks before, and finishes them after the
    /// last one.
    #[inline(always)]
    pub(super) fn add<S: Simd, W: Element, const COLUMNS: usize>(
        &self,
        simd: S,
        sums: &[[i32; COLUMNS]],
        inputs: &Inputs,
        weight: &Quantized<'_, W>,
        out: &mut RowsMut<'_>,
        finish: &impl Finish<S>,
    ) {
        let &Self { row, column, rows, block, .. } = self;
        let columns = self.columns.min(out.columns.end - column);
        let last = block + 1 == inputs.blocks;
        for c in (0..columns).step_by(LANES) {
            let n = (columns - c).min(LANES);
            let at = block * weight.out_features + column + c;
            let (scales, totals) = (&weight.scale[at..at + n], &weight.sum[at..at + n]);
            // SAFETY: the slices hold `n` numbers.
            let (scales, totals) = unsafe {
                (load_upto(simd, n, scales.as_ptr()), load_upto(simd, n, totals.as_ptr()))
            };
            for (r, sums) in sums[..rows].iter().enumerate() {
                let (scale, zero) = inputs.ranges[(row + r) * inputs.blocks + block];
                // SAFETY: a row of sums has room for whole panels.
                let product = unsafe { simd.load_int(sums[c..c + LANES].as_ptr()) };
                let product = simd.to_float(product);
                let product = simd.mul_add(simd.splat(-zero), totals, product);
                let mut v = simd.mul(simd.mul(product, simd.splat(scale)), scales);
                if block > 0 {
                    v = simd.add(out.load(simd, row + r, column + c, n), v);
                }
                if last {
                    v = finish.finish(simd, row + r, column + c, v);
                }
                out.store(simd, row + r, column + c, n, v);
            }
        }
    }
}

/// One tile's part of a block.
struct Tile<W> {
    rows: usize,
    panels: usize,
    a: *const i32,
    a_stride: usize,
    panel: *const W,
    panel_stride: usize,
    steps: usize,
    /// Of the first row's inputs, and of each other's after so many.
    ranges: *const (f32, f32),
    blocks: usize,
    /// Of each column.
    scale: *const f32,
    sum: *const f32,
    out: *mut f32,
    out_stride: usize,
    /// Whether this is the first block, so that `out` holds nothing yet.
    first: bool,
    /// What each column's sums begin with, then.
    bias: *const f32,
    /// What is brought near meanwhile.
    ahead: *const u8,
}

impl<S: Simd, W: Element> Kernel<S> for Tile<W> {
    /// Picks the product of that size.
    ///
    /// # Safety
    /// `rows` rows of `steps` groups are readable at `a`; `panels` panels of as many groups of 16
    /// outputs are readable at `panel`, a range of every row at `ranges`, `16 panels` floats at `scale`, `sum` and `bias`;
    /// `rows` rows of as many are readable and writable at `out`.
    #[inline(always)]
    unsafe fn run(&self, simd: S) {
        // SAFETY: as this function's.
        unsafe { pick_tile!(S::TILES, self.multiply(simd)) }
    }
}

impl<W: Element> Tile<W> {
    /// # Safety
    /// As [`Kernel::run`]'s, with `R` rows and `P` panels.
    // As in the product of floats: nothing but arithmetic in loops over constant ranges.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn multiply<const R: usize, const P: usize>(&self, simd: impl Simd) {
        let mut sums = [[simd.splat_int(0); P]; R];
        let of = Operands {
            a: self.a.cast(),
            a_stride: self.a_stride * size_of::<i32>(),
            panel: self.panel.cast(),
            panel_stride: self.panel_stride * size_of::<W>(),
            steps: self.steps,
            ahead: self.ahead,
        };
        // SAFETY: `run`'s conditions.
        if !unsafe { simd.multiply_integers(&of, W::PRODUCT, &mut sums) } {
            // SAFETY: `run`'s conditions.
            unsafe { self.multiply_step_by_step(simd, &mut sums) };
        }
        // As locals, which no store can change.
        let Self { ranges, blocks, scale: column_scales, sum: totals, out, out_stride, .. } = *self;
        let mut scales = [simd.splat(0.0); P];
        for p in 0..P {
            // SAFETY: `run`'s conditions, with p < P.
            scales[p] = unsafe { simd.load(column_scales.add(p * LANES)) };
        }
        // Of the first block, every row is that of the biases.
        let (before, stride) =
            if self.first { (self.bias, 0) } else { (out.cast_const(), out_stride) };
        for_each_row!(r in R {
            // SAFETY: `run`'s conditions, with r < R.
            let (scale, zero) = unsafe { *ranges.add(r * blocks) };
            let scale = simd.splat(scale);
            for p in 0..P {
                // SAFETY: `run`'s conditions, with r < R and p < P.
                unsafe {
                    let mut product = simd.to_float(sums[r][p]);
                    if W::HAS_ZERO {
                        let totals = simd.load(totals.add(p * LANES));
                        product = simd.mul_add(simd.splat(-zero), totals, product);
                    }
                    let sum = simd.load(before.add(r * stride + p * LANES));
                    let sum = simd.mul_add(product, simd.mul(scale, scales[p]), sum);
                    simd.store(sum, out.add(r * out_stride + p * LANES));
                }
            }
        });
    }

    /// All steps, one a turn: in longer turns the compiler sums products before it adds them, and runs out of registers.
    ///
    /// # Safety
    /// As [`Kernel::run`]'s, with `R` rows and `P` panels.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn multiply_step_by_step<S: Simd, const R: usize, const P: usize>(
        &self,
        simd: S,
        sums: &mut [[S::I; P]; R],
    ) {
        let mut rows = RowPointers::<_, R>::new(self.a, self.a_stride);
        for step in 0..self.steps {
            let mut weights = [simd.splat_int(0); P];
            for p in 0..P {
                let at = p * self.panel_stride + step * LANES * W::GROUP;
                // SAFETY: `run`'s conditions, with p < P and step < steps.
                weights[p] = unsafe { simd.load_int(self.panel.add(at).cast()) };
            }
            for_each_row!(r in R {
                // SAFETY: `run`'s conditions, with r < R and step < steps.
                let a = simd.splat_int(unsafe { *rows.at(r, 0) });
                for p in 0..P {
                    sums[r][p] = W::dot(simd, sums[r][p], a, weights[p]);
                }
            });
            rows.step(1);
        }
    }
}
