//! From texts' lengths to micro-batches under a token budget.
//!
//! Sequences are not padded, so a micro-batch needs no texts of equal length; it is only as large as
//! keeps the kernels busy and the activations in the cache. The longest texts go first, so that no
//! long one is left for the end while the other threads are idle.

use std::ops::Range;

use crate::tokenize::Tokens;

/// Tokens in a micro-batch, unless one text alone has more. The kernels are as fast with any number
/// above 24 or so; with more the activations leave the cache, with fewer the weights are read too often.
pub(crate) const TOKENS: usize = 128;

/// The same where weights are expanded once for each micro-batch: that takes as long as to multiply with a
/// hundred tokens.
pub(crate) const EXPANDED_TOKENS: usize = 512;

/// Tokens for the micro-batches of a call, so that no thread is left without one at the end: at most so many, or
/// for a single thread as nearly so many as can be.
pub(crate) fn budget(tokens: usize, threads: usize, most: usize) -> usize {
    match tokens.div_ceil(most) {
        0 | 1 => most,
        _ if threads == 1 => tokens.div_ceil((tokens + most / 2) / most),
        batches => tokens.div_ceil(batches.next_multiple_of(threads)).max(most / 4),
    }
}

/// Sequences laid one after the other, without padding.
///
/// Sequence `i` is tokens `offsets[i]..offsets[i + 1]` (`cu_seqlens` elsewhere); `offsets` starts with
/// 0 and has one entry more than there are sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MicroBatch {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Segment of each token.
    pub(crate) type_ids: Vec<u32>,
    /// Position of each token within its sequence.
    pub(crate) positions: Vec<u32>,
    /// Where each sequence starts.
    pub(crate) offsets: Vec<usize>,
}

impl MicroBatch {
    /// Lays sequences one after the other.
    pub(crate) fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>) -> Self {
        let mut batch = Self { offsets: vec![0], ..Self::default() };
        for tokens in sequences {
            batch.ids.extend_from_slice(&tokens.ids);
            batch.type_ids.extend_from_slice(&tokens.type_ids);
            batch.positions.extend(0..tokens.ids.len() as u32);
            batch.offsets.push(batch.ids.len());
        }
        batch
    }

    /// Some of the tokens; `offsets` are still those of all.
    ///
    /// # Panics
    /// If they are not all there.
    pub(crate) fn tokens(&self, range: Range<usize>) -> Self {
        Self {
            ids: self.ids[range.clone()].to_vec(),
            type_ids: self.type_ids[range.clone()].to_vec(),
            positions: self.positions[range].to_vec(),
            offsets: self.offsets.clone(),
        }
    }
}

/// Groups texts, given by their lengths in tokens, into micro-batches of positions.
///
/// A micro-batch has at most `max_texts` texts and about `budget` tokens, at most a quarter more unless it is one
/// text alone: where it ends is what comes nearest to a multiple of these, counted over all texts. Were each to
/// stay below, the call's last texts would be left over for a small one more. Every text of at least one token is in
/// exactly one micro-batch; one without tokens has nothing to compute and is in none.
pub(crate) fn plan(lengths: &[usize], budget: usize, max_texts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|&i| lengths[i] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut tokens, mut begin, mut end) = (0, 0, 0);
    for i in order {
        let fits = tokens + lengths[i] / 2 <= end
            && tokens + lengths[i] <= begin + budget.saturating_add(budget / 4);
        match batches.last_mut() {
            Some(batch) if batch.len() < max_texts && fits => batch.push(i),
            _ => {
                batches.push(vec![i]);
                begin = tokens;
                // Behind a text that was longer than the budget, or fewer texts than have so many tokens, the
                // multiples begin anew.
                let late = tokens > end + budget / 2 || end > tokens + budget / 2;
                end = if late { tokens } else { end } + budget;
            }
        }
        tokens += lengths[i];
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn micro_batches_are_near_the_budget_and_hold_every_text_once(
            lengths in prop::collection::vec(0_usize..300, 0..200),
            budget in 1_usize..256,
            max_texts in 1_usize..20,
        ) {
            let batches = plan(&lengths, budget, max_texts);
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                let near = tokens <= budget + budget / 4;
                prop_assert!(batch.len() == 1 || (near && batch.len() <= max_texts));
            }
            let planned: Vec<usize> = batches.concat();
            prop_assert!(planned.iter().map(|&i| lengths[i]).rev().is_sorted());
            let mut texts = planned;
            texts.sort_unstable();
            let with_tokens: Vec<usize> =
                (0..lengths.len()).filter(|&i| lengths[i] > 0).collect();
            prop_assert_eq!(texts, with_tokens);
        }
    }

    #[test]
    fn tokens_are_spread_evenly_over_the_threads() {
        assert_eq!(budget(0, 2, 128), 128);
        assert_eq!(budget(128, 2, 128), 128);
        assert_eq!(budget(129, 2, 128), 65);
        assert_eq!(budget(300, 2, 128), 75);
        assert_eq!(budget(10_000, 2, 128), 125);
        assert_eq!(budget(1_000, 2, 512), 500);
        assert_eq!(budget(200, 64, 128), 32);
    }

    #[test]
    fn a_thread_alone_has_no_smaller_ones_than_need_be() {
        assert_eq!(budget(128, 1, 128), 128);
        assert_eq!(budget(140, 1, 128), 140);
        assert_eq!(budget(200, 1, 128), 100);
        assert_eq!(budget(520, 1, 128), 130);
        // Nothing is left over.
        let lengths = [14; 37];
        assert_eq!(plan(&lengths, budget(518, 1, 128), 99).len(), 4);
    }
}
