//! `convert` and `verify`.

use std::path::PathBuf;

use arrowembed::ConvertOptions;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::errors::Raise;
use crate::monitor::Monitor;

#[pyfunction]
#[pyo3(signature = (
    source, target, *, dtype="float16", layout="packed", format="arrow", compression="none",
    name=None, on_progress=None,
))]
#[allow(clippy::too_many_arguments)] // keyword arguments, named on Python's side
#[allow(clippy::needless_pass_by_value)] // arguments come from Python by value
pub(crate) fn convert<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    dtype: &str,
    layout: &str,
    format: &str,
    compression: &str,
    name: Option<String>,
    on_progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = ConvertOptions {
        dtype: dtype.parse().raise(py)?,
        arrangement: layout.parse().raise(py)?,
        format: format.parse().raise(py)?,
        compression: compression.parse().raise(py)?,
        name,
    };
    let mut monitor = Monitor::new(on_progress);
    let result = py.detach(|| {
        let mut ask = |done: usize, all: usize| monitor.ask((done, all));
        arrowembed::convert(&source, &target, &options, &mut ask)
    });
    let report = monitor.result(py, result)?;
    let tensors = PyList::empty(py);
    for tensor in report.tensors {
        let dict = PyDict::new(py);
        dict.set_item("name", tensor.name)?;
        dict.set_item("shape", tensor.shape)?;
        dict.set_item("dtype", tensor.dtype.name())?;
        dict.set_item("layout", tensor.layout)?;
        dict.set_item("relative_error", tensor.relative_error)?;
        dict.set_item("fallback", tensor.fallback)?;
        tensors.append(dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("path", report.path.to_string_lossy())?;
    dict.set_item("bytes", report.bytes)?;
    dict.set_item("source_bytes", report.source_bytes)?;
    dict.set_item("source_sha256", report.source_sha256)?;
    dict.set_item("tensors", tensors)?;
    Ok(dict)
}

#[pyfunction]
#[pyo3(signature = (path, on_progress=None))]
#[allow(clippy::needless_pass_by_value)] // as above
pub(crate) fn verify(
    py: Python<'_>,
    path: PathBuf,
    on_progress: Option<Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let mut monitor = Monitor::new(on_progress);
    let result = py.detach(|| {
        arrowembed::verify(&path, &mut |done: usize, all: usize| monitor.ask((done, all)))
    });
    monitor.result(py, result)
}
