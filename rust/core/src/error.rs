//! Everything that can go wrong, once.
//!
//! Each variant says when it occurs. Bindings and services map variants to their own exceptions and
//! status codes by [`Error::code`], which is stable; messages may change.

use std::path::PathBuf;
use std::sync::Arc;

use crate::registry::WhenFull;

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
///
/// It can be cloned, because several may wait for one operation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A path does not exist, or nothing at it is a model.
    #[error("no model at {}: {reason}", path.display())]
    ModelNotFound {
        /// The path that was looked at.
        path: PathBuf,
        /// What was looked for there and what would help.
        reason: String,
    },
    /// The operating system refused to read, write or map a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// A file's bytes break the rules of its format.
    #[error("{} is not a valid model file: {reason}", path.display())]
    InvalidFile {
        /// The file in question.
        path: PathBuf,
        /// Which rule, at which record or offset.
        reason: String,
    },
    /// A file of vectors breaks the rules of its format, or was damaged.
    #[error("{} is not a valid file of vectors: {reason}", path.display())]
    InvalidVectors {
        /// The file in question.
        path: PathBuf,
        /// Which rule.
        reason: String,
    },
    /// The architecture needs a tensor that the file does not have.
    #[error("tensor {name:?} is missing; the model file does not fit the architecture it names")]
    MissingTensor {
        /// Name of the tensor that was looked for.
        name: String,
    },
    /// A tensor's shape is not the one that the configuration asks for.
    #[error("tensor {name:?} has shape {found:?}, the configuration asks for {expected:?}")]
    ShapeMismatch {
        /// Name of the tensor.
        name: String,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A stored checksum differs from the one computed from the bytes.
    #[error("tensor {name:?} in {} does not match its checksum; fetch or convert the model again", path.display())]
    ChecksumMismatch {
        /// The model file.
        path: PathBuf,
        /// Name of the damaged tensor.
        name: String,
    },
    /// A configuration value is missing, contradictory or out of range.
    #[error("model configuration: {field}: {reason}")]
    InvalidConfig {
        /// Name of the configuration field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model is of a kind that this engine cannot run.
    #[error("unsupported model: {reason}")]
    UnsupportedModel {
        /// What is unsupported, and what is supported.
        reason: String,
    },
    /// The tokenizer is missing, unreadable or failed on a text.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What failed.
        reason: String,
    },
    /// A caller's argument is outside what is allowed.
    #[error("{name}: {reason}")]
    InvalidArgument {
        /// Name of the argument.
        name: &'static str,
        /// What was given and what is allowed.
        reason: String,
    },
    /// A text is longer than the model's limit and truncation was refused.
    #[error(
        "text {index} has {tokens} tokens, the model takes {limit}; shorten it or allow truncation"
    )]
    TextTooLong {
        /// Position of the text in the input.
        index: usize,
        /// Its length in tokens, special tokens included.
        tokens: usize,
        /// The model's limit in tokens.
        limit: usize,
    },
    /// An output vector holds a NaN or an infinity.
    #[error(
        "the vector of text {index} is not finite; the model's weights are damaged or overflow in this dtype"
    )]
    NonFinite {
        /// Position of the text in the input.
        index: usize,
    },
    /// Memory for the operation could not be had.
    #[error("out of memory: {reason}")]
    OutOfMemory {
        /// What was being allocated.
        reason: String,
    },
    /// A model would need more memory than the budget of its [`EmbeddingEngine`](crate::EmbeddingEngine) has
    /// left.
    #[error(
        "model {name:?} needs {needed} bytes, {}",
        no_room(*needed, *budget, *in_use, loaded, *when_full)
    )]
    MemoryBudget {
        /// Name of the model that was to be loaded.
        name: String,
        /// Bytes of its weights.
        needed: u64,
        /// The budget in bytes.
        budget: u64,
        /// Bytes of the models that are in memory.
        in_use: u64,
        /// Their names.
        loaded: Vec<String>,
        /// What the engine does when the budget is full.
        when_full: WhenFull,
    },
    /// No more may wait in the queue of a [`Scheduler`](crate::Scheduler).
    #[error(
        "the queue is full: {texts} texts of about {tokens} tokens wait, at most {max_texts} and {max_tokens} \
         may; ask again later"
    )]
    QueueFull {
        /// Texts that wait.
        texts: usize,
        /// Most texts that may.
        max_texts: usize,
        /// Their tokens, roughly.
        tokens: usize,
        /// Most tokens that may wait.
        max_tokens: usize,
    },
    /// A [`Scheduler`](crate::Scheduler) was drained and takes no more requests.
    #[error("the scheduler was shut down and takes no more texts")]
    Closed,
    /// A computation panicked, which is a fault of this library.
    #[error("internal error, please report it: {reason}")]
    Internal {
        /// What the panic said.
        reason: String,
    },
    /// The caller asked for the operation to stop.
    #[error("interrupted")]
    Interrupted,
    /// A compute device is missing or failed.
    #[error("device: {reason}")]
    Device {
        /// What failed.
        reason: String,
    },
}

impl Error {
    /// A stable identifier of the kind of error, for programs.
    ///
    /// ```
    /// let error = arrowembed::Engine::open("no/such/model").unwrap_err();
    /// assert_eq!(error.code(), "model_not_found");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::Io { .. } => "io",
            Self::InvalidFile { .. } => "invalid_file",
            Self::InvalidVectors { .. } => "invalid_store",
            Self::MissingTensor { .. } => "missing_tensor",
            Self::ShapeMismatch { .. } => "shape_mismatch",
            Self::ChecksumMismatch { .. } => "checksum_mismatch",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::UnsupportedModel { .. } => "unsupported_model",
            Self::Tokenizer { .. } => "tokenizer",
            Self::InvalidArgument { .. } => "invalid_argument",
            Self::TextTooLong { .. } => "text_too_long",
            Self::NonFinite { .. } => "non_finite",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::MemoryBudget { .. } => "memory_budget",
            Self::QueueFull { .. } => "queue_full",
            Self::Closed => "closed",
            Self::Internal { .. } => "internal",
            Self::Interrupted => "interrupted",
            Self::Device { .. } => "device",
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source: Arc::new(source) }
    }

    pub(crate) fn invalid_file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::InvalidFile { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn invalid_vectors(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::InvalidVectors { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidConfig { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn argument(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { name, reason: reason.into() }
    }
}

/// Why a model does not fit into the memory budget, and what helps.
fn no_room(
    needed: u64,
    budget: u64,
    in_use: u64,
    loaded: &[String],
    when_full: WhenFull,
) -> String {
    if needed > budget {
        return format!("more than the whole memory budget of {budget} bytes; raise memory_budget");
    }
    let helps = match when_full {
        WhenFull::Refuse => {
            "unload one of them, raise memory_budget, or let the least recently used be evicted"
        }
        WhenFull::Evict => {
            "to evict those that nobody is using is not enough; use fewer at a time or raise memory_budget"
        }
    };
    let models = list(loaded);
    format!(
        "and of the memory budget of {budget} bytes {in_use} are in use (models: {models}); {helps}"
    )
}

/// Names for a message.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
