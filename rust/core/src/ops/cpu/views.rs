//! Matrices in memory as the kernels see them: rows at a fixed distance.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::{Simd, load_upto, store_upto};

/// Rows of floats at a fixed distance, for example one head's columns of a wider matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
    pub(super) width: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of `width` floats, `stride` apart, the first at `data[0]`.
    ///
    /// # Panics
    /// If they do not fit into `data`.
    pub(super) fn new(data: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(fits(data.len(), count, width, stride), "rows do not fit their memory");
        Self { data, stride, count, width }
    }
}

/// As [`Rows`], to be written; all columns or some.
///
/// A pointer and not a slice: several threads may each have this for other columns of the same rows.
#[derive(Debug)]
pub(super) struct RowsMut<'a> {
    data: *mut f32,
    stride: usize,
    pub(super) count: usize,
    pub(super) width: usize,
    /// Those that are to be written.
    pub(super) columns: Range<usize>,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> RowsMut<'a> {
    /// `count` rows of `width` floats, `stride` apart, the first at `data[0]`.
    ///
    /// # Panics
    /// If they do not fit into `data`.
    pub(super) fn new(data: &'a mut [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(fits(data.len(), count, width, stride), "rows do not fit their memory");
        // SAFETY: they fit, and `data` is borrowed as long as this lives.
        unsafe { Self::from_raw(data.as_mut_ptr(), count, width, stride) }
    }

    /// The same from a pointer.
    ///
    /// # Safety
    /// The rows are readable and writable for `'a`, and nobody else touches the columns that are
    /// written through this.
    pub(super) unsafe fn from_raw(
        data: *mut f32,
        count: usize,
        width: usize,
        stride: usize,
    ) -> Self {
        Self { data, stride, count, width, columns: 0..width, borrowed: PhantomData }
    }

    /// The same rows, of which only these columns are to be written.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn only(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns");
        Self { columns, ..self }
    }

    /// Some rows, and of them `width` columns from `column` on, as a view of their own.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn part(&mut self, rows: Range<usize>, column: usize, width: usize) -> RowsMut<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.count, "rows");
        assert!(column + width <= self.width, "columns");
        // SAFETY: they are within this view, which is borrowed for as long.
        unsafe {
            let data = self.data.wrapping_add(rows.start * self.stride + column);
            RowsMut::from_raw(data, rows.len(), width, self.stride)
        }
    }

    /// Where the rows begin, and how far they are apart.
    pub(super) fn raw(&mut self) -> (*mut f32, usize) {
        (self.data, self.stride)
    }

    /// Up to 16 floats of a row.
    ///
    /// # Panics
    /// If they are not all there.
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, simd: S, row: usize, column: usize, n: usize) -> S::V {
        assert!(row < self.count && column + n <= self.width, "outside of the matrix");
        // SAFETY: they are inside.
        unsafe { load_upto(simd, n, self.data.add(row * self.stride + column)) }
    }

    /// Writes up to 16 floats of a row.
    ///
    /// # Panics
    /// If they are not all there.
    #[inline(always)]
    pub(super) fn store<S: Simd>(&mut self, simd: S, row: usize, column: usize, n: usize, v: S::V) {
        assert!(row < self.count && column + n <= self.width, "outside of the matrix");
        // SAFETY: they are inside.
        unsafe { store_upto(simd, n, v, self.data.add(row * self.stride + column)) }
    }
}

fn fits(len: usize, count: usize, width: usize, stride: usize) -> bool {
    width <= stride && (count == 0 || (count - 1) * stride + width <= len)
}
