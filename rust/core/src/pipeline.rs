//! The steps of a call: cache, tokens, micro-batches, forward pass, pooling.

use std::ops::ControlFlow;

use crate::cache::{Entry, Variant};
use crate::context::Consume;
use crate::embeddings::EncodeStats;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::EncodeOptions;
use crate::plan::{MicroBatch, budget, plan};
use crate::repeated::Repeated;
use crate::threads::{self, Monitor};
use crate::tokenize::{Token, Tokens};

/// Bytes of texts that are tokenized within a few tens of milliseconds, on the calling thread without asking
/// anybody.
const BRIEF: usize = 1 << 18;

/// Texts that a worker tokenizes in one go.
const TEXTS_PER_JOB: usize = 16;

/// A call's options with the model's own ways filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Position of the window's first text in the caller's input.
    pub(crate) start: usize,
    pub(crate) prompt: &'a str,
    pub(crate) variant: Variant,
    pub(crate) max_texts: usize,
    pub(crate) truncate: bool,
}

impl<'a> Request<'a> {
    /// Options whose `variant` is known.
    pub(crate) fn new(options: &'a EncodeOptions, variant: Variant) -> Self {
        Self {
            start: 0,
            prompt: &options.prompt,
            variant,
            max_texts: options.max_texts.unwrap_or(usize::MAX),
            truncate: options.truncate,
        }
    }
}

impl Engine {
    /// Writes the vectors of texts to `out`, `[texts, dim]`.
    pub(crate) fn encode_window<S: AsRef<str> + Sync>(
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
            self.vector(request, hidden, row)?;
            let position = computed[i];
            finite(row, request.start + position)?;
            Ok(repeated.times[position])
        };
        self.forward(&tokens, rows, (request.max_texts, true), monitor_of(&mut ask), write)?;

        self.remember(texts, &computed, &tokens, request, out);
        for (&position, tokens) in computed.iter().zip(&tokens) {
            stats.add(repeated.times[position], tokens.ids.len(), tokens.full_length);
        }
        repeated.copy_rows(out, dim);
        Ok(stats)
    }

    /// The vector that the tokens of a text make.
    pub(crate) fn vector(
        &self,
        request: &Request<'_>,
        hidden: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        let Variant { pooling, normalize, skip, .. } = request.variant;
        self.pool(pooling, hidden, skip, out)?;
        normalize.apply(out);
        Ok(())
    }

    /// The first dimensions of the vector that the tokens of a text make.
    fn pool(
        &self,
        pooling: crate::Pooling,
        tokens: &[f32],
        skip: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let width = self.dimensions.hidden_size;
        if self.metadata.dense.is_empty() {
            pooling.apply(tokens, width, skip, out);
            return Ok(());
        }
        let mut pooled = vec![0.0; width];
        pooling.apply(tokens, width, skip, &mut pooled);
        for (out, x) in out.iter_mut().zip(self.model.project(&pooled)?) {
            *out = x;
        }
        Ok(())
    }

    pub(crate) fn request<'a>(&self, options: &'a EncodeOptions) -> Result<Request<'a>> {
        let whole = self.metadata.embedding_size(self.dimensions.hidden_size);
        let dim = options.truncate_dim.unwrap_or(whole);
        if !(1..=whole).contains(&dim) {
            return Err(Error::argument(
                "truncate_dim",
                format!("is {dim}, this model allows 1 to {whole}"),
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
        let variant = Variant {
            pooling: options.pooling.unwrap_or(self.metadata.pooling),
            normalize: options.normalize.unwrap_or(self.metadata.normalize),
            dim,
            skip,
        };
        Ok(Request::new(options, variant))
    }

    /// Copies what the cache has to its rows and returns the positions of the texts to compute.
    pub(crate) fn look_up<S: AsRef<str>>(
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
            let entry = Entry::new(&out[position * dim..(position + 1) * dim], tokens);
            table.insert(request.variant, request.prompt, texts[position].as_ref(), entry);
        }
    }

    /// Tokenizes the texts at `positions`, in parallel.
    pub(crate) fn tokens<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        positions: &[usize],
        request: &Request<'_>,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Tokens>> {
        let _span = tracing::debug_span!("tokenize", texts = positions.len()).entered();
        let mut tokens: Vec<Tokens> = vec![Tokens::default(); positions.len()];
        if positions.len() == 1 {
            threads::rouse();
        }
        let jobs = positions.chunks(TEXTS_PER_JOB).zip(tokens.chunks_mut(TEXTS_PER_JOB));
        let bytes: usize = positions.iter().map(|&position| texts[position].as_ref().len()).sum();
        threads::for_each(jobs, monitor, bytes < BRIEF, |(positions, tokens)| {
            for (&position, tokens) in positions.iter().zip(tokens) {
                *tokens = self.tokens_of(texts[position].as_ref(), request, position)?;
            }
            Ok(0)
        })?;
        Ok(tokens)
    }

    /// All tokens of texts and where they stand there, in parallel.
    pub(crate) fn spans<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        prompt: &str,
        add_special_tokens: bool,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Vec<Token>>> {
        let mut tokens: Vec<Vec<Token>> = vec![Vec::new(); texts.len()];
        let jobs = texts.chunks(TEXTS_PER_JOB).zip(tokens.chunks_mut(TEXTS_PER_JOB));
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        threads::for_each(jobs.enumerate(), monitor, bytes < BRIEF, |(job, (texts, tokens))| {
            for (i, (text, tokens)) in texts.iter().zip(tokens).enumerate() {
                let index = job * TEXTS_PER_JOB + i;
                *tokens = self.tokenizer.spans(prompt, text.as_ref(), add_special_tokens, index)?;
            }
            Ok(0)
        })?;
        Ok(tokens)
    }

    /// Tokenizes one text.
    pub(crate) fn tokens_of(
        &self,
        text: &str,
        request: &Request<'_>,
        position: usize,
    ) -> Result<Tokens> {
        let tokens = self.tokenizer.encode(request.prompt, text, request.start + position)?;
        self.check_length(tokens.full_length, request, position)?;
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
    /// slot and the vectors of its tokens, and returns how many of the caller's texts that finished. What all
    /// threads do `together` is divided evenly, a single micro-batch, too; else others keep them busy.
    pub(crate) fn forward<T: Send>(
        &self,
        tokens: &[Tokens],
        slots: Vec<T>,
        (max_texts, together): (usize, bool),
        mut monitor: Option<Monitor<'_>>,
        write: impl Fn(usize, T, &[f32]) -> Result<usize> + Sync,
    ) -> Result<()> {
        let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        let count: usize = lengths.iter().sum();
        let _span =
            tracing::debug_span!("forward", texts = lengths.len(), tokens = count).entered();
        let width = self.dimensions.hidden_size;
        let mut slots: Vec<Option<T>> = slots.into_iter().map(Some).collect();
        let most = self.model.tokens_at_once();
        let threads = if together { threads::num_threads()? } else { 1 };
        let batches = plan(&lengths, budget(count, threads, most), max_texts);
        let mut jobs: Vec<Vec<(usize, T)>> = batches
            .into_iter()
            .map(|batch| batch.into_iter().filter_map(|i| Some((i, slots[i].take()?))).collect())
            .collect();
        let compute = |job: &mut Vec<(usize, T)>, forward: Forward<'_>| {
            let batch = MicroBatch::new(job.iter().map(|&(i, _)| &tokens[i]));
            let mut finished = 0;
            let mut consume = |hidden: &[f32]| {
                for ((i, slot), bounds) in job.drain(..).zip(batch.offsets.windows(2)) {
                    finished += write(i, slot, &hidden[bounds[0] * width..bounds[1] * width])?;
                }
                Ok(())
            };
            let result = forward(&batch, &mut consume)?;
            Some(result.map(|()| finished))
        };
        let brief = self.is_brief(&lengths);
        if together
            && let [only] = &mut jobs[..]
            && let Some(result) = compute(only, &mut |batch, consume| {
                let monitor = monitor_of(&mut monitor).filter(|_| !brief);
                self.model.forward_together(batch, monitor, consume)
            })
        {
            // What else went wrong may be because of that.
            return self.check_files().and(result.map(drop));
        }
        let result = threads::for_each(jobs, monitor, brief, |mut job| {
            compute(&mut job, &mut |batch, consume| Some(self.model.forward(batch, consume)))
                .unwrap_or(Ok(0))
        });
        self.check_files().and(result)
    }

    /// Whether sequences take so little that nobody would want to stop them.
    fn is_brief(&self, lengths: &[usize]) -> bool {
        // Tens of milliseconds on two cores.
        const OPERATIONS: f64 = 4e9;
        // The four matrices of attention and a feed-forward layer of four times the width.
        const WEIGHTS_PER_LAYER: f64 = 12.0;
        let (layers, width) = (self.dimensions.num_hidden_layers, self.dimensions.hidden_size);
        let of_sequence = |&tokens: &usize| {
            let (tokens, width) = (tokens as f64, width as f64);
            tokens * width * (2.0 * WEIGHTS_PER_LAYER * width + 4.0 * tokens)
        };
        layers as f64 * lengths.iter().map(of_sequence).sum::<f64>() < OPERATIONS
    }

    /// Counts a call and shows the monitor its end.
    pub(crate) fn finish(&self, stats: EncodeStats, monitor: Option<Monitor<'_>>) -> Result<()> {
        if self.totals.add(stats) {
            tracing::warn!(
                truncated = stats.truncated,
                texts = stats.texts,
                limit = self.tokenizer.limit(),
                "texts were longer than the model's limit and were cut; later ones are only counted"
            );
        }
        threads::ask(monitor, stats.texts)
    }
}

/// How a micro-batch is computed; nothing is done where it returns `None`.
type Forward<'a> = &'a mut dyn FnMut(&MicroBatch, Consume<'_>) -> Option<Result<()>>;

/// A monitor as the next function takes it.
pub(crate) fn monitor_of<F: FnMut(usize) -> ControlFlow<()>>(
    ask: &mut Option<F>,
) -> Option<Monitor<'_>> {
    ask.as_mut().map(|ask| ask as Monitor<'_>)
}

pub(crate) fn finite(vector: &[f32], position: usize) -> Result<()> {
    if vector.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(Error::NonFinite { index: position })
    }
}
