//! What an engine knows of itself and of what it has done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::compute::Compute;
use crate::embeddings::EncodeStats;
use crate::error::Result;
use crate::models::Dimensions;
use crate::weights::{TensorSource, integers_of};

/// What an engine knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The file that is mapped.
    pub path: PathBuf,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// Whether the weights are used where the file is mapped, or else were copied.
    pub mapped: bool,
    /// Whether the weights were more than fitted into memory when the model was opened.
    pub short_of_memory: bool,
    /// Where the model computes.
    pub device: String,
    /// Instruction set of the CPU kernels.
    pub isa: &'static str,
    /// In which numbers matrices are multiplied; never [`Compute::Auto`].
    pub compute: Compute,
    /// Threads that compute, for all engines of the process.
    pub num_threads: usize,
    /// Sizes of the architecture.
    pub dimensions: Dimensions,
    /// Length of a vector: the hidden size, or what the dense layers behind the pooling make of it.
    pub embedding_size: usize,
    /// Lengths that the model was trained for its vectors to be cut to, longest first; empty where none are known.
    pub matryoshka_dimensions: Vec<usize>,
    /// Numbers in all tensors.
    pub num_parameters: usize,
    /// Longest input in tokens.
    pub max_seq_length: usize,
    /// How many tensors there are of each dtype, by its name.
    pub dtypes: BTreeMap<&'static str, usize>,
}

/// What is known of a model's file.
pub(crate) struct FileInfo {
    pub(crate) path: PathBuf,
    pub(crate) weights_bytes: u64,
    pub(crate) num_parameters: usize,
    pub(crate) dtypes: BTreeMap<&'static str, usize>,
}

impl FileInfo {
    pub(crate) fn of(
        weights: &dyn TensorSource,
        path: PathBuf,
        weights_bytes: u64,
    ) -> Result<Self> {
        let (mut num_parameters, mut dtypes) = (0, BTreeMap::new());
        for name in weights.names() {
            // Scales and sums are part of the encoding of integers.
            if integers_of(name).is_some() {
                continue;
            }
            let (shape, dtype) = weights.describe(name)?;
            num_parameters += shape.iter().product::<usize>();
            *dtypes.entry(dtype).or_default() += 1;
        }
        Ok(Self { path, weights_bytes, num_parameters, dtypes })
    }
}

/// Sums over calls.
#[derive(Default)]
pub(crate) struct Totals {
    texts: AtomicUsize,
    tokens: AtomicUsize,
    truncated: AtomicUsize,
    cache_hits: AtomicUsize,
    warned: AtomicBool,
}

impl Totals {
    /// Adds a call; true for the first one that cut texts.
    pub(crate) fn add(&self, stats: EncodeStats) -> bool {
        self.texts.fetch_add(stats.texts, Ordering::Relaxed);
        self.tokens.fetch_add(stats.tokens, Ordering::Relaxed);
        self.truncated.fetch_add(stats.truncated, Ordering::Relaxed);
        self.cache_hits.fetch_add(stats.cache_hits, Ordering::Relaxed);
        stats.truncated > 0 && !self.warned.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> EncodeStats {
        EncodeStats {
            texts: self.texts.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
            truncated: self.truncated.load(Ordering::Relaxed),
            cache_hits: self.cache_hits.load(Ordering::Relaxed),
        }
    }
}
