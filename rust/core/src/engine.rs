//! The engine: open a model, then texts in and vectors out.

use std::fmt;
use std::path::Path;

use arrow_buffer::Buffer;

use crate::auto;
use crate::cache::{Cache, CacheInfo};
use crate::compute::Compute;
use crate::context::{self, Model};
use crate::embeddings::{Embeddings, EncodeStats, TokenEmbeddings};
use crate::error::{Error, Result};
use crate::info::{EngineInfo, FileInfo, Totals};
use crate::metadata::Metadata;
use crate::model_config::{ModelConfig, ModelConfigBuilder};
use crate::models::{self, Dimensions};
use crate::open::{OpenOptions, open};
use crate::ops::cpu::Isa;
use crate::options::EncodeOptions;
use crate::pipeline::{finite, monitor_of};
use crate::pool::Normalize;
use crate::resident::{available_memory, warn_if_short_of_memory};
use crate::threads::{self, Monitor};
use crate::tokenize::{Token, Tokenizer, Tokens};
use crate::weights::guard;

/// Texts that go through all steps together. Bounds what a call of millions of texts holds in memory
/// and does before its monitor is asked.
const WINDOW: usize = 4096;

/// A mapped model, for any number of threads.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// use arrowembed::Engine;
/// let engine = Engine::builder().cache_dir(folder.path()).open(model)?;
/// let embeddings = engine.encode(&["A cat sits on the mat.", "Ein Hund bellt."])?;
/// let [cat, dog] = [0, 1].map(|i| embeddings.row(i).unwrap());
/// let cosine: f32 = cat.iter().zip(dog).map(|(a, b)| a * b).sum();
/// assert!(cosine.abs() <= 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    pub(crate) model: Box<dyn Model>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) metadata: Metadata,
    pub(crate) dimensions: Dimensions,
    pub(crate) cache: Cache,
    pub(crate) totals: Totals,
    /// The files that the weights are used from, whole; none if they were copied to a device.
    pub(crate) maps: Vec<Buffer>,
    short_of_memory: bool,
    file: FileInfo,
    device: String,
    compute: Compute,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.file.path)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a model: a model folder, a model file or a Hugging Face folder.
    ///
    /// ```no_run
    /// let engine = arrowembed::Engine::open("models/all-MiniLM-L6-v2")?;
    /// # Ok::<(), arrowembed::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no model, its files are damaged, or it is of an unsupported kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Settings for opening a model.
    pub fn builder() -> ModelConfigBuilder {
        ModelConfig::builder()
    }

    /// Opens a model, unless `admit` refuses it, which is told its size in bytes once all is checked that can be
    /// checked without its weights: it may have other models make room.
    pub(crate) fn open_admitted(
        config: &ModelConfig,
        admit: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let device = &config.device;
        let _span = tracing::info_span!("open", device).entered();
        let compute = config.compute.map(|compute| compute.on_device(device)).transpose()?;
        let mut compute = compute.flatten();
        if device == "cpu" {
            Isa::wanted()?;
            if compute == Some(Compute::Auto) {
                compute = Some(auto::settle(config)?);
            }
        }
        let options =
            OpenOptions { cache_dir: config.cache_dir.clone(), compute, verify: config.verify };
        let opened = open(&config.path, &options)?;
        let metadata = opened.metadata;
        let dimensions = models::dimensions(&metadata.architecture, &metadata.config)?;
        let limit = config.max_seq_length.unwrap_or(metadata.max_seq_length);
        let most = dimensions.max_position_embeddings;
        if !(1..=most).contains(&limit) {
            return Err(Error::argument(
                "max_seq_length",
                format!("is {limit}, this model allows 1 to {most}"),
            ));
        }
        let tokenizer = Tokenizer::open(
            opened.tokenizer,
            dimensions.vocab_size,
            limit,
            metadata.do_lower_case,
        )?;
        let file = FileInfo::of(&*opened.weights, opened.path, opened.weights_bytes)?;
        admit(file.weights_bytes)?;
        let short_of_memory =
            warn_if_short_of_memory(file.weights_bytes, available_memory(), &file.path);
        let model = context::load(device, &metadata, &*opened.weights, opened.compute)?;
        let maps = opened.weights.maps();
        guard::check(&maps, &file.path)?;
        Ok(Self {
            maps: if model.mapped() { maps } else { Vec::new() },
            model,
            tokenizer,
            cache: Cache::new(config.cache),
            totals: Totals::default(),
            short_of_memory,
            file,
            compute: if device == "cpu" { opened.compute } else { Compute::Float32 },
            metadata,
            dimensions,
            device: device.clone(),
        })
    }

    /// The vectors of texts, in their order.
    ///
    /// # Errors
    /// As for [`encode_with`](Self::encode_with).
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Embeddings> {
        self.encode_with(texts, &EncodeOptions::new(), None)
    }

    /// The vectors of texts, in their order, with options; `monitor` sees the progress and can stop
    /// the call.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
    /// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
    /// use std::ops::ControlFlow;
    /// let mut done = 0;
    /// let mut monitor = |finished| { done = finished; ControlFlow::Continue(()) };
    /// engine.encode_with(&["one", "two"], &arrowembed::EncodeOptions::new(), Some(&mut monitor))?;
    /// assert_eq!(done, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for options outside what is allowed, [`Error::TextTooLong`] if
    /// truncation is refused, [`Error::Tokenizer`] if a text cannot be tokenized,
    /// [`Error::NonFinite`] if a vector comes out with a NaN or an infinity, [`Error::OutOfMemory`],
    /// and [`Error::Interrupted`] if the monitor says so.
    pub fn encode_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
        mut monitor: Option<Monitor<'_>>,
    ) -> Result<Embeddings> {
        let _span = tracing::info_span!("encode", texts = texts.len()).entered();
        let mut request = self.request(options)?;
        let mut out = Embeddings::zeroed(texts.len(), request.variant.dim)?;
        let places = out.data.chunks_mut(WINDOW * out.dim);
        for (window, vectors) in texts.chunks(WINDOW).zip(places) {
            let before = request.start;
            let mut ask = monitor.as_mut().map(|monitor| |finished| monitor(before + finished));
            if before > 0 {
                threads::ask(monitor_of(&mut ask), 0)?;
            }
            out.stats += self.encode_window(window, &request, vectors, monitor_of(&mut ask))?;
            request.start += window.len();
        }
        self.finish(out.stats, monitor)?;
        Ok(out)
    }

    /// The vectors of the tokens of texts, special tokens included, as the model computes them.
    ///
    /// # Errors
    /// As for [`encode_with`](Self::encode_with).
    pub fn encode_tokens<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<TokenEmbeddings> {
        self.encode_tokens_with(texts, &EncodeOptions::new(), None)
    }

    /// The vectors of the tokens of texts, with options; `pooling` and `truncate_dim` do not apply,
    /// and vectors are normalised, each for itself, only where the options say so. The cache has no
    /// part in it.
    ///
    /// # Errors
    /// As for [`encode_with`](Self::encode_with).
    pub fn encode_tokens_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
        mut monitor: Option<Monitor<'_>>,
    ) -> Result<TokenEmbeddings> {
        let _span = tracing::info_span!("encode_tokens", texts = texts.len()).entered();
        let request = self.request(options)?;
        let normalize = options.normalize.unwrap_or(Normalize::None);
        let dim = self.dimensions.hidden_size;
        let positions: Vec<usize> = (0..texts.len()).collect();
        let tokens = self.tokens(texts, &positions, &request, monitor_of(&mut monitor))?;
        let mut out: Vec<Vec<f32>> = vec![Vec::new(); texts.len()];
        let write = |i: usize, text: &mut Vec<f32>, hidden: &[f32]| {
            text.extend_from_slice(hidden);
            text.chunks_exact_mut(dim).for_each(|token| normalize.apply(token));
            finite(text, i)?;
            Ok(1)
        };
        let slots = out.iter_mut().collect();
        self.forward(&tokens, slots, (request.max_texts, true), monitor_of(&mut monitor), write)?;
        let mut stats = EncodeStats { texts: texts.len(), ..EncodeStats::default() };
        for tokens in &tokens {
            stats.add(1, tokens.ids.len(), tokens.full_length);
        }
        self.finish(stats, monitor)?;
        Ok(TokenEmbeddings { texts: out, dim, stats })
    }

    /// The tokens of texts as the model sees them, with the prompt and the limit of the options.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
    /// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
    /// let tokens = engine.tokenize(&["hello world"], &arrowembed::EncodeOptions::new(), None)?;
    /// assert_eq!(engine.decode(&tokens[0].ids, true)?, "hello world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::TextTooLong`] if truncation is refused, and
    /// [`Error::Interrupted`] if the monitor says so.
    pub fn tokenize<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Tokens>> {
        let positions: Vec<usize> = (0..texts.len()).collect();
        self.tokens(texts, &positions, &self.request(options)?, monitor)
    }

    /// All tokens of texts, not cut to the model's limit, and where they stand there. Each text has `prompt` before it,
    /// which may be empty; the tokens that models see around a text are among them if `add_special_tokens` says so.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
    /// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
    /// let tokens = &engine.tokenize_with_offsets(&["the mat"], "", false, None)?[0];
    /// assert_eq!((tokens[0].text.as_str(), tokens[0].span.clone()), ("the", Some(0..3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tokenizer`], and [`Error::Interrupted`] if the monitor says so.
    pub fn tokenize_with_offsets<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        prompt: &str,
        add_special_tokens: bool,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Vec<Token>>> {
        self.spans(texts, prompt, add_special_tokens, monitor)
    }

    /// The text that token ids stand for.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.tokenizer.decode(ids, skip_special_tokens)
    }

    /// What the model says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Longest input in tokens, special tokens included.
    pub fn max_seq_length(&self) -> usize {
        self.tokenizer.limit()
    }

    /// The file that is mapped.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Bytes of the model's weights, most of which processes share.
    pub fn weights_bytes(&self) -> u64 {
        self.file.weights_bytes
    }

    /// Length of a vector: the hidden size, or what the dense layers behind the pooling make of it.
    pub fn embedding_size(&self) -> usize {
        self.metadata.embedding_size(self.dimensions.hidden_size)
    }

    /// Whether the model's files are still what they were when they were mapped, as far as they have been read.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if one was cut short meanwhile, or its disk failed.
    pub(crate) fn check_files(&self) -> Result<()> {
        guard::check(&self.maps, &self.file.path)
    }

    /// What the engine knows of itself.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the environment asks for an impossible number of threads.
    pub fn info(&self) -> Result<EngineInfo> {
        Ok(EngineInfo {
            path: self.file.path.clone(),
            weights_bytes: self.file.weights_bytes,
            mapped: self.model.mapped(),
            short_of_memory: self.short_of_memory,
            device: self.device.clone(),
            isa: context::isa(),
            compute: self.compute,
            num_threads: threads::num_threads()?,
            dimensions: self.dimensions,
            embedding_size: self.embedding_size(),
            matryoshka_dimensions: self.metadata.matryoshka_dimensions.clone(),
            num_parameters: self.file.num_parameters,
            max_seq_length: self.max_seq_length(),
            dtypes: self.file.dtypes.clone(),
        })
    }

    /// What the cache holds and how it has served.
    pub fn cache_info(&self) -> CacheInfo {
        self.cache.info()
    }

    /// Empties the cache.
    pub fn cache_clear(&self) {
        self.cache.clear();
    }

    /// Sums over all calls of this engine.
    pub fn totals(&self) -> EncodeStats {
        self.totals.get()
    }
}
