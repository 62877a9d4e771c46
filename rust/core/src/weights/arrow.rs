//! Model files: Arrow IPC files, mapped.
//!
//! Opening reads the footer and the small columns of every record; the payloads are handed out as
//! slices of the map and stay untouched. Every length and offset is checked against the file before
//! arrow-ipc's decoder, which trusts some of them, gets to see it.

mod check;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, root_as_footer};

use super::embedded::Embedded;
use super::ipc;
use super::map::{InFile, MappedFile};
use super::table::{Columns, DATA, Row, Rows, schema};
use super::{DType, Layout, Tensor, TensorSource};
use crate::error::{Error, Result};
use crate::metadata::LAST_OF_OTHER_INT16;

/// A model file whose tensors share the mapped memory.
///
/// ```
/// # fn main() -> arrowembed::Result<()> {
/// # let target = tempfile::tempdir().unwrap();
/// # let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// # let target = target.path().join("bert");
/// # arrowembed::convert(source.as_ref(), &target, &Default::default(), &mut |_, _| {
/// #     std::ops::ControlFlow::Continue(())
/// # })?;
/// use arrowembed::{ArrowFile, TensorSource};
///
/// let file = ArrowFile::open(&target.join("model.arrow"))?;
/// let words = file.require("embeddings.word_embeddings.weight")?;
/// assert_eq!(words.shape, [470, 64]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ArrowFile {
    path: PathBuf,
    whole: Buffer,
    /// The file, unless it was read from memory.
    file: Option<Arc<MappedFile>>,
    embedded: Embedded,
    rows: Rows,
    /// One for each row.
    payloads: Vec<Payload>,
    /// Decodes the payload column of compressed records.
    decoder: FileDecoder,
}

/// Where a tensor's elements are.
#[derive(Debug)]
enum Payload {
    /// In the map.
    Plain(Buffer),
    /// In a compressed record.
    Compressed { message: Buffer, block: Block, row: usize },
}

impl ArrowFile {
    /// Maps a model file and checks its structure.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be mapped, [`Error::InvalidFile`] if it is not a model file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path)?);
        let opened = Self::from_buffer(file.map().clone(), path)?;
        Ok(Self { file: Some(file), ..opened })
    }

    /// Reads a model file from memory.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if it is not a model file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_buffer(Buffer::from(bytes), Path::new("<memory>"))
    }

    pub(crate) fn from_buffer(file: Buffer, path: &Path) -> Result<Self> {
        Reader { file, path }.read()
    }

    /// Compares every tensor with its checksum and returns how many there are.
    pub(crate) fn verify(
        &self,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.embedded.verify(&self.path, self, progress)
    }

    /// See [`Rows::dtype`].
    pub(crate) fn dtype(&self) -> DType {
        self.rows.dtype()
    }

    /// The copy of `metadata.json`.
    pub(crate) fn metadata(&self) -> Option<&str> {
        self.embedded.metadata.as_deref()
    }

    /// Bytes of all tensors' elements.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let bytes = |row: &Row| Tensor::byte_len(&row.shape, row.dtype, row.layout).unwrap_or(0);
        self.rows.iter().map(|row| bytes(row) as u64).sum()
    }

    /// Whether the CPU kernels can work on the map as it is: panels, uncompressed, 64-byte aligned, and integers whose
    /// products do not overflow.
    pub(crate) fn is_packed(&self) -> bool {
        let of_another_rule = self.embedded.version.is_none_or(|v| v <= LAST_OF_OTHER_INT16)
            && self.rows.iter().any(|row| row.dtype == DType::Int16);
        let aligned = |payload: &Payload| match payload {
            Payload::Plain(data) => data.is_empty() || (data.as_ptr() as usize).is_multiple_of(64),
            Payload::Compressed { .. } => false,
        };
        let mut panels = self.rows.iter().filter(|row| row.layout.group().is_some()).peekable();
        panels.peek().is_some()
            && !of_another_rule
            && panels.all(|row| row.layout == Layout::panels_of(row.dtype))
            && self.payloads.iter().all(aligned)
    }
}

impl TensorSource for ArrowFile {
    fn names(&self) -> Vec<&str> {
        self.rows.names()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some((i, row)) = self.rows.find(name) else { return Ok(None) };
        let Some(payload) = self.payloads.get(i) else { return Ok(None) };
        let data = match payload {
            Payload::Plain(data) => data.clone(),
            Payload::Compressed { message, block, row: row_in_batch } => {
                let batch = decode(&self.decoder, block, message, &self.path)?;
                payload_of(batch.column(0).as_ref(), *row_in_batch)
                    .ok_or_else(|| Error::invalid_file(&self.path, "the data column is missing"))?
            }
        };
        row.tensor(data, &self.path).map(Some)
    }

    fn in_file(&self, data: &Buffer) -> Option<InFile> {
        InFile::find(self.file.as_ref()?, data)
    }

    fn maps(&self) -> Vec<Buffer> {
        vec![self.whole.clone()]
    }
}

/// The elements of a row of the `data` column, sharing its memory.
fn payload_of(column: &dyn Array, row: usize) -> Option<Buffer> {
    let column = column.as_binary_opt::<i64>()?;
    let (&start, &end) = (column.value_offsets().get(row)?, column.value_offsets().get(row + 1)?);
    // The array's construction has checked that offsets rise and end within the values.
    Some(column.values().slice_with_length(start as usize, (end - start) as usize))
}

fn decode(
    decoder: &FileDecoder,
    block: &Block,
    message: &Buffer,
    path: &Path,
) -> Result<RecordBatch> {
    decoder
        .read_record_batch(block, message)
        .map_err(|e| Error::invalid_file(path, format!("record at {}: {e}", block.offset())))?
        .ok_or_else(|| Error::invalid_file(path, format!("no record at {}", block.offset())))
}

struct Reader<'a> {
    file: Buffer,
    path: &'a Path,
}

impl Reader<'_> {
    fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::invalid_file(self.path, reason)
    }

    fn read(&self) -> Result<ArrowFile> {
        let (footer, footer_start) =
            ipc::footer(&self.file).map_err(|reason| self.invalid(reason))?;
        let footer =
            root_as_footer(&footer).map_err(|e| self.invalid(format!("its footer: {e}")))?;

        let fields = footer.schema().ok_or_else(|| self.invalid("its footer has no schema"))?;
        if !fields.endianness().equals_to_target_endianness() {
            return Err(self.invalid("it is big-endian"));
        }
        let stored = try_fb_to_schema(fields).map_err(|e| self.invalid(format!("schema: {e}")))?;
        check::check_schema(&stored).map_err(|reason| self.invalid(reason))?;
        if footer.dictionaries().is_some_and(|blocks| !blocks.is_empty()) {
            return Err(self.invalid("it has dictionaries, which model files do not use"));
        }
        let footer_metadata = |key: &str| {
            let pairs = footer.custom_metadata()?;
            pairs.iter().find(|pair| pair.key() == Some(key))?.value()
        };
        let embedded = Embedded::read(self.path, |key| {
            footer_metadata(key).or_else(|| stored.metadata().get(key).map(String::as_str))
        })?;

        let decoder = |columns: Vec<usize>| {
            FileDecoder::new(Arc::new(schema()), footer.version())
                .with_projection(columns)
                .with_require_alignment(true)
        };
        let (all, small) =
            (decoder((0..=DATA).chain([4, 5]).collect()), decoder(vec![0, 1, 2, 4, 5]));
        let payload_decoder = decoder(vec![DATA]);

        let (mut rows, mut payloads) = (Rows::default(), Vec::new());
        for block in footer.recordBatches().iter().flatten() {
            let message = ipc::slice_block(&self.file, block, footer_start)
                .map_err(|reason| self.invalid(reason))?;
            let compressed = check::check_message(block, &message, footer.version())
                .map_err(|e| self.invalid(format!("the record at {} {e}", block.offset())))?;
            let batch = decode(if compressed { &small } else { &all }, block, &message, self.path)?;
            let columns = Columns::of(&batch, self.path)?;
            for i in 0..batch.num_rows() {
                let row = columns.row(i)?;
                let payload = if compressed {
                    Payload::Compressed { message: message.clone(), block: *block, row: i }
                } else {
                    let data = payload_of(batch.column(DATA).as_ref(), i)
                        .ok_or_else(|| self.invalid("the data column is missing"))?;
                    row.check_len(data.len(), self.path)?;
                    Payload::Plain(data)
                };
                rows.push(row, self.path)?;
                payloads.push(payload);
            }
        }
        rows.check_integers(self.path)?;
        Ok(ArrowFile {
            path: self.path.to_owned(),
            whole: self.file.clone(),
            file: None,
            embedded,
            rows,
            payloads,
            decoder: payload_decoder,
        })
    }
}
