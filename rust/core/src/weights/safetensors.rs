//! Safetensors files, single or sharded, mapped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow_buffer::Buffer;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};

use super::map::map;
use super::table::align;
use super::{DType, Layout, Tensor, TensorSource};
use crate::error::{Error, Result};

/// Length of the number before the header.
const PREFIX: usize = 8;

/// The floating-point tensors of one or several safetensors files; others are passed over.
#[derive(Debug)]
pub(crate) struct SafetensorsFiles {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    /// As in the file, still in the map.
    data: Buffer,
}

impl SafetensorsFiles {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if a header is damaged or a tensor is in two files.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut source = Self { entries: Vec::new(), by_name: HashMap::new() };
        for path in paths {
            source.add(&map(path)?, path)?;
        }
        Ok(source)
    }

    fn add(&mut self, file: &Buffer, path: &Path) -> Result<()> {
        let (header, metadata) = SafeTensors::read_metadata(file)
            .map_err(|e| Error::invalid_file(path, e.to_string()))?;
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            if !matches!(info.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                continue;
            }
            let data = slice(file, PREFIX.saturating_add(header), info).ok_or_else(|| {
                Error::invalid_file(path, format!("tensor {name:?} lies outside of it"))
            })?;
            if self.by_name.insert(name.clone(), self.entries.len()).is_some() {
                return Err(Error::invalid_file(path, format!("tensor {name:?} is there twice")));
            }
            self.entries.push(Entry { name, shape: info.shape.clone(), dtype: info.dtype, data });
        }
        Ok(())
    }
}

fn slice(file: &Buffer, base: usize, info: &TensorInfo) -> Option<Buffer> {
    let (start, end) = info.data_offsets;
    let (start, end) = (base.checked_add(start)?, base.checked_add(end)?);
    file.get(start..end)?;
    Some(file.slice_with_length(start, end - start))
}

impl TensorSource for SafetensorsFiles {
    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Float64 becomes float32; everything else shares the map, unless it is not aligned there.
    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(entry) = self.by_name.get(name).and_then(|&i| self.entries.get(i)) else {
            return Ok(None);
        };
        let (dtype, data) = match entry.dtype {
            Dtype::F16 => (DType::Float16, entry.data.clone()),
            Dtype::BF16 => (DType::BFloat16, entry.data.clone()),
            Dtype::F64 => {
                let doubles = entry.data.as_chunks().0.iter();
                let singles: Vec<f32> = doubles.map(|&b| f64::from_le_bytes(b) as f32).collect();
                (DType::Float32, Buffer::from_vec(singles))
            }
            _ => (DType::Float32, entry.data.clone()),
        };
        Ok(Some(Tensor {
            name: entry.name.clone(),
            shape: entry.shape.clone(),
            dtype,
            layout: Layout::RowMajor,
            data: align(data, dtype),
        }))
    }
}
