//! What attention adds to a score for the distance between query and key.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// A number for each head and each distance. Shared by a model's layers; computed as far as texts have
/// needed it.
#[derive(Debug)]
pub(crate) struct DistanceBias {
    heads: usize,
    values: Values,
    table: RwLock<Arc<Biases>>,
}

#[derive(Debug)]
enum Values {
    /// `-slope * |distance|`
    Slopes(Vec<f32>),
    /// `[buckets, heads]`, learned; see [`bucket`].
    Buckets(Vec<f32>),
}

/// `[heads, 2 * reach - 1]`, by key minus query plus `reach - 1`.
#[derive(Debug, Default)]
pub(crate) struct Biases {
    reach: usize,
    data: Vec<f32>,
}

impl DistanceBias {
    /// ALiBi (Press et al. 2021) in both directions: the farther, the less.
    pub(crate) fn alibi(heads: usize) -> Self {
        Self { heads, values: Values::Slopes(slopes(heads)), table: RwLock::default() }
    }

    /// Learned numbers `[buckets, heads]` for distances in buckets, as in T5 (Raffel et al. 2020) and MPNet.
    pub(crate) fn buckets(weights: Vec<f32>, heads: usize) -> Self {
        Self { heads, values: Values::Buckets(weights), table: RwLock::default() }
    }

    /// Biases for sequences of at least so many tokens.
    pub(crate) fn biases(&self, tokens: usize) -> Arc<Biases> {
        let known = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        if known.reach >= tokens {
            return known;
        }
        let longer = Arc::new(self.compute(tokens.next_power_of_two()));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.reach < longer.reach {
            *table = Arc::clone(&longer);
        }
        longer
    }

    fn compute(&self, reach: usize) -> Biases {
        let last = reach as isize - 1;
        let data = (0..self.heads)
            .flat_map(|head| (-last..=last).map(move |distance| self.value(head, distance)))
            .collect();
        Biases { reach, data }
    }

    /// For a key so many places behind the query.
    fn value(&self, head: usize, distance: isize) -> f32 {
        match &self.values {
            Values::Slopes(slopes) => -slopes[head] * distance.unsigned_abs() as f32,
            Values::Buckets(weights) => {
                weights[bucket(distance, weights.len() / self.heads) * self.heads + head]
            }
        }
    }
}

impl Biases {
    /// For a query and some keys of its sequence.
    ///
    /// # Panics
    /// If they are farther apart than the table reaches.
    pub(crate) fn row(&self, head: usize, query: usize, keys: Range<usize>) -> &[f32] {
        let middle = head * (2 * self.reach - 1) + self.reach - 1;
        &self.data[middle + keys.start - query..][..keys.len()]
    }
}

/// The slopes of ALiBi's heads. Where their number is no power of two, those of the next smaller one and
/// then every other of the next larger one.
fn slopes(heads: usize) -> Vec<f32> {
    let of_power = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2() as f32);
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    of_power(whole).chain(of_power(2 * whole).step_by(2)).take(heads).collect()
}

/// The bucket of a distance: half of them for keys behind the query; in each half the first half are single
/// distances, and the others grow up to a distance of 128.
fn bucket(distance: isize, buckets: usize) -> usize {
    const FARTHEST: f32 = 128.0;
    let half = buckets / 2;
    let (single, far) = (half / 2, distance.unsigned_abs());
    let behind = if distance > 0 { half } else { 0 };
    if far < single {
        return behind + far;
    }
    let exact = single as f32;
    let grown = (far as f32 / exact).ln() / (FARTHEST / exact).ln() * (half - single) as f32;
    behind + (single + grown as usize).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(
            slopes(8),
            [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015_625, 0.007_812_5, 0.003_906_25]
        );
        let six = slopes(6);
        assert_eq!(six[..4], [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }

    #[test]
    fn buckets_are_those_of_mpnet() {
        let found: Vec<usize> =
            [0, -1, -7, -8, -15, -16, -64, -127, -500, 1, 7, 8, 200].map(|d| bucket(d, 32)).into();
        assert_eq!(found, [0, 1, 7, 8, 9, 10, 14, 15, 15, 17, 23, 24, 31]);
    }

    #[test]
    fn a_row_is_found_by_query_and_keys() {
        let bias = DistanceBias::alibi(2);
        let biases = bias.biases(5);
        assert_eq!(biases.row(0, 3, 0..5), [3.0, 2.0, 1.0, 0.0, 1.0].map(|d| -d / 16.0));
        assert_eq!(biases.row(1, 0, 2..4), [-2.0 / 256.0, -3.0 / 256.0]);
    }
}
