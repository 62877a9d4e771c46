//! Text embeddings on your own machine.
//!
//! A model is a file, an engine is a few kernels over that file.

pub(crate) mod error;
pub(crate) mod metadata;
pub(crate) mod models;
pub(crate) mod ops;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod weights;

pub use error::{Error, Result};
