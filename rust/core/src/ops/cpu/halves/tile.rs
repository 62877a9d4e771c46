//! The product of some rows and pairs of panels in registers.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::simd::LANES;
use super::super::tiling::{self, LINE, pick_tile};
use super::super::views::{RowPointers, for_each_row};
use super::{BLOCK, CHUNK, TILES, WIDTH};

/// Steps that are taken in one turn of a tile's loop, in which one line of the weights that come next is brought near.
const AT_ONCE: usize = 4;

/// Where the weights of a block are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lines {
    Paired(Paired),
    Apart(Apart),
}

/// Those of `pairs` pairs of panels for each input feature, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paired(pub(super) *const __m512i);

/// In their panels, with so many elements from one to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub(super) first: *const u16,
    pub(super) panel_len: usize,
}

/// [`Paired`] or [`Apart`].
pub(super) trait Source: Copy {
    /// The weights of pair `p` of `pairs` for the `i`th input feature.
    ///
    /// # Safety
    /// The processor has AVX-512 F. They are there.
    unsafe fn load(self, i: usize, p: usize, pairs: usize) -> __m512i;

    /// The same from the `i`th input feature on.
    fn skip(self, i: usize, pairs: usize) -> Self;
}

impl Source for Paired {
    #[inline(always)]
    unsafe fn load(self, i: usize, p: usize, pairs: usize) -> __m512i {
        // SAFETY: the caller vouches for the line.
        unsafe { _mm512_load_si512(self.0.add(i * pairs + p)) }
    }

    #[inline(always)]
    fn skip(self, i: usize, pairs: usize) -> Self {
        Self(self.0.wrapping_add(i * pairs))
    }
}

impl Source for Apart {
    #[inline(always)]
    unsafe fn load(self, i: usize, p: usize, _: usize) -> __m512i {
        // SAFETY: the caller vouches for 16 weights of both panels.
        unsafe {
            let first = self.first.add(2 * p * self.panel_len + i * LANES);
            let second = first.add(self.panel_len);
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(first.cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(second.cast()))
        }
    }

    #[inline(always)]
    fn skip(self, i: usize, _: usize) -> Self {
        Self { first: self.first.wrapping_add(i * LANES), ..self }
    }
}

/// One tile's part of a block.
pub(super) struct Tile {
    pub(super) rows: usize,
    /// Pairs of panels.
    pub(super) panels: usize,
    pub(super) a: *const u32,
    pub(super) steps: usize,
    pub(super) scales: *const f32,
    /// Whether this is the first block, so that the output holds nothing yet.
    pub(super) first: bool,
    /// What is brought near meanwhile.
    pub(super) ahead: *const u8,
}

impl Tile {
    /// Picks the product of that size.
    ///
    /// # Safety
    /// The processor has AVX-512 FP16. `rows` rows of `steps` numbers, `BLOCK` apart, are readable at `a`, as many
    /// scales at `scales`, `steps` times `panels` lines in `weights`; `rows` rows of `32 panels` floats, `stride` apart, are
    /// readable and writable at `out`.
    pub(super) unsafe fn run(&self, weights: Lines, out: *mut f32, stride: usize) {
        // SAFETY: as this function's.
        unsafe {
            match weights {
                Lines::Paired(weights) => pick_tile!(TILES, self.multiply(weights, out, stride)),
                Lines::Apart(weights) => pick_tile!(TILES, self.multiply(weights, out, stride)),
            }
        }
    }

    /// # Safety
    /// As [`Self::run`]'s, with `R` rows and `P` pairs of panels.
    // As in the product of single precision: nothing but arithmetic in loops over constant ranges. Without AVX-512 VL
    // the compiler keeps sums in half of the registers, as their halves are read as 256 bits.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl")]
    unsafe fn multiply<const R: usize, const P: usize>(
        &self,
        mut weights: impl Source,
        out: *mut f32,
        stride: usize,
    ) {
        let mut rows = RowPointers::<_, R>::new(self.a, BLOCK);
        let mut ahead = self.ahead;
        let mut first = self.first;
        let mut left = self.steps;
        while left > 0 {
            // SAFETY: `run`'s conditions; as many steps are taken as are left.
            unsafe {
                let mut sums = [[_mm512_setzero_si512(); P]; R];
                let chunk = left.min(CHUNK);
                let mut step = 0;
                while step + AT_ONCE <= chunk {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    ahead = ahead.wrapping_add(LINE);
                    for i in 0..AT_ONCE {
                        Self::step(weights, &rows, i, &mut sums);
                    }
                    weights = weights.skip(AT_ONCE, P);
                    rows.step(AT_ONCE);
                    step += AT_ONCE;
                }
                for _ in step..chunk {
                    Self::step(weights, &rows, 0, &mut sums);
                    weights = weights.skip(1, P);
                    rows.step(1);
                }
                self.add(&sums, first, out, stride);
                first = false;
                left -= chunk;
            }
        }
    }

    /// Multiplies one input feature, the `i`th from where `from` and `rows` stand.
    ///
    /// # Safety
    /// As [`Self::multiply`]'s.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn step<const R: usize, const P: usize>(
        from: impl Source,
        rows: &RowPointers<u32, R>,
        i: usize,
        sums: &mut [[__m512i; P]; R],
    ) {
        // SAFETY: the caller's conditions.
        unsafe {
            let mut weights = [_mm512_setzero_si512(); P];
            for p in 0..P {
                weights[p] = from.load(i, p, P);
            }
            for_each_row!(r in R {
                let a = _mm512_set1_epi32((*rows.at(r, i)).cast_signed());
                for p in 0..P {
                    sums[r][p] = multiply_halves(sums[r][p], a, weights[p]);
                }
            });
        }
    }

    /// Adds the sums of a chunk to the output.
    ///
    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn add<const R: usize, const P: usize>(
        &self,
        sums: &[[__m512i; P]; R],
        first: bool,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: the caller's conditions, with r < R and p < P.
        unsafe {
            for_each_row!(r in R {
                let scale = _mm512_set1_ps(*self.scales.add(r));
                for p in 0..P {
                    let low = _mm512_cvtph_ps(_mm512_castsi512_si256(sums[r][p]));
                    let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(sums[r][p]));
                    let to = out.add(r * stride + p * WIDTH);
                    let before = |at: *const f32| {
                        if first { _mm512_setzero_ps() } else { _mm512_loadu_ps(at) }
                    };
                    let low = _mm512_fmadd_ps(low, scale, before(to));
                    let high = _mm512_fmadd_ps(high, scale, before(to.add(LANES)));
                    _mm512_storeu_ps(to, low);
                    _mm512_storeu_ps(to.add(LANES), high);
                }
            });
        }
    }
}

/// `sums + a * b` of 32 numbers in half precision, which the standard library has no stable intrinsic for.
///
/// # Safety
/// The processor has AVX-512 FP16.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn multiply_halves(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: nothing but registers is touched, the flags of exceptions among them; the caller vouches for the
    // instruction.
    unsafe {
        asm!(
            "vfmadd231ph {sums}, {a}, {b}",
            sums = inout(zmm_reg) sums,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack),
        );
    }
    sums
}
