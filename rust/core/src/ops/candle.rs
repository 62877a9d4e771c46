//! The operations on candle tensors: any device that candle has, and a second opinion on the CPU.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, ops::softmax_last_dim};

use super::{Activation, Backend, Epilogue, Heads, LinearSpec, Load, Ops};
use crate::error::{Error, Result};
use crate::weights::TensorSource;
use crate::weights::values::read_f32;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Device { reason: error.to_string() }
    }
}

/// The candle device of that name: `candle` or `candle:cpu`, `cuda`, `cuda:N`, `metal`, `metal:N`.
///
/// # Errors
/// If there is no such device, or this build has no support for it.
pub(crate) fn device(name: &str) -> Result<Device> {
    let (kind, ordinal) = name.split_once(':').unwrap_or((name, "0"));
    let ordinal = || {
        ordinal.parse::<usize>().map_err(|_| {
            Error::argument("device", format!("{name:?}: {ordinal:?} is not a device's number"))
        })
    };
    match kind {
        "candle" if matches!(name, "candle" | "candle:cpu") => Ok(Device::Cpu),
        "cuda" => Ok(Device::new_cuda(ordinal()?)?),
        "metal" => Ok(Device::new_metal(ordinal()?)?),
        _ => Err(Error::argument(
            "device",
            format!("{name:?}; there are cpu, candle:cpu, cuda, cuda:N, metal and metal:N"),
        )),
    }
}

/// Weights as float32 tensors on a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candle;

impl Backend for Candle {
    type Linear = Linear;
    type Norm = LayerNorm;
    type Table = Embedding;
}

/// Copies weights of any dtype to a device as float32.
pub(crate) struct Loader<'a> {
    source: &'a dyn TensorSource,
    device: &'a Device,
}

impl<'a> Loader<'a> {
    /// `source` holds packed tensors.
    pub(crate) fn new(source: &'a dyn TensorSource, device: &'a Device) -> Self {
        Self { source, device }
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        let (stored, values) = read_f32(self.source, name)?;
        stored.expect_shape(expected)?;
        Ok(Tensor::from_vec(values, expected, self.device)?)
    }
}

impl Load<Candle> for Loader<'_> {
    fn contains(&self, name: &str) -> bool {
        self.source.names().contains(&name)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let shape = [spec.out_features, spec.in_features];
        let weight = self.tensor(&format!("{}.weight", spec.name), &shape)?;
        let bias = spec
            .bias
            .then(|| self.tensor(&format!("{}.bias", spec.name), &shape[..1]))
            .transpose()?;
        Ok(Linear::new(weight, bias))
    }

    fn norm(&mut self, name: &str, width: usize, epsilon: f32) -> Result<LayerNorm> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = self.tensor(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::new(weight, bias, f64::from(epsilon)))
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Embedding> {
        Ok(Embedding::new(self.tensor(&format!("{name}.weight"), &[rows, width])?, width))
    }
}

/// Runs forward passes on a device.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    device: Device,
}

impl Context {
    pub(crate) fn new(device: Device) -> Self {
        Self { device }
    }
}

impl Ops<Candle> for Context {
    type Tensor = Tensor;
    type Host = Vec<f32>;

    fn embedding(&self, lookups: &[(&Embedding, &[u32])]) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(lookups.len());
        for (table, ids) in lookups {
            let ids = Tensor::new(*ids, &self.device)?;
            rows.push(table.forward(&ids)?);
        }
        let sum = rows.into_iter().map(Ok).reduce(|sum, rows| sum? + rows?);
        Ok(sum.unwrap_or_else(|| Tensor::zeros((0, 0), DType::F32, &self.device))?)
    }

    fn layer_norm(&self, x: Tensor, norm: &LayerNorm) -> Result<Tensor> {
        Ok(norm.forward(&x)?)
    }

    fn linear(
        &self,
        x: &Tensor,
        weight: &Linear,
        epilogue: Epilogue<'_, Tensor>,
    ) -> Result<Tensor> {
        let product = weight.forward(x)?;
        Ok(match epilogue {
            Epilogue::None => product,
            Epilogue::Add(other) => (product + other)?,
            Epilogue::Activate(Activation::Gelu) => product.gelu_erf()?,
            Epilogue::Activate(Activation::GeluTanh) => product.gelu()?,
            Epilogue::Activate(Activation::Relu) => product.relu()?,
            Epilogue::Activate(Activation::Silu) => product.silu()?,
        })
    }

    fn attention(&self, qkv: &Tensor, heads: Heads, offsets: &[usize]) -> Result<Tensor> {
        let Heads { count, head_dim } = heads;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut attended = Vec::with_capacity(offsets.len());
        for bounds in offsets.windows(2).filter(|bounds| bounds[0] < bounds[1]) {
            let tokens = bounds[1] - bounds[0];
            // [3, heads, tokens, head_dim]
            let parts = qkv
                .narrow(0, bounds[0], tokens)?
                .reshape((tokens, 3, count, head_dim))?
                .permute((1, 2, 0, 3))?;
            let part = |i| parts.get(i)?.contiguous();
            let (query, key, value) = ((part(0)? * scale)?, part(1)?, part(2)?);
            let scores = query.matmul(&key.transpose(D::Minus1, D::Minus2)?.contiguous()?)?;
            let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
            attended.push(mixed.transpose(0, 1)?.reshape((tokens, count * head_dim))?);
        }
        Ok(Tensor::cat(&attended, 0)?)
    }

    fn to_host(&self, x: Tensor) -> Result<Vec<f32>> {
        Ok(x.flatten_all()?.to_vec1()?)
    }
}
