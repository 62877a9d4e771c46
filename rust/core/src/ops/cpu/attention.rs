//! Scaled dot-product attention of one sequence, head by head.
//!
//! Keys and values of a head are packed into panels, so that both products are the one of
//! [`super::matmul`]; the scores of a block of queries stay in the second-level cache.
#![allow(unsafe_code)]

use std::ops::Range;

use super::math::exp2;
use super::matmul::{AsIs, Finish, Panels, matmul};
use super::simd::{LANES, Simd};
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
#[derive(Debug)]
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
    // An odd number of cache lines: with a power of two, rows would compete for the same sets.
    let score_stride = padded.next_multiple_of(2 * LANES) + LANES;
    scratch.keys.resize(padded * dim, 0.0);
    scratch.values.resize(dim.next_multiple_of(LANES) * tokens, 0.0);
    scratch.scores.resize(QUERY_BLOCK * score_stride, 0.0);
    scratch.sums.resize(QUERY_BLOCK, 0.0);
    let mut packed = None;
    for head in job.share.clone() {
        let kv_head = job.kv_head(head);
        if packed.replace(kv_head) != Some(kv_head) {
            let (keys, values) =
                (job.keys.columns(kv_head * dim, dim), job.values.columns(kv_head * dim, dim));
            pack_keys(keys.iter(), dim, &mut scratch.keys);
            pack_values(&values.iter(), dim, tokens, &mut scratch.values);
        }
        let keys = Panels::new(&scratch.keys, padded, dim);
        let values = Panels::new(&scratch.values, dim, tokens);
        for first in (0..out.count).step_by(QUERY_BLOCK) {
            let rows = (out.count - first).min(QUERY_BLOCK);
            let queries = job.queries.rows(first..first + rows).columns(head * dim, dim);
            let mut scores = RowsMut::new(&mut scratch.scores, rows, padded, score_stride);
            matmul(simd, queries, keys, &mut scores, &AsIs);
            for row in 0..rows {
                let scores = &mut scratch.scores[row * score_stride..][..padded];
                scratch.sums[row] = job.softmax_without_division(simd, head, first + row, scores);
            }
            let weights = Rows::new(&scratch.scores, rows, tokens, score_stride);
            let mut out = out.part(first..first + rows, head * dim, dim);
            matmul(simd, weights, values, &mut out, &DividedBy(&scratch.sums));
        }
    }
}

impl AttentionJob<'_> {
    /// The head of keys and values that serves a head of queries.
    pub(super) fn kv_head(&self, head: usize) -> usize {
        head * self.heads.kv_count / self.heads.count
    }

    /// Replaces a query's products with all keys, and what stands behind them, by its weights before division,
    /// and returns their sum.
    #[inline(always)]
    pub(super) fn softmax_without_division<S: Simd>(
        &self,
        simd: S,
        head: usize,
        row: usize,
        scores: &mut [f32],
    ) -> f32 {
        let tokens = self.keys.count;
        let query = self.first_query + row;
        let keys = self.mask.keys(query, tokens);
        scores[..keys.start].fill(f32::NEG_INFINITY);
        scores[keys.end..].fill(f32::NEG_INFINITY);
        let Some(biases) = self.biases else {
            return softmax_without_division(simd, scores, self.scale * std::f32::consts::LOG2_E);
        };
        let biases = biases.row(head, query, keys.clone());
        for (score, bias) in scores[keys].iter_mut().zip(biases) {
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
}

/// A head's keys as panels of 16 tokens.
#[inline(always)]
fn pack_keys<'a>(keys: impl Iterator<Item = &'a [f32]>, dim: usize, panels: &mut [f32]) {
    let mut count = 0;
    for (token, key) in keys.enumerate() {
        let panel = &mut panels[token / LANES * LANES * dim..][..LANES * dim];
        for (step, &x) in panel.chunks_exact_mut(LANES).zip(key) {
            step[token % LANES] = x;
        }
        count = token + 1;
    }
    // What an earlier sequence left behind the last token would only be computed for nothing, but a
    // NaN in it would be slow.
    let ragged = count % LANES;
    if ragged > 0 {
        let panel = &mut panels[count / LANES * LANES * dim..];
        panel.chunks_exact_mut(LANES).for_each(|step| step[ragged..].fill(0.0));
    }
}

/// A head's values as panels of 16 dimensions.
#[inline(always)]
fn pack_values<'a>(
    values: &(impl Iterator<Item = &'a [f32]> + Clone),
    dim: usize,
    tokens: usize,
    panels: &mut [f32],
) {
    for (first, panel) in (0..dim).step_by(LANES).zip(panels.chunks_exact_mut(LANES * tokens)) {
        let count = (dim - first).min(LANES);
        for (value, step) in values.clone().zip(panel.chunks_exact_mut(LANES)) {
            step[..count].copy_from_slice(&value[first..first + count]);
            step[count..].fill(0.0);
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
