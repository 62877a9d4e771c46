//! The few operations that a model is written in.
//!
//! A model file under [`crate::models`] is written once, over two traits: [`Load`] gives it its
//! weights by name and [`Ops`] runs its forward pass. A [`Backend`] ties the two together by the
//! types it keeps weights in: [`cpu`] holds slices of the mapped file, `candle` holds tensors on a
//! device.

#[cfg(feature = "candle")]
pub(crate) mod candle;
pub(crate) mod cpu;

mod bias;
mod parts;
mod rope;

use std::ops::{Deref, Range};

pub(crate) use bias::{Biases, DistanceBias};
pub(crate) use rope::{Rope, Rotations};

use crate::error::{Error, Result};

/// The types in which a backend keeps a model's weights.
pub(crate) trait Backend {
    /// A matrix `[out_features, in_features]` with an optional bias.
    type Linear: Send + Sync;
    /// Gain and bias of a normalisation, with its epsilon.
    type Norm: Send + Sync;
    /// An embedding table `[rows, width]`.
    type Table: Send + Sync;
}

/// A matrix as the model asks for it.
#[derive(Debug, Clone)]
pub(crate) struct LinearSpec {
    /// Name in a packed file, without `.weight` and `.bias`.
    pub(crate) name: String,
    /// Hugging Face matrices stacked into it, top to bottom; usually one of the same name.
    pub(crate) parts: Vec<Part>,
    /// Output features of all parts together.
    pub(crate) out_features: usize,
    /// Input features.
    pub(crate) in_features: usize,
    /// Whether the parts have biases.
    pub(crate) bias: bool,
}

/// A Hugging Face matrix, or some rows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Name without `.weight` and `.bias`.
    pub(crate) name: String,
    /// The rows; `None` takes all.
    pub(crate) rows: Option<Range<usize>>,
}

impl LinearSpec {
    /// A matrix with bias that stands under one name.
    pub(crate) fn new(name: impl Into<String>, out_features: usize, in_features: usize) -> Self {
        let name = name.into();
        let parts = vec![Part { name: name.clone(), rows: None }];
        Self { name, parts, out_features, in_features, bias: true }
    }

    /// A matrix with bias fused from several, `PREFIX.PART` each.
    pub(crate) fn fused(
        prefix: &str,
        name: &str,
        parts: &[&str],
        out_features: usize,
        in_features: usize,
    ) -> Self {
        let part = |part: &&str| Part { name: format!("{prefix}.{part}"), rows: None };
        Self {
            name: format!("{prefix}.{name}"),
            parts: parts.iter().map(part).collect(),
            out_features,
            in_features,
            bias: true,
        }
    }

    /// Some rows of the matrix `PREFIX.WHOLE`, with their bias.
    pub(crate) fn rows_of(
        prefix: &str,
        whole: &str,
        name: &str,
        rows: Range<usize>,
        in_features: usize,
    ) -> Self {
        Self {
            name: format!("{prefix}.{name}"),
            out_features: rows.len(),
            parts: vec![Part { name: format!("{prefix}.{whole}"), rows: Some(rows) }],
            in_features,
            bias: true,
        }
    }

    /// The same with a bias only if so.
    pub(crate) fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

/// A normalisation as the model asks for it.
#[derive(Debug, Clone)]
pub(crate) struct NormSpec {
    /// Name without `.weight` and `.bias`.
    pub(crate) name: String,
    /// Width of what is normalised.
    pub(crate) width: usize,
    /// Added to the variance.
    pub(crate) epsilon: f32,
    /// Which one it is.
    pub(crate) kind: NormKind,
}

/// The normalisations that models use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias` (Ba et al. 2016).
    Layer,
    /// The same without a bias.
    LayerWithoutBias,
    /// `x / sqrt(mean of squares + epsilon) * weight` (Zhang & Sennrich 2019).
    Rms,
    /// The same with `1 + weight`, as Gemma stores it.
    RmsPlusOne,
}

impl NormSpec {
    /// A layer norm with a bias.
    pub(crate) fn layer(name: impl Into<String>, width: usize, epsilon: f32) -> Self {
        Self { name: name.into(), width, epsilon, kind: NormKind::Layer }
    }

    /// A root-mean-square norm.
    pub(crate) fn rms(name: impl Into<String>, width: usize, epsilon: f32) -> Self {
        Self { kind: NormKind::Rms, ..Self::layer(name, width, epsilon) }
    }
}

/// Gives a model its weights by name, checked against the shapes that it expects.
pub(crate) trait Load<B: Backend> {
    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;
    /// A matrix and its bias.
    fn linear(&mut self, spec: &LinearSpec) -> Result<B::Linear>;
    /// A normalisation's gain and bias, `NAME.weight` and `NAME.bias`.
    fn norm(&mut self, spec: &NormSpec) -> Result<B::Norm>;
    /// An embedding table, `NAME.weight`.
    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<B::Table>;
    /// A small table that the model itself reads, `NAME.weight`, `[rows, width]`.
    fn numbers(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>>;
}

/// Element-wise function between two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x·Φ(x) with the exact error function (Hendrycks & Gimpel 2016); Hugging Face `gelu`.
    Gelu,
    /// The tanh approximation of GELU; Hugging Face `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x·sigmoid(x); Hugging Face `silu`, `swish`.
    Silu,
}

impl Activation {
    /// The activation that Hugging Face knows by that name.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for any other name.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        match name {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            other => Err(Error::UnsupportedModel {
                reason: format!("activation {other:?}; known are gelu, gelu_new, relu and silu"),
            }),
        }
    }
}

/// What happens to a matrix product while it is still in registers.
#[derive(Debug)]
pub(crate) enum Epilogue<'a, T> {
    /// Nothing but the bias.
    None,
    /// An activation.
    Activate(Activation),
    /// The sum with a tensor of the same shape.
    Add(&'a T),
    /// The product with a tensor of the same shape, element by element.
    Multiply(&'a T),
}

/// Number and width of a model's attention heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Number of query heads.
    pub(crate) count: usize,
    /// Number of key and value heads; each serves `count / kv_count` query heads (Ainslie et al. 2023).
    pub(crate) kv_count: usize,
    /// Width of one head.
    pub(crate) head_dim: usize,
}

impl Heads {
    /// As many keys and values as queries.
    pub(crate) fn equal(count: usize, head_dim: usize) -> Self {
        Self { count, kv_count: count, head_dim }
    }

    /// Columns of the queries, of the keys and of the values in a row that has them side by side.
    pub(crate) fn columns(self) -> [Range<usize>; 3] {
        let (q, kv) = (self.count * self.head_dim, self.kv_count * self.head_dim);
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }

    /// Width of queries, keys and values side by side.
    pub(crate) fn width(self) -> usize {
        (self.count + 2 * self.kv_count) * self.head_dim
    }
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    /// None behind it.
    pub(crate) causal: bool,
    /// None farther away than this.
    pub(crate) window: Option<usize>,
}

impl Mask {
    /// Every query sees all keys.
    pub(crate) const ALL: Self = Self { causal: false, window: None };

    /// The keys that a query sees, of a sequence of so many tokens.
    pub(crate) fn keys(self, query: usize, tokens: usize) -> Range<usize> {
        let window = self.window.unwrap_or(tokens);
        let end = if self.causal { query + 1 } else { tokens };
        query.saturating_sub(window)..end.min(query.saturating_add(window).saturating_add(1))
    }

    /// The keys that at least one of some successive queries sees; none for no queries.
    pub(crate) fn keys_of_any(self, queries: Range<usize>, tokens: usize) -> Range<usize> {
        if queries.is_empty() {
            return 0..0;
        }
        // Both ends of what a query sees move on with it.
        self.keys(queries.start, tokens).start..self.keys(queries.end - 1, tokens).end
    }
}

/// Attention as a layer does it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// The heads.
    pub(crate) heads: Heads,
    /// What scores are multiplied by; usually `1 / sqrt(head_dim)`.
    pub(crate) scale: f32,
    /// Which keys a query sees.
    pub(crate) mask: Mask,
    /// What is added to scaled scores.
    pub(crate) bias: Option<&'a DistanceBias>,
}

impl Attention<'_> {
    /// Every query sees all keys, scores are divided by `sqrt(head_dim)`.
    pub(crate) fn of(heads: Heads) -> Self {
        Self { heads, scale: 1.0 / (heads.head_dim as f32).sqrt(), mask: Mask::ALL, bias: None }
    }
}

/// A forward pass's operations, on one thread's context.
///
/// Tensors are matrices with one row for each token of a micro-batch. Sequences lie one after the
/// other without padding; sequence `i` is rows `offsets[i]..offsets[i + 1]`.
pub(crate) trait Ops<B: Backend> {
    /// Activations `[tokens, width]`.
    type Tensor;
    /// The same in ordinary memory, row-major.
    type Host: Deref<Target = [f32]>;

    /// Sum of table rows: row `t` is Σ `table[ids[t]]` over the lookups, all of the same length.
    fn embedding(&self, lookups: &[(&B::Table, &[u32])]) -> Result<Self::Tensor>;
    /// Numbers in ordinary memory as a tensor, `[rows, width]`.
    fn tensor(&self, numbers: &[f32], width: usize) -> Result<Self::Tensor>;
    /// A tensor of its own with the same numbers.
    fn copy(&self, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// Every number times `factor`.
    fn scale(&self, x: Self::Tensor, factor: f32) -> Result<Self::Tensor>;
    /// `a + b`
    fn add(&self, a: Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;
    /// Each row normalised.
    fn norm(&self, x: Self::Tensor, norm: &B::Norm) -> Result<Self::Tensor>;
    /// In some columns, the heads of each row normalised one by one.
    fn norm_heads(
        &self,
        x: Self::Tensor,
        columns: Range<usize>,
        norm: &B::Norm,
    ) -> Result<Self::Tensor>;
    /// In some columns, the heads of each row rotated by their position.
    fn rotate(
        &self,
        x: Self::Tensor,
        columns: Range<usize>,
        rope: &Rope,
        positions: &[u32],
    ) -> Result<Self::Tensor>;
    /// `x · weightᵀ + bias`, then the epilogue.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &B::Linear,
        epilogue: Epilogue<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// Scaled dot-product attention within each sequence (Vaswani et al. 2017).
    ///
    /// `qkv` is `[tokens, heads.width()]`: queries, keys and values side by side. Returns
    /// `[tokens, count * head_dim]`. Where a thread computes only some of the tokens, both have only their
    /// rows, and `offsets` are those of all.
    fn attention(
        &self,
        qkv: &Self::Tensor,
        attention: &Attention<'_>,
        offsets: &[usize],
    ) -> Result<Self::Tensor>;
    /// Brings a tensor to ordinary memory.
    fn to_host(&self, x: Self::Tensor) -> Result<Self::Host>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_what_the_mask_says() {
        let keys = |causal, window, query| Mask { causal, window }.keys(query, 10);
        assert_eq!(Mask::ALL.keys(3, 10), 0..10);
        assert_eq!(keys(true, None, 3), 0..4);
        assert_eq!(keys(false, Some(2), 0), 0..3);
        assert_eq!(keys(false, Some(2), 5), 3..8);
        assert_eq!(keys(false, Some(2), 9), 7..10);
        assert_eq!(keys(true, Some(2), 9), 7..10);
        assert_eq!(keys(true, Some(0), 4), 4..5);
    }

    #[test]
    fn queries_together_see_what_each_of_them_sees() {
        for (causal, window) in [(false, None), (true, None), (false, Some(2)), (true, Some(0))] {
            let mask = Mask { causal, window };
            for (first, end) in (0..10).flat_map(|first| (first..=10).map(move |end| (first, end)))
            {
                let mut each: Vec<usize> =
                    (first..end).flat_map(|query| mask.keys(query, 10)).collect();
                each.sort_unstable();
                each.dedup();
                let together = mask.keys_of_any(first..end, 10);
                assert_eq!(together.collect::<Vec<_>>(), each, "{mask:?}, {first}..{end}");
            }
        }
    }
}
