//! The best so far.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A row and how similar it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    pub(super) similarity: f64,
    pub(super) row: u64,
}

/// More similar is greater; of equally similar ones, the lower row.
impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_row = other.row.cmp(&self.row);
        self.similarity.total_cmp(&other.similarity).then(by_row)
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hit {}

/// The `k` greatest hits of those that were offered.
#[derive(Debug)]
pub(super) struct Top {
    k: usize,
    /// The least of them first.
    hits: BinaryHeap<Reverse<Hit>>,
    /// What a hit must reach to be among the best of all, by what is known elsewhere.
    least: f64,
}

impl Top {
    /// `k` is 1 or more. Hits below `least` are not asked for.
    pub(super) fn new(k: usize, least: f64) -> Self {
        Self { k, hits: BinaryHeap::new(), least }
    }

    /// A similarity that a hit must reach to be kept; less than any number while there is room.
    pub(super) fn least(&self) -> f64 {
        match self.hits.peek() {
            Some(Reverse(hit)) if self.hits.len() == self.k => hit.similarity.max(self.least),
            _ => self.least,
        }
    }

    pub(super) fn offer(&mut self, hit: Hit) {
        if self.hits.len() < self.k {
            self.hits.push(Reverse(hit));
        } else if let Some(mut worst) = self.hits.peek_mut()
            && hit > worst.0
        {
            *worst = Reverse(hit);
        }
    }

    /// Takes over another's hits.
    pub(super) fn merge(&mut self, other: Self) {
        for Reverse(hit) in other.hits {
            self.offer(hit);
        }
    }

    /// The best first.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = Hit> {
        self.hits.into_sorted_vec().into_iter().map(|Reverse(hit)| hit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_of_all_in_any_order(similarities in prop::collection::vec(-3_i32..3, 0..60), k in 1_usize..20, parts in 1_usize..4) {
            let hits: Vec<Hit> = similarities
                .iter()
                .enumerate()
                .map(|(row, &s)| Hit { similarity: f64::from(s), row: row as u64 })
                .collect();
            let mut all = Top::new(k, f64::NEG_INFINITY);
            for part in 0..parts {
                let mut top = Top::new(k, all.least());
                for &hit in hits.iter().rev().skip(part).step_by(parts) {
                    if hit.similarity >= top.least() {
                        top.offer(hit);
                    }
                }
                all.merge(top);
            }
            let mut expected = hits;
            expected.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)));
            expected.truncate(k);
            prop_assert_eq!(all.into_sorted().collect::<Vec<_>>(), expected);
        }
    }
}
