//! Where the engine behind a Python object comes from.

use std::ops::Deref;
use std::sync::Arc;

use arrowembed::EmbeddingEngine;
use pyo3::prelude::*;

use crate::monitor::Monitor;

/// An engine, or the name of one that is loaded whenever something is asked of it.
pub(crate) enum Source {
    Own(Arc<arrowembed::Engine>),
    Registered { engines: Arc<EmbeddingEngine>, name: String },
}

impl Source {
    /// The engine, for as long as the result lives.
    pub(crate) fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        let engine = match self {
            Self::Own(engine) => Arc::clone(engine),
            Self::Registered { engines, name } => {
                let mut monitor = Monitor::new(None);
                let loaded = py.detach(|| {
                    let mut ask = |done: usize, all: usize| monitor.ask((done, all));
                    engines.load_with(name, Some(&mut ask))
                });
                monitor.result(py, loaded)?
            }
        };
        Ok(Held { engine, source: self })
    }
}

/// An engine in use.
pub(crate) struct Held<'a> {
    engine: Arc<arrowembed::Engine>,
    source: &'a Source,
}

impl Deref for Held<'_> {
    type Target = arrowembed::Engine;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Source::Registered { engines, name } = self.source {
            engines.touch(name);
        }
    }
}
