//! What an engine returns: vectors, and counts of what was done for them.

use crate::error::{Error, Result};

/// Vectors of texts, in the order of the texts.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
/// let embeddings = engine.encode(&["one", "two", "three"])?;
/// assert_eq!((embeddings.len(), embeddings.dim()), (3, 64));
/// assert_eq!(embeddings.rows().count(), 3);
/// assert_eq!(embeddings.row(2).map(<[f32]>::len), Some(64));
/// assert_eq!(embeddings.as_slice().len(), 3 * 64);
/// assert_eq!(embeddings.stats().texts, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    pub(crate) data: Vec<f32>,
    pub(crate) rows: usize,
    pub(crate) dim: usize,
    pub(crate) stats: EncodeStats,
}

impl Embeddings {
    /// `rows` zero vectors.
    pub(crate) fn zeroed(rows: usize, dim: usize) -> Result<Self> {
        let out_of_memory =
            || Error::OutOfMemory { reason: format!("{rows} vectors of {dim} numbers") };
        let numbers = rows.checked_mul(dim).ok_or_else(out_of_memory)?;
        // Asks whether there is room, because `vec!` would abort. `vec!` gets pages that the system
        // zeroes when they are first touched; filling a million vectors here would take a second.
        Vec::<f32>::new().try_reserve_exact(numbers).map_err(|_| out_of_memory())?;
        let data = vec![0.0; numbers];
        Ok(Self { data, rows, dim, stats: EncodeStats::default() })
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vector of text `index`, or `None` past the last.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.data.chunks_exact(self.dim).nth(index)
    }

    /// The vectors in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim)
    }

    /// All numbers, vector after vector.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All numbers, vector after vector, without a copy.
    pub fn into_vec(self) -> Vec<f32> {
        self.data
    }

    /// What the call did.
    pub fn stats(&self) -> EncodeStats {
        self.stats
    }
}

/// The vectors of the tokens of texts, in the order of the texts.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
/// let tokens = engine.encode_tokens(&["Hello world"])?;
/// assert_eq!(tokens.dim(), 64);
/// assert_eq!(tokens.texts()[0].len() / tokens.dim(), tokens.stats().tokens);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEmbeddings {
    pub(crate) texts: Vec<Vec<f32>>,
    pub(crate) dim: usize,
    pub(crate) stats: EncodeStats,
}

impl TokenEmbeddings {
    /// For each text its tokens' vectors, `[tokens, dim]` row-major, special tokens included.
    pub fn texts(&self) -> &[Vec<f32>] {
        &self.texts
    }

    /// The same, without a copy.
    pub fn into_texts(self) -> Vec<Vec<f32>> {
        self.texts
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What the call did.
    pub fn stats(&self) -> EncodeStats {
        self.stats
    }
}

/// What one call, or all calls of an engine together, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeStats {
    /// Texts.
    pub texts: usize,
    /// Their tokens after truncation, whether computed or known from the cache.
    pub tokens: usize,
    /// Texts that were longer than the model's limit and were cut.
    pub truncated: usize,
    /// Texts whose vector was in the cache.
    pub cache_hits: usize,
}

impl std::ops::AddAssign for EncodeStats {
    fn add_assign(&mut self, other: Self) {
        self.texts += other.texts;
        self.tokens += other.tokens;
        self.truncated += other.truncated;
        self.cache_hits += other.cache_hits;
    }
}

impl EncodeStats {
    /// Adds a text that occurs `times`.
    pub(crate) fn add(&mut self, times: usize, tokens: usize, full_length: usize) {
        self.tokens += times * tokens;
        self.truncated += times * usize::from(full_length > tokens);
    }
}
