//! The engine: open a model, then texts in and vectors out.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use crate::cache::{Cache, CacheInfo, Entry, Variant};
use crate::context::{self, Model};
use crate::embeddings::{Embeddings, EncodeStats, TokenEmbeddings};
use crate::error::{Error, Result};
use crate::info::{EngineInfo, FileInfo, Totals};
use crate::metadata::Metadata;
use crate::models::{self, Dimensions};
use crate::open::{OpenOptions, open};
use crate::options::{EncodeOptions, EngineBuilder};
use crate::plan::{MicroBatch, budget, plan};
use crate::pool::Normalize;
use crate::repeated::Repeated;
use crate::threads::{self, Monitor};
use crate::tokenize::{Tokenizer, Tokens};

/// Texts that go through all steps together. Bounds what a call of millions of texts holds in memory
/// and does before its monitor is asked.
const WINDOW: usize = 4096;

/// Texts that a worker tokenizes in one go.
const TEXTS_PER_JOB: usize = 16;

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
    model: Box<dyn Model>,
    tokenizer: Tokenizer,
    metadata: Metadata,
    dimensions: Dimensions,
    cache: Cache,
    totals: Totals,
    file: FileInfo,
    device: String,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.file.path)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A call's options with the model's own ways filled in.
struct Request<'a> {
    /// Position of the window's first text in the caller's input.
    start: usize,
    prompt: &'a str,
    variant: Variant,
    max_texts: usize,
    truncate: bool,
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
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    pub(crate) fn open_with(path: &Path, settings: EngineBuilder) -> Result<Self> {
        let EngineBuilder { device, cache, cache_dir, max_seq_length, verify } = settings;
        let _span = tracing::info_span!("open", device).entered();
        let opened = open(path, &OpenOptions { cache_dir, verify })?;
        let metadata = opened.metadata;
        let dimensions = models::dimensions(&metadata.architecture, &metadata.config)?;
        let limit = max_seq_length.unwrap_or(metadata.max_seq_length);
        let most = dimensions.max_position_embeddings;
        if !(1..=most).contains(&limit) {
            return Err(Error::argument(
                "max_seq_length",
                format!("is {limit}, this model allows 1 to {most}"),
            ));
        }
        Ok(Self {
            model: context::load(&device, &metadata, &*opened.weights)?,
            tokenizer: Tokenizer::open(
                &opened.tokenizer,
                dimensions.vocab_size,
                limit,
                metadata.do_lower_case,
            )?,
            cache: Cache::new(cache),
            totals: Totals::default(),
            file: FileInfo::of(&*opened.weights, opened.path, opened.weights_bytes)?,
            metadata,
            dimensions,
            device,
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
            out.stats += self.encode_window(window, &request, vectors, monitor_of(&mut ask))?;
            request.start += window.len();
        }
        self.finish(out.stats, monitor)?;
        Ok(out)
    }

    /// Writes the vectors of texts to `out`, `[texts, dim]`.
    fn encode_window<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        request: &Request<'_>,
        out: &mut [f32],
        mut monitor: Option<Monitor<'_>>,
    ) -> Result<EncodeStats> {
        let dim = request.variant.dim;
        let repeated = Repeated::find(texts);
        let mut stats = EncodeStats { texts: texts.len(), ..EncodeStats::default() };
        let computed = self.look_up(texts, &repeated, request, out, &mut stats)?;

        let from_cache = stats.cache_hits;
        let mut ask = monitor.as_mut().map(|monitor| |finished| monitor(from_cache + finished));
        let tokens = self.tokens(texts, &computed, request, monitor_of(&mut ask))?;
        let mut rows: Vec<_> = out.chunks_exact_mut(dim).map(Some).collect();
        let rows = computed.iter().filter_map(|&position| rows[position].take()).collect();
        let write = |i: usize, row: &mut [f32], hidden: &[f32]| {
            let Variant { pooling, normalize, skip, .. } = request.variant;
            pooling.apply(hidden, self.dimensions.hidden_size, skip, row);
            normalize.apply(row);
            let position = computed[i];
            finite(row, request.start + position)?;
            Ok(repeated.times[position])
        };
        self.forward(&tokens, rows, request.max_texts, monitor_of(&mut ask), write)?;

        self.remember(texts, &computed, &tokens, request, out);
        for (&position, tokens) in computed.iter().zip(&tokens) {
            stats.add(repeated.times[position], tokens.ids.len(), tokens.full_length);
        }
        for (position, &first) in repeated.first.iter().enumerate() {
            if first != position {
                out.copy_within(first * dim..(first + 1) * dim, position * dim);
            }
        }
        Ok(stats)
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
        self.forward(&tokens, slots, request.max_texts, monitor_of(&mut monitor), write)?;
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

    /// What the engine knows of itself.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the environment asks for an impossible number of threads.
    pub fn info(&self) -> Result<EngineInfo> {
        Ok(EngineInfo {
            path: self.file.path.clone(),
            weights_bytes: self.file.weights_bytes,
            mapped: self.model.mapped(),
            device: self.device.clone(),
            isa: context::isa(),
            num_threads: threads::num_threads()?,
            dimensions: self.dimensions,
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

    fn request<'a>(&self, options: &'a EncodeOptions) -> Result<Request<'a>> {
        let hidden = self.dimensions.hidden_size;
        let dim = options.truncate_dim.unwrap_or(hidden);
        if !(1..=hidden).contains(&dim) {
            return Err(Error::argument(
                "truncate_dim",
                format!("is {dim}, this model allows 1 to {hidden}"),
            ));
        }
        if options.max_texts == Some(0) {
            return Err(Error::argument("max_texts", "is 0, the least is 1"));
        }
        let skip = if self.metadata.include_prompt {
            0
        } else {
            self.tokenizer.prompt_length(&options.prompt)?
        };
        Ok(Request {
            start: 0,
            prompt: &options.prompt,
            variant: Variant {
                pooling: options.pooling.unwrap_or(self.metadata.pooling),
                normalize: options.normalize.unwrap_or(self.metadata.normalize),
                dim,
                skip,
            },
            max_texts: options.max_texts.unwrap_or(usize::MAX),
            truncate: options.truncate,
        })
    }

    /// Copies what the cache has to its rows and returns the positions of the texts to compute.
    fn look_up<S: AsRef<str>>(
        &self,
        texts: &[S],
        repeated: &Repeated,
        request: &Request<'_>,
        out: &mut [f32],
        stats: &mut EncodeStats,
    ) -> Result<Vec<usize>> {
        let dim = request.variant.dim;
        let firsts = repeated.first.iter().enumerate().filter(|&(i, &first)| first == i);
        let firsts = firsts.map(|(position, _)| position);
        let Some(mut table) = self.cache.lock() else { return Ok(firsts.collect()) };
        let mut missing = Vec::new();
        for position in firsts {
            let times = repeated.times[position];
            let text = texts[position].as_ref();
            let Some(entry) = table.get(request.variant, request.prompt, text, times) else {
                missing.push(position);
                continue;
            };
            self.check_length(entry.full_length, request, position)?;
            out[position * dim..(position + 1) * dim].copy_from_slice(&entry.vector);
            stats.add(times, entry.tokens, entry.full_length);
            stats.cache_hits += times;
        }
        Ok(missing)
    }

    /// Puts what was computed into the cache.
    fn remember<S: AsRef<str>>(
        &self,
        texts: &[S],
        computed: &[usize],
        tokens: &[Tokens],
        request: &Request<'_>,
        out: &[f32],
    ) {
        let dim = request.variant.dim;
        let Some(mut table) = self.cache.lock() else { return };
        for (&position, tokens) in computed.iter().zip(tokens) {
            let entry = Entry {
                vector: out[position * dim..(position + 1) * dim].into(),
                tokens: tokens.ids.len(),
                full_length: tokens.full_length,
            };
            table.insert(request.variant, request.prompt, texts[position].as_ref(), entry);
        }
    }

    /// Tokenizes the texts at `positions`, in parallel.
    fn tokens<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        positions: &[usize],
        request: &Request<'_>,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Tokens>> {
        let _span = tracing::debug_span!("tokenize", texts = positions.len()).entered();
        let mut tokens: Vec<Tokens> = vec![Tokens::default(); positions.len()];
        let jobs = positions.chunks(TEXTS_PER_JOB).zip(tokens.chunks_mut(TEXTS_PER_JOB));
        threads::for_each(jobs, monitor, |(positions, tokens)| {
            for (&position, tokens) in positions.iter().zip(tokens) {
                let text = texts[position].as_ref();
                *tokens = self.tokenizer.encode(request.prompt, text, request.start + position)?;
                self.check_length(tokens.full_length, request, position)?;
            }
            Ok(0)
        })?;
        Ok(tokens)
    }

    fn check_length(&self, tokens: usize, request: &Request<'_>, position: usize) -> Result<()> {
        let limit = self.tokenizer.limit();
        if request.truncate || tokens <= limit {
            return Ok(());
        }
        Err(Error::TextTooLong { index: request.start + position, tokens, limit })
    }

    /// Runs the model over tokenized texts, in micro-batches. For each text `write` gets its index, its
    /// slot and the vectors of its tokens, and returns how many of the caller's texts that finished.
    fn forward<T: Send>(
        &self,
        tokens: &[Tokens],
        slots: Vec<T>,
        max_texts: usize,
        monitor: Option<Monitor<'_>>,
        write: impl Fn(usize, T, &[f32]) -> Result<usize> + Sync,
    ) -> Result<()> {
        let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        let count: usize = lengths.iter().sum();
        let _span =
            tracing::debug_span!("forward", texts = lengths.len(), tokens = count).entered();
        let width = self.dimensions.hidden_size;
        let mut slots: Vec<Option<T>> = slots.into_iter().map(Some).collect();
        let budget = budget(count, threads::num_threads()?);
        let batches = plan(&lengths, budget, max_texts);
        if let [batch] = &batches[..]
            && let [i] = batch[..]
            && let Some(hidden) = self.model.forward_together(&tokens[i], width)
        {
            let hidden = hidden?;
            return slots[i].take().map_or(Ok(()), |slot| write(i, slot, &hidden).map(drop));
        }
        let jobs = batches.into_iter().map(|batch| {
            batch.into_iter().filter_map(|i| Some((i, slots[i].take()?))).collect::<Vec<_>>()
        });
        threads::for_each(jobs, monitor, |mut job| {
            let batch = MicroBatch::new(job.iter().map(|&(i, _)| &tokens[i]));
            let mut finished = 0;
            self.model.forward(&batch, &mut |hidden| {
                for ((i, slot), bounds) in job.drain(..).zip(batch.offsets.windows(2)) {
                    finished += write(i, slot, &hidden[bounds[0] * width..bounds[1] * width])?;
                }
                Ok(())
            })?;
            Ok(finished)
        })
    }

    /// Counts a call and shows the monitor its end.
    fn finish(&self, stats: EncodeStats, monitor: Option<Monitor<'_>>) -> Result<()> {
        if self.totals.add(stats) {
            tracing::warn!(
                truncated = stats.truncated,
                texts = stats.texts,
                limit = self.tokenizer.limit(),
                "texts were longer than the model's limit and were cut; later ones are only counted"
            );
        }
        match monitor.map(|monitor| monitor(stats.texts)) {
            Some(ControlFlow::Break(())) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
}

fn monitor_of<F: FnMut(usize) -> ControlFlow<()>>(ask: &mut Option<F>) -> Option<Monitor<'_>> {
    ask.as_mut().map(|ask| ask as Monitor<'_>)
}

fn finite(vector: &[f32], position: usize) -> Result<()> {
    if vector.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(Error::NonFinite { index: position })
    }
}
