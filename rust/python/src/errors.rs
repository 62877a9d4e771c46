//! From the core's errors to the exceptions of `arrowembed.errors`.

use arrowembed::{Error, Result};
use pyo3::prelude::*;

/// Turns a core result into a Python one.
pub(crate) trait Raise<T> {
    fn raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> Raise<T> for Result<T> {
    fn raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}

/// The exception for a core error, with its `code`.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Interrupted => {
            // A pending signal is what usually interrupts.
            if let Err(signal) = py.check_signals() {
                return signal;
            }
        }
        Error::Io { path, source } if source.raw_os_error().is_some() => {
            // `OSError` takes errno, strerror and filename apart.
            let strerror = source.to_string();
            let strerror = strerror.split(" (os error").next().unwrap_or(&strerror);
            let arguments = (source.raw_os_error(), strerror, path.as_os_str());
            return new(py, class(error), arguments, error.code(), None);
        }
        _ => {}
    }
    let index = match error {
        Error::TextTooLong { index, .. } | Error::NonFinite { index } => Some(*index),
        _ => None,
    };
    new(py, class(error), (error.to_string(),), error.code(), index)
}

/// The one table from the core's errors to exception classes.
fn class(error: &Error) -> &'static str {
    match error {
        Error::ModelNotFound { .. } => "ModelNotFoundError",
        Error::Io { .. } => "ModelIOError",
        Error::InvalidFile { .. }
        | Error::MissingTensor { .. }
        | Error::ShapeMismatch { .. }
        | Error::ChecksumMismatch { .. }
        | Error::InvalidConfig { .. } => "ModelFileError",
        Error::InvalidVectors { .. } => "StoreFileError",
        Error::UnsupportedModel { .. } => "UnsupportedModelError",
        Error::Tokenizer { .. } => "TokenizerError",
        Error::InvalidArgument { .. } => "InvalidArgumentError",
        Error::TextTooLong { .. } => "TextTooLongError",
        Error::NonFinite { .. } => "NonFiniteError",
        Error::OutOfMemory { .. } => "OutOfMemoryError",
        Error::MemoryBudget { .. } => "MemoryBudgetError",
        Error::Device { .. } => "DeviceError",
        Error::QueueFull { .. } => "QueueFullError",
        Error::Closed => "ClosedError",
        Error::Internal { .. } => "InternalError",
        Error::Interrupted => "ArrowEmbedError",
    }
}

/// Something that is no text was given where texts are expected.
pub(crate) fn text_type(py: Python<'_>, message: String, index: Option<usize>) -> PyErr {
    new(py, "TextTypeError", (message,), "text_type", index)
}

/// A text cannot be written as UTF-8.
pub(crate) fn invalid_text(py: Python<'_>, message: String, index: Option<usize>) -> PyErr {
    new(py, "InvalidTextError", (message,), "invalid_text", index)
}

/// A new exception of that class; whatever goes wrong in making it is raised instead.
fn new<'py>(
    py: Python<'py>,
    class: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
    code: &str,
    index: Option<usize>,
) -> PyErr {
    let make = || {
        let exception = py.import("arrowembed.errors")?.getattr(class)?.call1(arguments)?;
        exception.setattr("code", code)?;
        if let Some(index) = index {
            exception.setattr("index", index)?;
        }
        Ok(exception)
    };
    make().map_or_else(|error: PyErr| error, PyErr::from_value)
}
