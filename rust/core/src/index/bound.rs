//! What the similarity of a vector can be at most, by a product in single precision.
//!
//! The scan computes s ≈ q · v for a query q and each vector v. It is known how far that can be from the exact
//! product: |s - q·v| ≤ γ |q| |v| ([`Scanner::error`](crate::ops::cpu::scan::Scanner::error)). A vector can be
//! among the best only if
//!
//! ```text
//! cosine     q·v / |v|         ≤  s / |v|  +  γ |q|                    reaches  |q| times the k-th best cosine
//! dot        q·v               ≤  s        +  γ |q| |v|                reaches  the k-th best product
//! Euclidean  q·v - |v|² / 2    ≤  s        +  γ |q| |v|  -  |v|² / 2   reaches  (|q|² - d²) / 2, d the k-th least distance
//! ```
//!
//! of those whose exact similarity is known. The last line is |q - v|² = |q|² + |v|² - 2 q·v, rearranged. So for
//! every metric it is `s · scale + gain · |q| - loss` that is compared, with three numbers for each vector that do
//! not depend on the query.
//!
//! A vector of bytes is scanned as codes c with a scale a: v = a c + r, where r is what rounding has left. With
//! the Cauchy-Schwarz inequality q·v ≤ a (q·c) + |q| |r|, and |a c| ≤ |v| + |r|, so the gain is
//! γ (|v| + |r|) + |r| in place of γ |v|.
//!
//! The numbers above are themselves rounded to single precision, by fewer than 16 units in the last place of
//! |q| |v| or |v|² / 2, which γ and the loss allow for. That no product or square leaves the range of floats or
//! becomes subnormal holds for norms from 2⁻⁴⁰ to 2⁴⁰: then what gradual underflow, or flushing to zero, loses of
//! up to 2¹⁶ products is below 2⁻¹¹⁰, and the allowance not less than 2⁻¹⁰⁰. Vectors and queries with other
//! norms are never excluded: their exact similarity is computed.

use super::Metric;

/// Norms for which the bound holds.
const LEAST_NORM: f64 = 1.0 / (1_u64 << 40) as f64;
const LARGEST_NORM: f64 = (1_u64 << 40) as f64;

/// What the loss is reduced by, relatively.
const ALLOWANCE: f32 = 16.0 / (1 << 24) as f32;

/// The numbers of the bound for some vectors.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) scale: Vec<f32>,
    pub(super) gain: Vec<f32>,
    pub(super) loss: Vec<f32>,
}

/// What is known of a vector beside its elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) norm: f64,
    /// Of its codes, and the norm of what they leave; 1 and 0 where the elements themselves are scanned.
    pub(super) scale: f32,
    pub(super) residual: f32,
}

impl Bounds {
    /// Those of other vectors; `error` is γ.
    pub(super) fn fill(
        &mut self,
        metric: Metric,
        error: f32,
        vectors: impl Iterator<Item = Known>,
    ) {
        self.scale.clear();
        self.gain.clear();
        self.loss.clear();
        for Known { norm, scale, residual } in vectors {
            let usual = is_usual(norm) || norm == 0.0;
            let norm = norm as f32;
            let gain = error * (norm + residual) + residual;
            let (scale, gain, loss) = match metric {
                // Whatever the product: more than any threshold.
                _ if !usual => (0.0, 0.0, f32::NEG_INFINITY),
                Metric::Cosine if norm == 0.0 => (0.0, error, 0.0),
                Metric::Cosine => (scale / norm, gain / norm, 0.0),
                Metric::Dot => (scale, gain, 0.0),
                Metric::Euclidean => (scale, gain, 0.5 * norm * norm * (1.0 - ALLOWANCE)),
            };
            self.scale.push(scale);
            self.gain.push(gain);
            self.loss.push(loss);
        }
    }
}

fn is_usual(norm: f64) -> bool {
    (LEAST_NORM..=LARGEST_NORM).contains(&norm)
}

/// What a vector's bound must reach so that its similarity to a query of that norm can be `least`.
///
/// `least` is a similarity as `exact` computes it, whose rounding in double precision is allowed for.
pub(super) fn threshold(metric: Metric, dim: usize, query_norm: f64, least: f64) -> f32 {
    if !is_usual(query_norm) {
        return f32::NEG_INFINITY;
    }
    let threshold = match metric {
        Metric::Cosine => least * query_norm,
        Metric::Dot => least,
        Metric::Euclidean => {
            let (query, distance) = (query_norm * query_norm, least * least);
            let rounding = (dim as f64 + 16.0) * f64::EPSILON;
            (query - distance) / 2.0 - rounding * (query + distance)
        }
    };
    let rounded = threshold as f32;
    if f64::from(rounded) > threshold { rounded.next_down() } else { rounded }
}
