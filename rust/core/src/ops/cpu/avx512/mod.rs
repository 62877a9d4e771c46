//! [`Simd`] with AVX-512.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

use super::amx::Amx;
use super::avx2::{Avx2, largest_of_eight, sum_of_eight};
use super::halves::Halves;
use super::simd::{Kernel, Simd};
use super::tiling::{Operands, Product};
use super::transpose;

mod steps;

/// AVX-512 F and VNNI, with [`Avx2`]'s instructions (Cascade Lake 2019, Zen 4 2022 and later); exists
/// only where the processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512 {
    _avx2: Avx2<false>,
    amx: Option<Amx>,
    halves: Option<Halves>,
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni"))
        .then_some(Self { _avx2: avx2, amx: None, halves: None })
    }

    /// With products in half precision beside it.
    pub(super) fn with_halves(self) -> Option<Self> {
        Halves::detect(self).map(|halves| Self { halves: Some(halves), ..self })
    }

    /// With AMX's tiles beside it.
    pub(super) fn with_amx(self) -> Option<Self> {
        Amx::detect().map(|amx| Self { amx: Some(amx), ..self })
    }
}

// SAFETY of every block in this implementation: a value of `Avx512` is made by `detect` alone, after
// it found the instructions; pointers are vouched for by the callers of the unsafe functions.
impl Simd for Avx512 {
    type V = __m512;
    type I = __m512i;
    // With three panels, each number of a row that is loaded is used three times: a tenth faster.
    const TILES: &'static [usize] = &[12, 12, 9];

    #[inline(always)]
    fn amx(self) -> Option<Amx> {
        self.amx
    }

    #[inline(always)]
    fn halves(self) -> Option<Halves> {
        self.halves
    }

    #[inline(always)]
    unsafe fn multiply_floats<const R: usize, const P: usize>(
        self,
        of: &Operands,
        product: Product,
        sums: &mut [[Self::V; P]; R],
    ) -> bool {
        // SAFETY: see above; the caller vouches for the operands. What is zero in integers is zero in floats.
        unsafe {
            let mut bits = [[_mm512_setzero_si512(); P]; R];
            for r in 0..R {
                for p in 0..P {
                    bits[r][p] = _mm512_castps_si512(sums[r][p]);
                }
            }
            steps::take(of, product, &mut bits);
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = _mm512_castsi512_ps(bits[r][p]);
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
        // SAFETY: see above; the caller vouches for the operands.
        unsafe { steps::take(of, product, sums) };
        true
    }

    #[inline(always)]
    unsafe fn call(self, kernel: &impl Kernel<Self>) {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
        unsafe fn compiled(simd: Avx512, kernel: &impl Kernel<Avx512>) {
            // SAFETY: the caller vouches for the kernel.
            unsafe { kernel.run(simd) }
        }
        // SAFETY: see above; the caller vouches for the kernel.
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(self, from: *const u16, second: bool) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            _mm512_castsi512_ps(if second {
                _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32))
            } else {
                _mm512_slli_epi32::<16>(pairs)
            })
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn quotient(self, a: Self::V, b: Self::V) -> Self::V {
        // A division takes 16 cycles in which nothing else can be divided: an estimate of 14 bits,
        // and what it leaves divided in the same way. (AVX2's estimate is not the same on all processors.)
        // SAFETY: see above.
        unsafe {
            let near = _mm512_rcp14_ps(b);
            let quotient = _mm512_mul_ps(a, near);
            let rest = _mm512_fnmadd_ps(quotient, b, a);
            _mm512_fmadd_ps(rest, near, quotient)
        }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: see above.
        unsafe { _mm512_roundscale_ps::<NEAREST>(v) }
    }

    #[inline(always)]
    fn exp2_of_integer(self, n: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load_int(self, from: *const i32) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, v: Self::I, bits: u32) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_srl_epi32(v, _mm_cvtsi32_si128(bits as i32)) }
    }

    #[inline(always)]
    fn to_float(self, v: Self::I) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn dot_pairs(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { multiply_pairs(sums, a, b) }
    }

    #[inline(always)]
    fn dot_quads(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sums, a, b) }
    }

    #[inline(always)]
    unsafe fn store_i16(self, v: Self::V, to: *mut i16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v))) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, v: Self::V, to: *mut u8) {
        // SAFETY: see above.
        unsafe {
            let integers = _mm512_max_epi32(_mm512_cvtps_epi32(v), _mm512_setzero_si512());
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(integers));
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above; AVX-512 includes AVX2.
        unsafe { sum_of_eight(_mm256_add_ps(lower(v), upper(v))) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: an instruction of all x86-64; it never fails, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: see above.
        unsafe { transpose::avx512(from, stride, to) }
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: see above; AVX-512 includes AVX2.
        unsafe { largest_of_eight(_mm256_max_ps(lower(v), upper(v))) }
    }
}

/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn lower(v: __m512) -> __m256 {
    // SAFETY: the caller vouches for AVX-512 F.
    unsafe { _mm512_castps512_ps256(v) }
}

/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn upper(v: __m512) -> __m256 {
    // SAFETY: the caller vouches for AVX-512 F.
    unsafe { _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v))) }
}

/// `_mm512_dpwssd_epi32`, for which LLVM makes two instructions instead of the one.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply_pairs(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: nothing but registers is touched.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sums}, {a}, {b}",
            sums = inout(zmm_reg) sums,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
