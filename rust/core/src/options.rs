//! How an engine encodes.

use crate::pool::{Normalize, Pooling};

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
