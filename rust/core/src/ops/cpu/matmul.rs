//! The matrix product that nearly all time goes into: rows of floats times a matrix in panels.
//!
//! A tile of up to [`Simd::TILE_ROWS`] rows by [`Simd::TILE_PANELS`] panels is kept in registers
//! while k runs over a block of input features: each step loads 16 weights a panel once, converts them
//! to float32 if need be, and multiplies them with one number of every row. Every output is the sum
//! over k in ascending order, whatever tile it falls into: that is why a text's vector does not
//! depend on the batch it is computed in.
#![allow(unsafe_code)]

use half::f16;

use super::simd::{LANES, Simd, load_upto, store_upto};

/// Input features of a block: a panel's block of float16 weights (12 KiB) stays in the first-level
/// cache while the rows pass by.
const K_BLOCK: usize = 384;

/// Rows of floats at a fixed distance, for example one head's columns of a wider matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// `rows` rows of `width` floats, `stride` apart, the first at `data[0]`.
    ///
    /// # Panics
    /// If they do not fit into `data`.
    pub(super) fn new(data: &'a [f32], rows: usize, width: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, width, stride), "rows do not fit their memory");
        Self { data, stride, rows, width }
    }
}

/// As [`Rows`], to be written.
#[derive(Debug)]
pub(super) struct RowsMut<'a> {
    data: &'a mut [f32],
    stride: usize,
    rows: usize,
    width: usize,
}

impl<'a> RowsMut<'a> {
    /// `rows` rows of `width` floats, `stride` apart, the first at `data[0]`.
    ///
    /// # Panics
    /// If they do not fit into `data`.
    pub(super) fn new(data: &'a mut [f32], rows: usize, width: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, width, stride), "rows do not fit their memory");
        Self { data, stride, rows, width }
    }
}

fn fits(len: usize, rows: usize, width: usize, stride: usize) -> bool {
    width <= stride && (rows == 0 || (rows - 1) * stride + width <= len)
}

/// The elements of a matrix in panels.
#[derive(Debug, Clone, Copy)]
pub(super) enum PanelData<'a> {
    Float32(&'a [f32]),
    Float16(&'a [f16]),
    Int8(&'a [i8]),
}

/// A matrix `[out_features, in_features]` in the layout of [`crate::weights::panels`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels<'a> {
    data: PanelData<'a>,
    out_features: usize,
    in_features: usize,
}

impl<'a> Panels<'a> {
    /// # Panics
    /// If `data` has not the length that follows from the shape.
    pub(super) fn new(data: PanelData<'a>, out_features: usize, in_features: usize) -> Self {
        let len = match data {
            PanelData::Float32(data) => data.len(),
            PanelData::Float16(data) => data.len(),
            PanelData::Int8(data) => data.len(),
        };
        assert_eq!(len, out_features.next_multiple_of(LANES) * in_features, "panel length");
        Self { data, out_features, in_features }
    }
}

/// An element type of panels: how 16 of them become floats.
trait Weight: Copy {
    /// # Safety
    /// 16 elements are readable at `from`.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { simd.load(from) }
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements; f16 is a transparent u16.
        unsafe { simd.load_f16(from.cast()) }
    }
}

impl Weight for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { simd.load_i8(from) }
    }
}

/// `out = a · weightᵀ`, and then `finish(row, column, value)` on each 16 floats of it while they
/// are near; `column` is the first of the 16 output features.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd>(
    simd: S,
    a: Rows<'_>,
    weight: Panels<'_>,
    out: &mut RowsMut<'_>,
    finish: impl Fn(usize, usize, S::V) -> S::V,
) {
    assert_eq!(a.width, weight.in_features, "input features");
    assert_eq!(out.width, weight.out_features, "output features");
    assert_eq!(a.rows, out.rows, "rows");
    match weight.data {
        PanelData::Float32(data) => product(simd, a, data, out, finish),
        PanelData::Float16(data) => product(simd, a, data, out, finish),
        PanelData::Int8(data) => product(simd, a, data, out, finish),
    }
}

#[inline(always)]
fn product<S: Simd, W: Weight>(
    simd: S,
    a: Rows<'_>,
    panels: &[W],
    out: &mut RowsMut<'_>,
    finish: impl Fn(usize, usize, S::V) -> S::V,
) {
    let in_features = a.width;
    let row_blocks = a.rows.div_ceil(S::TILE_ROWS);
    for column in (0..out.width).step_by(S::TILE_PANELS * LANES) {
        let panel = &panels[column * in_features..];
        let group = (out.width - column).div_ceil(LANES).min(S::TILE_PANELS);
        for k in (0..in_features).step_by(K_BLOCK) {
            let steps = (in_features - k).min(K_BLOCK);
            for block in 0..row_blocks {
                // Blocks of nearly equal height: 13 rows are 7 and 6, not 12 and 1.
                let row = block * a.rows / row_blocks;
                let rows = (block + 1) * a.rows / row_blocks - row;
                let tile = Tile {
                    a: a.data[row * a.stride + k..].as_ptr(),
                    a_stride: a.stride,
                    panel: panel[k * LANES..].as_ptr(),
                    panel_stride: in_features * LANES,
                    steps,
                    out: out.data[row * out.stride + column..].as_mut_ptr(),
                    out_stride: out.stride,
                    columns: (out.width - column).min(group * LANES),
                    first: k == 0,
                };
                // SAFETY: `Rows::new` and `RowsMut::new` checked that rows `row..row + rows` hold
                // `k..k + steps` inputs and `columns` outputs from `column` on; `Panels::new` checked
                // that `group` panels from `column` on hold `in_features` steps of 16 weights.
                unsafe {
                    tile.run(simd, rows, group);
                    if k + steps == in_features {
                        tile.finish(simd, rows, |r, c, v| finish(row + r, column + c, v));
                    }
                }
            }
        }
    }
}

/// One tile's part of a block of k: where its inputs, weights and outputs are.
struct Tile<W> {
    a: *const f32,
    a_stride: usize,
    panel: *const W,
    panel_stride: usize,
    steps: usize,
    out: *mut f32,
    out_stride: usize,
    /// Output features that exist; the last panel may be padded.
    columns: usize,
    /// Whether this is the first block of k, so that `out` holds nothing yet.
    first: bool,
}

impl<W: Weight> Tile<W> {
    /// Picks the tile of that size.
    ///
    /// # Safety
    /// `rows` rows of `steps` floats are readable at `a`; `group` panels of `steps` times 16 weights
    /// are readable at `panel`; `rows` rows of `columns` ≤ `16 group` floats are writable at `out`.
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, simd: S, rows: usize, group: usize) {
        macro_rules! pick {
            ($($r:literal)*) => {
                match (rows, group) {
                    // The constant conditions leave only the sizes that this instruction set uses.
                    // SAFETY: as this function's.
                    $(($r, 2) if S::TILE_ROWS >= $r && S::TILE_PANELS >= 2 => unsafe { self.multiply::<S, $r, 2>(simd) },
                    ($r, 1) if S::TILE_ROWS >= $r => unsafe { self.multiply::<S, $r, 1>(simd) },)*
                    _ => unreachable!("a tile of {rows} rows and {group} panels"),
                }
            };
        }
        pick!(1 2 3 4 5 6 7 8 9 10 11 12);
    }

    /// # Safety
    /// As [`Self::run`], with `R` rows and `P` panels.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const R: usize, const P: usize>(&self, simd: S) {
        let mut sums = [[simd.splat(0.0); P]; R];
        // SAFETY of the blocks below: `run`'s conditions, with `k < steps`.
        if !self.first {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = unsafe { self.load_out(simd, r, p * LANES) };
                }
            }
        }
        for k in 0..self.steps {
            let weights: [S::V; P] = std::array::from_fn(|p| unsafe {
                W::load(simd, self.panel.add(p * self.panel_stride + k * LANES))
            });
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat(unsafe { *self.a.add(r * self.a_stride + k) });
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    *sum = simd.mul_add(a, weight, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, &sum) in sums.iter().enumerate() {
                unsafe { self.store_out(simd, r, p * LANES, sum) };
            }
        }
    }

    /// Applies `finish(row, column, value)` to the outputs. Apart from `multiply`, because an
    /// activation beside it would push its sums out of the registers.
    ///
    /// # Safety
    /// `rows` rows of `columns` floats are readable and writable at `out`.
    #[inline(always)]
    unsafe fn finish<S: Simd>(
        &self,
        simd: S,
        rows: usize,
        finish: impl Fn(usize, usize, S::V) -> S::V,
    ) {
        for r in 0..rows {
            for c in (0..self.columns).step_by(LANES) {
                // SAFETY: as this function's.
                unsafe {
                    let v = finish(r, c, self.load_out(simd, r, c));
                    self.store_out(simd, r, c, v);
                }
            }
        }
    }

    /// # Safety
    /// Row `r` of `columns` floats is readable at `out`.
    #[inline(always)]
    unsafe fn load_out<S: Simd>(&self, simd: S, r: usize, c: usize) -> S::V {
        // SAFETY: of the columns from `c` on no more than exist are read.
        unsafe { load_upto(simd, self.columns - c, self.out.add(r * self.out_stride + c)) }
    }

    /// # Safety
    /// Row `r` of `columns` floats is writable at `out`.
    #[inline(always)]
    unsafe fn store_out<S: Simd>(&self, simd: S, r: usize, c: usize, v: S::V) {
        // SAFETY: of the columns from `c` on no more than exist are written.
        unsafe { store_upto(simd, self.columns - c, v, self.out.add(r * self.out_stride + c)) }
    }
}
