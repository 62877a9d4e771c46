//! Model files in Parquet: read a tensor at a time, never mapped.

use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};

use super::embedded::Embedded;
use super::map::open_regular;
use super::table::{Columns, DATA, Rows, schema};
use super::{DType, Tensor, TensorSource};
use crate::error::{Error, Result};

/// A model file in Parquet.
pub(crate) struct ParquetFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    embedded: Embedded,
    rows: Rows,
    /// Row group of each tensor, and its row therein.
    places: Vec<(usize, usize)>,
}

impl ParquetFile {
    /// Opens a file and reads everything but the payloads.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if it is not a model file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let metadata = guard(path, || {
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                .map_err(|e| Error::invalid_file(path, e.to_string()))
        })?;
        check_schema(&metadata, path)?;
        let pairs = metadata.metadata().file_metadata().key_value_metadata();
        let embedded = Embedded::read(path, |key| {
            pairs?.iter().find(|pair| pair.key == key)?.value.as_deref()
        })?;

        let mut this = Self {
            path: path.to_owned(),
            file,
            metadata,
            embedded,
            rows: Rows::default(),
            places: Vec::new(),
        };
        for group in 0..this.metadata.metadata().num_row_groups() {
            let mut row = 0;
            for batch in this.read(group, None, [0, 1, 2, 4, 5])? {
                let columns = Columns::of(&batch, path)?;
                for i in 0..batch.num_rows() {
                    this.rows.push(columns.row(i)?, path)?;
                    this.places.push((group, row));
                    row += 1;
                }
            }
        }
        this.rows.check_integers(path)?;
        Ok(this)
    }

    /// See [`Rows::dtype`].
    pub(crate) fn dtype(&self) -> DType {
        self.rows.dtype()
    }

    /// The copy of `metadata.json`.
    pub(crate) fn metadata(&self) -> Option<&str> {
        self.embedded.metadata.as_deref()
    }

    /// Compares every tensor with its checksum and returns how many there are.
    pub(crate) fn verify(
        &self,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.embedded.verify(&self.path, self, progress)
    }

    /// Columns of a row group, or of one row in it.
    fn read(
        &self,
        group: usize,
        row: Option<usize>,
        columns: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<RecordBatch>> {
        guard(&self.path, || {
            let file = self.file.try_clone().map_err(Error::io(&self.path))?;
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns);
            let reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                    .with_projection(mask)
                    .with_row_groups(vec![group]);
            let reader = match row {
                Some(row) => reader.with_row_selection(RowSelection::from(vec![
                    RowSelector::skip(row),
                    RowSelector::select(1),
                ])),
                None => reader,
            };
            let invalid = |e: String| Error::invalid_file(&self.path, e);
            reader
                .build()
                .map_err(|e| invalid(e.to_string()))?
                .map(|batch| batch.map_err(|e| invalid(e.to_string())))
                .collect()
        })
    }
}

impl TensorSource for ParquetFile {
    fn names(&self) -> Vec<&str> {
        self.rows.names()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some((i, row)) = self.rows.find(name) else { return Ok(None) };
        let Some(&(group, place)) = self.places.get(i) else { return Ok(None) };
        let batches = self.read(group, Some(place), [DATA])?;
        let data = batches
            .iter()
            .find(|batch| batch.num_rows() > 0)
            .and_then(|batch| batch.column_by_name("data")?.as_binary_opt::<i64>())
            .filter(|column| column.null_count() == 0)
            .ok_or_else(|| {
                Error::invalid_file(&self.path, format!("tensor {name:?} has no data"))
            })?;
        // Sliced rather than copied; the row is the only one.
        let value = data.value(0);
        let start = value.as_ptr() as usize - data.values().as_ptr() as usize;
        let data = data.values().slice_with_length(start, value.len());
        row.tensor(data, &self.path).map(Some)
    }
}

fn check_schema(metadata: &ArrowReaderMetadata, path: &Path) -> Result<()> {
    let (found, expected) = (metadata.schema(), schema());
    let names = |fields: &arrow_schema::Fields| -> Vec<String> {
        fields.iter().map(|field| field.name().clone()).collect()
    };
    if names(found.fields()) == names(expected.fields()) {
        return Ok(());
    }
    Err(Error::invalid_file(
        path,
        format!("its columns are {:?}, not those of a model file", names(found.fields())),
    ))
}

/// Runs the Parquet decoder.
///
/// The decoder asserts some properties of a file instead of checking them, so that damaged files make
/// it panic. It holds no state of ours, so the panic is stopped here and becomes an error.
fn guard<T>(path: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::invalid_file(path, "the Parquet decoder gave up on it")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::convert::{Arrangement, Compression, ConvertOptions, Format};
    use crate::fixtures::{all_values, assert_invariant, convert_to, go_on, hf};
    use crate::weights::arrow::ArrowFile;
    use crate::weights::{DType, table};

    fn options(compression: Compression) -> ConvertOptions {
        ConvertOptions {
            dtype: DType::Float32,
            arrangement: Arrangement::RowMajor,
            format: Format::Parquet,
            compression,
            name: None,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let arrow = folder.path().join("arrow");
        let as_arrow = ConvertOptions { format: Format::Arrow, ..options(Compression::None) };
        let expected = convert_to(&hf("bert"), &arrow, &as_arrow);
        let expected = ArrowFile::open(&expected.path).unwrap();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let target = folder.path().join("parquet");
            let report = convert_to(&hf("bert"), &target, &options(compression));
            let file = ParquetFile::open(&report.path).unwrap();
            assert_invariant(&file);
            assert_eq!(file.names(), expected.names());
            assert_eq!(all_values(&file), all_values(&expected));
            assert_eq!(file.verify(&mut go_on).unwrap(), file.names().len());
            assert!(file.get("no such tensor").unwrap().is_none());
        }
    }

    #[test]
    fn other_writers_put_all_tensors_into_one_row_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.parquet");
        let report = convert_to(&hf("bert"), &folder.path().join("m"), &options(Compression::None));
        let ours = ParquetFile::open(&report.path).unwrap();
        let schema = std::sync::Arc::new(schema());
        let file = File::create(&path).unwrap();
        let mut writer =
            ::parquet::arrow::ArrowWriter::try_new(file, schema.clone(), None).unwrap();
        for name in ours.names() {
            let tensor = ours.require(name).unwrap();
            writer.write(&table::to_batch(&tensor, schema.clone()).unwrap()).unwrap();
        }
        writer.close().unwrap();
        let theirs = ParquetFile::open(&path).unwrap();
        assert_eq!(theirs.metadata.metadata().num_row_groups(), 1);
        assert_eq!(all_values(&theirs), all_values(&ours));
    }

    #[test]
    fn damaged_files_never_do_harm() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("parquet");
        let report = convert_to(&hf("bert-mean"), &target, &options(Compression::Zstd));
        let whole = fs::read(&report.path).unwrap();
        let path = folder.path().join("damaged.parquet");
        let reads = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let Ok(file) = ParquetFile::open(&path) else { return };
            for name in file.names() {
                if let Ok(tensor) = file.require(name) {
                    let length = Tensor::byte_len(&tensor.shape, tensor.dtype, tensor.layout);
                    assert_eq!(length, Some(tensor.data.len()));
                }
            }
        };
        for length in (0..whole.len()).step_by(whole.len() / 40) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(ParquetFile::open(&path).is_err(), "{length}");
        }
        let footer = u32::from_le_bytes(*whole[..whole.len() - 4].last_chunk().unwrap()) as usize;
        let footer_start = whole.len() - 8 - footer;
        let mut damaged = whole.clone();
        let everywhere = (0..footer_start).step_by(footer_start / 100);
        for i in everywhere.chain((footer_start..whole.len()).step_by(footer / 300)) {
            for pattern in [0x01, 0x80, 0xff] {
                damaged[i] = whole[i] ^ pattern;
                reads(&damaged);
            }
            damaged[i] = whole[i];
        }
    }

    #[test]
    fn what_is_no_parquet_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ParquetFile::open(folder.path()).err().unwrap().code(), "invalid_file");
        let path = folder.path().join("model.parquet");
        for bytes in [&b""[..], b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", &[0; 1000]] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(ParquetFile::open(&path).err().unwrap().code(), "invalid_file");
        }
    }
}
