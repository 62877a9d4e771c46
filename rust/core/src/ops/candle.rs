//! The operations on candle tensors: any device that candle has, and a second opinion on the CPU.

mod load;

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
#[cfg(test)]
pub(crate) use load::dtype;
pub(crate) use load::{Candle, Loader};
use load::{Linear, Norm, Table};

use super::{Activation, Attention, Epilogue, Heads, Mask, Ops, Rope};
use crate::error::{Error, Result};
use crate::threads;

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

impl Context {
    /// What is added to scores: minus infinity where a query sees no key, and biases; `[heads, tokens, tokens]`,
    /// or without biases `[1, tokens, tokens]`.
    fn added(&self, layer: &Attention<'_>, tokens: usize) -> Result<Option<Tensor>> {
        if layer.mask == Mask::ALL && layer.bias.is_none() {
            return Ok(None);
        }
        let count = if layer.bias.is_some() { layer.heads.count } else { 1 };
        let biases = layer.bias.map(|bias| bias.biases(tokens));
        let mut added = vec![f32::NEG_INFINITY; count * tokens * tokens];
        for (i, row) in added.chunks_exact_mut(tokens).enumerate() {
            let (head, query) = (i / tokens, i % tokens);
            let keys = layer.mask.keys(query, tokens);
            match &biases {
                Some(biases) => {
                    row[keys.clone()].copy_from_slice(biases.row(head, query, keys));
                }
                None => row[keys].fill(0.0),
            }
        }
        Ok(Some(Tensor::from_vec(added, (count, tokens, tokens), &self.device)?))
    }
}

/// Changes the heads in some columns, which are given as `[tokens, heads, head_dim]`.
fn change_heads(
    x: &Tensor,
    columns: Range<usize>,
    head_dim: usize,
    change: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let heads = (tokens, columns.len() / head_dim, head_dim);
    let changed = change(&x.narrow(1, columns.start, columns.len())?.reshape(heads)?)?;
    let changed = changed.reshape((tokens, columns.len()))?;
    let mut parts = vec![changed];
    if columns.start > 0 {
        parts.insert(0, x.narrow(1, 0, columns.start)?);
    }
    if columns.end < width {
        parts.push(x.narrow(1, columns.end, width - columns.end)?);
    }
    Ok(Tensor::cat(&parts, 1)?)
}

impl Ops<Candle> for Context {
    type Tensor = Tensor;
    type Host = Vec<f32>;

    fn embedding(&self, lookups: &[(&Table, &[u32])]) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(lookups.len());
        for (table, ids) in lookups {
            rows.push(table.look_up(ids, &self.device)?);
        }
        let sum = rows.into_iter().map(Ok).reduce(|sum, rows| sum? + rows?);
        Ok(sum.unwrap_or_else(|| Tensor::zeros((0, 0), DType::F32, &self.device))?)
    }

    fn tensor(&self, numbers: &[f32], width: usize) -> Result<Tensor> {
        Ok(Tensor::from_slice(numbers, (numbers.len() / width.max(1), width), &self.device)?)
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        // Nothing changes a candle tensor in place.
        Ok(x.clone())
    }

    fn scale(&self, x: Tensor, factor: f32) -> Result<Tensor> {
        Ok((x * f64::from(factor))?)
    }

    fn add(&self, a: Tensor, b: &Tensor) -> Result<Tensor> {
        Ok((a + b)?)
    }

    fn norm(&self, x: Tensor, norm: &Norm) -> Result<Tensor> {
        Ok(norm.forward(&x)?)
    }

    fn norm_heads(&self, x: Tensor, columns: Range<usize>, norm: &Norm) -> Result<Tensor> {
        let head = norm.weight.dim(0)?;
        change_heads(&x, columns, head, |heads| norm.forward(heads))
    }

    fn rotate(
        &self,
        x: Tensor,
        columns: Range<usize>,
        rope: &Rope,
        positions: &[u32],
    ) -> Result<Tensor> {
        let last = positions.iter().max().map_or(0, |&position| position as usize);
        let rotations = rope.rotations(last + 1);
        let half = rotations.half;
        let positions = Tensor::new(positions, &self.device)?;
        let angles = |numbers: &[f32]| {
            let all = (rotations.positions, half);
            let all = Tensor::from_slice(numbers, all, &self.device)?;
            all.index_select(&positions, 0)?.unsqueeze(1)
        };
        let (cos, sin) = (angles(&rotations.cos)?, angles(&rotations.sin)?);
        change_heads(&x, columns, 2 * half, |heads| {
            let (a, b) = (heads.narrow(2, 0, half)?, heads.narrow(2, half, half)?);
            let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[first, second], 2)
        })
    }

    fn linear(
        &self,
        x: &Tensor,
        weight: &Linear,
        epilogue: Epilogue<'_, Tensor>,
    ) -> Result<Tensor> {
        threads::go_on()?;
        let product = weight.forward(x)?;
        Ok(match epilogue {
            Epilogue::None => product,
            Epilogue::Add(other) => (product + other)?,
            Epilogue::Multiply(other) => (product * other)?,
            Epilogue::Activate(Activation::Gelu) => product.gelu_erf()?,
            Epilogue::Activate(Activation::GeluTanh) => product.gelu()?,
            Epilogue::Activate(Activation::Relu) => product.relu()?,
            Epilogue::Activate(Activation::Silu) => product.silu()?,
        })
    }

    fn attention(&self, qkv: &Tensor, layer: &Attention<'_>, offsets: &[usize]) -> Result<Tensor> {
        let Heads { count, kv_count, head_dim } = layer.heads;
        let mut attended = Vec::with_capacity(offsets.len());
        for bounds in offsets.windows(2).filter(|bounds| bounds[0] < bounds[1]) {
            threads::go_on()?;
            let tokens = bounds[1] - bounds[0];
            // [heads, tokens, head_dim], each head of keys and values as often as it serves queries.
            let part = |columns: Range<usize>, heads: usize| {
                qkv.narrow(0, bounds[0], tokens)?
                    .narrow(1, columns.start, columns.len())?
                    .reshape((tokens, heads, 1, head_dim))?
                    .expand((tokens, heads, count / heads, head_dim))?
                    .reshape((tokens, count, head_dim))?
                    .transpose(0, 1)?
                    .contiguous()
            };
            let [query, key, value] = layer.heads.columns();
            let query = part(query, count)?;
            let (key, value) = (part(key, kv_count)?, part(value, kv_count)?);
            let scores = query.matmul(&key.transpose(D::Minus1, D::Minus2)?.contiguous()?)?;
            let scores = (scores * f64::from(layer.scale))?;
            let scores = match self.added(layer, tokens)? {
                Some(added) => scores.broadcast_add(&added)?,
                None => scores,
            };
            let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
            attended.push(mixed.transpose(0, 1)?.reshape((tokens, count * head_dim))?);
        }
        Ok(Tensor::cat(&attended, 0)?)
    }

    fn to_host(&self, x: Tensor) -> Result<Vec<f32>> {
        Ok(x.flatten_all()?.to_vec1()?)
    }
}
