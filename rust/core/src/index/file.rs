//! Files of vectors: Arrow files of one record, mapped.
//!
//! | column | type | |
//! |---|---|---|
//! | `vector` | fixed-size list of float32 or float16 | the vectors |
//! | `norm` | float64 | their Euclidean norms |
//! | `code` | fixed-size list of int8 | only of int8: the elements, divided by the scale and rounded |
//! | `scale` | float32 | only of int8 |
//! | `residual` | float32 | only of int8: the norm of what rounding has left, rounded up |
//!
//! There are no nulls and nothing is compressed; every column begins on a multiple of 64 bytes. The footer's
//! metadata have the version and the SHA-256 of each column's values.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::{Float16Type, Float32Type};
use arrow_array::{ArrayRef, FixedSizeListArray, PrimitiveArray};
use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Footer, RecordBatch, root_as_footer};
use arrow_schema::{DataType, Field, Schema};
use half::f16;
use sha2::{Digest, Sha256};

use super::bound::Known;
use super::write;
use crate::error::{Error, Result};
use crate::ops::cpu::scan::Vectors;
use crate::threads::Monitor;
use crate::weights::embedded::{CHECKSUMS_KEY, hex};
use crate::weights::{DType, guard, ipc, map};

/// Key of the format version, a decimal number.
pub(super) const VERSION_KEY: &str = "arrowembed.vectors.format_version";
/// The version that is written and read.
pub(super) const VERSION: u32 = 1;
/// Most elements of a vector.
pub(super) const MOST_DIMENSIONS: usize = 1 << 16;
/// Most vectors in a file.
pub(super) const MOST_ROWS: usize = i32::MAX as usize;
/// Bytes that are hashed before the monitor is asked again: some milliseconds.
const HASHED_AT_ONCE: usize = 1 << 22;

/// Vectors in a mapped Arrow file.
///
/// Opening checks the file's structure and reads none of the vectors.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("vectors.arrow");
/// use arrowembed::{DType, VectorFile};
///
/// VectorFile::write(&path, &[1.0, 0.0, 0.6, 0.8], 2, DType::Float16)?;
/// let file = VectorFile::open(&path)?;
/// assert_eq!((file.len(), file.dimension()), (2, 2));
/// assert_eq!(file.take(&[0])?, [1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    map: Buffer,
    rows: usize,
    dim: usize,
    dtype: DType,
    /// The values of each column.
    columns: Columns,
    checksums: BTreeMap<String, String>,
}

/// The values of the columns, one after the other.
#[derive(Debug)]
struct Columns {
    vectors: Buffer,
    norms: ScalarBuffer<f64>,
    codes: Option<Codes>,
}

#[derive(Debug)]
struct Codes {
    elements: ScalarBuffer<i8>,
    scales: ScalarBuffer<f32>,
    residuals: ScalarBuffer<f32>,
}

impl VectorFile {
    /// Maps a file and checks its structure.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be mapped, [`Error::InvalidVectors`] if it is no file of vectors.
    pub fn open(path: &Path) -> Result<Self> {
        let map = map::map(path).map_err(|error| match error {
            Error::InvalidFile { path, reason } => Error::InvalidVectors { path, reason },
            other => other,
        })?;
        Self::from_buffer(map, path)
    }

    pub(super) fn from_buffer(map: Buffer, path: &Path) -> Result<Self> {
        read(map, path).map_err(|reason| Error::invalid_vectors(path, reason))
    }

    /// Writes vectors, `[n, dim]`, to a file that is either whole or not there, and brings it to the disk.
    ///
    /// With [`DType::Float16`] they are rounded; with [`DType::Int8`] they are kept as they are, beside a byte
    /// for each element that is scanned in their place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no vectors, they are not whole or not finite, or they cannot be
    /// stored so; [`Error::Io`] if the file cannot be written.
    pub fn write(path: &Path, vectors: &[f32], dim: usize, dtype: DType) -> Result<()> {
        write::write(path, vectors, dim, dtype)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Elements of a vector.
    pub fn dimension(&self) -> usize {
        self.dim
    }

    /// What is scanned: [`DType::Float32`], [`DType::Float16`] or [`DType::Int8`].
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of the file in bytes.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// The vectors of some rows, one after the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a row that is not there; [`Error::InvalidVectors`] if the file was damaged
    /// meanwhile.
    pub fn take(&self, rows: &[usize]) -> Result<Vec<f32>> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.rows) {
            let reason = format!("has {row}, the file has {} vectors", self.rows);
            return Err(Error::argument("rows", reason));
        }
        let mut taken = vec![0.0; rows.len() * self.dim];
        for (to, &row) in taken.chunks_exact_mut(self.dim).zip(rows) {
            self.copy_vector(row, to);
        }
        self.check_map()?;
        Ok(taken)
    }

    /// Compares every column with its checksum.
    ///
    /// # Errors
    /// [`Error::InvalidVectors`] for the first that differs, [`Error::Interrupted`] if the monitor says so.
    pub fn verify(&self, mut monitor: Option<Monitor<'_>>) -> Result<()> {
        let Columns { vectors, norms, codes } = &self.columns;
        let mut columns: Vec<(&str, &[u8])> = vec![("vector", vectors), ("norm", norms.inner())];
        if let Some(Codes { elements, scales, residuals }) = codes {
            columns.push(("code", elements.inner()));
            columns.push(("scale", scales.inner()));
            columns.push(("residual", residuals.inner()));
        }
        for (name, bytes) in columns {
            let mut hash = Sha256::new();
            for part in bytes.chunks(HASHED_AT_ONCE) {
                hash.update(part);
                if let Some(monitor) = &mut monitor
                    && monitor(0) == ControlFlow::Break(())
                {
                    return Err(Error::Interrupted);
                }
            }
            self.check_map()?;
            if self.checksums.get(name) != Some(&hex(&hash.finalize())) {
                let reason =
                    format!("column {name:?} does not match its checksum; put back a copy");
                return Err(Error::invalid_vectors(&self.path, reason));
            }
        }
        Ok(())
    }

    /// The vectors as a fixed-size list of float32 or float16, in the memory of the map.
    pub fn to_arrow(&self) -> FixedSizeListArray {
        let (count, data) = (self.rows * self.dim, self.columns.vectors.clone());
        let (numbers, item): (ArrayRef, _) = if self.dtype == DType::Float16 {
            let numbers = ScalarBuffer::new(data, 0, count);
            (Arc::new(PrimitiveArray::<Float16Type>::new(numbers, None)), DataType::Float16)
        } else {
            let numbers = ScalarBuffer::new(data, 0, count);
            (Arc::new(PrimitiveArray::<Float32Type>::new(numbers, None)), DataType::Float32)
        };
        let item = Arc::new(Field::new("item", item, false));
        FixedSizeListArray::new(item, self.dim as i32, numbers, None)
    }

    /// What is known of a row besides its elements.
    pub(super) fn known(&self, row: usize) -> Known {
        let (scale, residual) = match &self.columns.codes {
            Some(codes) => (codes.scales[row], codes.residuals[row]),
            None => (1.0, 0.0),
        };
        Known { norm: self.norm(row), scale, residual }
    }

    pub(super) fn norm(&self, row: usize) -> f64 {
        self.columns.norms[row]
    }

    /// What is scanned.
    pub(super) fn scanned(&self) -> Vectors<'_> {
        match (&self.columns.codes, self.dtype) {
            (Some(codes), _) => Vectors::Int8(&codes.elements),
            (None, DType::Float16) => Vectors::Float16(self.columns.vectors.typed_data()),
            (None, _) => Vectors::Float32(self.columns.vectors.typed_data()),
        }
    }

    /// The stored vector of a row, where it lies or, if it must be converted, in `converted`.
    pub(super) fn vector<'a>(&'a self, row: usize, converted: &'a mut Vec<f32>) -> &'a [f32] {
        if self.dtype == DType::Float16 {
            converted.resize(self.dim, 0.0);
            self.copy_vector(row, converted);
            return converted;
        }
        &self.columns.vectors.typed_data()[row * self.dim..][..self.dim]
    }

    fn copy_vector(&self, row: usize, to: &mut [f32]) {
        let range = row * self.dim..(row + 1) * self.dim;
        if self.dtype == DType::Float16 {
            let numbers = &self.columns.vectors.typed_data::<f16>()[range];
            for (to, x) in to.iter_mut().zip(numbers) {
                *to = x.to_f32();
            }
        } else {
            to.copy_from_slice(&self.columns.vectors.typed_data::<f32>()[range]);
        }
    }

    /// Whether what was read so far was in the file.
    pub(super) fn check_map(&self) -> Result<()> {
        if guard::is_damaged(std::slice::from_ref(&self.map)) {
            let reason = "it was cut short or became unreadable while it was in use; put it back and open \
                          it again. (A file may be replaced by renaming another one, but not changed in place)";
            return Err(Error::invalid_vectors(&self.path, reason));
        }
        Ok(())
    }
}

/// The schema of a file.
pub(super) fn schema(dim: usize, dtype: DType) -> Schema {
    let list =
        |item| DataType::FixedSizeList(Arc::new(Field::new("item", item, false)), dim as i32);
    let element = if dtype == DType::Float16 { DataType::Float16 } else { DataType::Float32 };
    let mut fields = vec![
        Field::new("vector", list(element), false),
        Field::new("norm", DataType::Float64, false),
    ];
    if dtype == DType::Int8 {
        fields.push(Field::new("code", list(DataType::Int8), false));
        fields.push(Field::new("scale", DataType::Float32, false));
        fields.push(Field::new("residual", DataType::Float32, false));
    }
    Schema::new(fields)
}

fn read(map: Buffer, path: &Path) -> Result<VectorFile, String> {
    let (footer, footer_start) = ipc::footer(&map)?;
    let footer = root_as_footer(&footer).map_err(|e| format!("its footer: {e}"))?;
    check_version(footer)?;
    let (dim, dtype) = check_schema(footer)?;
    let checksums = metadata(footer, CHECKSUMS_KEY).ok_or("it has no checksums")?;
    let checksums = serde_json::from_str(checksums).map_err(|e| format!("{CHECKSUMS_KEY}: {e}"))?;

    let blocks: Vec<_> = footer.recordBatches().iter().flatten().collect();
    let [block] = blocks[..] else {
        return Err(format!("it has {} records, one is expected", blocks.len()));
    };
    let message = ipc::slice_block(&map, block, footer_start)?;
    let (record, body) = ipc::record(block, &message, footer.version())
        .map_err(|reason| format!("its record {reason}"))?;
    if record.compression().is_some() {
        return Err("it is compressed".to_owned());
    }
    let rows = usize::try_from(record.length())
        .ok()
        .filter(|rows| (1..=MOST_ROWS).contains(rows))
        .ok_or_else(|| format!("it has {} rows, allowed are 1 to {MOST_ROWS}", record.length()))?;
    // Below 2⁴⁷, so that no product overflows.
    let elements = rows * dim;
    check_nodes(record, rows, elements, dtype)?;

    let body = message.slice(message.len() - body.len());
    let buffers = Buffers { record, body };
    let size = if dtype == DType::Float16 { size_of::<f16>() } else { size_of::<f32>() };
    // A list is its validity and that of its items, and the items; numbers are validity and numbers.
    let columns = Columns {
        vectors: buffers.get("vector", 2, elements * size, size)?,
        norms: buffers.numbers("norm", 4, rows)?,
        codes: match dtype {
            DType::Int8 => Some(Codes {
                elements: buffers.numbers("code", 7, elements)?,
                scales: buffers.numbers("scale", 9, rows)?,
                residuals: buffers.numbers("residual", 11, rows)?,
            }),
            _ => None,
        },
    };
    Ok(VectorFile { path: path.to_owned(), map, rows, dim, dtype, columns, checksums })
}

fn metadata<'a>(footer: Footer<'a>, key: &str) -> Option<&'a str> {
    footer.custom_metadata()?.iter().find(|pair| pair.key() == Some(key))?.value()
}

fn check_version(footer: Footer<'_>) -> Result<(), String> {
    let found =
        metadata(footer, VERSION_KEY).ok_or("it is an Arrow file, but no file of vectors")?;
    if found == VERSION.to_string() {
        return Ok(());
    }
    Err(format!(
        "it has format version {found:?}, this is arrowembed {} and reads {VERSION}; upgrade arrowembed",
        env!("CARGO_PKG_VERSION")
    ))
}

/// The length and the dtype of the vectors.
fn check_schema(footer: Footer<'_>) -> Result<(usize, DType), String> {
    let fields = footer.schema().ok_or("its footer has no schema")?;
    if !fields.endianness().equals_to_target_endianness() {
        return Err("it is big-endian".to_owned());
    }
    let stored = try_fb_to_schema(fields).map_err(|e| format!("schema: {e}"))?;
    let same_column = |(stored, expected): (&Arc<Field>, &Arc<Field>)| {
        let same_type = match (stored.data_type(), expected.data_type()) {
            (DataType::FixedSizeList(a, n), DataType::FixedSizeList(b, m)) => {
                n == m && a.data_type() == b.data_type()
            }
            (a, b) => a == b,
        };
        stored.name() == expected.name() && same_type
    };
    let dim = match stored.fields().first().map(|field| field.data_type()) {
        Some(DataType::FixedSizeList(_, dim)) => usize::try_from(*dim).unwrap_or(0),
        _ => 0,
    };
    if (1..=MOST_DIMENSIONS).contains(&dim) {
        for dtype in [DType::Float32, DType::Float16, DType::Int8] {
            let expected = schema(dim, dtype);
            if stored.fields().len() == expected.fields().len()
                && stored.fields().iter().zip(expected.fields()).all(same_column)
            {
                return Ok((dim, dtype));
            }
        }
    }
    let columns = stored.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type()));
    let columns: Vec<_> = columns.collect();
    Err(format!(
        "its columns are ({}), not those of a file of vectors of 1 to {MOST_DIMENSIONS} dimensions",
        columns.join(", ")
    ))
}

fn check_nodes(
    record: RecordBatch<'_>,
    rows: usize,
    elements: usize,
    dtype: DType,
) -> Result<(), String> {
    let mut expected = vec![rows, elements, rows];
    if dtype == DType::Int8 {
        expected.extend([rows, elements, rows, rows]);
    }
    let nodes = record.nodes().ok_or("its record has no nodes")?;
    let lengths = nodes.iter().map(arrow_ipc::FieldNode::length);
    if !lengths.eq(expected.into_iter().map(|length| length as i64)) {
        return Err("its columns have other lengths than its rows ask for".to_owned());
    }
    if nodes.iter().any(|node| node.null_count() != 0) {
        return Err("it has nulls".to_owned());
    }
    Ok(())
}

/// The buffers of a record.
struct Buffers<'a> {
    record: RecordBatch<'a>,
    body: Buffer,
}

impl Buffers<'_> {
    /// A buffer of exactly that many bytes, aligned to its elements.
    fn get(&self, name: &str, i: usize, len: usize, alignment: usize) -> Result<Buffer, String> {
        let buffers = self.record.buffers().ok_or("its record has no buffers")?;
        if i >= buffers.len() {
            return Err(format!("column {name:?} has no values"));
        }
        let found = buffers.get(i);
        let range = usize::try_from(found.offset()).ok().and_then(|start| {
            let stored = usize::try_from(found.length()).ok()?;
            (stored == len && start.checked_add(len)? <= self.body.len()).then_some(start)
        });
        let Some(start) = range else {
            return Err(format!(
                "column {name:?} has {} bytes at {}, expected are {len} within {}",
                found.length(),
                found.offset(),
                self.body.len()
            ));
        };
        let values = self.body.slice_with_length(start, len);
        if !(values.as_ptr() as usize).is_multiple_of(alignment) {
            return Err(format!("column {name:?} is not aligned to {alignment} bytes"));
        }
        Ok(values)
    }

    fn numbers<T: ArrowNativeType>(
        &self,
        name: &str,
        i: usize,
        count: usize,
    ) -> Result<ScalarBuffer<T>, String> {
        let values = self.get(name, i, count * size_of::<T>(), align_of::<T>())?;
        Ok(ScalarBuffer::new(values, 0, count))
    }
}
