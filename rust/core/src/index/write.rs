//! Writing files of vectors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float16Type, Float32Type, Int8Type};
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, PrimitiveArray, RecordBatch,
};
use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::Field;
use half::f16;

use super::exact;
use super::file::{MOST_DIMENSIONS, MOST_ROWS, VERSION, VERSION_KEY, schema};
use crate::error::{Error, Result};
use crate::folder::sync_folder;
use crate::weights::DType;
use crate::weights::embedded::{CHECKSUMS_KEY, sha256_hex};
use crate::weights::write::{ALIGNMENT, arrow_error};

/// The largest code; as many below zero as above.
const LARGEST_CODE: f32 = 127.0;

/// See [`super::VectorFile::write`].
pub(super) fn write(path: &Path, vectors: &[f32], dim: usize, dtype: DType) -> Result<()> {
    check(vectors, dim)?;
    let columns = columns(vectors, dim, dtype)?;
    let path = std::path::absolute(path).map_err(Error::io(path))?;
    let folder = path.parent().ok_or_else(|| {
        Error::argument("path", format!("is {}, which is no file's name", path.display()))
    })?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".arrowembed-");
    // Temporary files are private by default; this one becomes an ordinary one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder).map_err(Error::io(folder))?;
    write_columns(temporary.as_file(), &path, columns, dim, dtype)?;
    temporary.as_file().sync_all().map_err(Error::io(&path))?;
    temporary.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
    sync_folder(folder)
}

fn check(vectors: &[f32], dim: usize) -> Result<()> {
    if !(1..=MOST_DIMENSIONS).contains(&dim) {
        let reason = format!("have {dim} dimensions, allowed are 1 to {MOST_DIMENSIONS}");
        return Err(Error::argument("vectors", reason));
    }
    let rows = vectors.len() / dim;
    if rows * dim != vectors.len() {
        let reason = format!("have {} elements, not a multiple of {dim}", vectors.len());
        return Err(Error::argument("vectors", reason));
    }
    if !(1..=MOST_ROWS).contains(&rows) {
        let reason = format!("are {rows}, allowed in a file are 1 to {MOST_ROWS}");
        return Err(Error::argument("vectors", reason));
    }
    all_finite("vectors", vectors, dim)
}

/// Refuses vectors with a NaN or an infinity.
pub(super) fn all_finite(name: &'static str, vectors: &[f32], dim: usize) -> Result<()> {
    let Some(at) = vectors.iter().position(|x| !x.is_finite()) else { return Ok(()) };
    let (row, column, x) = (at / dim, at % dim, vectors[at]);
    let reason = format!("have {x} in row {row}, column {column}; all numbers must be finite");
    Err(Error::argument(name, reason))
}

/// The columns of a file and the bytes of their values, which the checksums are of.
type Column = (ArrayRef, Buffer);

fn columns(vectors: &[f32], dim: usize, dtype: DType) -> Result<Vec<Column>> {
    match dtype {
        DType::Float32 => Ok(vec![
            list::<Float32Type>(ScalarBuffer::from(vectors.to_vec()), dim),
            norms(vectors, dim),
        ]),
        DType::Float16 => {
            let halves: Vec<f16> = vectors.iter().map(|&x| f16::from_f32(x)).collect();
            if let Some(at) = halves.iter().position(|x| !x.is_finite()) {
                let reason = format!(
                    "have {} in row {}, column {}, which is beyond float16; use float32",
                    vectors[at],
                    at / dim,
                    at % dim
                );
                return Err(Error::argument("vectors", reason));
            }
            let rounded: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
            let norms = norms(&rounded, dim);
            Ok(vec![list::<Float16Type>(ScalarBuffer::from(halves), dim), norms])
        }
        DType::Int8 => {
            let Codes { elements, scales, residuals } = encode(vectors, dim);
            Ok(vec![
                list::<Float32Type>(ScalarBuffer::from(vectors.to_vec()), dim),
                norms(vectors, dim),
                list::<Int8Type>(ScalarBuffer::from(elements), dim),
                floats(scales),
                floats(residuals),
            ])
        }
        DType::BFloat16 | DType::Int16 => {
            let reason = format!("is {}, allowed are float32, float16, int8", dtype.name());
            Err(Error::argument("dtype", reason))
        }
    }
}

fn list<T: ArrowPrimitiveType>(numbers: ScalarBuffer<T::Native>, dim: usize) -> Column
where
    T::Native: ArrowNativeType,
{
    let bytes = numbers.inner().clone();
    let item = Arc::new(Field::new("item", T::DATA_TYPE, false));
    let numbers = Arc::new(PrimitiveArray::<T>::new(numbers, None));
    (Arc::new(FixedSizeListArray::new(item, dim as i32, numbers, None)), bytes)
}

fn norms(vectors: &[f32], dim: usize) -> Column {
    let norms = Float64Array::from_iter_values(vectors.chunks_exact(dim).map(exact::norm));
    let bytes = norms.values().inner().clone();
    (Arc::new(norms), bytes)
}

fn floats(numbers: Vec<f32>) -> Column {
    let numbers = Float32Array::from(numbers);
    let bytes = numbers.values().inner().clone();
    (Arc::new(numbers), bytes)
}

/// Vectors as bytes with a scale for each.
struct Codes {
    elements: Vec<i8>,
    scales: Vec<f32>,
    residuals: Vec<f32>,
}

fn encode(vectors: &[f32], dim: usize) -> Codes {
    let rows = vectors.len() / dim;
    let mut encoded = Codes {
        elements: Vec::with_capacity(vectors.len()),
        scales: Vec::with_capacity(rows),
        residuals: Vec::with_capacity(rows),
    };
    for vector in vectors.chunks_exact(dim) {
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = largest / LARGEST_CODE;
        // A scale that is zero or subnormal would lose what the codes have.
        let scale = if scale >= f32::MIN_POSITIVE { scale } else { 1.0 };
        let mut left = 0.0_f64;
        for &x in vector {
            let code = (x / scale).round_ties_even().clamp(-LARGEST_CODE, LARGEST_CODE);
            // Exact: a product of 24 and 8 bits.
            let rest = f64::from(x) - f64::from(scale) * f64::from(code);
            left += rest * rest;
            encoded.elements.push(code as i8);
        }
        encoded.scales.push(scale);
        encoded.residuals.push(rounded_up(left.sqrt()));
    }
    encoded
}

/// A float not below a number, which has been rounded by up to 2⁻³⁰ of it.
fn rounded_up(x: f64) -> f32 {
    if x == 0.0 { 0.0 } else { (x as f32).next_up().next_up() }
}

fn write_columns(
    file: &File,
    path: &Path,
    columns: Vec<Column>,
    dim: usize,
    dtype: DType,
) -> Result<()> {
    let schema = Arc::new(schema(dim, dtype));
    let names = schema.fields().iter().map(|field| field.name().clone());
    let checksums: BTreeMap<_, _> =
        names.zip(columns.iter().map(|(_, bytes)| sha256_hex(bytes))).collect();
    let checksums = serde_json::to_string(&checksums)
        .map_err(|e| Error::invalid_vectors(path, e.to_string()))?;
    let arrays = columns.into_iter().map(|(array, _)| array).collect();
    let write = || {
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        let mut writer = FileWriter::try_new_with_options(BufWriter::new(file), &schema, options)?;
        writer.write(&batch)?;
        writer.write_metadata(VERSION_KEY, VERSION.to_string());
        writer.write_metadata(CHECKSUMS_KEY, checksums);
        writer.finish()
    };
    write().map_err(arrow_error(path))
}
