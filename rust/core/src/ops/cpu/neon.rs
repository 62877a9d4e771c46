//! [`Simd`] on 64-bit ARM, where NEON is part of the base instruction set.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::aarch64::*;

use super::simd::{Kernel, LANES, Simd};
use crate::weights::float16::half_to_float;

/// NEON; always available on aarch64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon;

#[inline(always)]
fn each(f: impl Fn(usize) -> float32x4_t) -> [float32x4_t; 4] {
    [f(0), f(1), f(2), f(3)]
}

// SAFETY of every block in this implementation: this file is compiled for aarch64 only, whose base
// instruction set includes NEON; pointers are vouched for by the callers of the unsafe functions.
impl Simd for Neon {
    type V = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    const TILES: &'static [usize] = &[6];

    #[inline(never)]
    unsafe fn call(self, kernel: &impl Kernel<Self>) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run(self) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vld1q_f32(from.add(4 * i)) })
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::V {
        // Rust's intrinsic for the widening instruction is not stable yet.
        // SAFETY: see above.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        let floats = bits.map(half_to_float);
        // SAFETY: `floats` holds 16.
        unsafe { self.load(floats.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(self, from: *const u16, second: bool) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe {
            let pairs = vreinterpretq_u32_u16(vld1q_u16(from.add(8 * i)));
            vreinterpretq_f32_u32(if second {
                vandq_u32(pairs, vdupq_n_u32(0xffff_0000))
            } else {
                vshlq_n_u32::<16>(pairs)
            })
        })
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: see above.
            unsafe { vst1q_f32(to.add(4 * i), v) }
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vsubq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vdivq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vmaxq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vminq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vrndnq_f32(v[i]) })
    }

    #[inline(always)]
    fn exp2_of_integer(self, n: Self::V) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe {
            let biased = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(x); 4] }
    }

    #[inline(always)]
    unsafe fn load_int(self, from: *const i32) -> Self::I {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { vld1q_s32(from.add(4 * i)) })
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
                vreinterpretq_s32_u32(vmovl_high_u16(low)),
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                vreinterpretq_s32_u32(vmovl_high_u16(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let bytes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        }
    }

    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { vandq_s32(a[i], b[i]) })
    }

    #[inline(always)]
    fn shift_right(self, v: Self::I, bits: u32) -> Self::I {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { vshlq_s32(v[i], vdupq_n_s32(-(bits as i32))) })
    }

    #[inline(always)]
    fn to_float(self, v: Self::I) -> Self::V {
        // SAFETY: see above.
        each(|i| unsafe { vcvtq_f32_s32(v[i]) })
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe {
            let (a, b) = (vreinterpretq_s16_s32(a[i]), vreinterpretq_s16_s32(b[i]));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sums[i], vpaddq_s32(low, vmull_high_s16(a, b)))
        })
    }

    #[inline(always)]
    fn dot_quads(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe {
            let (a, b) = (vreinterpretq_u8_s32(a[i]), vreinterpretq_s8_s32(b[i]));
            let a = [vmovl_u8(vget_low_u8(a)), vmovl_high_u8(a)].map(|a| vreinterpretq_s16_u16(a));
            let b = [vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b)];
            // Sums of two products fit into 16 bits; the low halves of products are therefore enough.
            let products = [vmulq_s16(a[0], b[0]), vmulq_s16(a[1], b[1])];
            vpadalq_s16(sums[i], vpaddq_s16(products[0], products[1]))
        })
    }

    #[inline(always)]
    unsafe fn store_i16(self, v: Self::V, to: *mut i16) {
        // SAFETY: see above.
        (0..4).for_each(|i| unsafe { vst1_s16(to.add(4 * i), vmovn_s32(vcvtnq_s32_f32(v[i]))) });
    }

    #[inline(always)]
    unsafe fn store_u8(self, v: Self::V, to: *mut u8) {
        // SAFETY: see above.
        unsafe {
            let words = [0, 2].map(|i| {
                let low = vqmovun_s32(vcvtnq_s32_f32(v[i]));
                vqmovn_u16(vcombine_u16(low, vqmovun_s32(vcvtnq_s32_f32(v[i + 1]))))
            });
            vst1q_u8(to, vcombine_u8(words[0], words[1]));
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3]))) }
    }
}
