//! The matrix product of floats in half precision, twice as many products an instruction as in single.
//!
//! AVX-512 FP16 (Intel Sapphire Rapids 2023 and later) multiplies and adds 32 half-precision numbers at once. Weights
//! of float16 are multiplied as the file has them, inputs are rounded to half precision, which keeps 11 bits, and so
//! are the sums of [`CHUNK`] products; these are added in single precision. Each row of inputs is scaled by a power of
//! two to at most 2 first, so that neither small nor large ones leave the range of half precision: a sum would, from
//! weights of more than 500 on average. Every output is the sum over k in ascending order, in the same chunks whatever
//! tile it falls into.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // half of it would be a list of intrinsics

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;

use super::matmul::{Finish, Panels};
use super::simd::{LANES, Simd};
use super::tiling::{self, LINE, Next, pick_tile};
use super::views::{RowPointers, Rows, RowsMut, expect_shapes, for_each_row};

/// Products whose sum is in half precision. The loss grows with it, the cost of adding sums up falls: see
/// docs/architecture/performance.md, "Half precision".
const CHUNK: usize = 64;

/// Input features of a block: the weights of the widest tile (36 KiB) stay in the first-level cache while the rows
/// pass by.
const BLOCK: usize = 3 * CHUNK;

/// Output features that an instruction multiplies: two panels.
const WIDTH: usize = 2 * LANES;

/// How many rows the registers hold beside one pair of panels, two and three.
const TILES: &[usize] = &[12, 12, 8];

/// Columns of the widest tile.
const MAX_COLUMNS: usize = 3 * WIDTH;
const MAX_TILE: usize = 12 * MAX_COLUMNS;

/// Proof that the processor has AVX-512 FP16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halves(());

impl Halves {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512fp16") && is_x86_feature_detected!("avx512vl"))
            .then_some(Self(()))
    }
}

/// Memory that the product needs beside its input and output.
#[derive(Debug, Default)]
pub(in super::super) struct Scratch {
    /// `[blocks, rows, BLOCK]`: inputs in half precision, each twice, as an instruction spreads 32 bits over a register
    /// at no cost and 16 bits not.
    inputs: Vec<u32>,
    /// What each row was divided by.
    scales: Vec<f32>,
    weights: Vec<Line>,
}

/// 32 weights.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u16; WIDTH]);

/// `out = finish(a · weightᵀ)`, in the columns that `out` asks for.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn matmul<S: Simd>(
    simd: S,
    halves: Halves,
    a: Rows<'_>,
    weight: Panels<'_, f16>,
    out: &mut RowsMut<'_>,
    finish: &impl Finish<S>,
    scratch: &mut Scratch,
) {
    expect_shapes(a, [weight.out_features, weight.in_features], out);
    scratch.round(halves, a);
    let Scratch { inputs, scales, weights } = scratch;
    let panel_len = weight.panel_len();
    let end = out.columns.end;
    let widest = tiling::panels(TILES, a.count);
    // Rows that pass by in one tile need each line of weights once.
    let at_once = a.count <= TILES[widest - 1];
    for (column, pairs) in tiling::groups(out.columns.clone(), widest, WIDTH) {
        let columns = (end - column).min(pairs * WIDTH);
        let panels = &weight.data[column / LANES * panel_len..];
        let count = columns.div_ceil(LANES);
        for (block, k) in (0..a.width).step_by(BLOCK).enumerate() {
            let steps = (a.width - k).min(BLOCK);
            let apart = at_once && count == 2 * pairs;
            let from = if apart {
                let last = &panels[(count - 1) * panel_len..][k * LANES..];
                assert!(last.len() >= steps * LANES, "panels");
                Lines::Apart(Apart { first: panels[k * LANES..].as_ptr().cast(), panel_len })
            } else {
                pair_up(halves, panels, panel_len, count, k..k + steps, weights);
                Lines::Paired(Paired(weights[..steps * pairs].as_ptr().cast()))
            };
            let following =
                if k + BLOCK < a.width { (k + BLOCK) * LANES } else { count * panel_len };
            let next = Next::new(panels, following, panel_len, count, BLOCK * LANES);
            let row_blocks = tiling::row_blocks(TILES, a.count, pairs);
            for (i, rows) in row_blocks.clone().enumerate() {
                let row = rows.start;
                let mut part = out.part(rows.clone(), column, columns);
                let tile = Tile {
                    rows: rows.len(),
                    panels: pairs,
                    a: inputs[(block * a.count + row) * BLOCK..][..rows.len() * BLOCK].as_ptr(),
                    steps,
                    scales: scales[rows.clone()].as_ptr(),
                    first: k == 0,
                    ahead: next.share(i, row_blocks.len()),
                };
                part.through_pairs(simd, |to, stride| {
                    // SAFETY: the slices have been taken with as much as is read; there is room for whole pairs of
                    // panels at `to`; `halves` proves the instructions.
                    unsafe { tile.run(from, to, stride) };
                });
                if k + steps == a.width {
                    part.finish(simd, row, column, finish);
                }
            }
        }
    }
}

impl Scratch {
    /// Rounds the inputs.
    #[inline(always)]
    fn round(&mut self, _: Halves, a: Rows<'_>) {
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
fn pair_up(
    _: Halves,
    panels: &[f16],
    panel_len: usize,
    count: usize,
    inputs: std::ops::Range<usize>,
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

impl RowsMut<'_> {
    /// As [`RowsMut::through_whole_panels`], with room for whole pairs of panels.
    #[inline(always)]
    fn through_pairs<S: Simd>(&mut self, simd: S, write: impl FnOnce(*mut f32, usize)) {
        if self.width.is_multiple_of(WIDTH) {
            let (to, stride) = self.raw();
            return write(to, stride);
        }
        let mut padded = [0.0; MAX_TILE];
        self.copy_to(simd, &mut padded, MAX_COLUMNS);
        write(padded.as_mut_ptr(), MAX_COLUMNS);
        self.copy_from(simd, &padded, MAX_COLUMNS);
    }
}

/// Where the weights of a block are.
#[derive(Debug, Clone, Copy)]
enum Lines {
    Paired(Paired),
    Apart(Apart),
}

/// Those of `pairs` pairs of panels for each input feature, one after the other.
#[derive(Debug, Clone, Copy)]
struct Paired(*const __m512i);

/// In their panels, with so many elements from one to the next.
#[derive(Debug, Clone, Copy)]
struct Apart {
    first: *const u16,
    panel_len: usize,
}

trait Source: Copy {
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
struct Tile {
    rows: usize,
    /// Pairs of panels.
    panels: usize,
    a: *const u32,
    steps: usize,
    scales: *const f32,
    /// Whether this is the first block, so that the output holds nothing yet.
    first: bool,
    /// What is brought near meanwhile.
    ahead: *const u8,
}

impl Tile {
    /// Picks the product of that size.
    ///
    /// # Safety
    /// The processor has AVX-512 FP16. `rows` rows of `steps` numbers, `BLOCK` apart, are readable at `a`, as many
    /// scales at `scales`, `steps` times `panels` lines in `weights`; `rows` rows of `32 panels` floats, `stride` apart, are
    /// readable and writable at `out`.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    unsafe fn run(&self, weights: Lines, out: *mut f32, stride: usize) {
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
    // As in the product of single precision: nothing but arithmetic in loops over constant ranges.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
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

/// Steps that are taken in one turn of a tile's loop, in which one line of the weights that come next is brought near.
const AT_ONCE: usize = 4;

/// `sums + a * b` of 32 numbers in half precision, which the standard library has no stable intrinsic for.
///
/// # Safety
/// The processor has AVX-512 FP16.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn multiply_halves(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: nothing but registers is touched; the caller vouches for the instruction.
    unsafe {
        asm!(
            "vfmadd231ph {sums}, {a}, {b}",
            sums = inout(zmm_reg) sums,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
