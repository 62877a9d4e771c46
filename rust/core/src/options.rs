//! How an engine is opened and how it encodes.

use std::path::{Path, PathBuf};

use crate::cache::CacheLimits;
use crate::compute::Compute;
use crate::engine::Engine;
use crate::error::Result;
use crate::pool::{Normalize, Pooling};

/// How a model is opened; made by [`Engine::builder`].
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// use arrowembed::{CacheLimits, Engine};
/// let engine = Engine::builder()
///     .max_seq_length(32)
///     .cache(CacheLimits { entries: None, bytes: Some(64 << 20) })
///     .cache_dir(folder.path())
///     .open(model)?;
/// assert_eq!(engine.max_seq_length(), 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    pub(crate) device: String,
    pub(crate) compute: Option<Compute>,
    pub(crate) cache: CacheLimits,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) verify: bool,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            device: "cpu".to_owned(),
            compute: None,
            cache: CacheLimits::default(),
            cache_dir: None,
            max_seq_length: None,
            verify: false,
        }
    }
}

impl EngineBuilder {
    /// Where the model computes; `cpu`, the default, is this crate's own kernels.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// In which numbers the model computes; by default in those that it is stored in: float32 and float16
    /// weights compute in float32, the others in what they are. For another one the model is made anew
    /// once, in the cache; see [`cache_dir`](Self::cache_dir).
    #[must_use]
    pub fn compute(mut self, compute: Compute) -> Self {
        self.compute = Some(compute);
        self
    }

    /// How many vectors are kept for texts that come again; 10,000 by default.
    #[must_use]
    pub fn cache(mut self, limits: CacheLimits) -> Self {
        self.cache = limits;
        self
    }

    /// Where models that cannot be mapped as they are, or not for the arithmetic asked for, get unpacked;
    /// the user's cache folder by default.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// Longest input in tokens instead of the model's own limit, at most its number of positions.
    #[must_use]
    pub fn max_seq_length(mut self, tokens: usize) -> Self {
        self.max_seq_length = Some(tokens);
        self
    }

    /// Whether every tensor is compared with its checksum; not by default.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Opens a model: a model folder, a model file or a Hugging Face folder.
    ///
    /// # Errors
    /// If there is no model, its files are damaged, it is of an unsupported kind, or an argument is
    /// outside what is allowed.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Engine> {
        Engine::open_with(path.as_ref(), self)
    }
}

/// How texts are encoded; by default as the model's metadata say.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
/// use arrowembed::{EncodeOptions, Pooling};
/// let options = EncodeOptions::new().prompt("query: ").pooling(Pooling::Mean).truncate_dim(32);
/// assert_eq!(engine.encode_with(&["text"], &options, None)?.dim(), 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct EncodeOptions {
    pub(crate) prompt: String,
    pub(crate) pooling: Option<Pooling>,
    pub(crate) normalize: Option<Normalize>,
    pub(crate) truncate_dim: Option<usize>,
    pub(crate) max_texts: Option<usize>,
    pub(crate) truncate: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            pooling: None,
            normalize: None,
            truncate_dim: None,
            max_texts: None,
            truncate: true,
        }
    }
}

impl EncodeOptions {
    /// The model's own ways.
    pub fn new() -> Self {
        Self::default()
    }

    /// A text put before every text.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// How token vectors become one vector.
    #[must_use]
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// What is done to a pooled vector.
    #[must_use]
    pub fn normalize(mut self, normalize: Normalize) -> Self {
        self.normalize = Some(normalize);
        self
    }

    /// Keeps only so many leading dimensions (Matryoshka), before normalisation.
    #[must_use]
    pub fn truncate_dim(mut self, dim: usize) -> Self {
        self.truncate_dim = Some(dim);
        self
    }

    /// Most texts in a micro-batch; by default only its tokens are limited.
    #[must_use]
    pub fn max_texts(mut self, max_texts: usize) -> Self {
        self.max_texts = Some(max_texts);
        self
    }

    /// Whether texts longer than the model's limit are cut, as by default, or refused.
    #[must_use]
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }
}
