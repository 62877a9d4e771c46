//! The dense layers that some models have behind their pooling.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::{Backend, Epilogue, LinearSpec, Load, Ops};

/// A dense layer behind the pooling, as sentence-transformers' `Dense` module has it:
/// `activation(x · weightᵀ + bias)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseLayer {
    /// Its tensors are `NAME.linear.weight` and `NAME.linear.bias`.
    pub name: String,
    /// Width of its input.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// What is done to its output.
    pub activation: DenseActivation,
}

/// What a dense layer does to its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenseActivation {
    /// Nothing.
    Identity,
    /// tanh(x)
    Tanh,
    /// max(x, 0)
    Relu,
    /// 1 / (1 + e^(-x))
    Sigmoid,
}

impl DenseActivation {
    /// That of a class of torch, `torch.nn.modules.activation.Tanh`.
    pub(crate) fn of_torch(class: &str) -> Option<Self> {
        match class.rsplit('.').next()? {
            "Identity" => Some(Self::Identity),
            "Tanh" => Some(Self::Tanh),
            "ReLU" => Some(Self::Relu),
            "Sigmoid" => Some(Self::Sigmoid),
            _ => None,
        }
    }

    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// Checks that each layer takes what the one before gives, and returns the width of the last one's output.
///
/// # Errors
/// If they do not fit, or a width is absurd.
pub(crate) fn output_width(layers: &[DenseLayer], hidden_size: usize) -> Result<usize> {
    let mut width = hidden_size;
    for layer in layers {
        if layer.in_features != width || !(1..=1 << 16).contains(&layer.out_features) {
            return Err(Error::config(
                &layer.name,
                format!(
                    "takes {} numbers and gives {}, behind a layer that gives {width}",
                    layer.in_features, layer.out_features
                ),
            ));
        }
        width = layer.out_features;
    }
    Ok(width)
}

/// Dense layers with their weights in backend `B`.
pub(crate) struct Dense<B: Backend>(Vec<(B::Linear, DenseActivation)>);

impl<B: Backend> Dense<B> {
    pub(crate) fn load(from: &mut impl Load<B>, layers: &[DenseLayer]) -> Result<Self> {
        let load = |layer: &DenseLayer| {
            let name = format!("{}.linear", layer.name);
            let spec = LinearSpec::new(name, layer.out_features, layer.in_features);
            Ok((from.linear(&spec.with_bias(layer.bias))?, layer.activation))
        };
        layers.iter().map(load).collect::<Result<_>>().map(Self)
    }

    /// What the layers make of a pooled vector.
    pub(crate) fn forward<O: Ops<B>>(&self, ops: &O, pooled: &[f32]) -> Result<Vec<f32>> {
        let mut vector = pooled.to_vec();
        for (linear, activation) in &self.0 {
            let x = ops.tensor(&vector, vector.len())?;
            let product = ops.to_host(ops.linear(&x, linear, Epilogue::None)?)?;
            vector = product.iter().map(|&x| activation.apply(x)).collect();
        }
        Ok(vector)
    }
}
