//! Weights as the CPU kernels use them: slices of the mapped file.

use arrow_buffer::Buffer;

use super::kernels::{TableData, Weights};
use super::matmul::Panels;
use crate::error::{Error, Result};
use crate::ops::{Backend, LinearSpec, Load};
use crate::weights::{DType, Layout, Tensor, TensorSource};

/// Our own kernels over mapped slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu;

impl Backend for Cpu {
    type Linear = Linear;
    type Norm = Norm;
    type Table = Table;
}

/// A matrix in panels with what belongs to it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Elements,
    pub(super) out_features: usize,
    pub(super) in_features: usize,
    scale: Option<Buffer>,
    bias: Option<Buffer>,
}

/// A layer norm's parameters.
#[derive(Debug)]
pub(crate) struct Norm {
    weight: Buffer,
    bias: Buffer,
    pub(super) epsilon: f32,
}

/// An embedding table.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    data: Elements,
    scale: Option<Buffer>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// Elements of a checked dtype and alignment.
#[derive(Debug)]
enum Elements {
    Float32(Buffer),
    Float16(Buffer),
    Int8(Buffer),
}

impl Elements {
    fn new(tensor: Tensor) -> Result<Self> {
        if !(tensor.data.as_ptr() as usize).is_multiple_of(tensor.dtype.size()) {
            return Err(Error::config(tensor.name, "its data is not aligned to its elements"));
        }
        match tensor.dtype {
            DType::Float32 => Ok(Self::Float32(tensor.data)),
            DType::Float16 => Ok(Self::Float16(tensor.data)),
            DType::Int8 => Ok(Self::Int8(tensor.data)),
            DType::BFloat16 => {
                Err(Error::config(tensor.name, "bfloat16 is not computed with; convert it"))
            }
        }
    }
}

impl Linear {
    pub(super) fn weights(&self) -> Weights<'_> {
        let (out, width) = (self.out_features, self.in_features);
        match &self.weight {
            Elements::Float32(data) => Weights::Float32(Panels::new(data.typed_data(), out, width)),
            Elements::Float16(data) => Weights::Float16(Panels::new(data.typed_data(), out, width)),
            Elements::Int8(data) => Weights::Int8(Panels::new(data.typed_data(), out, width)),
        }
    }

    pub(super) fn scale(&self) -> Option<&[f32]> {
        self.scale.as_ref().map(Buffer::typed_data)
    }

    pub(super) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Buffer::typed_data)
    }
}

impl Norm {
    pub(super) fn weight(&self) -> &[f32] {
        self.weight.typed_data()
    }

    pub(super) fn bias(&self) -> &[f32] {
        self.bias.typed_data()
    }
}

impl Table {
    pub(super) fn data(&self) -> TableData<'_> {
        match (&self.data, &self.scale) {
            (Elements::Float32(data), _) => TableData::Float32(data.typed_data()),
            (Elements::Float16(data), _) => TableData::Float16(data.typed_data()),
            (Elements::Int8(data), scale) => TableData::Int8(
                data.typed_data(),
                scale.as_ref().map(Buffer::typed_data).unwrap_or_default(),
            ),
        }
    }

    /// # Errors
    /// If an id has no row here: the tokenizer does not belong to the model.
    pub(super) fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().max() {
            Some(&id) if id as usize >= self.rows => Err(Error::config(
                &self.name,
                format!(
                    "the input asks for row {id} of {}; does the tokenizer belong to this model?",
                    self.rows
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Takes weights out of a packed source.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a>(&'a dyn TensorSource);

impl<'a> Loader<'a> {
    /// `source` holds packed tensors.
    pub(crate) fn new(source: &'a dyn TensorSource) -> Self {
        Self(source)
    }

    fn tensor(&self, name: &str, shape: &[usize], layout: Layout) -> Result<Tensor> {
        let tensor = self.0.require(name)?;
        tensor.expect_shape(shape)?;
        if tensor.layout != layout {
            return Err(Error::config(
                name,
                format!("layout is {}, not {}", tensor.layout.name(), layout.name()),
            ));
        }
        Ok(tensor)
    }

    fn floats(&self, name: &str, len: usize) -> Result<Buffer> {
        match Elements::new(self.tensor(name, &[len], Layout::RowMajor)?)? {
            Elements::Float32(data) => Ok(data),
            _ => Err(Error::config(name, "must be float32")),
        }
    }

    /// The elements of a matrix or table, with the scales of its rows if it is int8.
    fn scaled(
        &self,
        name: &str,
        rows: usize,
        width: usize,
        layout: Layout,
    ) -> Result<(Elements, Option<Buffer>)> {
        let elements = Elements::new(self.tensor(name, &[rows, width], layout)?)?;
        let scale = match elements {
            Elements::Int8(_) => Some(self.floats(&format!("{name}.scale"), rows)?),
            _ => None,
        };
        Ok((elements, scale))
    }
}

impl Load<Cpu> for Loader<'_> {
    fn contains(&self, name: &str) -> bool {
        self.0.names().contains(&name)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let (out_features, in_features) = (spec.out_features, spec.in_features);
        let name = format!("{}.weight", spec.name);
        let (weight, scale) = self.scaled(&name, out_features, in_features, Layout::Panel16)?;
        let bias = spec
            .bias
            .then(|| self.floats(&format!("{}.bias", spec.name), out_features))
            .transpose()?;
        Ok(Linear { weight, out_features, in_features, scale, bias })
    }

    fn norm(&mut self, name: &str, width: usize, epsilon: f32) -> Result<Norm> {
        Ok(Norm {
            weight: self.floats(&format!("{name}.weight"), width)?,
            bias: self.floats(&format!("{name}.bias"), width)?,
            epsilon,
        })
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let name = format!("{name}.weight");
        let (data, scale) = self.scaled(&name, rows, width, Layout::RowMajor)?;
        Ok(Table { name, data, scale, rows, width })
    }
}
