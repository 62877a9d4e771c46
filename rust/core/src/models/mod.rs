//! The architectures, one file each, and the table that finds them by name.

mod bert;

use crate::error::{Error, Result};
use crate::ops::{Backend, Load, Ops};
use crate::plan::MicroBatch;

/// A loaded model: token ids in, token vectors out.
pub(crate) trait Encoder<B: Backend, O: Ops<B>>: Send + Sync {
    /// The last hidden state of every token, `[tokens, hidden_size]`.
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor>;
}

/// The sizes that the rest of the engine needs to know of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of a token vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Rows of the word embedding table; token ids are below it.
    pub vocab_size: usize,
    /// Longest sequence that the position embeddings allow.
    pub max_position_embeddings: usize,
}

macro_rules! architectures {
    ($($name:literal => $module:ident :: $model:ident),* $(,)?) => {
        /// Names of the supported architectures, as in Hugging Face's `model_type`.
        pub const ARCHITECTURES: &[&str] = &[$($name),*];

        /// The sizes in a configuration, checked for plausibility.
        ///
        /// # Errors
        /// If the architecture is unknown or the configuration does not fit it.
        pub(crate) fn dimensions(architecture: &str, config: &serde_json::Value) -> Result<Dimensions> {
            match architecture {
                $($name => Ok($module::Config::parse(config)?.dimensions()),)*
                other => Err(unsupported(other)),
            }
        }

        /// Loads the weights of an architecture into a backend.
        pub(crate) fn load<B: Backend + 'static, O: Ops<B>>(
            architecture: &str,
            config: &serde_json::Value,
            from: &mut impl Load<B>,
        ) -> Result<Box<dyn Encoder<B, O>>> {
            match architecture {
                $($name => Ok(Box::new($module::$model::load(from, &$module::Config::parse(config)?)?)),)*
                other => Err(unsupported(other)),
            }
        }

        /// Asks `from` for every weight of an architecture, in order, and keeps none: how a packer
        /// learns what to write.
        pub(crate) fn walk<B: Backend>(
            architecture: &str,
            config: &serde_json::Value,
            from: &mut impl Load<B>,
        ) -> Result<()> {
            match architecture {
                $($name => $module::$model::load(from, &$module::Config::parse(config)?).map(drop),)*
                other => Err(unsupported(other)),
            }
        }
    };
}

architectures! {
    "bert" => bert::Bert,
}

fn unsupported(architecture: &str) -> Error {
    Error::UnsupportedModel {
        reason: format!(
            "architecture {architecture:?}; this version runs {}",
            ARCHITECTURES.join(", ")
        ),
    }
}
