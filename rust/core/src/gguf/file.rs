//! Opening GGUF files, whole or in parts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::Buffer;

use super::cursor::{Cursor, Read};
use super::metadata::Metadata;
use super::parts::Parts;
use super::tensors::{Entries, GgufTensor};
use crate::error::{Error, Result};
use crate::weights::map::MappedFile;

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
/// Larger than any file needs, small enough for no sum to overflow.
const LARGEST_ALIGNMENT: usize = 1 << 20;

/// A GGUF file and, if it is one of several parts, the others.
#[derive(Debug)]
pub(crate) struct GgufFile {
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    by_name: HashMap<String, usize>,
    maps: Vec<Arc<MappedFile>>,
}

/// What one file holds.
struct Part {
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
}

impl GgufFile {
    /// Maps a file and reads its header; of a file in parts, any part opens all.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if it is damaged, of another version or lacks parts,
    /// [`Error::UnsupportedModel`] if a tensor is of a type that cannot be expanded.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = Arc::new(MappedFile::open(path)?);
        let first = Part::read(map.map(), path)?;
        let Some(parts) = Parts::of(&first.metadata, path)? else {
            return Self::new(vec![first], vec![map], path);
        };
        let mut maps = Vec::with_capacity(parts.paths().len());
        let mut read = Vec::with_capacity(parts.paths().len());
        for (number, part_path) in parts.paths().iter().enumerate() {
            let map = Arc::new(MappedFile::open(part_path)?);
            let part = Part::read(map.map(), part_path)?;
            parts.check(&part.metadata, number, part_path)?;
            maps.push(map);
            read.push(part);
        }
        let file = Self::new(read, maps, path)?;
        parts.check_total(file.tensors.len(), path)?;
        Ok(file)
    }

    /// Reads a file that is in memory.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let path = Path::new("the bytes given");
        Self::new(vec![Part::read(&Buffer::from(bytes), path)?], Vec::new(), path)
    }

    fn new(parts: Vec<Part>, maps: Vec<Arc<MappedFile>>, path: &Path) -> Result<Self> {
        let mut file = Self {
            metadata: Metadata::default(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            maps,
        };
        for (number, part) in parts.into_iter().enumerate() {
            // The first part has the metadata; the others only say which part they are.
            if number == 0 {
                file.metadata = part.metadata;
            }
            for tensor in part.tensors {
                let name = tensor.name.clone();
                if file.by_name.insert(name, file.tensors.len()).is_some() {
                    let reason = format!("two of its parts have a tensor named {:?}", tensor.name);
                    return Err(Error::invalid_file(path, reason));
                }
                file.tensors.push(tensor);
            }
        }
        Ok(file)
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The files that are mapped.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.maps.iter().map(|map| map.path().to_owned()).collect()
    }

    /// The same as they are mapped.
    pub(crate) fn maps(&self) -> &[Arc<MappedFile>] {
        &self.maps
    }

    /// All tensors, in file order.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] if there are none.
    pub(crate) fn tensors(&self) -> Result<&[GgufTensor]> {
        if self.tensors.is_empty() {
            let reason = "the GGUF file has no weights, only a vocabulary".to_owned();
            return Err(Error::UnsupportedModel { reason });
        }
        Ok(&self.tensors)
    }

    /// The tensor of that name, or `None`.
    pub(crate) fn get(&self, name: &str) -> Option<&GgufTensor> {
        self.by_name.get(name).and_then(|&i| self.tensors.get(i))
    }
}

impl Part {
    fn read(file: &Buffer, path: &Path) -> Result<Self> {
        let invalid = |reason| Error::invalid_file(path, reason);
        let mut cursor = Cursor::new(file);
        let (tensor_count, value_count) = start(&mut cursor).map_err(invalid)?;
        let metadata = Metadata::read(&mut cursor, value_count, file).map_err(invalid)?;
        let alignment = alignment(&metadata)?;
        let entries = Entries::read(&mut cursor, tensor_count).map_err(invalid)?;
        let data = cursor.position().next_multiple_of(alignment);
        let tensors = entries.tensors(file, data, alignment, path)?;
        Ok(Self { metadata, tensors })
    }
}

/// The numbers of tensors and of metadata entries.
fn start(cursor: &mut Cursor<'_>) -> Read<(usize, usize)> {
    if cursor.take(MAGIC.len()).ok() != Some(&MAGIC[..]) {
        return Err("it is not a GGUF file".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => {
            let reason = "GGUF version 1 is not supported, 2 and 3 are; convert the model again";
            return Err(reason.to_owned());
        }
        version if version.swap_bytes() < 1 << 16 => {
            return Err("it is a big-endian GGUF file; only little-endian ones are read".to_owned());
        }
        version => {
            return Err(format!(
                "GGUF version {version} is not supported, 2 and 3 are; the file may be damaged"
            ));
        }
    }
    Ok((Entries::count(cursor)?, Metadata::count(cursor)?))
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.unsigned(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && (8..=LARGEST_ALIGNMENT).contains(&alignment) {
        return Ok(alignment);
    }
    let allowed = format!("is {alignment}, not a power of two from 8 to {LARGEST_ALIGNMENT}");
    Err(Error::config(KEY, allowed))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::gguf::fixtures::{Writer, all_files, gguf};
    use crate::gguf::types::GgmlType;

    fn reason(bytes: &[u8]) -> String {
        GgufFile::from_bytes(bytes).unwrap_err().to_string()
    }

    /// Touches everything that a file gives away.
    fn touch(file: &GgufFile) {
        for tensor in file.tensors().unwrap_or_default() {
            assert_eq!(file.get(&tensor.name).unwrap().name, tensor.name);
            let rows = tensor.elements() / tensor.row_len();
            assert_eq!(tensor.data.len(), rows * tensor.kind.row_bytes(tensor.row_len()).unwrap());
        }
        for key in file.metadata().keys() {
            let _ = (file.metadata().integers(key), file.metadata().floats(key));
            if let Ok(Some(strings)) = file.metadata().strings(key) {
                assert_eq!(strings.iter().count(), strings.len());
            }
        }
    }

    #[test]
    fn committed_files_are_read() {
        for path in all_files() {
            let file = GgufFile::open(&path).unwrap();
            touch(&file);
            let tokens = file.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
            let table = file.get("token_embd.weight").unwrap();
            assert_eq!(table.shape[0], tokens.len(), "{}", path.display());
            assert!(file.metadata().text("general.architecture").unwrap().is_some());
        }
        let file = GgufFile::open(&gguf("bert-256-Q4_K_M.gguf")).unwrap();
        let table = file.get("token_embd.weight").unwrap();
        assert_eq!((table.shape[1], table.kind), (256, GgmlType::Q6K));
    }

    #[test]
    fn shapes_are_row_major() {
        let bytes = Writer::new()
            .tensor("a", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .tensor("b", &[1], &[7.0])
            .bytes();
        let file = GgufFile::from_bytes(&bytes).unwrap();
        let a = file.get("a").unwrap();
        assert_eq!((&a.shape[..], a.row_len(), a.elements()), (&[2, 3][..], 3, 6));
        assert_eq!(a.data.typed_data::<f32>(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(file.get("b").unwrap().data.typed_data::<f32>(), [7.0]);
        assert!(file.get("c").is_none());
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let mut writer = Writer::new().tensor("a", &[1], &[1.0]);
        writer.version = 2;
        GgufFile::from_bytes(&writer.bytes()).unwrap();
        for (version, expected) in
            [(1, "version 1"), (4, "version 4"), (3_u32.swap_bytes(), "big-endian")]
        {
            writer.version = version;
            let reason = reason(&writer.bytes());
            assert!(reason.contains(expected), "{reason}");
        }
        assert!(reason(b"GGML").contains("not a GGUF file"));
        let junk = reason(b"GGUF and then a text that is no header at all");
        assert!(junk.contains("is not supported, 2 and 3 are; the file may be damaged"), "{junk}");
    }

    #[test]
    fn a_file_without_tensors_has_no_weights() {
        let file = GgufFile::from_bytes(&Writer::new().string("a", "b").bytes()).unwrap();
        assert!(file.tensors().unwrap_err().to_string().contains("no weights"));
        assert_eq!(file.metadata().text("a").unwrap(), Some("b"));
    }

    #[test]
    fn alignment_is_a_power_of_two() {
        let mut writer = Writer::new().u32("general.alignment", 64);
        writer.alignment = 64;
        let writer = writer.tensor("a", &[1], &[1.0]).tensor("b", &[1], &[2.0]);
        let file = GgufFile::from_bytes(&writer.bytes()).unwrap();
        assert_eq!(file.get("b").unwrap().data.typed_data::<f32>(), [2.0]);
        for alignment in [0, 1, 4, 48, 1 << 21, u32::MAX] {
            let writer = Writer::new().u32("general.alignment", alignment);
            assert!(reason(&writer.bytes()).contains("general.alignment"), "{alignment}");
        }
    }

    #[test]
    fn tensors_that_cannot_be_are_refused() {
        let whole = || Writer::new().tensor("a", &[8], &[0.0; 8]);
        let huge = 1_u64 << 62;
        for (entry, expected) in [
            (whole().entry("a", &[8], 0, 0), "two tensors named"),
            (whole().entry("b", &[8], 0, 0), "share bytes"),
            (whole().entry("b", &[1, 1, 1, 1, 1], 0, 0), "5 dimensions"),
            (whole().entry("b", &[], 0, 0), "0 dimensions"),
            (whole().entry("b", &[0], 0, 0), "dimensions is 0"),
            (whole().entry("b", &[huge, huge], 0, 0), "outside"),
            (whole().entry("b", &[huge, 1], 0, 32), "outside"),
            (whole().entry("b", &[1, 32, huge, 2], 0, 32), "outside"),
            (whole().entry("b", &[32, huge], 2, 0), "outside"),
            (whole().entry("b", &[8], 0, 8), "multiple of 32"),
            (whole().entry("b", &[8], 0, 32), "outside"),
            (whole().entry("b", &[1], 0, !31), "outside"),
            (whole().entry("b", &[8], 2, 0), "whole blocks of 32 (Q4_0)"),
            (whole().entry("b", &[8], 23, 0), "IQ4_XS"),
        ] {
            let reason = reason(&entry.bytes());
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
    }

    #[test]
    fn any_part_opens_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: u16| folder.path().join(format!("name-0000{}-of-00003.gguf", i + 1));
        let part = |i: u16, total: i32| {
            Writer::new()
                .value("split.no", 2, &i.to_le_bytes())
                .value("split.count", 2, &3_u16.to_le_bytes())
                .value("split.tensors.count", 5, &total.to_le_bytes())
                .string("which", &i.to_string())
        };
        for i in 0..3 {
            let tensor = part(i, 3).tensor(&format!("t{i}"), &[1], &[f32::from(i)]);
            fs::write(path(i), tensor.bytes()).unwrap();
        }
        for i in 0..3 {
            let file = GgufFile::open(&path(i)).unwrap();
            assert_eq!(file.tensors().unwrap().len(), 3);
            assert_eq!(file.metadata().text("which").unwrap(), Some("0"));
            let last = file.get("t2").unwrap();
            assert_eq!(last.data.typed_data::<f32>(), [2.0]);
        }
        let open = || GgufFile::open(&path(0)).unwrap_err().to_string();
        fs::write(path(1), part(1, 3).tensor("t0", &[1], &[1.0]).bytes()).unwrap();
        assert!(open().contains("two of its parts"), "{}", open());
        fs::write(path(1), part(1, 3).bytes()).unwrap();
        assert!(open().contains("2 tensors together instead of 3"), "{}", open());
        fs::write(path(1), part(2, 3).bytes()).unwrap();
        assert!(open().contains("not part 2 of 3"), "{}", open());
        fs::remove_file(path(1)).unwrap();
        assert!(open().contains("name-00002-of-00003.gguf"), "{}", open());
        let renamed = folder.path().join("other.gguf");
        fs::rename(path(0), &renamed).unwrap();
        let error = GgufFile::open(&renamed).unwrap_err().to_string();
        assert!(error.contains("-00001-of-00003.gguf"), "{error}");
    }

    #[test]
    fn damaged_headers_and_files_cut_short_never_do_harm() {
        let whole = fs::read(gguf("bert-mean-F16.gguf")).unwrap();
        let file = GgufFile::from_bytes(&whole).unwrap();
        let start = |tensor: &GgufTensor| tensor.data.as_ptr() as usize;
        let tensors = file.tensors().unwrap().iter();
        let first = tensors.clone().map(start).min().unwrap();
        let end = tensors.map(|tensor| start(tensor) + tensor.data.len()).max().unwrap();
        // Nothing but the header is before the first tensor.
        let header = whole.len() - (end - first);
        assert!(header > 10_000);
        for length in (0..header).step_by(97).chain([whole.len() / 2]) {
            assert!(GgufFile::from_bytes(&whole[..length]).is_err(), "{length}");
        }
        let mut damaged = whole;
        for i in (0..64).chain((64..header.min(14_000)).step_by(13)) {
            let kept = damaged[i];
            for value in [kept ^ 1, kept ^ 0x80, 0, 0xff] {
                damaged[i] = value;
                if let Ok(file) = GgufFile::from_bytes(&damaged) {
                    touch(&file);
                }
            }
            damaged[i] = kept;
        }
    }
}
