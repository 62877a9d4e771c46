//! From Python sequences to borrowed texts.

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use crate::errors::{invalid_text, text_type};

/// The texts of a sequence, without copying them.
pub(crate) fn texts(sequence: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedStr>> {
    if sequence.is_instance_of::<PyString>() {
        return Err(text_type(
            sequence.py(),
            "expected a list of texts, got a single text; put it into a list".to_owned(),
            None,
        ));
    }
    let mut texts = Vec::with_capacity(sequence.len().unwrap_or(0));
    for (position, item) in sequence.try_iter()?.enumerate() {
        texts.push(text(position, &item?)?);
    }
    Ok(texts)
}

fn text(position: usize, item: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    let py = item.py();
    let Ok(string) = item.cast::<PyString>() else {
        let remedy = if item.is_none() {
            "leave it out or put \"\" in its place"
        } else if item.is_instance_of::<PyBytes>() || item.is_instance_of::<PyByteArray>() {
            "decode it first, for example with .decode(\"utf-8\")"
        } else {
            "use str(...) if its written form is what you mean"
        };
        let what = if item.is_none() {
            "None".to_owned()
        } else {
            format!("of type {}", item.get_type().name()?)
        };
        return Err(text_type(
            py,
            format!("text {position} is {what}, not a str; {remedy}"),
            Some(position),
        ));
    };
    PyBackedStr::try_from(string.clone()).map_err(|error| {
        if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
            return error;
        }
        let at = error.value(py).getattr("start").and_then(|start| start.extract::<usize>());
        let place = at.map_or_else(|_| String::new(), |at| format!(" at character {at}"));
        invalid_text(
            py,
            format!(
                "text {position} holds half of a surrogate pair{place}, which is no character; \
                 text.encode(\"utf-8\", \"replace\").decode() puts \"?\" in its place"
            ),
            Some(position),
        )
    })
}
