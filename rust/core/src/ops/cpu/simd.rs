//! Sixteen floats at a time, whatever the instruction set.
//!
//! Every kernel is written once, over [`Simd`]. Its values are always 16 floats wide, as the weight
//! panels are: one register with AVX-512, two with AVX2, four with NEON. A value of a type that
//! implements [`Simd`] proves that the processor has the instructions, which is why its arithmetic is
//! safe to call; only memory access is not.
//!
//! The order of every reduction is the same in all implementations, so results differ between
//! instruction sets by the rounding of fused multiply-adds alone, and with AVX-512 by that of
//! [`Simd::quotient`], whose first estimate another maker's processor may round otherwise.
#![allow(unsafe_code)]

use super::tiling::{Operands, Product};

/// Floats in a [`Simd::V`], and output features in a panel.
pub(super) const LANES: usize = crate::weights::panels::WIDTH;

/// Something that is compiled as a function of its own for each instruction set. All else is inlined into the
/// whole operation; what is large and used by many of them would then be compiled for each.
pub(super) trait Kernel<S> {
    /// # Safety
    /// What the kernel's pointers need.
    unsafe fn run(&self, simd: S);
}

/// An instruction set that the processor is known to have.
pub(super) trait Simd: Copy {
    /// Sixteen floats.
    type V: Copy;
    /// Sixteen integers of 32 bits.
    type I: Copy;
    /// The matrix kernel's tiles: how many rows the registers hold beside one panel, two and so on.
    const TILES: &'static [usize];

    /// AMX's tiles, where the processor has them.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn amx(self) -> Option<super::amx::Amx> {
        None
    }

    /// Products in half precision, where the processor has them and they are the fastest.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn halves(self) -> Option<super::halves::Halves> {
        None
    }

    /// Takes all steps of a tile in a loop of its own, if this instruction set has one.
    ///
    /// # Safety
    /// `R` rows of `of.steps` floats are readable at `of.a`, and `P` panels of as many times 16 weights at `of.panel`.
    #[inline(always)]
    unsafe fn multiply_floats<const R: usize, const P: usize>(
        self,
        _of: &Operands,
        _product: Product,
        _sums: &mut [[Self::V; P]; R],
    ) -> bool {
        false
    }

    /// The same with integers.
    ///
    /// # Safety
    /// As [`Self::multiply_floats`]'s, with groups of integers for floats and for weights.
    #[inline(always)]
    unsafe fn multiply_integers<const R: usize, const P: usize>(
        self,
        _of: &Operands,
        _product: Product,
        _sums: &mut [[Self::I; P]; R],
    ) -> bool {
        false
    }

    /// Calls a kernel that is compiled for these instructions.
    ///
    /// # Safety
    /// As the kernel's.
    unsafe fn call(self, kernel: &impl Kernel<Self>);
    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// 16 floats are readable at `from`.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// # Safety
    /// 16 IEEE half-precision numbers are readable at `from`.
    unsafe fn load_f16(self, from: *const u16) -> Self::V;
    /// The second or the first numbers of pairs.
    ///
    /// # Safety
    /// 16 pairs of bfloat16, the upper halves of floats, are readable at `from`.
    unsafe fn load_bfloat16(self, from: *const u16, second: bool) -> Self::V;
    /// # Safety
    /// 16 floats are writable at `to`.
    unsafe fn store(self, v: Self::V, to: *mut f32);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b` to a few units in the last place, for `b` from 1 to 2⁶⁴.
    #[inline(always)]
    fn quotient(self, a: Self::V, b: Self::V) -> Self::V {
        self.div(a, b)
    }
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest integer, for |v| < 2²².
    fn round(self, v: Self::V) -> Self::V;
    /// 2ⁿ for whole numbers n in -126..=127.
    fn exp2_of_integer(self, n: Self::V) -> Self::V;
    fn splat_int(self, x: i32) -> Self::I;
    /// # Safety
    /// 16 integers are readable at `from`, which need not be aligned.
    unsafe fn load_int(self, from: *const i32) -> Self::I;
    /// # Safety
    /// 16 bytes are readable at `from`.
    unsafe fn load_u8(self, from: *const u8) -> Self::I;
    /// # Safety
    /// 16 bytes are readable at `from`.
    unsafe fn load_i8(self, from: *const i8) -> Self::I;
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// Of numbers that are not negative, by less than 32 bits.
    fn shift_right(self, v: Self::I, bits: u32) -> Self::I;
    fn to_float(self, v: Self::I) -> Self::V;
    /// Sums of two products of signed 16-bit integers, added to `sums`.
    fn dot_pairs(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// Sums of four products of unsigned bytes of `a` with signed ones of `b`, added to `sums`. The
    /// sums of the first and of the last two products must be within 16 bits.
    fn dot_quads(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The nearest integers, of two equally near ones the even one, for |v| < 2¹⁵.
    ///
    /// # Safety
    /// 16 integers are writable at `to`.
    unsafe fn store_i16(self, v: Self::V, to: *mut i16);
    /// The same from 0 to 255, which is what lower and higher ones become, for |v| < 2¹⁵.
    ///
    /// # Safety
    /// 16 bytes are writable at `to`.
    unsafe fn store_u8(self, v: Self::V, to: *mut u8);
    /// Lane i + lane i+8, then i+4, i+2, i+1.
    fn sum(self, v: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, v: Self::V) -> f32;
    /// Brings memory near that will be read soon, where there is an instruction for that. Any address may be given.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
    /// 16 rows of 16 numbers of 32 bits, `stride` apart, become as many columns at `to`, one after the other.
    ///
    /// # Safety
    /// The rows are readable, and 256 numbers writable at `to`, which is none of them.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller vouches for both.
                unsafe { *to.add(column * LANES + row) = *from.add(row * stride + column) };
            }
        }
    }
}

/// Sixteen floats, or the `n` < 16 that there are and zeros.
///
/// # Safety
/// min(`n`, 16) floats are readable at `from`.
#[inline(always)]
pub(super) unsafe fn load_upto<S: Simd>(simd: S, n: usize, from: *const f32) -> S::V {
    // SAFETY: the caller vouches for min(n, 16) readable floats; `lanes` has room for 16.
    unsafe {
        if n >= LANES {
            return simd.load(from);
        }
        let mut lanes = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
        simd.load(lanes.as_ptr())
    }
}

/// Stores sixteen floats, or the first `n` < 16 of them.
///
/// # Safety
/// min(`n`, 16) floats are writable at `to`.
#[inline(always)]
pub(super) unsafe fn store_upto<S: Simd>(simd: S, n: usize, v: S::V, to: *mut f32) {
    // SAFETY: the caller vouches for min(n, 16) writable floats; `lanes` has room for 16.
    unsafe {
        if n >= LANES {
            return simd.store(v, to);
        }
        let mut lanes = [0.0; LANES];
        simd.store(v, lanes.as_mut_ptr());
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n);
    }
}

/// `outputs = operation(outputs, others)`, where there are at least as many others.
#[inline(always)]
pub(super) fn combine<S: Simd>(
    simd: S,
    outputs: &mut [f32],
    others: &[f32],
    operation: impl Fn(S, S::V, S::V) -> S::V,
) {
    let others = &others[..outputs.len()];
    let (chunks, rest) = outputs.as_chunks_mut::<LANES>();
    let (other_chunks, other_rest) = others.as_chunks::<LANES>();
    for (v, other) in chunks.iter_mut().zip(other_chunks) {
        // SAFETY: both are sixteen.
        unsafe {
            let x = operation(simd, simd.load(v.as_ptr()), simd.load(other.as_ptr()));
            simd.store(x, v.as_mut_ptr());
        }
    }
    let n = rest.len();
    if n > 0 {
        // SAFETY: both have `n` floats, as the slices are of one length.
        unsafe {
            let x = load_upto(simd, n, rest.as_ptr());
            let x = operation(simd, x, load_upto(simd, n, other_rest.as_ptr()));
            store_upto(simd, n, x, rest.as_mut_ptr());
        }
    }
}
