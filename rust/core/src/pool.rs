//! From token vectors to one vector for each text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How token vectors become one vector, as in sentence-transformers.
///
/// ```
/// use arrowembed::Pooling;
/// assert_eq!("mean".parse::<Pooling>()?, Pooling::Mean);
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean of the token vectors.
    Mean,
    /// Vector of the first token.
    Cls,
    /// Largest value in each dimension.
    Max,
    /// Sum of the token vectors divided by the square root of their number.
    MeanSqrt,
    /// Vector of the last token.
    Last,
}

impl Pooling {
    const ALL: [Self; 5] = [Self::Mean, Self::Cls, Self::Max, Self::MeanSqrt, Self::Last];

    /// The name used in files and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::MeanSqrt => "mean_sqrt",
            Self::Last => "last",
        }
    }

    /// Pools `tokens`, `[n, width]` row-major, into `out`, the first dimensions of the result.
    ///
    /// The first `skip` tokens, those of a prompt, do not count towards means and maxima. Without
    /// any token that counts the result is zero.
    pub(crate) fn apply(self, tokens: &[f32], width: usize, skip: usize, out: &mut [f32]) {
        let counted = tokens.get(skip.saturating_mul(width)..).unwrap_or_default();
        match self {
            Self::Mean => mean_by(counted, width, out, |n| n),
            Self::MeanSqrt => mean_by(counted, width, out, f64::sqrt),
            Self::Max => {
                out.fill(if counted.is_empty() { 0.0 } else { f32::NEG_INFINITY });
                for token in counted.chunks_exact(width) {
                    for (out, &value) in out.iter_mut().zip(token) {
                        // Keeps a NaN, which `f32::max` would lose.
                        if value > *out || value.is_nan() {
                            *out = value;
                        }
                    }
                }
            }
            Self::Cls => copy_row(tokens.chunks_exact(width).next(), out),
            Self::Last => copy_row(tokens.chunks_exact(width).next_back(), out),
        }
    }
}

/// Sum over the tokens divided by `divisor(number of tokens)`, summed in double precision.
fn mean_by(tokens: &[f32], width: usize, out: &mut [f32], divisor: impl Fn(f64) -> f64) {
    let mut sums = vec![0.0_f64; out.len()];
    for token in tokens.chunks_exact(width) {
        for (sum, &value) in sums.iter_mut().zip(token) {
            *sum += f64::from(value);
        }
    }
    let divisor = divisor(((tokens.len() / width) as f64).max(1.0));
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum / divisor) as f32;
    }
}

fn copy_row(row: Option<&[f32]>, out: &mut [f32]) {
    out.fill(0.0);
    for (out, &value) in out.iter_mut().zip(row.unwrap_or_default()) {
        *out = value;
    }
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|pooling| pooling.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("pooling", format!("is {name:?}, allowed are {names}"))
        })
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done to a pooled vector.
///
/// A zero vector stays zero.
///
/// ```
/// use arrowembed::Normalize;
/// assert_eq!("l2".parse::<Normalize>()?, Normalize::L2);
/// assert_eq!(Normalize::p_norm(3.0)?, Normalize::P(3.0));
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Nothing.
    None,
    /// Divided by its Euclidean norm.
    L2,
    /// Divided by its largest absolute value.
    MaxAbs,
    /// Divided by its p-norm, for this p ≥ 1.
    P(f32),
}

/// Norms below this divide as this, as in PyTorch's `normalize`.
const SMALLEST_NORM: f64 = 1e-12;

impl Normalize {
    /// Division by the p-norm, `(Σ |x|^p)^(1/p)`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `p` is a finite number, 1 or more.
    pub fn p_norm(p: f32) -> Result<Self> {
        if p.is_finite() && p >= 1.0 {
            Ok(Self::P(p))
        } else {
            Err(Error::argument("normalize", format!("is {p}, a p-norm needs a number, 1 or more")))
        }
    }

    /// Normalises in place.
    pub(crate) fn apply(self, vector: &mut [f32]) {
        let largest = || vector.iter().fold(0.0_f64, |most, &x| most.max(f64::from(x).abs()));
        let norm = match self {
            Self::None => return,
            Self::L2 => vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt(),
            Self::MaxAbs => largest(),
            Self::P(p) => {
                // Relative to the largest value, so that no power overflows.
                let (p, largest) = (f64::from(p), largest().max(SMALLEST_NORM));
                let sum: f64 = vector.iter().map(|&x| (f64::from(x).abs() / largest).powf(p)).sum();
                largest * sum.powf(1.0 / p)
            }
        };
        let norm = norm.max(SMALLEST_NORM);
        for x in vector {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
}

impl FromStr for Normalize {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "l2" => Ok(Self::L2),
            "max_abs" => Ok(Self::MaxAbs),
            other => Err(Error::argument(
                "normalize",
                format!("is {other:?}, allowed are none, l2, max_abs or a number p ≥ 1 (p-norm)"),
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the results are exact
mod tests {
    use super::*;

    const TOKENS: [f32; 6] = [1.0, -4.0, 2.0, 5.0, 6.0, 2.0];

    fn pooled(pooling: Pooling, skip: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; 2];
        pooling.apply(&TOKENS, 2, skip, &mut out);
        out
    }

    #[test]
    fn poolings_follow_their_definitions() {
        assert_eq!(pooled(Pooling::Mean, 0), [3.0, 1.0]);
        assert_eq!(pooled(Pooling::Cls, 0), [1.0, -4.0]);
        assert_eq!(pooled(Pooling::Max, 0), [6.0, 5.0]);
        let root = 3.0_f64.sqrt();
        assert_eq!(pooled(Pooling::MeanSqrt, 0), [(9.0 / root) as f32, (3.0 / root) as f32]);
        assert_eq!(pooled(Pooling::Last, 0), [6.0, 2.0]);
    }

    #[test]
    fn a_prompts_tokens_do_not_count_towards_means_and_maxima() {
        assert_eq!(pooled(Pooling::Mean, 1), [4.0, 3.5]);
        assert_eq!(pooled(Pooling::Max, 2), [6.0, 2.0]);
        assert_eq!(pooled(Pooling::MeanSqrt, 2), [6.0, 2.0]);
        assert_eq!(pooled(Pooling::Cls, 1), [1.0, -4.0]);
        assert_eq!(pooled(Pooling::Last, 3), [6.0, 2.0]);
    }

    #[test]
    fn without_tokens_the_vector_is_zero() {
        for pooling in Pooling::ALL {
            let mut out = [f32::NAN; 2];
            pooling.apply(&[], 2, 0, &mut out);
            assert_eq!(out, [0.0; 2], "{pooling}");
        }
        assert_eq!(pooled(Pooling::Mean, 9), [0.0, 0.0]);
        assert_eq!(pooled(Pooling::Max, 3), [0.0, 0.0]);
    }

    #[test]
    fn a_nan_among_the_tokens_stays_visible() {
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::MeanSqrt] {
            let mut out = [0.0; 1];
            pooling.apply(&[1.0, f32::NAN, 2.0], 1, 0, &mut out);
            assert!(out[0].is_nan(), "{pooling}");
        }
    }

    #[test]
    fn normalisations_follow_their_definitions() {
        let normalized = |normalize: Normalize| {
            let mut vector = [3.0, -4.0];
            normalize.apply(&mut vector);
            vector
        };
        assert_eq!(normalized(Normalize::None), [3.0, -4.0]);
        assert_eq!(normalized(Normalize::L2), [0.6, -0.8]);
        assert_eq!(normalized(Normalize::MaxAbs), [0.75, -1.0]);
        assert_eq!(normalized(Normalize::P(1.0)), [3.0 / 7.0, -4.0 / 7.0]);
        let cubic = 91.0_f64.cbrt();
        assert_eq!(normalized(Normalize::P(3.0)), [(3.0 / cubic) as f32, (-4.0 / cubic) as f32]);
        assert_eq!(normalized(Normalize::P(1e30)), [0.75, -1.0]);
    }

    #[test]
    fn a_zero_vector_stays_zero() {
        for normalize in [Normalize::L2, Normalize::MaxAbs, Normalize::P(1.0), Normalize::P(3.0)] {
            let mut vector = [0.0, 0.0];
            normalize.apply(&mut vector);
            assert_eq!(vector, [0.0, 0.0], "{normalize:?}");
        }
    }

    #[test]
    fn names_are_read_and_wrong_ones_answered_with_the_right_ones() {
        for pooling in Pooling::ALL {
            assert_eq!(pooling.name().parse::<Pooling>().unwrap(), pooling);
        }
        let error = "average".parse::<Pooling>().unwrap_err().to_string();
        assert_eq!(error, "pooling: is \"average\", allowed are mean, cls, max, mean_sqrt, last");
        let error = "L2".parse::<Normalize>().unwrap_err().to_string();
        assert!(error.contains("none, l2, max_abs"), "{error}");
        for p in [0.5, f32::NAN, f32::INFINITY, -1.0] {
            assert_eq!(Normalize::p_norm(p).unwrap_err().code(), "invalid_argument");
        }
    }
}
