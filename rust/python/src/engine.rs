//! `Engine`.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;

use arrowembed::{CacheLimits, EncodeStats};
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{Options, in_range, optional_count};
use crate::arrow::{ArrowArray, TextColumn};
use crate::errors::Raise;
use crate::monitor::Monitor;
use crate::quantize::array;
use crate::texts::texts;

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct Engine(arrowembed::Engine);

type Matrix<'py> = Bound<'py, PyArray2<f32>>;
type Stats<'py> = Bound<'py, PyDict>;
/// Token ids, token type ids, length in tokens before truncation.
type Tokens = (Vec<u32>, Vec<u32>, usize);

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments, named on Python's side
impl Engine {
    #[new]
    #[pyo3(signature = (
        path, *, device="cpu", compute=None, cache_entries=Some(10_000), cache_bytes=None,
        cache_dir=None, max_seq_length=None, verify=false,
    ))]
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
    ) -> PyResult<Self> {
        let limits = CacheLimits {
            entries: cache_entries,
            bytes: optional_count("cache_bytes", cache_bytes)?,
        };
        let mut builder = arrowembed::Engine::builder().device(device).cache(limits).verify(verify);
        if let Some(name) = compute {
            builder = builder.compute(name.parse().raise(py)?);
        }
        if let Some(folder) = cache_dir {
            builder = builder.cache_dir(folder);
        }
        if let Some(tokens) = optional_count("max_seq_length", max_seq_length)? {
            builder = builder.max_seq_length(tokens);
        }
        // Vectors are handed over as NumPy arrays. To import that takes a fresh process longer than
        // to open a model, so both are done at once.
        thread::scope(|scope| {
            let opening = thread::Builder::new().spawn_scoped(scope, || builder.open(path))?;
            let numpy = py.import("numpy");
            let opened = py.detach(|| opening.join()).unwrap_or_else(|panic| resume_unwind(panic));
            numpy?;
            opened.raise(py).map(Self)
        })
    }

    #[pyo3(signature = (
        texts, *, prompt="", pooling=None, normalize=None, truncate_dim=None, max_texts=None,
        truncate=true, on_progress=None,
    ))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        prompt: &str,
        pooling: Option<&str>,
        normalize: Option<&Bound<'py, PyAny>>,
        truncate_dim: Option<&Bound<'py, PyAny>>,
        max_texts: Option<&Bound<'py, PyAny>>,
        truncate: bool,
        on_progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Matrix<'py>, Stats<'py>)> {
        let options = Options { prompt, pooling, normalize, truncate_dim, max_texts, truncate };
        let options = options.read(py)?;
        let texts = self::texts(texts)?;
        let mut monitor = Monitor::new(on_progress);
        let result = py.detach(|| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            self.0.encode_with(&texts, &options, Some(&mut ask))
        });
        let embeddings = monitor.result(py, result)?;
        let (rows, dim, stats) = (embeddings.len(), embeddings.dim(), embeddings.stats());
        Ok((array(py, rows, dim, embeddings.into_vec())?, dict(py, stats)?))
    }

    #[pyo3(signature = (
        texts, *, prompt="", normalize=None, max_texts=None, truncate=true, on_progress=None,
    ))]
    fn encode_tokens<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        prompt: &str,
        normalize: Option<&Bound<'py, PyAny>>,
        max_texts: Option<&Bound<'py, PyAny>>,
        truncate: bool,
        on_progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Vec<Matrix<'py>>, Stats<'py>)> {
        let (pooling, truncate_dim) = (None, None);
        let options = Options { prompt, pooling, normalize, truncate_dim, max_texts, truncate };
        let options = options.read(py)?;
        let texts = self::texts(texts)?;
        let mut monitor = Monitor::new(on_progress);
        let result = py.detach(|| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            self.0.encode_tokens_with(&texts, &options, Some(&mut ask))
        });
        let embeddings = monitor.result(py, result)?;
        let (dim, stats) = (embeddings.dim(), embeddings.stats());
        let matrices = embeddings.into_texts().into_iter();
        let matrices = matrices.map(|numbers| array(py, numbers.len() / dim, dim, numbers));
        Ok((matrices.collect::<PyResult<_>>()?, dict(py, stats)?))
    }

    #[pyo3(signature = (
        column, *, prompt="", pooling=None, normalize=None, truncate_dim=None, max_texts=None,
        truncate=true,
    ))]
    fn encode_arrow<'py>(
        &self,
        py: Python<'py>,
        column: &Bound<'py, PyAny>,
        prompt: &str,
        pooling: Option<&str>,
        normalize: Option<&Bound<'py, PyAny>>,
        truncate_dim: Option<&Bound<'py, PyAny>>,
        max_texts: Option<&Bound<'py, PyAny>>,
        truncate: bool,
    ) -> PyResult<(ArrowArray, Stats<'py>)> {
        let options = Options { prompt, pooling, normalize, truncate_dim, max_texts, truncate };
        let options = options.read(py)?;
        let column = TextColumn::import(column)?;
        let mut monitor = Monitor::new(None);
        let result = py.detach(|| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            self.0.encode_with(&column.texts(), &options, Some(&mut ask))
        });
        let embeddings = monitor.result(py, result)?;
        let stats = dict(py, embeddings.stats())?;
        Ok((column.vectors(embeddings)?, stats))
    }

    #[pyo3(signature = (texts, *, prompt="", truncate=true))]
    fn tokenize(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        prompt: &str,
        truncate: bool,
    ) -> PyResult<Vec<Tokens>> {
        let options = arrowembed::EncodeOptions::new().prompt(prompt).truncate(truncate);
        let texts = self::texts(texts)?;
        let mut monitor = Monitor::new(None);
        let result = py.detach(|| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            self.0.tokenize(&texts, &options, Some(&mut ask))
        });
        let tokens = monitor.result(py, result)?;
        Ok(tokens.into_iter().map(|t| (t.ids, t.type_ids, t.full_length)).collect())
    }

    #[pyo3(signature = (ids, *, skip_special_tokens=false))]
    fn decode(&self, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let py = ids.py();
        let ids: Vec<u32> = in_range("ids", ids, u32::MAX.into())?;
        py.detach(|| self.0.decode(&ids, skip_special_tokens)).raise(py)
    }

    fn metadata(&self) -> PyResult<String> {
        serde_json::to_string_pretty(self.0.metadata())
            .map_err(|e| pyo3::exceptions::PyValueError::new_err(e.to_string()))
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.0.info().raise(py)?;
        let dict = PyDict::new(py);
        dict.set_item("path", info.path.to_string_lossy())?;
        dict.set_item("weights_bytes", info.weights_bytes)?;
        dict.set_item("mapped", info.mapped)?;
        dict.set_item("device", info.device)?;
        dict.set_item("isa", info.isa)?;
        dict.set_item("compute", info.compute.name())?;
        dict.set_item("num_threads", info.num_threads)?;
        dict.set_item("hidden_size", info.dimensions.hidden_size)?;
        dict.set_item("embedding_size", info.embedding_size)?;
        dict.set_item("num_hidden_layers", info.dimensions.num_hidden_layers)?;
        dict.set_item("num_parameters", info.num_parameters)?;
        dict.set_item("vocab_size", info.dimensions.vocab_size)?;
        dict.set_item("max_seq_length", info.max_seq_length)?;
        dict.set_item("dtypes", info.dtypes)?;
        Ok(dict)
    }

    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.0.cache_info();
        let dict = PyDict::new(py);
        dict.set_item("entries", info.entries)?;
        dict.set_item("bytes", info.bytes)?;
        dict.set_item("hits", info.hits)?;
        dict.set_item("misses", info.misses)?;
        dict.set_item("max_entries", info.max_entries)?;
        dict.set_item("max_bytes", info.max_bytes)?;
        Ok(dict)
    }

    fn cache_clear(&self) {
        self.0.cache_clear();
    }

    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Stats<'py>> {
        dict(py, self.0.totals())
    }
}

fn entries(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    optional_count("cache_entries", (!value.is_none()).then_some(value))
}

fn dict(py: Python<'_>, stats: EncodeStats) -> PyResult<Stats<'_>> {
    let dict = PyDict::new(py);
    dict.set_item("texts", stats.texts)?;
    dict.set_item("tokens", stats.tokens)?;
    dict.set_item("truncated", stats.truncated)?;
    dict.set_item("cache_hits", stats.cache_hits)?;
    Ok(dict)
}
