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
    /// The files, whole.
    maps: Vec<Buffer>,
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
        let mut source = Self { entries: Vec::new(), by_name: HashMap::new(), maps: Vec::new() };
        for path in paths {
            source.add(path, "")?;
        }
        Ok(source)
    }

    /// Adds a file's tensors under names with a prefix.
    ///
    /// # Errors
    /// As for `open`.
    pub(crate) fn add(&mut self, path: &Path, prefix: &str) -> Result<()> {
        let file = &map(path)?;
        self.maps.push(file.clone());
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
            let name = format!("{prefix}{name}");
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
    fn maps(&self) -> Vec<Buffer> {
        self.maps.clone()
    }

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

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::fixtures::{all_values, assert_invariant, hf};

    fn write(path: &Path, tensors: &[(&str, Dtype, usize, &[u8])]) {
        let views = tensors.iter().map(|(name, dtype, rows, bytes)| {
            ((*name).to_owned(), TensorView::new(*dtype, vec![*rows], bytes).unwrap())
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn floating_point_tensors_are_read_and_others_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let double: Vec<u8> = [0.5_f64, -2.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        let single: Vec<u8> = [0.1_f32, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        write(
            &path,
            &[
                ("double", Dtype::F64, 2, &double),
                ("single", Dtype::F32, 2, &single),
                ("half", Dtype::F16, 1, &[0x00, 0x3c]),
                ("brain", Dtype::BF16, 1, &[0x80, 0x3f]),
                ("ids", Dtype::I64, 1, &[0; 8]),
                ("byte", Dtype::U8, 1, &[7]),
            ],
        );
        let source = SafetensorsFiles::open(&[path]).unwrap();
        assert_invariant(&source);
        let values = all_values(&source);
        assert_eq!(values.len(), 4);
        assert_eq!(values["double"].1, [0.5, -2.25]);
        assert_eq!(values["single"].1, [0.1, 3.0]);
        assert_eq!(values["half"].1, [1.0]);
        assert_eq!(values["brain"].1, [1.0]);
    }

    #[test]
    fn shards_are_one_source_and_must_not_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        write(&paths[0], &[("a", Dtype::F32, 1, &[0; 4])]);
        write(&paths[1], &[("b", Dtype::F32, 1, &[0; 4])]);
        assert_eq!(SafetensorsFiles::open(&paths).unwrap().names(), ["a", "b"]);
        write(&paths[1], &[("a", Dtype::F32, 1, &[0; 4])]);
        let error = SafetensorsFiles::open(&paths).unwrap_err();
        assert!(error.to_string().contains("there twice"), "{error}");
    }

    #[test]
    fn damaged_headers_and_files_cut_short_never_do_harm() {
        let folder = tempfile::tempdir().unwrap();
        let whole = fs::read(hf("bert-mean").join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
        let path = folder.path().join("model.safetensors");
        let opens = |bytes: &[u8]| {
            fs::remove_file(&path).ok();
            fs::write(&path, bytes).unwrap();
            let source = SafetensorsFiles::open(std::slice::from_ref(&path));
            source.inspect(|source| assert_invariant(source)).is_ok()
        };
        assert!(opens(&whole));
        for length in (0..PREFIX + header).step_by(97).chain([whole.len() - 1, whole.len() / 2]) {
            assert!(!opens(&whole[..length]), "{length}");
        }
        let mut damaged = whole.clone();
        for i in (0..PREFIX).chain((PREFIX..PREFIX + header).step_by(31)) {
            for value in [whole[i] ^ 1, whole[i] ^ 0x80, b'9', b'-', b'"', 0xff] {
                damaged[i] = value;
                opens(&damaged);
            }
            damaged[i] = whole[i];
        }
    }
}
