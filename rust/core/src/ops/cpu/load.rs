//! Weights as the CPU kernels use them: slices of the mapped file.

use std::ops::Range;

use arrow_buffer::{Buffer, MutableBuffer};
use half::slice::HalfBitsSliceExt;

use super::integer::Quantized;
use super::kernels::{NormJob, TableData, Weights};
use super::matmul::Panels;
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::ops::parts::{parts_bias, stored_parts, stored_table};
use crate::ops::{Backend, LinearSpec, Load, NormKind, NormSpec};
use crate::weights::panels::BLOCK;
use crate::weights::values::read_f32;
use crate::weights::{
    DType, InFile, Layout, StoredRows, Tensor, TensorSource, scale_name, sum_name,
};

/// Our own kernels over mapped slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu;

impl Backend for Cpu {
    type Linear = Linear;
    type Norm = Norm;
    type Table = Table;
}

/// A matrix with what belongs to it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Matrix,
    pub(super) out_features: usize,
    pub(super) in_features: usize,
    bias: Option<Buffer>,
}

/// A matrix's elements; integers with the scale and the sum of each block.
#[derive(Debug)]
enum Matrix {
    Float32(Buffer),
    Float16(Buffer),
    BFloat16(Buffer),
    Int16(Buffer, Blocks),
    Int8(Buffer, Blocks),
    /// As a GGUF file has them, in parts one below the other.
    Stored(Vec<StoredRows>),
}

#[derive(Debug)]
struct Blocks {
    scale: Buffer,
    sum: Buffer,
}

/// A normalisation's parameters.
#[derive(Debug)]
pub(crate) struct Norm {
    weight: Buffer,
    bias: Option<Buffer>,
    epsilon: f32,
    centred: bool,
}

/// An embedding table.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    data: Elements,
    /// Where rows are read from instead of taken from the map.
    in_file: Option<InFile>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// Tables from this size on are read a row at a time.
const LARGE: usize = 1 << 20;

/// An embedding table's elements.
#[derive(Debug)]
enum Elements {
    Float32(Buffer),
    Float16(Buffer),
    /// With the scale of each row.
    Int8(Buffer, Buffer),
    /// As a GGUF file has them.
    Stored(StoredRows),
}

impl Elements {
    /// Bytes of a row of `width` elements.
    fn row_bytes(&self, width: usize) -> usize {
        match self {
            Self::Float32(_) => 4 * width,
            Self::Float16(_) => 2 * width,
            Self::Int8(..) => width,
            Self::Stored(rows) => rows.stride(),
        }
    }
}

impl Linear {
    pub(super) fn weights(&self) -> Weights<'_> {
        let (out, width) = (self.out_features, self.in_features);
        match &self.weight {
            Matrix::Float32(data) => Weights::Float32(Panels::new(data.typed_data(), out, width)),
            Matrix::Float16(data) => Weights::Float16(Panels::new(data.typed_data(), out, width)),
            Matrix::BFloat16(data) => Weights::BFloat16(Panels::new(
                data.typed_data::<u16>().reinterpret_cast(),
                out,
                width,
            )),
            Matrix::Int16(data, Blocks { scale, sum }) => Weights::Int16(Quantized::new(
                data.typed_data(),
                scale.typed_data(),
                sum.typed_data(),
                out,
                width,
            )),
            Matrix::Int8(data, Blocks { scale, sum }) => Weights::Int8(Quantized::new(
                data.typed_data(),
                scale.typed_data(),
                sum.typed_data(),
                out,
                width,
            )),
            Matrix::Stored(parts) => Weights::Stored(Stored::new(parts, out, width)),
        }
    }

    pub(super) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Buffer::typed_data)
    }
}

impl Norm {
    pub(super) fn job(&self) -> NormJob<'_> {
        NormJob {
            weight: self.weight.typed_data(),
            bias: self.bias.as_ref().map(Buffer::typed_data),
            epsilon: self.epsilon,
            centred: self.centred,
        }
    }
}

impl Table {
    /// Gives `add` the rows of these ids with the place of each in `ids`: all at once where they are in memory,
    /// else one after the other.
    ///
    /// # Errors
    /// If an id has no row here, or the file cannot be read.
    pub(super) fn look_up(
        &self,
        ids: &[u32],
        mut add: impl FnMut(Range<usize>, TableData<'_>, &[u32]),
    ) -> Result<()> {
        self.check(ids)?;
        let size = self.data.row_bytes(self.width);
        if let (None, Some(data)) = (&self.in_file, self.in_memory()) {
            add(0..ids.len(), data, ids);
            return Ok(());
        }
        let mut row = MutableBuffer::from_len_zeroed(size);
        let mut floats;
        for (place, &id) in ids.iter().enumerate() {
            let id = id as usize;
            if let Some(file) = &self.in_file {
                file.read(id * size, &mut row)?;
            }
            let data = match &self.data {
                Elements::Float32(_) => TableData::Float32(row.typed_data()),
                Elements::Float16(_) => TableData::Float16(row.typed_data()),
                Elements::Int8(_, scale) => {
                    TableData::Int8(row.typed_data(), &scale.typed_data()[id..][..1])
                }
                Elements::Stored(rows) => {
                    floats = match &self.in_file {
                        Some(_) => rows.expand_bytes(&row),
                        None => rows.expand(id),
                    };
                    TableData::Float32(&floats)
                }
            };
            add(place..place + 1, data, &[0]);
        }
        Ok(())
    }

    /// All rows, if they are in memory as kernels read them.
    pub(super) fn in_memory(&self) -> Option<TableData<'_>> {
        match &self.data {
            Elements::Float32(data) => Some(TableData::Float32(data.typed_data())),
            Elements::Float16(data) => Some(TableData::Float16(data.typed_data())),
            Elements::Int8(data, scale) => {
                Some(TableData::Int8(data.typed_data(), scale.typed_data()))
            }
            Elements::Stored(_) => None,
        }
    }

    /// # Errors
    /// If an id has no row here: the tokenizer does not belong to the model.
    fn check(&self, ids: &[u32]) -> Result<()> {
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

/// Takes weights out of a source that is packed, or that has them in blocks which kernels expand.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a>(&'a dyn TensorSource);

impl<'a> Loader<'a> {
    /// `source` holds packed tensors or stored rows.
    pub(crate) fn new(source: &'a dyn TensorSource) -> Self {
        Self(source)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.0.require(name)?;
        tensor.expect_shape(shape)?;
        if !(tensor.data.as_ptr() as usize).is_multiple_of(tensor.dtype.size()) {
            return Err(Error::config(name, "its data is not aligned to its elements"));
        }
        Ok(tensor)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Buffer> {
        let tensor = self.tensor(name, shape)?;
        match (tensor.dtype, tensor.layout) {
            (DType::Float32, Layout::RowMajor) => Ok(tensor.data),
            (DType::Float16 | DType::BFloat16, Layout::RowMajor) => {
                read_f32(self.0, name).map(|(_, values)| Buffer::from_vec(values))
            }
            _ => Err(unusable(&tensor)),
        }
    }

    /// A matrix's bias, in the map where it is whole there.
    fn bias(&self, spec: &LinearSpec) -> Result<Buffer> {
        match parts_bias(self.0, spec)? {
            Some(values) => Ok(Buffer::from_vec(values)),
            None => self.floats(&format!("{}.bias", spec.name), &[spec.out_features]),
        }
    }

    /// The scales and sums that come with a matrix of integers.
    fn blocks(&self, name: &str, out_features: usize, in_features: usize) -> Result<Blocks> {
        let shape = [in_features.div_ceil(BLOCK), out_features];
        Ok(Blocks {
            scale: self.floats(&scale_name(name), &shape)?,
            sum: self.floats(&sum_name(name), &shape)?,
        })
    }
}

/// The error for a tensor of a dtype or in a layout that its place has no kernel for.
fn unusable(tensor: &Tensor) -> Error {
    let (dtype, layout) = (tensor.dtype.name(), tensor.layout.name());
    Error::config(&tensor.name, format!("nothing computes with {dtype} in layout {layout} here"))
}

impl Load<Cpu> for Loader<'_> {
    fn contains(&self, name: &str) -> bool {
        self.0.names().contains(&name)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let (out_features, in_features) = (spec.out_features, spec.in_features);
        let bias = spec.bias.then(|| self.bias(spec)).transpose()?;
        if let Some(parts) = stored_parts(self.0, spec)? {
            return Ok(Linear { weight: Matrix::Stored(parts), out_features, in_features, bias });
        }
        let name = format!("{}.weight", spec.name);
        let tensor = self.tensor(&name, &[out_features, in_features])?;
        let blocks = || self.blocks(&name, out_features, in_features);
        let weight = match (tensor.dtype, tensor.layout) {
            (DType::Float32, Layout::Panel16) => Matrix::Float32(tensor.data),
            (DType::Float16, Layout::Panel16) => Matrix::Float16(tensor.data),
            (DType::BFloat16, Layout::Panel16x2) => Matrix::BFloat16(tensor.data),
            (DType::Int16, Layout::Panel16x2) => Matrix::Int16(tensor.data, blocks()?),
            (DType::Int8, Layout::Panel16x4) => Matrix::Int8(tensor.data, blocks()?),
            _ => return Err(unusable(&tensor)),
        };
        Ok(Linear { weight, out_features, in_features, bias })
    }

    fn norm(&mut self, spec: &NormSpec) -> Result<Norm> {
        let NormSpec { name, width, epsilon, kind } = spec;
        let weight = self.floats(&format!("{name}.weight"), &[*width])?;
        let weight = match kind {
            NormKind::RmsPlusOne => weight.typed_data().iter().map(|w: &f32| 1.0 + w).collect(),
            _ => weight,
        };
        let bias = match kind {
            NormKind::Layer => Some(self.floats(&format!("{name}.bias"), &[*width])?),
            _ => None,
        };
        let centred = matches!(kind, NormKind::Layer | NormKind::LayerWithoutBias);
        Ok(Norm { weight, bias, epsilon: *epsilon, centred })
    }

    fn numbers(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>> {
        let numbers = self.floats(&format!("{name}.weight"), &[rows, width])?;
        Ok(numbers.typed_data().to_vec())
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let name = format!("{name}.weight");
        let in_file = |data: &Buffer| self.0.in_file(data).filter(|_| data.len() >= LARGE);
        if let Some(stored) = stored_table(self.0, &name, rows, width)? {
            let in_file = in_file(stored.data());
            return Ok(Table { name, data: Elements::Stored(stored), in_file, rows, width });
        }
        let tensor = self.tensor(&name, &[rows, width])?;
        let in_file = in_file(&tensor.data);
        let data = match (tensor.dtype, tensor.layout) {
            (DType::Float32, Layout::RowMajor) => Elements::Float32(tensor.data),
            (DType::Float16, Layout::RowMajor) => Elements::Float16(tensor.data),
            (DType::Int8, Layout::RowMajor) => {
                Elements::Int8(tensor.data, self.floats(&scale_name(&name), &[rows])?)
            }
            _ => return Err(unusable(&tensor)),
        };
        Ok(Table { name, data, in_file, rows, width })
    }
}
