//! Matrices in memory as the kernels see them: rows at a fixed distance.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::{LANES, Simd, load_upto, store_upto};

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

    /// One after the other.
    pub(super) fn iter(self) -> impl Iterator<Item = &'a [f32]> + Clone {
        (0..self.count).map(move |row| &self.data[row * self.stride..][..self.width])
    }

    /// Some of them.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.count, "rows");
        let data = if rows.is_empty() { &[] } else { &self.data[rows.start * self.stride..] };
        Self { data, count: rows.len(), ..self }
    }

    /// The same columns of every row.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn columns(self, first: usize, width: usize) -> Self {
        assert!(first + width <= self.width, "columns");
        let data = if self.count == 0 { self.data } else { &self.data[first..] };
        Self { data, width, ..self }
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
    /// If they are not all there, or do not begin with a panel.
    pub(super) fn only(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns");
        assert!(columns.start.is_multiple_of(LANES) || columns.is_empty(), "panels");
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

    /// A row of a view that is written as a whole.
    ///
    /// # Panics
    /// If it is not there, or only some columns are to be written.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.count && self.columns.len() == self.width, "outside of the matrix");
        // SAFETY: it is inside, and nobody else touches columns that are written through this.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.width) }
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

/// Where `R` rows stand at one step of a kernel.
///
/// Every third row has a pointer, and the two after it are found by the distance between rows, which is
/// an address that x86 and ARM need no instruction for. The compiler is kept from seeing through this:
/// it would compute other addresses, with instructions that compete with the arithmetic.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPointers<T, const R: usize> {
    bases: [*const T; 4],
    stride: usize,
}

impl<T, const R: usize> RowPointers<T, R> {
    /// Rows at a distance of `stride`, the first at `first`.
    #[inline(always)]
    pub(super) fn new(first: *const T, stride: usize) -> Self {
        const { assert!(R <= 12) };
        let base = |i: usize| first.wrapping_add(3 * i * stride);
        Self { bases: [base(0), base(1), base(2), base(3)], stride }
    }

    /// The `i`th element of row `r` from where it stands.
    #[inline(always)]
    pub(super) fn at(&self, r: usize, i: usize) -> *const T {
        self.bases[r / 3].wrapping_add(r % 3 * self.stride + i)
    }

    /// Goes on by so many elements of each row.
    #[inline(always)]
    pub(super) fn step(&mut self, elements: usize) {
        for base in &mut self.bases[..R.div_ceil(3)] {
            *base = opaque(base.wrapping_add(elements));
        }
    }
}

/// The same statements for each row `r` of `R`, at most 12, one after the other: a loop that the compiler
/// decides not to unroll keeps a tile's sums in memory.
macro_rules! for_each_row {
    ($r:ident in $rows:ident $body:block) => {
        for_each_row!(@ $r $rows $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $r:ident $rows:ident $body:block $($i:literal)*) => {
        $(if $i < $rows {
            let $r = $i;
            $body
        })*
    };
}
pub(super) use for_each_row;

/// The same pointer, of which the compiler knows nothing.
#[inline(always)]
fn opaque<T>(pointer: *const T) -> *const T {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[allow(clippy::pointers_in_nomem_asm_block)]
    {
        let mut pointer = pointer;
        // SAFETY: nothing is done.
        unsafe {
            std::arch::asm!(
                // The pointer is a number here: nothing is read through it.
                "/* {0} */",
                inout(reg) pointer,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        pointer
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pointer
}

/// Checks that `out = a · weightᵀ` is possible with a weight of shape `[out_features, in_features]`.
///
/// # Panics
/// If it is not.
#[inline(always)]
pub(super) fn expect_shapes(a: Rows<'_>, weight: [usize; 2], out: &RowsMut<'_>) {
    assert_eq!([out.width, a.width], weight, "features");
    assert_eq!(a.count, out.count, "rows");
}

fn fits(len: usize, count: usize, width: usize, stride: usize) -> bool {
    width <= stride && (count == 0 || (count - 1) * stride + width <= len)
}
