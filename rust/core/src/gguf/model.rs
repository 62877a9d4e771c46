//! A GGUF file as a source of tensors under Hugging Face's names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow_buffer::Buffer;

use super::described::Described;
use super::file::GgufFile;
use super::quants::dequantize;
use super::tensors::GgufTensor;
use super::types::GgmlType;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::weights::{DType, InFile, Layout, StoredRows, Tensor, TensorSource};

/// A GGUF file whose tensors have Hugging Face's names.
#[derive(Debug)]
pub(crate) struct GgufModel {
    file: GgufFile,
    /// Hugging Face's names, in file order.
    names: Vec<String>,
    /// llama.cpp's name of each.
    by_name: HashMap<String, String>,
    /// Gains of norms are stored with one added.
    gains_plus_one: bool,
}

impl GgufModel {
    /// Opens a file and reads what it says of its model.
    ///
    /// # Errors
    /// If the file is damaged, has no weights, or is of an architecture that this crate does not run.
    pub(crate) fn open(path: &Path) -> Result<(Self, Metadata)> {
        let file = GgufFile::open(path)?;
        file.tensors()?;
        let described = Described::read(&file)?;
        let metadata = described.metadata(&file, path)?;
        metadata.check()?;
        let mut by_name = HashMap::new();
        let mut names = Vec::new();
        for tensor in file.tensors()? {
            if let Some(name) = described.names.hugging_face(&tensor.name) {
                names.push(name.clone());
                by_name.insert(name, tensor.name.clone());
            } else if tensor.name.starts_with("blk.") || tensor.name.starts_with("rope_") {
                // A variant of the architecture: without it, vectors would be wrong in silence.
                return Err(Error::UnsupportedModel {
                    reason: format!(
                        "the GGUF file has the tensor {:?}, which {} does not have here",
                        tensor.name, described.architecture
                    ),
                });
            }
        }
        let gains_plus_one = described.architecture == "gemma3_text";
        Ok((Self { file, names, by_name, gains_plus_one }, metadata))
    }

    /// The tokenizer that the metadata describe.
    ///
    /// # Errors
    /// If they describe none that is known.
    pub(crate) fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        super::tokenizer::tokenizer(self.file.metadata())
    }

    fn find(&self, name: &str) -> Option<&GgufTensor> {
        self.file.get(self.by_name.get(name)?)
    }

    /// Whether any tensor is stored in blocks of integers.
    pub(crate) fn quantized(&self) -> bool {
        let tensors = self.names.iter().filter_map(|name| self.find(name));
        tensors.into_iter().any(|tensor| tensor.kind.block_len() > 1)
    }

    /// Bytes of all its tensors.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.names.iter().filter_map(|name| self.find(name)).map(|t| t.data.len() as u64).sum()
    }

    /// The file, or all its parts.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.file.paths()
    }
}

impl TensorSource for GgufModel {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Floats share the map, unless they are not aligned there; blocks of integers become float32.
    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        let (mut dtype, data) = match tensor.kind {
            GgmlType::F32 => (DType::Float32, tensor.data.clone()),
            GgmlType::F16 => (DType::Float16, tensor.data.clone()),
            GgmlType::BF16 => (DType::BFloat16, tensor.data.clone()),
            kind => {
                let mut floats = vec![0.0; tensor.elements()];
                dequantize(kind, &tensor.data, &mut floats);
                (DType::Float32, Buffer::from_vec(floats))
            }
        };
        let mut data = crate::weights::table::align(data, dtype);
        if self.gains_plus_one && name.ends_with("norm.weight") {
            if dtype != DType::Float32 {
                let reason = format!("is a norm in {}, expected is F32", tensor.kind.name());
                return Err(Error::config(&tensor.name, reason));
            }
            data = data.typed_data::<f32>().iter().map(|gain| gain - 1.0).collect();
            dtype = DType::Float32;
        }
        let (name, shape) = (name.to_owned(), shape(tensor));
        Ok(Some(Tensor { name, shape, dtype, layout: Layout::RowMajor, data }))
    }

    fn in_file(&self, data: &Buffer) -> Option<InFile> {
        self.file.maps().iter().find_map(|map| InFile::find(map, data))
    }

    fn maps(&self) -> Vec<Buffer> {
        self.file.maps().iter().map(|map| map.map().clone()).collect()
    }

    fn stored_rows(&self, name: &str) -> Result<Option<StoredRows>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        let &[_, width] = &shape(tensor)[..] else {
            let reason = format!("has shape {:?}, expected is a matrix", tensor.shape);
            return Err(Error::config(&tensor.name, reason));
        };
        Ok(StoredRows::new(tensor.kind, width, tensor.data.clone()))
    }

    fn describe(&self, name: &str) -> Result<(Vec<usize>, &'static str)> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let tensor = self.find(name).ok_or_else(missing)?;
        Ok((shape(tensor), tensor.kind.name()))
    }
}

/// A tensor's shape; a single token type is a table of one row.
fn shape(tensor: &GgufTensor) -> Vec<usize> {
    match tensor.shape[..] {
        [width] if tensor.name == "token_types.weight" => vec![1, width],
        _ => tensor.shape.clone(),
    }
}
