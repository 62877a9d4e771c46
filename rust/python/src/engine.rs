//! `Engine`.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use arrowembed::{EncodeStats, Engine as Core};
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{Options, in_range};
use crate::arrow::{ArrowArray, TextColumn};
use crate::errors::Raise;
use crate::model_config::ModelConfig;
use crate::monitor::Monitor;
use crate::quantize::array;
use crate::source::Source;
use crate::texts::texts;

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct Engine(Source);

impl Engine {
    pub(crate) fn of(source: Source) -> Self {
        Self(source)
    }

    /// The engine, kept as long as somebody holds it.
    pub(crate) fn shared(&self, py: Python<'_>) -> PyResult<Arc<Core>> {
        self.0.engine(py)
    }
}

pub(crate) type Matrix<'py> = Bound<'py, PyArray2<f32>>;
pub(crate) type Stats<'py> = Bound<'py, PyDict>;
/// Token ids, token type ids, length in tokens before truncation.
type Tokens = (Vec<u32>, Vec<u32>, usize);
/// Id, text, whether the tokenizer adds it, where it starts and stops in the text.
type Token = (u32, String, bool, Option<usize>, Option<usize>);

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments, named on Python's side
impl Engine {
    /// Opens a model for this object alone.
    #[new]
    #[pyo3(signature = (config, on_progress=None))]
    fn new(
        py: Python<'_>,
        config: &ModelConfig,
        on_progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let config = &config.0;
        // Vectors are handed over as NumPy arrays. To import that takes a fresh process longer than
        // to open a model, so both are done at once.
        let engine = thread::scope(|scope| {
            let opening = thread::Builder::new().spawn_scoped(scope, || config.map())?;
            let numpy = py.import("numpy");
            let opened = py.detach(|| opening.join()).unwrap_or_else(|panic| resume_unwind(panic));
            numpy?;
            opened.raise(py)
        })?;
        let mut monitor = Monitor::new(on_progress);
        let result = py.detach(|| {
            let mut ask = |done: usize, all: usize| monitor.ask((done, all));
            config.make_resident(&engine, Some(&mut ask))
        });
        monitor.result(py, result)?;
        Ok(Self(Source::Own(Arc::new(engine))))
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
        let result = self.0.with(py, |engine| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            engine.encode_with(&texts, &options, Some(&mut ask))
        })?;
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
        let result = self.0.with(py, |engine| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            engine.encode_tokens_with(&texts, &options, Some(&mut ask))
        })?;
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
        let result = self.0.with(py, |engine| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            engine.encode_with(&column.texts(), &options, Some(&mut ask))
        })?;
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
        let result = self.0.with(py, |engine| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            engine.tokenize(&texts, &options, Some(&mut ask))
        })?;
        let tokens = monitor.result(py, result)?;
        Ok(tokens.into_iter().map(|t| (t.ids, t.type_ids, t.full_length)).collect())
    }

    #[pyo3(signature = (texts, *, prompt="", add_special_tokens=true))]
    fn tokenize_with_offsets(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        prompt: &str,
        add_special_tokens: bool,
    ) -> PyResult<Vec<Vec<Token>>> {
        let texts = self::texts(texts)?;
        let mut monitor = Monitor::new(None);
        let result = self.0.with(py, |engine| {
            let mut ask = |finished: usize| monitor.ask((finished,));
            engine.tokenize_with_offsets(&texts, prompt, add_special_tokens, Some(&mut ask))
        })?;
        let of_text = |tokens: Vec<arrowembed::Token>| tokens.into_iter().map(token).collect();
        Ok(monitor.result(py, result)?.into_iter().map(of_text).collect())
    }

    #[pyo3(signature = (ids, *, skip_special_tokens=false))]
    fn decode(&self, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let py = ids.py();
        let ids: Vec<u32> = in_range("ids", ids, u32::MAX.into())?;
        self.0.with(py, |engine| engine.decode(&ids, skip_special_tokens))?.raise(py)
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<String> {
        self.0
            .with(py, |engine| serde_json::to_string_pretty(engine.metadata()))?
            .map_err(|e| pyo3::exceptions::PyValueError::new_err(e.to_string()))
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.0.with(py, Core::info)?.raise(py)?;
        let dict = PyDict::new(py);
        dict.set_item("path", info.path.to_string_lossy())?;
        dict.set_item("weights_bytes", info.weights_bytes)?;
        dict.set_item("mapped", info.mapped)?;
        dict.set_item("short_of_memory", info.short_of_memory)?;
        dict.set_item("device", info.device)?;
        dict.set_item("isa", info.isa)?;
        dict.set_item("compute", info.compute.name())?;
        dict.set_item("num_threads", info.num_threads)?;
        dict.set_item("hidden_size", info.dimensions.hidden_size)?;
        dict.set_item("embedding_size", info.embedding_size)?;
        dict.set_item("matryoshka_dimensions", info.matryoshka_dimensions)?;
        dict.set_item("num_hidden_layers", info.dimensions.num_hidden_layers)?;
        dict.set_item("num_parameters", info.num_parameters)?;
        dict.set_item("vocab_size", info.dimensions.vocab_size)?;
        dict.set_item("max_seq_length", info.max_seq_length)?;
        dict.set_item("dtypes", info.dtypes)?;
        Ok(dict)
    }

    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.0.cache_info(py);
        let dict = PyDict::new(py);
        dict.set_item("entries", info.entries)?;
        dict.set_item("bytes", info.bytes)?;
        dict.set_item("hits", info.hits)?;
        dict.set_item("misses", info.misses)?;
        dict.set_item("max_entries", info.max_entries)?;
        dict.set_item("max_bytes", info.max_bytes)?;
        Ok(dict)
    }

    fn cache_clear(&self, py: Python<'_>) {
        self.0.cache_clear(py);
    }

    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Stats<'py>> {
        dict(py, self.0.with(py, Core::totals)?)
    }
}

fn token(token: arrowembed::Token) -> Token {
    let special = token.span.is_none();
    let (start, stop) = token.span.map(|span| (span.start, span.end)).unzip();
    (token.id, token.text, special, start, stop)
}

pub(crate) fn dict(py: Python<'_>, stats: EncodeStats) -> PyResult<Stats<'_>> {
    let dict = PyDict::new(py);
    dict.set_item("texts", stats.texts)?;
    dict.set_item("tokens", stats.tokens)?;
    dict.set_item("truncated", stats.truncated)?;
    dict.set_item("cache_hits", stats.cache_hits)?;
    Ok(dict)
}
