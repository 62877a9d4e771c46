//! From token vectors to one vector for each text.

use serde::{Deserialize, Serialize};

/// How token vectors become one vector, as in sentence-transformers.
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

/// What is done to a pooled vector.
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
