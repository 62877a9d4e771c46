//! Scaled dot-product attention of one sequence, head by head.
//!
//! Keys and values of a head are packed into panels, so that both products are the one of
//! [`super::matmul`]; the scores of a block of queries stay in the second-level cache. Of the keys only those
//! are multiplied that some query of the block sees. What is computed for a query does not depend on the others of
//! its block: a key that it does not see has exactly no weight in its sums.
#![allow(unsafe_code)]

use std::ops::Range;

use super::finish::{AsIs, Finish};
use super::math::exp2;
use super::matmul::{Panels, matmul};
use super::simd::{LANES, Simd, load_upto, store_upto};
use super::views::{Rows, RowsMut};
use crate::ops::{Biases, Heads, Mask};

/// Queries whose scores are held at a time.
const QUERY_BLOCK: usize = 64;

/// Memory that attention needs beside its input and output.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
}

/// Attention within one sequence.
#[derive(Debug, Clone)]
pub(super) struct AttentionJob<'a> {
    /// `[rows, heads.count * heads.head_dim]`: those of all tokens or of some.
    pub(super) queries: Rows<'a>,
    /// The token of the sequence whose query is the first row.
    pub(super) first_query: usize,
    /// `[tokens, heads.kv_count * heads.head_dim]`
    pub(super) keys: Rows<'a>,
    /// `[tokens, heads.kv_count * heads.head_dim]`
    pub(super) values: Rows<'a>,
    pub(super) heads: Heads,
    /// The heads to compute.
    pub(super) share: Range<usize>,
    /// What scores are multiplied by.
    pub(super) scale: f32,
    pub(super) mask: Mask,
    pub(super) biases: Option<&'a Biases>,
    /// Whether operands may be rounded to bfloat16 where that is faster.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX rounds"))]
    pub(super) rounded: bool,
}

/// `out` is `[rows, heads.count * heads.head_dim]`; only the columns of the heads are written.
///
/// # Panics
/// If the shapes do not fit each other.
#[inline(always)]
pub(super) fn attention<S: Simd>(
    simd: S,
    job: &AttentionJob<'_>,
    mut out: RowsMut<'_>,
    scratch: &mut Scratch,
) {
    let dim = job.heads.head_dim;
    let tokens = job.keys.count;
    if tokens == 0 {
        return;
    }
    let padded = tokens.next_multiple_of(LANES);
    scratch.keys.resize(padded * dim, 0.0);
    scratch.values.resize(dim.next_multiple_of(LANES) * tokens, 0.0);
    scratch.sums.resize(QUERY_BLOCK, 0.0);
    let mut packed = None;
    for head in job.share.clone() {
        let kv_head = job.kv_head(head);
        if packed.replace(kv_head) != Some(kv_head) {
            let (keys, values) =
                (job.keys.columns(kv_head * dim, dim), job.values.columns(kv_head * dim, dim));
            pack_keys(simd, keys, &mut scratch.keys);
            pack_values(simd, values, &mut scratch.values);
        }
        let values = Panels::new(&scratch.values, dim, tokens);
        for first in (0..out.count).step_by(QUERY_BLOCK) {
            let rows = (out.count - first).min(QUERY_BLOCK);
            let seen = job.seen(first..first + rows, LANES);
            // An odd number of cache lines: with a power of two, rows would compete for the same sets.
            let stride = seen.len().next_multiple_of(2 * LANES) + LANES;
            if scratch.scores.len() < rows * stride {
                scratch.scores.resize(rows * stride, 0.0);
            }
            let queries = job.queries.rows(first..first + rows).columns(head * dim, dim);
            let keys = &scratch.keys[seen.start * dim..seen.end * dim];
            let keys = Panels::new(keys, seen.len(), dim);
            let mut scores = RowsMut::new(&mut scratch.scores, rows, seen.len(), stride);
            matmul(simd, queries, keys, &mut scores, &AsIs);
            for row in 0..rows {
                let scores = &mut scratch.scores[row * stride..][..seen.len()];
                let at = (first + row, seen.start);
                scratch.sums[row] = job.softmax_without_division(simd, head, at, scores);
            }
            let tokens = seen.start..seen.end.min(tokens);
            let weights = Rows::new(&scratch.scores, rows, tokens.len(), stride);
            let mut out = out.part(first..first + rows, head * dim, dim);
            matmul(simd, weights, values.inputs(tokens), &mut out, &DividedBy(&scratch.sums));
        }
    }
}

impl AttentionJob<'_> {
    /// The head of keys and values that serves a head of queries.
    pub(super) fn kv_head(&self, head: usize) -> usize {
        head * self.heads.kv_count / self.heads.count
    }

    /// The keys that some of these rows' queries see, and those beside them in whole blocks of a multiple of 16,
    /// the last of which may end behind the sequence.
    pub(super) fn seen(&self, rows: Range<usize>, block: usize) -> Range<usize> {
        let queries = self.first_query + rows.start..self.first_query + rows.end;
        let keys = self.mask.keys_of_any(queries, self.keys.count);
        keys.start / block * block..keys.end.next_multiple_of(block)
    }

    /// Replaces the products of a row's query with the keys from the `first` on, which are all that it sees and
    /// more, by their weights before division, and returns the weights' sum.
    ///
    /// The sum is over whole panels of keys, counted from the sequence's first, in which the query sees a key: it
    /// does not depend on what else is there.
    #[inline(always)]
    pub(super) fn softmax_without_division<S: Simd>(
        &self,
        simd: S,
        head: usize,
        (row, first): (usize, usize),
        scores: &mut [f32],
    ) -> f32 {
        let query = self.first_query + row;
        let keys = self.mask.keys(query, self.keys.count);
        let panels = keys.start / LANES * LANES..keys.end.next_multiple_of(LANES);
        scores[..panels.start - first].fill(0.0);
        scores[panels.end - first..].fill(0.0);
        let scores = &mut scores[panels.start - first..panels.end - first];
        let seen = keys.start - panels.start..keys.end - panels.start;
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
        let Some(biases) = self.biases else {
            return softmax_without_division(simd, scores, self.scale * std::f32::consts::LOG2_E);
        };
        let biases = biases.row(head, query, keys);
        for (score, bias) in scores[seen].iter_mut().zip(biases) {
            *score = *score * self.scale + bias;
        }
        softmax_without_division(simd, scores, std::f32::consts::LOG2_E)
    }
}

/// Each row divided by a number: the part of softmax that can wait until there is less to divide.
struct DividedBy<'a>(&'a [f32]);

impl<S: Simd> Finish<S> for DividedBy<'_> {
    #[inline(always)]
    fn finish(&self, simd: S, row: usize, _: usize, v: S::V) -> S::V {
        simd.div(v, simd.splat(self.0[row]))
    }

    #[inline(always)]
    fn after_bias(&self, simd: S, row: usize, _: usize, outputs: &mut [f32]) {
        let sum = simd.splat(self.0[row]);
        for v in outputs.chunks_mut(LANES) {
            // SAFETY: the chunk holds as many floats as are read and written.
            unsafe {
                let x = simd.div(load_upto(simd, v.len(), v.as_ptr()), sum);
                store_upto(simd, v.len(), x, v.as_mut_ptr());
            }
        }
    }
}

/// A head's keys as panels of 16 tokens.
#[inline(always)]
fn pack_keys<S: Simd>(simd: S, keys: Rows<'_>, panels: &mut [f32]) {
    let dim = keys.width;
    // Sixteen dimensions of sixteen keys; zeros where there are no more.
    let mut square = [0.0; LANES * LANES];
    for (first, panel) in (0..keys.count).step_by(LANES).zip(panels.chunks_exact_mut(LANES * dim)) {
        let count = (keys.count - first).min(LANES);
        if count < LANES {
            square.fill(0.0);
        }
        for (d, columns) in (0..dim).step_by(LANES).zip(panel.chunks_mut(LANES * LANES)) {
            let n = (dim - d).min(LANES);
            for (key, row) in
                keys.rows(first..first + count).iter().zip(square.chunks_exact_mut(LANES))
            {
                // SAFETY: a key has `n` numbers from `d` on, and a row of the square room for 16.
                unsafe { simd.store(load_upto(simd, n, key[d..d + n].as_ptr()), row.as_mut_ptr()) };
            }
            if n == LANES {
                // SAFETY: both are squares, and not the same.
                unsafe { simd.transpose(square.as_ptr(), LANES, columns.as_mut_ptr()) };
            } else {
                let mut whole = [0.0; LANES * LANES];
                // SAFETY: both are squares, and not the same.
                unsafe { simd.transpose(square.as_ptr(), LANES, whole.as_mut_ptr()) };
                columns.copy_from_slice(&whole[..columns.len()]);
            }
        }
    }
}

/// A head's values as panels of 16 dimensions.
#[inline(always)]
fn pack_values<S: Simd>(simd: S, values: Rows<'_>, panels: &mut [f32]) {
    let (dim, tokens) = (values.width, values.count);
    for (first, panel) in (0..dim).step_by(LANES).zip(panels.chunks_exact_mut(LANES * tokens)) {
        let n = (dim - first).min(LANES);
        for (value, step) in values.iter().zip(panel.chunks_exact_mut(LANES)) {
            // SAFETY: a value has `n` numbers from `first` on, and a step room for 16.
            unsafe {
                simd.store(load_upto(simd, n, value[first..first + n].as_ptr()), step.as_mut_ptr());
            }
        }
    }
}

/// Replaces scores, a multiple of 16, by `2^(scale * (score - largest))` and returns their sum.
#[inline(always)]
pub(super) fn softmax_without_division<S: Simd>(simd: S, scores: &mut [f32], scale: f32) -> f32 {
    let mut largest = simd.splat(f32::NEG_INFINITY);
    for chunk in scores.chunks_exact(LANES) {
        // SAFETY: the chunk holds 16 floats.
        largest = simd.max(largest, unsafe { simd.load(chunk.as_ptr()) });
    }
    let scale_v = simd.splat(scale);
    let shift = simd.splat(-simd.largest(largest) * scale);
    let mut sum = simd.splat(0.0);
    for chunk in scores.chunks_exact_mut(LANES) {
        // SAFETY: the chunk holds 16 floats.
        unsafe {
            let score = simd.load(chunk.as_ptr());
            let weight = exp2(simd, simd.mul_add(score, scale_v, shift));
            simd.store(weight, chunk.as_mut_ptr());
            sum = simd.add(sum, weight);
        }
    }
    simd.sum(sum)
}
