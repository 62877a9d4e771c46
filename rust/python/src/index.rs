//! `VectorFile` and `search_vectors`.

use std::path::PathBuf;
use std::sync::Arc;

use arrowembed::{DType, Error, SearchOptions, VectorFile as Core};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::arguments::count;
use crate::arrow::ArrowArray;
use crate::errors::Raise;
use crate::monitor::Monitor;
use crate::quantize::{array, contiguous};

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct VectorFile(Arc<Core>);

#[pymethods]
#[allow(clippy::needless_pass_by_value)] // as PyO3 hands them over
impl VectorFile {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| Core::open(&path));
        Ok(Self(Arc::new(opened.raise(py)?)))
    }

    #[staticmethod]
    #[pyo3(signature = (path, vectors, dtype="float32"))]
    fn write(
        py: Python<'_>,
        path: PathBuf,
        vectors: &Bound<'_, PyArray2<f32>>,
        dtype: &str,
    ) -> PyResult<()> {
        let dtype = match dtype {
            "float32" => Ok(DType::Float32),
            "float16" => Ok(DType::Float16),
            "int8" => Ok(DType::Int8),
            other => Err(Error::InvalidArgument {
                name: "dtype",
                reason: format!("is {other:?}, allowed are float32, float16, int8"),
            }),
        }
        .raise(py)?;
        let vectors = contiguous(vectors)?;
        let (dim, numbers) = (vectors.shape()[1], vectors.as_slice()?);
        py.detach(|| Core::write(&path, numbers, dim, dtype)).raise(py)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.dtype().name()
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn take<'py>(
        &self,
        py: Python<'py>,
        rows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        // What is negative is beyond any row.
        let rows: Vec<usize> =
            rows.as_array().iter().map(|&row| usize::try_from(row).unwrap_or(usize::MAX)).collect();
        let taken = py.detach(|| self.0.take(&rows)).raise(py)?;
        array(py, rows.len(), self.0.dimension(), taken)
    }

    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        let mut monitor = Monitor::new(None);
        let result = py.detach(|| {
            let mut ask = |done: usize| monitor.ask((done,));
            self.0.verify(Some(&mut ask))
        });
        monitor.result(py, result)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        ArrowArray(self.0.to_arrow()).__arrow_c_schema__(py)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        ArrowArray(self.0.to_arrow()).__arrow_c_array__(py, requested_schema)
    }
}

type Found<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>);

#[pyfunction]
#[pyo3(signature = (files, queries, k, *, metric, keep=None))]
#[allow(clippy::needless_pass_by_value)] // as PyO3 hands them over
pub(crate) fn search_vectors<'py>(
    py: Python<'py>,
    files: Vec<PyRef<'py, VectorFile>>,
    queries: &Bound<'py, PyArray2<f32>>,
    k: &Bound<'py, PyAny>,
    metric: &str,
    keep: Option<Vec<Option<Bound<'py, PyArray1<u8>>>>>,
) -> PyResult<Found<'py>> {
    let files: Vec<Arc<Core>> = files.iter().map(|file| Arc::clone(&file.0)).collect();
    let files: Vec<&Core> = files.iter().map(AsRef::as_ref).collect();
    let mut options = SearchOptions::new(count("k", k)?).metric(metric.parse().raise(py)?);
    let keep = keep.map(|keep| keep.into_iter().map(|bits| bits.map(bitmap).transpose()).collect());
    let keep: Option<Vec<_>> = keep.transpose()?;
    if let Some(keep) = &keep {
        let bits = keep.iter().map(|bits| bits.as_ref().map(|bits| bits.as_slice()).transpose());
        options = options.keep(bits.collect::<Result<_, _>>()?);
    }
    let queries = contiguous(queries)?;
    let (rows, dim) = (queries.shape()[0], queries.shape()[1]);
    let numbers = queries.as_slice()?;
    let mut monitor = Monitor::new(None);
    let result = py.detach(|| {
        let mut ask = |done: usize| monitor.ask((done,));
        arrowembed::search_vectors(&files, numbers, dim, &options, Some(&mut ask))
    });
    let found = monitor.result(py, result)?;
    let per_query = found.per_query();
    let (found, similarities) = found.into_parts();
    // Rows of files are below 2³¹, and no process maps 2³² of them.
    let found = found.into_iter().map(|row| row as i64).collect();
    Ok((array(py, rows, per_query, found)?, array(py, rows, per_query, similarities)?))
}

/// A bitmap whose bytes lie one after the other.
fn bitmap(bits: Bound<'_, PyArray1<u8>>) -> PyResult<PyReadonlyArray1<'_, u8>> {
    if bits.is_c_contiguous() {
        return Ok(bits.readonly());
    }
    let numpy = bits.py().import("numpy")?;
    let copy = numpy.call_method1("ascontiguousarray", (bits,))?;
    Ok(copy.cast_into::<PyArray1<u8>>().map_err(PyErr::from)?.readonly())
}
