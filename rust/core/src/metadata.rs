//! What a model file says about itself: the contents of `metadata.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pool::{Normalize, Pooling};
use crate::weights::DType;

/// Version of the model file format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Everything but the weights and the tokenizer that an engine needs to know of a model.
///
/// Stored as `metadata.json` beside the model file and, so that a lone file is still usable, in the
/// Arrow schema's metadata under `arrowembed.metadata`. The file beside wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version of the format, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name under which the model is known, for example `all-MiniLM-L6-v2`.
    pub name: String,
    /// Hugging Face `model_type`, for example `bert`.
    pub architecture: String,
    /// The Hugging Face `config.json`, as it is.
    pub config: serde_json::Value,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// Whether pooling sees the tokens of a prompt.
    #[serde(default = "default_true")]
    pub include_prompt: bool,
    /// What is done to the pooled vector.
    pub normalize: Normalize,
    /// Named prompts, put before the text.
    #[serde(default)]
    pub prompts: BTreeMap<String, String>,
    /// The prompt used when none is named.
    #[serde(default)]
    pub default_prompt_name: Option<String>,
    /// Longest input in tokens, special tokens included.
    pub max_seq_length: usize,
    /// Whether texts are lower-cased before tokenization.
    #[serde(default)]
    pub do_lower_case: bool,
    /// Similarity function the model was trained for (`cosine`, `dot`, …).
    #[serde(default = "default_similarity")]
    pub similarity: String,
    /// The dtype that was asked for; single tensors may differ.
    pub dtype: DType,
    /// Where the weights came from.
    #[serde(default)]
    pub source: Option<Source>,
    /// What wrote the file, for example `arrowembed 0.1.0`.
    #[serde(default)]
    pub tool: String,
}

/// Where a model's weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// File name of the weights, for example `model.safetensors`.
    pub file: String,
    /// SHA-256 of that file, in lower-case hexadecimal.
    pub sha256: String,
}

fn default_true() -> bool {
    true
}

fn default_similarity() -> String {
    "cosine".to_owned()
}
