//! Arrow columns in and out by the `PyCapsule` interface
//! (<https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>).

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use arrow_array::ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, make_array};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{ArrowError, DataType, Field};
use arrowembed::Embeddings;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::errors::{invalid_text, text_type};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// A column of texts in one or more pieces that share the memory of whoever gave it.
pub(crate) struct TextColumn(Vec<ArrayRef>);

impl TextColumn {
    /// Takes over the column that a Python object offers.
    pub(crate) fn import(column: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = column.py();
        let pieces = if column.hasattr("__arrow_c_stream__")? {
            import_stream(&column.call_method0("__arrow_c_stream__")?)?
        } else if column.hasattr("__arrow_c_array__")? {
            vec![import_array(&column.call_method0("__arrow_c_array__")?)?]
        } else {
            let given = column.get_type().name()?;
            return Err(text_type(
                py,
                format!(
                    "expected an Arrow column of strings, got {given}, which has neither \
                     __arrow_c_stream__ nor __arrow_c_array__; use encode for other collections"
                ),
                None,
            ));
        };
        for piece in &pieces {
            if !matches!(
                piece.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null
            ) {
                return Err(text_type(
                    py,
                    format!(
                        "expected an Arrow column of strings, got {}; pass one column of a table, \
                         and cast other types to strings",
                        piece.data_type()
                    ),
                    None,
                ));
            }
            // Offsets and UTF-8 are what the rest relies on; a producer may have got them wrong.
            piece
                .to_data()
                .validate_full()
                .map_err(|e| invalid_text(py, format!("the Arrow column is damaged: {e}"), None))?;
        }
        Ok(Self(pieces))
    }

    /// The texts in order, without a copy; the empty text stands for null.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::with_capacity(self.0.iter().map(Array::len).sum());
        for piece in &self.0 {
            match piece.data_type() {
                DataType::Utf8 => texts.extend(piece.as_string::<i32>().iter().map(or_empty)),
                DataType::LargeUtf8 => texts.extend(piece.as_string::<i64>().iter().map(or_empty)),
                DataType::Utf8View => texts.extend(piece.as_string_view().iter().map(or_empty)),
                _ => texts.extend(std::iter::repeat_n("", piece.len())),
            }
        }
        texts
    }

    /// Which texts are not null, or `None` if all are.
    fn validity(&self) -> Option<NullBuffer> {
        if self.0.iter().all(|piece| piece.logical_null_count() == 0) {
            return None;
        }
        let valid: BooleanBuffer = self
            .0
            .iter()
            .flat_map(|piece| {
                let nulls = piece.logical_nulls();
                (0..piece.len()).map(move |i| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i)))
            })
            .collect();
        Some(NullBuffer::new(valid))
    }

    /// The texts' vectors as an array, null where the text is.
    pub(crate) fn vectors(&self, embeddings: Embeddings) -> PyResult<ArrowArray> {
        let dim = i32::try_from(embeddings.dim()).map_err(PyErr::from)?;
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let numbers = Arc::new(Float32Array::from(embeddings.into_vec()));
        FixedSizeListArray::try_new(item, dim, numbers, self.validity())
            .map(ArrowArray)
            .map_err(|e| PyValueError::new_err(e.to_string()))
    }
}

fn or_empty(text: Option<&str>) -> &str {
    text.unwrap_or_default()
}

fn import_array(capsules: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) = capsules.extract()?;
    let schema: NonNull<FFI_ArrowSchema> = schema.pointer_checked(Some(SCHEMA))?.cast();
    let array: NonNull<FFI_ArrowArray> = array.pointer_checked(Some(ARRAY))?.cast();
    // SAFETY: capsules of these names hold these structs, says the interface; the capsules outlive
    // this function. Taking an array over leaves an empty one, which its capsule does not release.
    #[allow(unsafe_code)]
    let data = unsafe { from_ffi(FFI_ArrowArray::from_raw(array.as_ptr()), schema.as_ref()) };
    Ok(make_array(data.map_err(arrow_error)?))
}

fn import_stream(capsule: &Bound<'_, PyAny>) -> PyResult<Vec<ArrayRef>> {
    let capsule = capsule.cast::<PyCapsule>()?;
    let stream: NonNull<FFI_ArrowArrayStream> = capsule.pointer_checked(Some(STREAM))?.cast();
    // SAFETY: as above.
    #[allow(unsafe_code)]
    let reader = unsafe { ArrayStreamReader::from_raw(stream.as_ptr()) }.map_err(arrow_error)?;
    reader.map(|array| array.map_err(arrow_error)).collect()
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn arrow_error(error: ArrowError) -> PyErr {
    PyRuntimeError::new_err(format!("reading the Arrow column: {error}"))
}

/// A FixedSizeList<float32> array for whoever imports Arrow arrays.
#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct ArrowArray(pub(crate) FixedSizeListArray);

#[pymethods]
impl ArrowArray {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn __arrow_c_schema__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.data_type()).map_err(arrow_error)?;
        PyCapsule::new_with_value(py, schema, SCHEMA)
    }

    /// The interface lets a producer pass over the schema that is asked for.
    #[pyo3(signature = (requested_schema=None))]
    pub(crate) fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        let _ = requested_schema;
        let (array, schema) = to_ffi(&self.0.to_data()).map_err(arrow_error)?;
        Ok((
            PyCapsule::new_with_value(py, schema, SCHEMA)?,
            PyCapsule::new_with_value(py, array, ARRAY)?,
        ))
    }
}
