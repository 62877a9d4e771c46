//! How operands lie in memory for AMX.
#![allow(unsafe_code)]

use std::ops::Range;

use half::bf16;

use super::super::finish::Finish;
use super::super::simd::{LANES, Simd};
use super::super::views::RowsMut;
use super::products::Block;

/// Bytes of a tile.
const TILE: usize = 1024;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// k of one step, in bfloat16 and in bytes.
pub(super) const STEP: usize = 32;
pub(super) const BYTES: usize = 64;

/// A step's tile, aligned as tile loads like it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [u8; TILE]);

impl Tile {
    pub(super) const ZERO: Self = Self([0; TILE]);
}

/// Numbers for a line of a tile, where they are, or with zeros behind them in `padded` if there are fewer.
///
/// # Panics
/// If there are more.
#[inline(always)]
pub(super) fn whole_line<'a>(numbers: &'a [f32], padded: &'a mut [f32; STEP]) -> &'a [f32; STEP] {
    if let Ok(whole) = numbers.try_into() {
        return whole;
    }
    padded[..numbers.len()].copy_from_slice(numbers);
    padded
}

/// Makes room for that many tiles; what was in them is lost where there was none.
pub(super) fn grow(tiles: &mut Vec<Tile>, count: usize) {
    if tiles.len() < count {
        // Not resized, which would copy and need both for a while.
        *tiles = Vec::new();
        *tiles = vec![Tile::ZERO; count];
    }
}

/// The operands as tiles, and sums.
#[derive(Debug, Default)]
pub(in super::super) struct Scratch {
    pub(super) a: Vec<Tile>,
    pub(super) w: Vec<Tile>,
    pub(super) sums: Vec<Block<f32>>,
}

impl Scratch {
    pub(super) fn reserve(&mut self, a: usize, w: usize) {
        grow(&mut self.a, a);
        grow(&mut self.w, w);
    }

    /// The first `count` tiles of each of two panels, where they lie or, if the last of them is not whole, in
    /// memory of our own, filled with zeros. Without a second panel the first one is there twice.
    pub(super) fn whole_tiles<T: Weight>(
        &mut self,
        panels: &[T],
        panel_len: usize,
        from: usize,
        count: usize,
    ) -> [*const u8; 2] {
        let part = |i: usize| {
            let panel = panels.chunks(panel_len).nth(i).unwrap_or(&panels[..panel_len]);
            T::bytes(&panel[from..])
        };
        let parts = [part(0), part(1)];
        if let [Some(first), Some(second)] = parts.map(|bytes| bytes.get(..count * TILE)) {
            return [first.as_ptr(), second.as_ptr()];
        }
        for (tiles, bytes) in self.w.chunks_exact_mut(count).zip(parts) {
            for (tile, bytes) in tiles.iter_mut().zip(bytes.chunks(TILE)) {
                tile.0[..bytes.len()].copy_from_slice(bytes);
                tile.0[bytes.len()..].fill(0);
            }
        }
        let tiles = &self.w[..2 * count];
        [tiles.as_ptr().cast(), tiles[count..].as_ptr().cast()]
    }

    /// The sums of some columns from zero on, or from what has been finished of them before.
    #[inline(always)]
    pub(super) fn begin<S: Simd>(
        &mut self,
        simd: S,
        columns: Range<usize>,
        before: Option<&RowsMut<'_>>,
    ) {
        let Some(before) = before else {
            self.sums.fill(Block([[0.0; 2 * LANES]; 2 * TILE_ROWS]));
            return;
        };
        let rows = self.sums.iter_mut().flat_map(|block| &mut block.0).take(before.count);
        for (row, sums) in rows.enumerate() {
            for column in columns.clone().step_by(LANES) {
                let n = (columns.end - column).min(LANES);
                let v = before.load(simd, row, column, n);
                let c = column - columns.start;
                // SAFETY: a row of sums holds 32 floats.
                unsafe { simd.store(v, sums[c..c + LANES].as_mut_ptr()) };
            }
        }
    }

    /// Finishes the sums of some columns.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(
        &self,
        simd: S,
        columns: Range<usize>,
        out: &mut RowsMut<'_>,
        finish: &impl Finish<S>,
    ) {
        let rows = self.sums.iter().flat_map(|block| &block.0).take(out.count);
        for (row, sums) in rows.enumerate() {
            for column in columns.clone().step_by(LANES) {
                let c = column - columns.start;
                // SAFETY: a row of sums holds 32 floats.
                let v = unsafe { simd.load(sums[c..c + LANES].as_ptr()) };
                let v = finish.finish(simd, row, column, v);
                out.store(simd, row, column, (columns.end - column).min(LANES), v);
            }
        }
    }
}

/// The tiles of two panels that come next: they are brought near while rows are multiplied with those before.
/// Without that, the first rows wait for each tile, and the others leave memory idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next([*const u8; 2]);

impl Next {
    /// Two panels, `distance` bytes apart. Behind the last ones there is nothing to be brought near, and
    /// nothing happens.
    pub(super) fn new(first: *const u8, distance: usize) -> Self {
        Self([first, first.wrapping_add(distance)])
    }

    /// Half a panel's tiles, for each of the first four pairs of row tiles.
    pub(super) fn share(self, row_pair: usize, steps: usize) -> *const u8 {
        self.0[row_pair / 2 % 2].wrapping_add(row_pair % 2 * steps * TILE / 2)
    }
}

/// An element type of panels whose tiles are multiplied as they are.
pub(super) trait Weight: Sized {
    /// Their memory.
    fn bytes(panel: &[Self]) -> &[u8];
}

impl Weight for bf16 {
    fn bytes(panel: &[Self]) -> &[u8] {
        // SAFETY: a transparent u16, and any byte is one.
        unsafe { std::slice::from_raw_parts(panel.as_ptr().cast(), size_of_val(panel)) }
    }
}

impl Weight for i8 {
    fn bytes(panel: &[Self]) -> &[u8] {
        // SAFETY: any byte is one.
        unsafe { std::slice::from_raw_parts(panel.as_ptr().cast(), panel.len()) }
    }
}
