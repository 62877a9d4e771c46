//! Numbers and names in arguments.

use arrowembed::{EncodeOptions, Error, Normalize};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::Raise;

/// A number of things, with an error of ours where Python's would be about overflow.
pub(crate) fn count(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    in_range(name, value, usize::MAX as u64)
}

/// The same where `None` is allowed.
pub(crate) fn optional_count(
    name: &'static str,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<usize>> {
    value.map(|value| count(name, value)).transpose()
}

/// A value that is read from Python ints from 0 to `most`.
pub(crate) fn in_range<'py, T: for<'a> FromPyObject<'a, 'py>>(
    name: &'static str,
    value: &Bound<'py, PyAny>,
    most: u64,
) -> PyResult<T> {
    value.extract().map_err(Into::into).or_else(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let reason = format!("is {}, allowed are 0 to {most}", value.repr()?);
            Err(Error::InvalidArgument { name, reason }).raise(value.py())
        } else {
            Err(error)
        }
    })
}

/// The name of a normalisation, or the p of a p-norm.
fn normalize(value: &Bound<'_, PyAny>) -> PyResult<Normalize> {
    if let Ok(name) = value.cast::<PyString>() {
        return name.to_str()?.parse().raise(value.py());
    }
    let p: f32 = value.extract().map_err(|_| {
        let given = value.get_type();
        PyTypeError::new_err(format!("normalize: expected a name or a number, got {given}"))
    })?;
    Normalize::p_norm(p).raise(value.py())
}

/// The options that the encoding methods share.
pub(crate) struct Options<'a, 'py> {
    pub(crate) prompt: &'a str,
    pub(crate) pooling: Option<&'a str>,
    pub(crate) normalize: Option<&'a Bound<'py, PyAny>>,
    pub(crate) truncate_dim: Option<&'a Bound<'py, PyAny>>,
    pub(crate) max_texts: Option<&'a Bound<'py, PyAny>>,
    pub(crate) truncate: bool,
}

impl Options<'_, '_> {
    pub(crate) fn read(self, py: Python<'_>) -> PyResult<EncodeOptions> {
        let mut options = EncodeOptions::new().prompt(self.prompt).truncate(self.truncate);
        if let Some(pooling) = self.pooling {
            options = options.pooling(pooling.parse().raise(py)?);
        }
        if let Some(value) = self.normalize {
            options = options.normalize(normalize(value)?);
        }
        if let Some(dim) = optional_count("truncate_dim", self.truncate_dim)? {
            options = options.truncate_dim(dim);
        }
        if let Some(max_texts) = optional_count("max_texts", self.max_texts)? {
            options = options.max_texts(max_texts);
        }
        Ok(options)
    }
}
