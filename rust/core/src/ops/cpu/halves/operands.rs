//! Inputs in half precision, and weights of two panels side by side.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use super::super::simd::LANES;
use super::super::views::Rows;
use super::{BLOCK, Halves, TILES, WIDTH};

/// Inputs and weights as a tile takes them; memory that is used again.
#[derive(Debug, Default)]
pub(in super::super) struct Operands {
    /// `[blocks, rows, BLOCK]`: inputs in half precision, each twice, as an instruction spreads 32 bits over a register
    /// at no cost and 16 bits not.
    pub(super) inputs: Vec<u32>,
    /// What each row was divided by.
    pub(super) scales: Vec<f32>,
    pub(super) weights: Vec<Line>,
}

/// 32 weights.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line([u16; WIDTH]);

impl Operands {
    /// Rounds the inputs.
    #[inline(always)]
    pub(super) fn round(&mut self, _: Halves, a: Rows<'_>) {
        let blocks = a.width.div_ceil(BLOCK);
        let len = blocks * a.count * BLOCK;
        if self.inputs.len() < len {
            self.inputs.resize(len, 0);
        }
        self.scales.clear();
        for (row, floats) in a.iter().enumerate() {
            // SAFETY: `Halves` exist only beside AVX-512.
            let scale = unsafe { power_of_two(largest(floats)) };
            self.scales.push(scale);
            for (block, floats) in floats.chunks(BLOCK).enumerate() {
                let to = &mut self.inputs[(block * a.count + row) * BLOCK..][..floats.len()];
                // SAFETY: as before; `to` is as long as `floats`.
                unsafe { round_into(floats, 1.0 / scale, to) };
            }
        }
    }
}

/// The largest magnitude; NaNs are left out.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn largest(floats: &[f32]) -> f32 {
    let (whole, rest) = floats.as_chunks::<LANES>();
    let mut largest = _mm512_setzero_ps();
    for chunk in whole {
        // SAFETY: 16 floats are read.
        let x = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
        largest = _mm512_max_ps(_mm512_abs_ps(x), largest);
    }
    rest.iter().fold(_mm512_reduce_max_ps(largest), |largest, x| largest.max(x.abs()))
}

/// The power of two below `x`, such that it and its reciprocal are no extreme numbers.
fn power_of_two(x: f32) -> f32 {
    let exponent = (x.to_bits() >> 23).clamp(1 + 27, 254 - 27);
    f32::from_bits(exponent << 23)
}

/// Numbers times `factor` in half precision, each twice.
///
/// # Safety
/// The processor has AVX-512 F.
///
/// # Panics
/// If `to` is shorter than `floats`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn round_into(floats: &[f32], factor: f32, to: &mut [u32]) {
    let to = &mut to[..floats.len()];
    let (whole, rest) = floats.as_chunks::<LANES>();
    let (to_whole, to_rest) = to.as_chunks_mut::<LANES>();
    for (chunk, to) in whole.iter().zip(to_whole) {
        // SAFETY: 16 floats are read, and as many pairs written.
        unsafe {
            let x = _mm512_mul_ps(_mm512_loadu_ps(chunk.as_ptr()), _mm512_set1_ps(factor));
            let once = _mm512_cvtepu16_epi32(_mm512_cvtps_ph::<_MM_FROUND_NO_EXC>(x));
            let twice = _mm512_or_si512(once, _mm512_slli_epi32::<16>(once));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), twice);
        }
    }
    for (x, to) in rest.iter().zip(to_rest) {
        *to = u32::from(f16::from_f32(x * factor).to_bits()) * 0x1_0001;
    }
}

/// Weights of some input features, those of two panels side by side, and all pairs of panels of an input feature one
/// after the other. In place of a last panel that is not there are zeros.
///
/// # Panics
/// If they are not all there.
#[inline(always)]
pub(super) fn pair_up(
    _: Halves,
    panels: &[f16],
    panel_len: usize,
    count: usize,
    inputs: Range<usize>,
    lines: &mut Vec<Line>,
) {
    let pairs = count.div_ceil(2);
    if lines.len() < inputs.len() * pairs {
        lines.resize(BLOCK * TILES.len(), Line([0; WIDTH]));
    }
    let lines = &mut lines[..inputs.len() * pairs];
    let of = |panel: usize| {
        let from = panel * panel_len;
        (panel < count).then(|| &panels[from + inputs.start * LANES..from + inputs.end * LANES])
    };
    for pair in 0..pairs {
        let lines = lines[pair..].iter_mut().step_by(pairs);
        // SAFETY: `Halves` exist only beside AVX-512.
        unsafe { pair_up_two(of(2 * pair).unwrap_or_default(), of(2 * pair + 1), lines) };
    }
}

/// # Safety
/// The processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn pair_up_two<'a>(
    first: &[f16],
    second: Option<&[f16]>,
    lines: impl Iterator<Item = &'a mut Line>,
) {
    let second = second.map(|second| &second[..first.len()]);
    for (k, line) in lines.take(first.len() / LANES).enumerate() {
        // SAFETY: 16 weights of each are there, and a line has room for both.
        unsafe {
            let low = _mm256_loadu_si256(first.as_ptr().add(k * LANES).cast());
            let both = match second {
                Some(second) => _mm512_inserti64x4::<1>(
                    _mm512_castsi256_si512(low),
                    _mm256_loadu_si256(second.as_ptr().add(k * LANES).cast()),
                ),
                None => _mm512_zextsi256_si512(low),
            };
            _mm512_store_si512(line.0.as_mut_ptr().cast(), both);
        }
    }
}
