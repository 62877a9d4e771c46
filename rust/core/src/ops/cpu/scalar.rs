//! [`Simd`] in plain Rust: the reference that every other instruction set is tested against, and
//! what runs where there is none of them.
#![allow(unsafe_code)]

use super::simd::{Kernel, LANES, Simd};
use crate::weights::float16::half_to_float;

/// Plain Rust; always available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type V = [f32; LANES];
    type I = [i32; LANES];
    const TILES: &'static [usize] = &[2];

    #[inline(never)]
    unsafe fn call(self, kernel: &impl Kernel<Self>) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run(self) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for 16 readable floats.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller vouches for 16 readable half floats.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(half_to_float)
    }

    #[inline(always)]
    unsafe fn load_bfloat16(self, from: *const u16, second: bool) -> Self::V {
        // SAFETY: the caller vouches for 16 readable pairs.
        let pairs = unsafe { from.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        pairs.map(|pair| f32::from_bits(u32::from(pair[usize::from(second)]) << 16))
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable floats.
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    // Like the x86 instructions, max and min give the second operand where either is NaN, so that a
    // NaN in the data is not lost: kernels pass the data second.
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        // Numbers of this size have no places after the point; `round_ties_even` is a library call.
        const MAGIC: f32 = 12_582_912.0;
        v.map(|x| (x + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn exp2_of_integer(self, n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits((((n as i32) + 127) as u32) << 23))
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load_int(self, from: *const i32) -> Self::I {
        // SAFETY: the caller vouches for 16 readable integers.
        unsafe { from.cast::<Self::I>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: the caller vouches for 16 readable bytes.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: the caller vouches for 16 readable bytes.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn shift_right(self, v: Self::I, bits: u32) -> Self::I {
        v.map(|v| v >> bits)
    }

    #[inline(always)]
    fn to_float(self, v: Self::I) -> Self::V {
        v.map(|x| x as f32)
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        let low = |x: i32| i32::from(x as i16);
        std::array::from_fn(|i| {
            let (a, b) = (a[i], b[i]);
            sums[i].wrapping_add(low(a) * low(b)).wrapping_add((a >> 16) * (b >> 16))
        })
    }

    #[inline(always)]
    fn dot_quads(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // Shifts and not bytes, which the compiler would take apart one by one.
        let product =
            |a: i32, b: i32, shift: u32| ((a >> shift) & 255) * ((b << (24 - shift)) >> 24);
        std::array::from_fn(|i| {
            let (a, b) = (a[i], b[i]);
            let low = product(a, b, 0) + product(a, b, 8);
            sums[i].wrapping_add(low + product(a, b, 16) + product(a, b, 24))
        })
    }

    #[inline(always)]
    unsafe fn store_i16(self, v: Self::V, to: *mut i16) {
        // SAFETY: the caller vouches for 16 writable integers.
        unsafe { to.cast::<[i16; LANES]>().write_unaligned(self.round(v).map(|x| x as i16)) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, v: Self::V, to: *mut u8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe { to.cast::<[u8; LANES]>().write_unaligned(self.round(v).map(|x| x as u8)) }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|i| v[i] + v[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
