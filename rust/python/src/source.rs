//! Where the engine behind a Python object comes from.

use std::sync::Arc;

use arrowembed::{CacheInfo, EmbeddingEngine, Engine, ModelConfig};
use pyo3::prelude::*;

use crate::monitor::Monitor;

/// An engine, or the name of one that is loaded whenever something is asked of it.
pub(crate) enum Source {
    Own(Arc<Engine>),
    Registered { engines: Arc<EmbeddingEngine>, name: String, config: ModelConfig },
}

impl Source {
    /// What `work` makes of the engine, without the GIL. That is also how the engine is let go: the last who
    /// holds it after it was unloaded unmaps its files.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Engine) -> T + Send,
    ) -> PyResult<T> {
        let engine = self.engine(py)?;
        Ok(py.detach(|| {
            let result = work(&engine);
            drop(engine);
            if let Self::Registered { engines, name, .. } = self {
                engines.touch(name);
            }
            result
        }))
    }

    /// The engine, loaded if it was not.
    pub(crate) fn engine(&self, py: Python<'_>) -> PyResult<Arc<Engine>> {
        let (engines, name, config) = match self {
            Self::Own(engine) => return Ok(Arc::clone(engine)),
            Self::Registered { engines, name, config } => (engines, name, config),
        };
        let mut monitor = Monitor::new(None);
        let result = py.detach(|| {
            let mut ask = |done: usize, all: usize| monitor.ask((done, all));
            engines.load_registered(name, config, Some(&mut ask))
        });
        monitor.result(py, result)
    }

    /// What the cache holds; nothing if the model is not loaded.
    pub(crate) fn cache_info(&self, py: Python<'_>) -> CacheInfo {
        let (engines, name, config) = match self {
            Self::Own(engine) => return engine.cache_info(),
            Self::Registered { engines, name, config } => (engines, name, config),
        };
        py.detach(|| match engines.peek(name, config) {
            Some(engine) => engine.cache_info(),
            None => CacheInfo {
                max_entries: config.cache().entries,
                max_bytes: config.cache().bytes,
                ..CacheInfo::default()
            },
        })
    }

    /// Empties the cache, which is empty if the model is not loaded.
    pub(crate) fn cache_clear(&self, py: Python<'_>) {
        py.detach(|| match self {
            Self::Own(engine) => engine.cache_clear(),
            Self::Registered { engines, name, config } => {
                if let Some(engine) = engines.peek(name, config) {
                    engine.cache_clear();
                }
            }
        });
    }
}
