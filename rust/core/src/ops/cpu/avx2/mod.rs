//! [`Simd`] with AVX2, FMA and F16C: sixteen numbers are two registers.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

use super::simd::{Kernel, Simd};
use super::tiling::{Operands, Product};
use super::transpose;

mod steps;

/// AVX2, FMA and F16C (Haswell 2013, Zen 2017 and later); exists only where the processor has them.
///
/// With `VNNI` also AVX-VNNI (Alder Lake 2021, Zen 5 2024 and later), which multiplies bytes in one
/// instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl Avx2<false> {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
    }

    pub(super) fn with_vnni(self) -> Option<Avx2<true>> {
        let Self(proof) = self;
        is_x86_feature_detected!("avxvnni").then(|| Avx2(proof))
    }
}

// SAFETY of every block in this implementation: a value of `Avx2` is made by `detect` and `with_vnni` alone, after
// they found the instructions; pointers are vouched for by the callers of the unsafe functions.
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type V = [__m256; 2];
    type I = [__m256i; 2];
    const TILES: &'static [usize] = steps::TILES;

    #[inline(always)]
    unsafe fn multiply_floats<const R: usize, const P: usize>(
        self,
        of: &Operands,
        product: Product,
        sums: &mut [[Self::V; P]; R],
    ) -> bool {
        // SAFETY: see above, with VNNI only after that was detected; the caller vouches for the operands.
        unsafe {
            let mut bits = [[[_mm256_setzero_si256(); 2]; P]; R];
            for r in 0..R {
                for p in 0..P {
                    let [low, high] = sums[r][p];
                    bits[r][p] = [_mm256_castps_si256(low), _mm256_castps_si256(high)];
                }
            }
            steps::take::<VNNI, R, P>(of, product, &mut bits);
            for r in 0..R {
                for p in 0..P {
                    let [low, high] = bits[r][p];
                    sums[r][p] = [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)];
                }
            }
        }
        true
    }

    #[inline(always)]
    unsafe fn multiply_integers<const R: usize, const P: usize>(
        self,
        of: &Operands,
        product: Product,
        sums: &mut [[Self::I; P]; R],
    ) -> bool {
        // SAFETY: see above, with VNNI only after that was detected; the caller vouches for the operands.
        unsafe { steps::take::<VNNI, R, P>(of, product, sums) };
        true
    }

    #[inline(always)]
    unsafe fn call(self, kernel: &impl Kernel<Self>) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn compiled<S>(simd: S, kernel: &impl Kernel<S>) {
            // SAFETY: the caller vouches for the kernel.
            unsafe { kernel.run(simd) }
        }
        #[inline(never)]
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        unsafe fn compiled_with_vnni<S>(simd: S, kernel: &impl Kernel<S>) {
            // SAFETY: the caller vouches for the kernel.
            unsafe { kernel.run(simd) }
        }
        // SAFETY: see above, with VNNI only after that was detected; the caller vouches for the kernel.
        unsafe { if VNNI { compiled_with_vnni(self, kernel) } else { compiled(self, kernel) } }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::V {
        // SAFETY: see above.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(self, from: *const u16, second: bool) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let pairs = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())];
            if second {
                let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                [
                    _mm256_castsi256_ps(_mm256_and_si256(pairs[0], mask)),
                    _mm256_castsi256_ps(_mm256_and_si256(pairs[1], mask)),
                ]
            } else {
                [
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs[0])),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs[1])),
                ]
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: see above.
        unsafe { [_mm256_round_ps::<NEAREST>(v[0]), _mm256_round_ps::<NEAREST>(v[1])] }
    }

    #[inline(always)]
    fn exp2_of_integer(self, n: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
            ]
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    unsafe fn load_int(self, from: *const i32) -> Self::I {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))]
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))]
        }
    }

    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }

    #[inline(always)]
    fn shift_right(self, v: Self::I, bits: u32) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_srl_epi32(v[0], bits), _mm256_srl_epi32(v[1], bits)]
        }
    }

    #[inline(always)]
    fn to_float(self, v: Self::I) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above; with VNNI only after that was detected.
        unsafe {
            if VNNI {
                return [
                    multiply_eight_pairs(sums[0], a[0], b[0]),
                    multiply_eight_pairs(sums[1], a[1], b[1]),
                ];
            }
            [
                _mm256_add_epi32(sums[0], _mm256_madd_epi16(a[0], b[0])),
                _mm256_add_epi32(sums[1], _mm256_madd_epi16(a[1], b[1])),
            ]
        }
    }

    #[inline(always)]
    fn dot_quads(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above; with VNNI only after that was detected.
        unsafe {
            if VNNI {
                return [
                    _mm256_dpbusd_avx_epi32(sums[0], a[0], b[0]),
                    _mm256_dpbusd_avx_epi32(sums[1], a[1], b[1]),
                ];
            }
            let ones = _mm256_set1_epi16(1);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(a[0], b[0]), ones);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(a[1], b[1]), ones);
            [_mm256_add_epi32(sums[0], low), _mm256_add_epi32(sums[1], high)]
        }
    }

    #[inline(always)]
    unsafe fn store_i16(self, v: Self::V, to: *mut i16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), sixteen_words(v)) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, v: Self::V, to: *mut u8) {
        // SAFETY: see above.
        unsafe {
            let words = sixteen_words(v);
            let upper = _mm256_extracti128_si256::<1>(words);
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), upper);
            _mm_storeu_si128(to.cast(), bytes);
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { sum_of_eight(_mm256_add_ps(v[0], v[1])) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: an instruction of all x86-64; it never fails, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: see above.
        unsafe { transpose::avx2(from, stride, to) }
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { largest_of_eight(_mm256_max_ps(v[0], v[1])) }
    }
}

/// `_mm256_dpwssd_avx_epi32`, for which LLVM makes two instructions instead of the one.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn multiply_eight_pairs(mut sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: nothing but registers is touched.
    unsafe {
        std::arch::asm!(
            "{{vex}} vpdpwssd {sums}, {a}, {b}",
            sums = inout(ymm_reg) sums,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Whole numbers as 16-bit integers.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn sixteen_words(v: [__m256; 2]) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let mixed = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        // The instruction packs each half of its operands apart.
        _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed)
    }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(v: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn largest_of_eight(v: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}
