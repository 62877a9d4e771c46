//! Named tensors, wherever they come from.
//!
//! A [`TensorSource`] hands out [`Tensor`]s that share its memory. [`arrow`] maps a model file;
//! [`parquet`] and [`safetensors`] read the interchange forms; [`table`] is what Arrow and Parquet
//! files have in common, [`ipc`] the parts of an Arrow file, [`embedded`] what files carry besides
//! tensors. [`pack`] decides which tensors
//! a model file holds, [`values`] converts their elements and [`quantize`] makes matrices of
//! integers, [`panels`] is the layout that the CPU kernels read, and [`write`] makes model files.

pub(crate) mod arrow;
pub(crate) mod embedded;
pub(crate) mod float16;
pub(crate) mod guard;
pub(crate) mod ipc;
pub(crate) mod map;
#[cfg(any(test, feature = "measure"))]
pub(crate) mod memory;
pub(crate) mod pack;
pub(crate) mod panels;
pub(crate) mod parquet;
mod quantize;
pub(crate) mod safetensors;
pub(crate) mod table;
mod unused;
pub(crate) mod values;
pub(crate) mod write;

use arrow_buffer::Buffer;
pub use map::InFile;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use crate::gguf::rows::StoredRows;

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and are used as they are in memory");

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision.
    Float32,
    /// IEEE half precision.
    Float16,
    /// The upper half of a float32; in model files only matrices in panels.
    BFloat16,
    /// Integers of up to 16 bits, with scales; only matrices in panels.
    Int16,
    /// Signed bytes with float32 scales in the tensor `NAME.scale`: one for each row, or of a matrix in
    /// panels one for each row and each 384 input features.
    Int8,
}

impl DType {
    /// Size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::BFloat16 | Self::Int16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The name used in files and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        }
    }

    /// The dtype of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Float32, Self::Float16, Self::BFloat16, Self::Int16, Self::Int8]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

/// Order of a tensor's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// As Hugging Face stores it: the last dimension is contiguous.
    #[serde(rename = "row_major")]
    RowMajor,
    /// Panels of 16 output features: for each input feature, 16 weights side by side.
    #[serde(rename = "panel16")]
    Panel16,
    /// The same with input features in pairs, for bfloat16 and 16-bit integers.
    #[serde(rename = "panel16x2")]
    Panel16x2,
    /// The same with input features in fours, for bytes.
    #[serde(rename = "panel16x4")]
    Panel16x4,
}

impl Layout {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RowMajor => "row_major",
            Self::Panel16 => "panel16",
            Self::Panel16x2 => "panel16x2",
            Self::Panel16x4 => "panel16x4",
        }
    }

    /// Input features that stand side by side in a panel; `None` where there are no panels.
    pub(crate) const fn group(self) -> Option<usize> {
        match self {
            Self::RowMajor => None,
            Self::Panel16 => Some(1),
            Self::Panel16x2 => Some(2),
            Self::Panel16x4 => Some(4),
        }
    }

    /// Whether integers in this layout have a scale for each block of input features, or else one for each
    /// row.
    pub(crate) fn has_blocks(self) -> bool {
        matches!(self, Self::Panel16x2 | Self::Panel16x4)
    }

    /// The panels that the kernels read elements of that type in.
    pub(crate) const fn panels_of(dtype: DType) -> Self {
        match dtype {
            DType::Float32 | DType::Float16 => Self::Panel16,
            DType::BFloat16 | DType::Int16 => Self::Panel16x2,
            DType::Int8 => Self::Panel16x4,
        }
    }

    /// The layout of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::RowMajor, Self::Panel16, Self::Panel16x2, Self::Panel16x4]
            .into_iter()
            .find(|layout| layout.name() == name)
    }
}

/// Name of the tensor that holds the scales of a tensor of integers.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

/// Name of the tensor that holds the sums of the integers of a matrix in panels.
pub(crate) fn sum_name(name: &str) -> String {
    format!("{name}.sum")
}

/// Name of the tensor of integers to which scales or sums of this name would belong.
pub(crate) fn integers_of(name: &str) -> Option<&str> {
    name.strip_suffix(".scale").or_else(|| name.strip_suffix(".sum"))
}

/// A named tensor that shares the memory of the source it came from.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Name, as Hugging Face has it.
    pub name: String,
    /// Logical shape; for a matrix `[out_features, in_features]` whatever the layout.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Order of the elements.
    pub layout: Layout,
    /// The elements, little-endian. Cheap to clone: the memory is shared.
    pub data: Buffer,
}

impl Tensor {
    /// Bytes that a tensor of this shape, dtype and layout takes; `None` if that overflows or the
    /// layout does not fit the shape.
    pub fn byte_len(shape: &[usize], dtype: DType, layout: Layout) -> Option<usize> {
        let elements = match (layout.group(), shape) {
            (None, _) => shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?,
            (Some(group), &[out_features, in_features]) => out_features
                .checked_next_multiple_of(panels::WIDTH)?
                .checked_mul(in_features.checked_next_multiple_of(group)?)?,
            (Some(_), _) => return None,
        };
        elements.checked_mul(dtype.size())
    }

    /// Checks the shape against the one that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if they differ.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::ShapeMismatch {
            name: self.name.clone(),
            expected: expected.to_vec(),
            found: self.shape.clone(),
        })
    }
}

/// Something that holds named tensors.
///
/// Invariant: for every tensor handed out, `data.len()` equals [`Tensor::byte_len`] and the data is
/// aligned to its element size (64 bytes for model files).
pub trait TensorSource: Send + Sync {
    /// The names of all tensors, in file order.
    fn names(&self) -> Vec<&str>;

    /// The tensor of that name, or `None`.
    ///
    /// # Errors
    /// If the tensor is there but cannot be read.
    fn get(&self, name: &str) -> Result<Option<Tensor>>;

    /// Where data of a tensor lies in its file, if it can be read there instead of in memory.
    fn in_file(&self, _data: &Buffer) -> Option<InFile> {
        None
    }

    /// The mapped files that tensors are parts of, whole, so that they can be read ahead and locked.
    fn maps(&self) -> Vec<Buffer> {
        Vec::new()
    }

    /// A matrix's or a table's rows in blocks that kernels expand, for sources that store them so.
    ///
    /// # Errors
    /// If the tensor is there but is no matrix.
    fn stored_rows(&self, _name: &str) -> Result<Option<StoredRows>> {
        Ok(None)
    }

    /// A tensor's shape and the name of the type that its elements are stored in.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    fn describe(&self, name: &str) -> Result<(Vec<usize>, &'static str)> {
        self.require(name).map(|tensor| (tensor.shape, tensor.dtype.name()))
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    fn require(&self, name: &str) -> Result<Tensor> {
        self.get(name)?.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }
}
