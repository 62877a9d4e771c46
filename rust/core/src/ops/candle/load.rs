//! Weights on a candle device: float32 tensors, or a GGUF file's blocks.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{D, Device, Tensor};

use crate::error::{Error, Result};
use crate::gguf::types::GgmlType;
use crate::ops::parts::{parts_bias, stored_parts, stored_table};
use crate::ops::{Backend, LinearSpec, Load, NormKind, NormSpec};
use crate::weights::values::read_f32;
use crate::weights::{StoredRows, TensorSource};

/// Weights as float32 tensors on a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candle;

/// Gain and bias of a normalisation.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(super) weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
    centred: bool,
}

impl Norm {
    /// Normalises the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x =
            if self.centred { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
        let deviation = (x.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?;
        let scaled = x.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?;
        match &self.bias {
            Some(bias) => scaled.broadcast_add(bias),
            None => Ok(scaled),
        }
    }
}

/// A matrix with its bias.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Weight {
    Floats(Tensor),
    /// In parts one below the other; expanded on the device for each product.
    Blocks(Vec<QTensor>),
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = match &self.weight {
            Weight::Floats(weight) => x.matmul(&weight.t()?)?,
            Weight::Blocks(parts) => {
                let products: Vec<_> = parts
                    .iter()
                    .map(|part| x.matmul(&part.dequantize(x.device())?.t()?))
                    .collect::<candle_core::Result<_>>()?;
                Tensor::cat(&products, 1)?
            }
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

/// An embedding table `[rows, width]`.
#[derive(Debug)]
pub(crate) enum Table {
    /// On the device.
    Floats(Tensor),
    /// In the file: rows are expanded on the way to the device.
    Stored(StoredRows),
}

impl Table {
    /// The rows of these ids.
    ///
    /// # Errors
    /// If an id has no row here: the tokenizer does not belong to the model.
    pub(super) fn look_up(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        match self {
            Self::Floats(table) => Ok(table.index_select(&Tensor::new(ids, device)?, 0)?),
            Self::Stored(rows) => {
                if let Some(id) = ids.iter().find(|&&id| id as usize >= rows.len()) {
                    let reason = format!("the input asks for row {id} of {}", rows.len());
                    return Err(Error::config("an embedding table", reason));
                }
                let floats = ids.iter().flat_map(|&id| rows.expand(id as usize)).collect();
                Ok(Tensor::from_vec(floats, (ids.len(), rows.width()), device)?)
            }
        }
    }
}

impl Backend for Candle {
    type Linear = Linear;
    type Norm = Norm;
    type Table = Table;
}

/// Copies weights to a device: blocks as they are, all else as float32.
pub(crate) struct Loader<'a> {
    source: &'a dyn TensorSource,
    device: &'a Device,
}

impl<'a> Loader<'a> {
    /// `source` holds packed tensors or stored rows.
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
        let bias = spec
            .bias
            .then(|| match parts_bias(self.source, spec)? {
                Some(values) => Ok(Tensor::from_vec(values, &shape[..1], self.device)?),
                None => self.tensor(&format!("{}.bias", spec.name), &shape[..1]),
            })
            .transpose()?;
        let weight = match stored_parts(self.source, spec)? {
            Some(parts) => Weight::Blocks(
                parts.iter().map(|part| blocks(part, self.device)).collect::<Result<_>>()?,
            ),
            None => Weight::Floats(self.tensor(&format!("{}.weight", spec.name), &shape)?),
        };
        Ok(Linear { weight, bias })
    }

    fn norm(&mut self, spec: &NormSpec) -> Result<Norm> {
        let NormSpec { name, width, epsilon, kind } = spec;
        let weight = self.tensor(&format!("{name}.weight"), &[*width])?;
        let weight = if *kind == NormKind::RmsPlusOne { (weight + 1.0)? } else { weight };
        let bias = match kind {
            NormKind::Layer => Some(self.tensor(&format!("{name}.bias"), &[*width])?),
            _ => None,
        };
        let centred = matches!(kind, NormKind::Layer | NormKind::LayerWithoutBias);
        Ok(Norm { weight, bias, epsilon: f64::from(*epsilon), centred })
    }

    fn numbers(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>> {
        let (stored, values) = read_f32(self.source, &format!("{name}.weight"))?;
        stored.expect_shape(&[rows, width])?;
        Ok(values)
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let name = format!("{name}.weight");
        match stored_table(self.source, &name, rows, width)? {
            Some(stored) => Ok(Table::Stored(stored)),
            None => Ok(Table::Floats(self.tensor(&name, &[rows, width])?)),
        }
    }
}

/// Rows as a tensor of blocks on a device.
fn blocks(rows: &StoredRows, device: &Device) -> Result<QTensor> {
    let storage = QStorage::from_data(Cow::Borrowed(rows.data()), device, dtype(rows.kind()))?;
    Ok(QTensor::new(storage, (rows.len(), rows.width()))?)
}

/// The type under candle's name.
pub(crate) fn dtype(kind: GgmlType) -> GgmlDType {
    match kind {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
        GgmlType::Q8K => GgmlDType::Q8K,
    }
}
