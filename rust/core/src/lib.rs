//! Text embeddings on your own machine.
//!
//! A model is a file, an engine is a few kernels over that file: [`Engine::open`] maps a model,
//! [`Engine::encode`] turns texts into vectors.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
//! use arrowembed::{EncodeOptions, Engine};
//!
//! let engine = Engine::builder().cache_dir(folder.path()).open(model)?;
//! let embeddings = engine.encode(&["one text", "another text"])?;
//! for vector in embeddings.rows() {
//!     assert_eq!(vector.len(), engine.info()?.dimensions.hidden_size);
//! }
//! let options = EncodeOptions::new().prompt("query: ").truncate_dim(16);
//! let query = engine.encode_with(&["a question"], &options, None)?;
//! assert_eq!(query.dim(), 16);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From text to vector, and where to read on:
//!
//! 1. `tokenize`: text to token ids, by Hugging Face's tokenizers, cut to the model's own limit;
//! 2. `plan`: texts of any length into micro-batches without padding;
//! 3. `models`: the forward pass, written once over the few operations of `ops`, which run on our own
//!    kernels straight from the mapped file, or on candle's devices;
//! 4. `pool`: token vectors to one vector, normalised.
//!
//! `engine` puts these together; `threads` decides how many threads compute; `open`, `weights` and
//! [`convert()`] are about files, `registry` is for many models in one process and
//! `scheduler` for many callers at once. `index` finds the vectors most similar to others.

mod auto;
pub(crate) mod cache;
pub(crate) mod compute;
pub(crate) mod context;
pub(crate) mod convert;
mod dense;
pub(crate) mod embeddings;
pub(crate) mod engine;
mod env;
pub(crate) mod error;
#[cfg(test)]
mod fixtures;
pub(crate) mod folder;
pub(crate) mod gguf;
pub(crate) mod hf;
pub(crate) mod index;
pub(crate) mod info;
mod known;
pub(crate) mod metadata;
pub(crate) mod model_config;
pub(crate) mod models;
pub(crate) mod open;
pub(crate) mod ops;
pub(crate) mod options;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod precision;
pub(crate) mod process;
mod registry;
pub(crate) mod repeated;
mod resident;
mod scheduler;
pub(crate) mod threads;
pub(crate) mod tokenize;
pub(crate) mod unpack;
pub(crate) mod weights;

#[cfg(feature = "measure")]
#[doc(hidden)]
pub use ops::cpu::measure;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use gguf::read_for_fuzzing;

pub use cache::{CacheInfo, CacheLimits};
pub use compute::Compute;
pub use context::{Context, isa};
pub use convert::{
    Arrangement, Compression, ConversionReport, ConvertOptions, Format, TensorReport, convert,
    verify,
};
pub use dense::{DenseActivation, DenseLayer};
pub use embeddings::{Embeddings, EncodeStats, TokenEmbeddings};
pub use engine::Engine;
pub use error::{Error, Result};
pub use index::{Metric, Neighbours, SearchOptions, VectorFile, search_vectors};
pub use info::EngineInfo;
pub use metadata::{FORMAT_VERSION, Metadata, Source};
pub use model_config::{LoadMonitor, ModelConfig, ModelConfigBuilder};
pub use models::{ARCHITECTURES, Dimensions};
pub use options::EncodeOptions;
pub use pool::{Normalize, Pooling};
pub use precision::{Precision, Quantized, Ranges, quantize};
pub use registry::{EmbeddingEngine, EngineConfig, EngineConfigBuilder, RegisteredModel, WhenFull};
pub use scheduler::{QueueInfo, QueueLimits, Scheduled, Scheduler, Submitted, Ticket};
pub use threads::{Monitor, num_threads, set_num_threads};
pub use tokenize::{Token, Tokens};
pub use weights::arrow::ArrowFile;
pub use weights::{DType, InFile, Layout, StoredRows, Tensor, TensorSource};

/// The Rust examples of the guides compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/memory-and-registry.md")]
#[doc = include_str!("../../../docs/guides/many-callers.md")]
struct Guides;
