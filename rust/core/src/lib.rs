//! Text embeddings on your own machine.
//!
//! A model is a file, an engine is a few kernels over that file.

pub(crate) mod cache;
pub(crate) mod convert;
pub(crate) mod error;
pub(crate) mod folder;
pub(crate) mod hf;
pub(crate) mod metadata;
pub(crate) mod models;
pub(crate) mod open;
pub(crate) mod ops;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod precision;
pub(crate) mod process;
pub(crate) mod threads;
pub(crate) mod tokenize;
pub(crate) mod unpack;
pub(crate) mod weights;

pub use cache::{CacheInfo, CacheLimits};
pub use convert::{
    Arrangement, Compression, ConversionReport, ConvertOptions, Format, TensorReport, convert,
    verify,
};
pub use error::{Error, Result};
pub use metadata::{FORMAT_VERSION, Metadata, Source};
pub use pool::{Normalize, Pooling};
pub use precision::{Precision, Quantized, Ranges, quantize};
pub use threads::{Monitor, num_threads, set_num_threads};
pub use tokenize::Tokens;
pub use weights::arrow::ArrowFile;
pub use weights::{DType, Layout, Tensor, TensorSource};
