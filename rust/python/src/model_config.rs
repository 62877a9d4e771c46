//! `ModelConfig`.

use std::path::PathBuf;

use arrowembed::{CacheLimits, Compute};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::optional_count;
use crate::errors::Raise;

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct ModelConfig(pub(crate) arrowembed::ModelConfig);

#[pymethods]
impl ModelConfig {
    #[new]
    #[pyo3(signature = (
        path, *, device="cpu", compute=None, cache_entries=Some(10_000), cache_bytes=None,
        cache_dir=None, max_seq_length=None, verify=false, preload=false, lock_memory=false,
    ))]
    #[allow(clippy::too_many_arguments)] // keyword arguments, named on Python's side
    fn new(
        py: Python<'_>,
        path: PathBuf,
        device: &str,
        compute: Option<&str>,
        #[pyo3(from_py_with = entries)] cache_entries: Option<usize>,
        cache_bytes: Option<&Bound<'_, PyAny>>,
        cache_dir: Option<PathBuf>,
        max_seq_length: Option<&Bound<'_, PyAny>>,
        verify: bool,
        preload: bool,
        lock_memory: bool,
    ) -> PyResult<Self> {
        let limits = CacheLimits {
            entries: cache_entries,
            bytes: optional_count("cache_bytes", cache_bytes)?,
        };
        let mut builder = arrowembed::ModelConfig::builder()
            .path(path)
            .device(device)
            .cache(limits)
            .verify(verify)
            .preload(preload)
            .lock_memory(lock_memory);
        if let Some(name) = compute {
            builder = builder.compute(name.parse().raise(py)?);
        }
        if let Some(folder) = cache_dir {
            builder = builder.cache_dir(folder);
        }
        if let Some(tokens) = optional_count("max_seq_length", max_seq_length)? {
            builder = builder.max_seq_length(tokens);
        }
        builder.build().raise(py).map(Self)
    }
}

/// What the environment says, as keyword arguments of `Embedder`.
#[pyfunction]
pub(crate) fn settings_from_env(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let config = arrowembed::ModelConfig::from_env().raise(py)?;
    let dict = PyDict::new(py);
    dict.set_item("name_or_path", config.path().as_os_str())?;
    dict.set_item("device", config.device())?;
    dict.set_item("compute", config.compute().map(Compute::name))?;
    dict.set_item("cache_size", config.cache().entries)?;
    dict.set_item("cache_bytes", config.cache().bytes)?;
    dict.set_item("max_seq_length", config.max_seq_length())?;
    dict.set_item("verify", config.verify())?;
    dict.set_item("preload", config.preload())?;
    dict.set_item("lock_memory", config.lock_memory())?;
    Ok(dict)
}

fn entries(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    optional_count("cache_entries", (!value.is_none()).then_some(value))
}
