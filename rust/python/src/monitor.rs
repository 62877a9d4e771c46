//! Signals and progress while the GIL is released.

use std::ops::ControlFlow;

use arrowembed::{Error, Result};
use pyo3::prelude::*;

use crate::errors::Raise;

/// What a running call asks now and then: whether a signal is pending, and the caller's callback.
pub(crate) struct Monitor {
    on_progress: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Monitor {
    pub(crate) fn new(on_progress: Option<Bound<'_, PyAny>>) -> Self {
        Self { on_progress: on_progress.map(Bound::unbind), raised: None }
    }

    /// Attaches to Python for a moment; what is raised there stops the call.
    pub(crate) fn ask<'py, A>(&mut self, arguments: A) -> ControlFlow<()>
    where
        A: for<'a> pyo3::call::PyCallArgs<'a>,
    {
        let asked = Python::attach(|py| {
            py.check_signals()?;
            self.on_progress.as_ref().map(|callback| callback.call1(py, arguments)).transpose()
        });
        match asked {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                self.raised = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// The call's result, where an interruption is what was raised in Python.
    pub(crate) fn result<T>(self, py: Python<'_>, result: Result<T>) -> PyResult<T> {
        match (result, self.raised) {
            (Err(Error::Interrupted), Some(raised)) => Err(raised),
            (result, _) => result.raise(py),
        }
    }
}
