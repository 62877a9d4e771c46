//! Attention of every instruction set against the same in float64.

use half::bf16;
use proptest::prelude::*;

use super::super::isa::{self, Isa};
use super::super::kernels::{AttentionJob, AttentionScratch};
use super::super::views::{Rows, RowsMut};
use super::{assert_close, numbers};
use crate::ops::{Attention, DistanceBias, Heads, Mask};

/// Attention in float64: `qkv` is `[tokens, heads.width()]`.
fn attended(qkv: &[f64], layer: &Attention<'_>, offsets: &[usize]) -> Vec<f64> {
    let heads @ Heads { count, kv_count, head_dim } = layer.heads;
    let columns = heads.columns();
    let at = |t: usize, part: usize, h: usize, d: usize| {
        qkv[t * heads.width() + columns[part].start + h * head_dim + d]
    };
    let width = count * head_dim;
    let mut expected = vec![0.0; qkv.len() / heads.width() * width];
    for bounds in offsets.windows(2) {
        let tokens = bounds[1] - bounds[0];
        let biases = layer.bias.map(|bias| bias.biases(tokens));
        for (h, t) in (0..count).flat_map(|h| (bounds[0]..bounds[1]).map(move |t| (h, t))) {
            let kv = h / (count / kv_count);
            let query = t - bounds[0];
            let keys = layer.mask.keys(query, tokens);
            let weights: Vec<f64> = (0..tokens)
                .map(|key| {
                    let products =
                        (0..head_dim).map(|d| at(t, 0, h, d) * at(bounds[0] + key, 1, kv, d));
                    let bias = biases.as_ref().map_or(0.0, |b| b.row(h, query, key..key + 1)[0]);
                    let score = products.sum::<f64>() * f64::from(layer.scale) + f64::from(bias);
                    if keys.contains(&key) { score.exp() } else { 0.0 }
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_dim {
                expected[t * width + h * head_dim + d] = weights
                    .iter()
                    .enumerate()
                    .map(|(i, w)| w / total * at(bounds[0] + i, 2, kv, d))
                    .sum();
            }
        }
    }
    expected
}

/// A layer's attention of some sequences.
struct Case<'a> {
    layer: Attention<'a>,
    offsets: &'a [usize],
    /// `[tokens, heads.width()]`
    qkv: &'a [f32],
}

impl Case<'_> {
    /// As the kernels compute it, the heads in shares as a team does it with few tokens, the rows of each sequence
    /// in parts as it does with many.
    fn computed(
        &self,
        (isa, rounded): (Isa, bool),
        (shares, parts): (usize, usize),
        scratch: &mut AttentionScratch,
    ) -> Vec<f32> {
        let heads @ Heads { count, head_dim, .. } = self.layer.heads;
        let width = count * head_dim;
        let tokens = self.qkv.len() / heads.width();
        let mut found = vec![f32::NAN; tokens * width];
        for bounds in self.offsets.windows(2) {
            let sequence = Rows::new(self.qkv, tokens, heads.width(), heads.width())
                .rows(bounds[0]..bounds[1]);
            let [queries, keys, values] =
                heads.columns().map(|c| sequence.columns(c.start, c.len()));
            let biases = self.layer.bias.map(|bias| bias.biases(sequence.count));
            for i in 0..shares {
                let share = i * count / shares..(i + 1) * count / shares;
                let mut out = RowsMut::new(&mut found, tokens, width, width);
                let mut out = out.part(bounds[0]..bounds[1], 0, width);
                let length = bounds[1] - bounds[0];
                for p in 0..parts {
                    let rows = p * length / parts..(p + 1) * length / parts;
                    let job = AttentionJob {
                        queries: queries.rows(rows.clone()),
                        first_query: rows.start,
                        keys,
                        values,
                        heads,
                        share: share.clone(),
                        scale: self.layer.scale,
                        mask: self.layer.mask,
                        biases: biases.as_deref(),
                        rounded,
                    };
                    isa::attention(isa, &job, out.part(rows, 0, width), scratch);
                }
            }
        }
        found
    }

    /// That every instruction set computes it as float64 does, and the same bits however it is divided.
    fn check(&self, divisions: &[(usize, usize)]) {
        let exact: Vec<f64> = self.qkv.iter().map(|&x| f64::from(x)).collect();
        let in_bfloat16: Vec<f64> = self.qkv.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
        let exact = attended(&exact, &self.layer, self.offsets);
        let in_bfloat16 = attended(&in_bfloat16, &self.layer, self.offsets);
        for (isa, rounded) in
            Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)])
        {
            let tiles = rounded && isa.name() == "amx";
            let expected = if tiles { &in_bfloat16 } else { &exact };
            // With tiles, each weight of a value up to 3 is rounded to 8 bits.
            let tolerance = if tiles { 7e-3 } else { 2e-5 };
            let scratch = &mut AttentionScratch::default();
            let mut whole = None;
            for &(shares, parts) in divisions {
                let found = self.computed((isa, rounded), (shares, parts), scratch);
                assert_close(isa, &found, expected, tolerance);
                let whole = whole.get_or_insert_with(|| found.clone());
                assert!(found == *whole, "{} in {shares} shares, {parts} parts", isa.name());
                // Memory that the next finds full of numbers that are none.
                let nothing = vec![f32::NAN; self.qkv.len()];
                let spoilt = Case { qkv: &nothing, ..*self };
                spoilt.computed((isa, rounded), (1, 1), scratch);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_is_softmax_of_scores_times_values(
        lengths in prop::collection::vec(0_usize..90, 1..4),
        kv_count in 1_usize..3,
        group in 1_usize..3,
        head_dim in 1_usize..70,
        causal: bool,
        window in prop::option::of(0_usize..40),
        biased: bool,
        seed in 0_u64..1000,
    ) {
        let mut offsets = vec![0];
        for length in &lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let count = kv_count * group;
        let heads = Heads { count, kv_count, head_dim };
        let qkv = numbers(seed, offsets[lengths.len()] * heads.width());
        let qkv: Vec<f32> = qkv.iter().map(|x| 3.0 * x).collect();
        let bias = DistanceBias::alibi(count);
        let bias = biased.then_some(&bias);
        let layer = Attention { mask: Mask { causal, window }, bias, ..Attention::of(heads) };
        // All heads at once, in shares as a team computes them, and at once again in used scratch
        // memory; the second time in two parts of rows.
        Case { layer, offsets: &offsets, qkv: &qkv }.check(&[(1, 1), (2, 2), (3, 1), (1, 1)]);
    }
}

#[test]
fn long_sequences_under_masks_are_what_all_scores_would_make() {
    let heads = Heads { count: 2, kv_count: 1, head_dim: 24 };
    let offsets = [0, 611, 611, 900];
    let qkv: Vec<f32> = numbers(5, offsets[3] * heads.width()).iter().map(|x| 3.0 * x).collect();
    let alibi = DistanceBias::alibi(2);
    let masks = [
        (true, None, None),
        (false, Some(64), None),
        (true, Some(100), None),
        (false, Some(0), None),
        (false, Some(33), Some(&alibi)),
        (true, None, Some(&alibi)),
    ];
    for (causal, window, bias) in masks {
        let layer = Attention { mask: Mask { causal, window }, bias, ..Attention::of(heads) };
        // Whole sequences, parts whose blocks of queries begin anywhere, and each query by itself.
        Case { layer, offsets: &offsets, qkv: &qkv }.check(&[(1, 1), (2, 3), (1, 7), (1, 611)]);
    }
}

#[test]
fn a_query_is_indifferent_to_what_it_does_not_see() {
    let heads = Heads::equal(1, 16);
    let tokens = 400;
    let qkv = numbers(6, tokens * heads.width());
    let mask = Mask { causal: true, window: Some(50) };
    let layer = Attention { mask, ..Attention::of(heads) };
    let mut other = qkv.clone();
    // Its keys are 250 to 300.
    let (query, width) = (300, heads.width());
    for row in (0..250).chain(301..tokens) {
        other[row * width..(row + 1) * width].iter_mut().for_each(|x| *x = 100.0 - *x);
    }
    for (isa, rounded) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        let of = |qkv: &[f32], tokens: usize| -> Vec<f32> {
            let offsets = [0, tokens];
            let case = Case { layer, offsets: &offsets, qkv: &qkv[..tokens * width] };
            let all = case.computed((isa, rounded), (1, 1), &mut AttentionScratch::default());
            all[query * 16..(query + 1) * 16].to_vec()
        };
        let expected = of(&qkv, tokens);
        assert_eq!(of(&other, tokens), expected, "{}", isa.name());
        // Nor does it matter where a causal sequence ends.
        assert_eq!(of(&qkv, query + 1), expected, "{}", isa.name());
    }
}
