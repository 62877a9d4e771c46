//! `EmbeddingEngine`.

use std::sync::Arc;
use std::time::Duration;

use arrowembed::{EngineConfig, Error};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{in_range, optional_count};
use crate::engine::Engine;
use crate::errors::Raise;
use crate::model_config::ModelConfig;
use crate::monitor::Monitor;
use crate::source::Source;

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct EmbeddingEngine(Arc<arrowembed::EmbeddingEngine>);

#[pymethods]
impl EmbeddingEngine {
    #[new]
    #[pyo3(signature = (
        *, memory_budget=None, when_full="refuse", idle_timeout=None, num_threads=None,
    ))]
    fn new(
        py: Python<'_>,
        memory_budget: Option<&Bound<'_, PyAny>>,
        when_full: &str,
        idle_timeout: Option<f64>,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut builder = EngineConfig::builder().when_full(when_full.parse().raise(py)?);
        if let Some(bytes) = memory_budget {
            builder = builder.memory_budget(in_range("memory_budget", bytes, u64::MAX)?);
        }
        if let Some(seconds) = idle_timeout {
            let timeout = Duration::try_from_secs_f64(seconds).map_err(|error| {
                let reason = format!("is {seconds} seconds: {error}");
                Error::InvalidArgument { name: "idle_timeout", reason }
            });
            builder = builder.idle_timeout(timeout.raise(py)?);
        }
        if let Some(threads) = optional_count("num_threads", num_threads)? {
            builder = builder.num_threads(threads);
        }
        Self::of(py, builder.build())
    }

    #[staticmethod]
    fn from_env(py: Python<'_>) -> PyResult<Self> {
        Self::of(py, EngineConfig::from_env())
    }

    fn register(&self, py: Python<'_>, name: &str, config: &ModelConfig) -> PyResult<()> {
        self.0.register(name, config.0.clone()).raise(py)
    }

    /// A door to a model, which is loaded when something is asked of it; closed when the name stands for another
    /// model than that of `config`.
    fn engine(&self, name: &str, config: &ModelConfig) -> Engine {
        Engine::of(Source::Registered {
            engines: Arc::clone(&self.0),
            name: name.to_owned(),
            config: config.0.clone(),
        })
    }

    #[pyo3(signature = (name, on_progress=None))]
    fn load(
        &self,
        py: Python<'_>,
        name: &str,
        on_progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // Vectors are handed over as NumPy arrays; see `Engine`.
        py.import("numpy")?;
        let mut monitor = Monitor::new(on_progress);
        let result = py.detach(|| {
            let mut ask = |done: usize, all: usize| monitor.ask((done, all));
            self.0.load_with(name, Some(&mut ask)).map(drop)
        });
        monitor.result(py, result)
    }

    #[pyo3(signature = (name, on_progress=None))]
    fn warmup(
        &self,
        py: Python<'_>,
        name: &str,
        on_progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut monitor = Monitor::new(on_progress);
        let result = py.detach(|| {
            let mut ask = |done: usize, all: usize| monitor.ask((done, all));
            self.0.warmup(name, Some(&mut ask))
        });
        monitor.result(py, result)
    }

    fn unload(&self, py: Python<'_>, name: &str) -> bool {
        py.detach(|| self.0.unload(name))
    }

    fn is_loaded(&self, name: &str) -> bool {
        self.0.is_loaded(name)
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let models = self.0.info().into_iter().map(|model| {
            let dict = PyDict::new(py);
            dict.set_item("name", model.name)?;
            dict.set_item("path", model.path.to_string_lossy())?;
            dict.set_item("bytes", model.bytes)?;
            dict.set_item("loaded_for", seconds(model.loaded_for))?;
            dict.set_item("idle_for", seconds(model.idle_for))?;
            Ok(dict)
        });
        models.collect()
    }
}

impl EmbeddingEngine {
    fn of(py: Python<'_>, config: arrowembed::Result<EngineConfig>) -> PyResult<Self> {
        let engines = config.and_then(arrowembed::EmbeddingEngine::new).raise(py)?;
        Ok(Self(Arc::new(engines)))
    }
}
