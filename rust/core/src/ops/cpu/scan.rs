//! Dot products of queries with many vectors, read as they are stored: what exact search spends its time on.
//!
//! A few queries pass along each vector while it is in registers, and the vectors pass by in the order in which
//! they lie in memory. Of more queries, 16 vectors at a time are exchanged with columns and multiplied as the
//! weights of a GGUF file are ([`super::stored`]), on tiles where the processor has them.
#![allow(unsafe_code)]

use half::f16;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::finish::AsIs;
use super::isa::{self, Isa};
use super::kernels::LinearScratch;
use super::simd::{LANES, Simd, load_upto};
use super::stored::{self, CHUNK, Chunk, Expand};
use super::views::{Rows, RowsMut};

/// Queries that pass along a vector together: their sums and numbers fit into the registers.
const TOGETHER: usize = 4;

/// Queries that pass in such groups; with more, exchanging rows with columns is worth it.
const FEW: usize = 8;

/// How far ahead of the vector that is being multiplied memory is brought near, in bytes. The processor
/// does that by itself within a page of 4 KiB, but not from one to the next.
const AHEAD: usize = 4096;

/// Vectors of a length, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vectors<'a> {
    Float32(&'a [f32]),
    Float16(&'a [f16]),
    /// Codes; the products are to be multiplied by each vector's scale.
    Int8(&'a [i8]),
}

impl Vectors<'_> {
    fn len(self) -> usize {
        match self {
            Self::Float32(numbers) => numbers.len(),
            Self::Float16(numbers) => numbers.len(),
            Self::Int8(codes) => codes.len(),
        }
    }
}

/// Queries and vectors, both `[n, dim]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) vectors: Vectors<'a>,
    pub(crate) queries: &'a [f32],
    pub(crate) dim: usize,
}

/// Computes dot products with one instruction set, in memory of its own.
#[derive(Debug)]
pub(crate) struct Scanner {
    isa: Isa,
    scratch: LinearScratch,
}

impl Scanner {
    pub(crate) fn new(isa: Isa) -> Self {
        Self { isa, scratch: LinearScratch::default() }
    }

    /// All products, `[queries, vectors]`.
    ///
    /// # Panics
    /// If `queries` or `vectors` are not whole, or `out` has another length.
    pub(crate) fn dots(&mut self, job: &Job<'_>, out: &mut [f32]) {
        isa::scan(self.isa, job, out, &mut self.scratch);
    }

    /// Appends the positions at which `dot · scale + (gain · norm - loss)` is not below `threshold`; a NaN is not.
    ///
    /// # Panics
    /// If the slices have not the same length.
    pub(crate) fn select(&self, terms: &Terms<'_>, threshold: f32, found: &mut Vec<u32>) {
        isa::select(self.isa, terms, threshold, found);
    }

    /// How far a product may be from the exact one, relative to the product of the norms of query and vector.
    ///
    /// Each sum is of `dim` products, rounded when multiplied and when added: in single precision
    /// γ = dim · u / (1 - dim · u) with u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
    /// 2nd edition, section 3.1), and Σ |xᵢ yᵢ| is at most the product of the norms. Lanes and tiles sum in other
    /// orders, none with more than `dim` + 8 roundings on the way of a product into its sum.
    ///
    /// On tiles each number is a high and a low bfloat16, so that of |x| at most 2⁻⁹ is in the low part, of which
    /// at most 2⁻⁹ is lost: less than 3 · 2⁻¹⁸ with the product low · low that is left out. Three products are
    /// summed for each of the exact ones.
    pub(crate) fn error(&self, dim: usize) -> f32 {
        const UNIT: f64 = 1.0 / (1 << 24) as f64;
        let (sums, lost) = match self.isa.name() {
            "amx" => (3.0, 4.0 / (1 << 18) as f64),
            _ => (1.0, 0.0),
        };
        let roundings = sums * dim as f64 + 16.0;
        (roundings * UNIT / (1.0 - roundings * UNIT) + lost) as f32
    }
}

/// What [`Scanner::select`] compares, for each vector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) dots: &'a [f32],
    pub(crate) scale: &'a [f32],
    pub(crate) gain: &'a [f32],
    pub(crate) loss: &'a [f32],
    /// Of the query.
    pub(crate) norm: f32,
}

impl Terms<'_> {
    /// What a vector is compared by.
    #[inline(always)]
    pub(crate) fn bound(&self, i: usize) -> f32 {
        self.dots[i] * self.scale[i] + (self.gain[i] * self.norm - self.loss[i])
    }
}

/// See [`Scanner::dots`].
#[inline(always)]
pub(super) fn scan<S: Simd>(simd: S, job: &Job<'_>, out: &mut [f32], scratch: &mut LinearScratch) {
    let &Job { vectors, queries, dim } = job;
    let (count, rows) = (queries.len() / dim, vectors.len() / dim);
    assert!(count * dim == queries.len() && rows * dim == vectors.len(), "whole vectors");
    assert_eq!(out.len(), count * rows, "a product for each query and vector");
    if rows == 0 {
        return;
    }
    if count <= FEW {
        let groups = queries.chunks(TOGETHER * dim).zip(out.chunks_mut(TOGETHER * rows));
        for (queries, out) in groups {
            let job = &Job { queries, ..*job };
            match vectors {
                Vectors::Float32(numbers) => group(simd, numbers, job, out),
                Vectors::Float16(numbers) => group(simd, numbers, job, out),
                Vectors::Int8(codes) => group(simd, codes, job, out),
            }
        }
        return;
    }
    let queries = Rows::new(queries, count, dim, dim);
    let mut out = RowsMut::new(out, count, rows, rows);
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = simd.amx() {
        let scratch = &mut scratch.tiles;
        return amx::stored::matmul(simd, amx, queries, *job, &mut out, &AsIs, scratch);
    }
    let _ = scratch;
    stored::matmul(simd, queries, *job, &mut out, &AsIs);
}

/// An element of stored vectors: how 16 of them become floats.
trait Element: Copy + Default {
    /// # Safety
    /// 16 elements are readable at `from`.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { simd.load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements; f16 is a transparent u16.
        unsafe { simd.load_f16(from.cast()) }
    }
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { simd.to_float(simd.load_i8(from)) }
    }
}

/// Sixteen elements from the beginning of a slice, or those that there are and zeros.
#[inline(always)]
fn sixteen<S: Simd, E: Element>(simd: S, elements: &[E]) -> S::V {
    if elements.len() >= LANES {
        // SAFETY: there are 16.
        return unsafe { E::load(simd, elements.as_ptr()) };
    }
    let mut padded = [E::default(); LANES];
    padded[..elements.len()].copy_from_slice(elements);
    // SAFETY: `padded` has 16.
    unsafe { E::load(simd, padded.as_ptr()) }
}

/// Up to [`TOGETHER`] queries.
#[inline(always)]
fn group<S: Simd, E: Element>(simd: S, vectors: &[E], job: &Job<'_>, out: &mut [f32]) {
    match job.queries.len() / job.dim {
        1 => together::<S, E, 1>(simd, vectors, job, out),
        2 => together::<S, E, 2>(simd, vectors, job, out),
        3 => together::<S, E, 3>(simd, vectors, job, out),
        TOGETHER => together::<S, E, TOGETHER>(simd, vectors, job, out),
        _ => {}
    }
}

/// `Q` queries, one vector after the other.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // constant ranges, which the compiler unrolls
fn together<S: Simd, E: Element, const Q: usize>(
    simd: S,
    vectors: &[E],
    job: &Job<'_>,
    out: &mut [f32],
) {
    /// Sums of each query, so that a multiply-add need not wait for the one before it.
    const SUMS: usize = 4;
    let &Job { queries, dim, .. } = job;
    let rows = vectors.len() / dim;
    assert!(queries.len() == Q * dim && out.len() == Q * rows, "shapes");
    let sums_of_each = if Q == 1 { SUMS } else { 1 };
    let step = sums_of_each * LANES;
    let whole = dim / step * step;
    for (r, vector) in vectors.chunks_exact(dim).enumerate() {
        let mut sums = [[simd.splat(0.0); SUMS]; Q];
        for k in (0..whole).step_by(step) {
            for line in 0..(step * size_of::<E>()).div_ceil(64) {
                let here = vector.as_ptr().wrapping_add(k).cast::<u8>();
                simd.prefetch(here.wrapping_add(AHEAD + 64 * line));
            }
            for s in 0..sums_of_each {
                let at = k + s * LANES;
                // SAFETY: `whole` is within the vector, and `at + 16` within `whole`.
                let v = unsafe { E::load(simd, vector.as_ptr().add(at)) };
                for q in 0..Q {
                    // SAFETY: there are Q queries of that length.
                    let x = unsafe { simd.load(queries.as_ptr().add(q * dim + at)) };
                    sums[q][s] = simd.mul_add(x, v, sums[q][s]);
                }
            }
        }
        for k in (whole..dim).step_by(LANES) {
            let v = sixteen(simd, &vector[k..]);
            for q in 0..Q {
                let query = &queries[q * dim + k..(q + 1) * dim];
                // SAFETY: as many floats are read as the slice holds, 16 at most.
                let x = unsafe { load_upto(simd, query.len(), query.as_ptr()) };
                sums[q][0] = simd.mul_add(x, v, sums[q][0]);
            }
        }
        for q in 0..Q {
            let [a, b, c, d] = sums[q];
            let total =
                if sums_of_each == 1 { a } else { simd.add(simd.add(a, b), simd.add(c, d)) };
            out[q * rows + r] = simd.sum(total);
        }
    }
}

/// Vectors as the weights of a product. One implementation for all kinds of elements: the product is compiled for
/// each, and is large.
impl Expand for Job<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.vectors.len() / self.dim, self.dim]
    }

    #[inline(always)]
    fn expand<S: Simd>(
        &self,
        simd: S,
        here: (usize, usize),
        next: (usize, usize),
        steps: usize,
        rows: &mut Chunk,
    ) {
        match self.vectors {
            Vectors::Float32(numbers) => expand(simd, numbers, self.dim, here, next, steps, rows),
            Vectors::Float16(numbers) => expand(simd, numbers, self.dim, here, next, steps, rows),
            Vectors::Int8(codes) => expand(simd, codes, self.dim, here, next, steps, rows),
        }
    }
}

/// 16 vectors as floats, see [`Expand::expand`].
#[inline(always)]
fn expand<S: Simd, E: Element>(
    simd: S,
    vectors: &[E],
    dim: usize,
    (first, k): (usize, usize),
    next: (usize, usize),
    steps: usize,
    rows: &mut Chunk,
) {
    for (i, out) in rows.0.iter_mut().enumerate() {
        let ahead = vectors.as_ptr().wrapping_add((next.0 + i) * dim + next.1).cast::<u8>();
        for line in 0..(CHUNK.min(dim) * size_of::<E>()).div_ceil(64) {
            simd.prefetch(ahead.wrapping_add(64 * line));
        }
        // Whole registers: what is behind `steps` is not looked at.
        let out = &mut out[..steps.next_multiple_of(LANES)];
        let from = (first + i) * dim + k;
        let Some(elements) = vectors.get(from..from + steps) else {
            out.fill(0.0);
            continue;
        };
        for (out, elements) in out.chunks_exact_mut(LANES).zip(elements.chunks(LANES)) {
            let v = sixteen(simd, elements);
            // SAFETY: a chunk of 16.
            unsafe { simd.store(v, out.as_mut_ptr()) };
        }
    }
}

/// See [`Scanner::select`].
#[inline(always)]
pub(super) fn select<S: Simd>(_simd: S, terms: &Terms<'_>, threshold: f32, found: &mut Vec<u32>) {
    let len = terms.dots.len();
    let lengths = [terms.scale.len(), terms.gain.len(), terms.loss.len()];
    assert_eq!(lengths, [len; 3], "terms of each vector");
    // Not `>=`: a NaN is to be found.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    let reaches = |i: usize| !(terms.bound(i) < threshold);
    for first in (0..len).step_by(LANES) {
        let here = first..len.min(first + LANES);
        // Hardly ever there is one.
        if here.clone().fold(false, |any, i| any | reaches(i)) {
            found.extend(here.filter(|&i| reaches(i)).map(|i| i as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::numbers;
    use super::*;

    /// A slow and obvious product.
    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    fn norm(a: &[f32]) -> f64 {
        dot(a, a).sqrt()
    }

    fn check(isa: Isa, job: &Job<'_>, floats: &[f32]) {
        let (count, rows) = (job.queries.len() / job.dim, floats.len() / job.dim);
        let mut scanner = Scanner::new(isa);
        let mut out = vec![f32::NAN; count * rows];
        scanner.dots(job, &mut out);
        let error = f64::from(scanner.error(job.dim));
        for (query, out) in job.queries.chunks(job.dim).zip(out.chunks(rows)) {
            for (vector, &found) in floats.chunks(job.dim).zip(out) {
                let expected = dot(query, vector);
                let bound = error * norm(query) * norm(vector);
                let difference = (f64::from(found) - expected).abs();
                assert!(difference <= bound, "{isa:?}: {found} for {expected}, bound {bound}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn products_are_within_their_bound(
            dim in prop_oneof![1_usize..70, 250_usize..530],
            rows in 1_usize..70,
            count in prop_oneof![1_usize..7, 15_usize..40],
            seed: u64,
        ) {
            let floats = numbers(seed, rows * dim);
            let queries = numbers(seed ^ 1, count * dim);
            let halves: Vec<f16> = floats.iter().map(|&x| f16::from_f32(x)).collect();
            let codes: Vec<i8> = floats.iter().map(|&x| (x * 127.0) as i8).collect();
            let of_halves: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
            let of_codes: Vec<f32> = codes.iter().map(|&x| f32::from(x)).collect();
            let job = |vectors| Job { vectors, queries: &queries, dim };
            for isa in Isa::available() {
                check(isa, &job(Vectors::Float32(&floats)), &floats);
                check(isa, &job(Vectors::Float16(&halves)), &of_halves);
                check(isa, &job(Vectors::Int8(&codes)), &of_codes);
            }
        }

        #[test]
        fn what_is_selected_is_not_below_the_threshold(len in 0_usize..100, seed: u64, threshold in -1.0_f32..1.0) {
            let [mut dots, scale, gain, mut loss] =
                [0, 1, 2, 3].map(|i| numbers(seed ^ i, len));
            for i in (0..len).step_by(17) {
                dots[i] = f32::NAN;
                loss[len - 1 - i] = f32::NEG_INFINITY;
            }
            let norm = 0.5;
            let expected: Vec<u32> = (0..len)
                .filter(|&i| {
                    let bound = dots[i] * scale[i] + (gain[i] * norm - loss[i]);
                    bound.is_nan() || bound >= threshold
                })
                .map(|i| i as u32)
                .collect();
            for isa in Isa::available() {
                let terms = Terms { dots: &dots, scale: &scale, gain: &gain, loss: &loss, norm };
                let mut found = Vec::new();
                Scanner::new(isa).select(&terms, threshold, &mut found);
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
