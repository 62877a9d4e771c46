//! 16 × 16 numbers of 32 bits with rows and columns exchanged, in registers.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;

/// Sixteen registers of a row each, exchanged in four rounds: numbers, pairs, fours and eights.
///
/// # Safety
/// The processor has AVX-512 F; 16 rows of 16 numbers, `stride` apart, are readable at `from`, and 256
/// numbers writable at `to`.
#[inline(always)]
pub(super) unsafe fn avx512(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: the caller vouches for the instructions and the memory.
    unsafe {
        let mut rows = [_mm512_setzero_ps(); 16];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = _mm512_loadu_ps(from.add(r * stride));
        }
        let mut pairs = [_mm512_setzero_pd(); 16];
        for (i, two) in rows.chunks_exact(2).enumerate() {
            pairs[2 * i] = _mm512_castps_pd(_mm512_unpacklo_ps(two[0], two[1]));
            pairs[2 * i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(two[0], two[1]));
        }
        // Of rows 4 i to 4 i + 3, columns c, c + 4, c + 8 and c + 12.
        let mut fours = [_mm512_setzero_ps(); 16];
        for (i, four) in pairs.chunks_exact(4).enumerate() {
            for half in 0..2 {
                let (first, second) = (four[half], four[2 + half]);
                let [low, high] =
                    [_mm512_unpacklo_pd(first, second), _mm512_unpackhi_pd(first, second)];
                fours[4 * i + 2 * half] = _mm512_castpd_ps(low);
                fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(high);
            }
        }
        for c in 0..4 {
            let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
            let [ab, de] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(d, e)];
            let [fg, hi] = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(d, e)];
            _mm512_storeu_ps(to.add(16 * c), _mm512_shuffle_f32x4::<0x88>(ab, de));
            _mm512_storeu_ps(to.add(16 * (c + 4)), _mm512_shuffle_f32x4::<0x88>(fg, hi));
            _mm512_storeu_ps(to.add(16 * (c + 8)), _mm512_shuffle_f32x4::<0xdd>(ab, de));
            _mm512_storeu_ps(to.add(16 * (c + 12)), _mm512_shuffle_f32x4::<0xdd>(fg, hi));
        }
    }
}

/// The same in four squares of 8 × 8.
///
/// # Safety
/// The processor has AVX2; else as [`avx512`].
#[inline(always)]
pub(super) unsafe fn avx2(from: *const f32, stride: usize, to: *mut f32) {
    for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: the caller vouches for the instructions, and all of the squares are in the memory that
        // it vouches for.
        unsafe { square(from.add(row * stride + column), stride, to.add(column * 16 + row)) };
    }
}

/// 8 × 8, with columns 16 apart.
///
/// # Safety
/// As [`avx2`], for 8 rows and columns.
#[inline(always)]
unsafe fn square(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: the caller vouches for the instructions and the memory.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(r * stride));
        }
        let mut pairs = [_mm256_setzero_pd(); 8];
        for (i, two) in rows.chunks_exact(2).enumerate() {
            pairs[2 * i] = _mm256_castps_pd(_mm256_unpacklo_ps(two[0], two[1]));
            pairs[2 * i + 1] = _mm256_castps_pd(_mm256_unpackhi_ps(two[0], two[1]));
        }
        // Of rows 4 i to 4 i + 3, columns c and c + 4.
        let mut fours = [_mm256_setzero_ps(); 8];
        for (i, four) in pairs.chunks_exact(4).enumerate() {
            for half in 0..2 {
                let (first, second) = (four[half], four[2 + half]);
                let [low, high] =
                    [_mm256_unpacklo_pd(first, second), _mm256_unpackhi_pd(first, second)];
                fours[4 * i + 2 * half] = _mm256_castpd_ps(low);
                fours[4 * i + 2 * half + 1] = _mm256_castpd_ps(high);
            }
        }
        for c in 0..4 {
            let (a, b) = (fours[c], fours[4 + c]);
            _mm256_storeu_ps(to.add(16 * c), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.add(16 * (c + 4)), _mm256_permute2f128_ps::<0x31>(a, b));
        }
    }
}
