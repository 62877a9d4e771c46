//! Similarities in double precision.
//!
//! The product of two floats is exact in double precision. Sums are in the same order everywhere, so equal
//! vectors are equally similar, on any machine.

use super::Metric;

/// Sums side by side, which the compiler puts into registers.
const SUMS: usize = 16;

/// Σ term(aᵢ, bᵢ)
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut sums = [0.0; SUMS];
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            sums[i] += term(f64::from(a[i]), f64::from(b[i]));
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += term(f64::from(a), f64::from(b));
    }
    sums.iter().sum()
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(a, b, |a, b| a * b)
}

pub(super) fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// How similar two vectors are that have these norms.
pub(super) fn similarity(metric: Metric, a: &[f32], a_norm: f64, b: &[f32], b_norm: f64) -> f64 {
    let similarity = match metric {
        Metric::Cosine if a_norm == 0.0 || b_norm == 0.0 => 0.0,
        Metric::Cosine => dot(a, b) / (a_norm * b_norm),
        Metric::Dot => dot(a, b),
        Metric::Euclidean => -sum(a, b, |a, b| (a - b) * (a - b)).sqrt(),
    };
    // No negative zero, which would be less than zero when sorted.
    similarity + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_follow_their_definitions() {
        let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
        assert_eq!(similarity(Metric::Dot, &a, 5.0, &b, 5.0), 24.0);
        assert_eq!(similarity(Metric::Cosine, &a, 5.0, &b, 5.0), 0.96);
        assert_eq!(similarity(Metric::Euclidean, &a, 5.0, &b, 5.0), -(2.0_f64.sqrt()));
        assert_eq!(similarity(Metric::Cosine, &a, 5.0, &[0.0; 2], 0.0), 0.0);
        let same = similarity(Metric::Euclidean, &a, 5.0, &a, 5.0);
        assert_eq!(same.to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn nothing_overflows_and_no_element_is_left_out() {
        for len in [1, 15, 16, 17, 40] {
            let big = vec![f32::MAX; len];
            let expected = f64::from(f32::MAX).powi(2) * len as f64;
            assert!((dot(&big, &big) / expected - 1.0).abs() < 1e-14);
            assert!(norm(&vec![1e-45; len]) > 0.0);
        }
    }
}
