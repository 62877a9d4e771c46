//! `quantize`.

use arrowembed::{Precision, Quantized, Ranges};
use numpy::ndarray::Array2;
use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::Raise;

#[pyfunction]
#[pyo3(signature = (embeddings, precision, ranges=None))]
pub(crate) fn quantize<'py>(
    py: Python<'py>,
    embeddings: &Bound<'py, PyArray2<f32>>,
    precision: &str,
    ranges: Option<&Bound<'py, PyArray2<f32>>>,
) -> PyResult<Bound<'py, PyAny>> {
    let precision: Precision = precision.parse().raise(py)?;
    if precision == Precision::Float32 {
        return Ok(embeddings.clone().into_any());
    }
    let embeddings = contiguous(embeddings)?;
    let ranges = ranges.map(contiguous).transpose()?;
    let (rows, dim) = (embeddings.shape()[0], embeddings.shape()[1]);
    let ranges = match &ranges {
        Some(array) => {
            let numbers = array.as_slice()?;
            let (low, high) = numbers.split_at(numbers.len() / 2);
            if array.shape()[0] != 2 {
                let reason = format!("have {} rows, two are expected", array.shape()[0]);
                let error = arrowembed::Error::InvalidArgument { name: "ranges", reason };
                return Err(error).raise(py);
            }
            Some(Ranges { low, high })
        }
        None => None,
    };
    let columns = match precision {
        Precision::Binary | Precision::Ubinary => dim.div_ceil(8),
        _ => dim,
    };
    let numbers = embeddings.as_slice()?;
    let quantized =
        py.detach(|| arrowembed::quantize(numbers, dim, precision, ranges)).raise(py)?;
    Ok(match quantized {
        Quantized::Float32(vectors) => array(py, rows, columns, vectors)?.into_any(),
        Quantized::Float16(vectors) => array(py, rows, columns, vectors)?.into_any(),
        Quantized::Int8(vectors) => array(py, rows, columns, vectors)?.into_any(),
        Quantized::Uint8(vectors) => array(py, rows, columns, vectors)?.into_any(),
    })
}

/// The array itself if its rows lie one after the other, else a copy.
pub(crate) fn contiguous<'py>(
    array: &Bound<'py, PyArray2<f32>>,
) -> PyResult<PyReadonlyArray2<'py, f32>> {
    if array.is_c_contiguous() {
        return Ok(array.readonly());
    }
    let numpy = array.py().import("numpy")?;
    let copy = numpy.call_method1("ascontiguousarray", (array,))?;
    Ok(copy.cast_into::<PyArray2<f32>>().map_err(PyErr::from)?.readonly())
}

/// An array of shape (rows, columns) that owns `numbers`, without a copy.
pub(crate) fn array<T: Element>(
    py: Python<'_>,
    rows: usize,
    columns: usize,
    numbers: Vec<T>,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    Array2::from_shape_vec((rows, columns), numbers)
        .map(|array| array.into_pyarray(py))
        .map_err(|e| PyValueError::new_err(e.to_string()))
}
