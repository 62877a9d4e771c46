//! The few operations that a model is written in.
//!
//! A model file under [`crate::models`] is written once, over two traits: [`Load`] gives it its
//! weights by name and [`Ops`] runs its forward pass. A [`Backend`] ties the two together by the
//! types it keeps weights in: [`cpu`] holds slices of the mapped file, `candle` holds tensors on a
//! device.

#[cfg(feature = "candle")]
pub(crate) mod candle;
pub(crate) mod cpu;

use std::ops::Deref;

use crate::error::{Error, Result};

/// The types in which a backend keeps a model's weights.
pub(crate) trait Backend {
    /// A matrix `[out_features, in_features]` with an optional bias.
    type Linear: Send + Sync;
    /// Gain and bias of a layer norm, with its epsilon.
    type Norm: Send + Sync;
    /// An embedding table `[rows, width]`.
    type Table: Send + Sync;
}

/// A matrix as the model asks for it.
#[derive(Debug, Clone)]
pub(crate) struct LinearSpec {
    /// Name in a packed file, without `.weight` and `.bias`.
    pub(crate) name: String,
    /// Hugging Face names of the matrices stacked into it, top to bottom; usually `name` alone.
    pub(crate) parts: Vec<String>,
    /// Output features of all parts together.
    pub(crate) out_features: usize,
    /// Input features.
    pub(crate) in_features: usize,
    /// Whether the parts have biases.
    pub(crate) bias: bool,
}

impl LinearSpec {
    /// A matrix with bias that stands under one name.
    pub(crate) fn new(name: impl Into<String>, out_features: usize, in_features: usize) -> Self {
        let name = name.into();
        Self { parts: vec![name.clone()], name, out_features, in_features, bias: true }
    }

    /// A matrix with bias fused from several of equal height, `PREFIX.PART` each.
    pub(crate) fn fused(
        prefix: &str,
        name: &str,
        parts: &[&str],
        out_features: usize,
        in_features: usize,
    ) -> Self {
        Self {
            name: format!("{prefix}.{name}"),
            parts: parts.iter().map(|part| format!("{prefix}.{part}")).collect(),
            out_features,
            in_features,
            bias: true,
        }
    }
}

/// Gives a model its weights by name, checked against the shapes that it expects.
pub(crate) trait Load<B: Backend> {
    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;
    /// A matrix and its bias.
    fn linear(&mut self, spec: &LinearSpec) -> Result<B::Linear>;
    /// A layer norm's gain and bias, `NAME.weight` and `NAME.bias`.
    fn norm(&mut self, name: &str, width: usize, epsilon: f32) -> Result<B::Norm>;
    /// An embedding table, `NAME.weight`.
    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<B::Table>;
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
}

/// Number and width of a model's attention heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Number of heads.
    pub(crate) count: usize,
    /// Width of one head; `count * head_dim` is the width of the query.
    pub(crate) head_dim: usize,
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
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias` for each row (Ba et al. 2016).
    fn layer_norm(&self, x: Self::Tensor, norm: &B::Norm) -> Result<Self::Tensor>;
    /// `x · weightᵀ + bias`, then the epilogue.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &B::Linear,
        epilogue: Epilogue<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// Scaled dot-product attention within each sequence (Vaswani et al. 2017).
    ///
    /// `qkv` is `[tokens, 3 * count * head_dim]`: query, key and value side by side. Returns
    /// `[tokens, count * head_dim]`. Where a thread computes only some of the tokens, both have only their
    /// rows, and `offsets` are those of all.
    fn attention(
        &self,
        qkv: &Self::Tensor,
        heads: Heads,
        offsets: &[usize],
    ) -> Result<Self::Tensor>;
    /// Brings a tensor to ordinary memory.
    fn to_host(&self, x: Self::Tensor) -> Result<Self::Host>;
}
