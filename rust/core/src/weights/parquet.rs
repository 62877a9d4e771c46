//! Model files in Parquet: read a tensor at a time, never mapped.

use std::collections::HashMap;
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
use super::table::{Columns, DATA, Row, index_rows, schema};
use super::{Tensor, TensorSource};
use crate::error::{Error, Result};

/// A model file in Parquet.
pub(crate) struct ParquetFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    embedded: Embedded,
    rows: Vec<Row>,
    /// Row group of each tensor, and its row therein.
    places: Vec<(usize, usize)>,
    by_name: HashMap<String, usize>,
}

impl ParquetFile {
    /// Opens a file and reads everything but the payloads.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if it is not a model file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        if !file.metadata().map_err(Error::io(path))?.is_file() {
            return Err(Error::invalid_file(path, "it is not a regular file"));
        }
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
            rows: Vec::new(),
            places: Vec::new(),
            by_name: HashMap::new(),
        };
        for group in 0..this.metadata.metadata().num_row_groups() {
            let mut row = 0;
            for batch in this.read(group, None, [0, 1, 2, 4, 5])? {
                let columns = Columns::of(&batch, path)?;
                for i in 0..batch.num_rows() {
                    this.rows.push(columns.row(i)?);
                    this.places.push((group, row));
                    row += 1;
                }
            }
        }
        this.by_name = index_rows(&this.rows, path)?;
        Ok(this)
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
        self.rows.iter().map(|row| row.name.as_str()).collect()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(&i) = self.by_name.get(name) else { return Ok(None) };
        let (Some(row), Some(&(group, place))) = (self.rows.get(i), self.places.get(i)) else {
            return Ok(None);
        };
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
