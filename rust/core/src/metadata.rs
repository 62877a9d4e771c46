//! What a model file says about itself: the contents of `metadata.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dense::{DenseLayer, output_width};
use crate::error::{Error, Result};
use crate::models::dimensions;
use crate::pool::{Normalize, Pooling};
use crate::weights::DType;
use crate::weights::embedded::check_version;

/// Version of the model file format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 3;

/// The last version whose 16-bit integers had another rule for their scales, with which products may overflow today.
pub(crate) const LAST_OF_OTHER_INT16: u32 = 2;

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
    /// The layers behind the pooling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<DenseLayer>,
    /// Whether pooling sees the tokens of a prompt.
    #[serde(default = "default_true")]
    pub include_prompt: bool,
    /// What is done to the pooled vector.
    pub normalize: Normalize,
    /// Sizes that the model was trained for its vectors to be cut to, longest first (Kusupati et al. 2022); empty
    /// where none are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matryoshka_dimensions: Vec<usize>,
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
    /// Similarity function the model was trained for (`cosine`, `dot`, `euclidean` or `manhattan`).
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

impl Metadata {
    /// Parses and checks a `metadata.json`; `path` is for messages.
    ///
    /// # Errors
    /// If it is not valid JSON, a field is missing or of the wrong type, the format is newer than
    /// this crate, or a value is out of range.
    pub(crate) fn parse(json: &str, path: &Path) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(json)
            .map_err(|e| Error::invalid_file(path, format!("metadata: {e}")))?;
        // Before the rest: a newer format may have other fields.
        if let Some(version) = value.get("format_version").and_then(serde_json::Value::as_u64) {
            check_version(path, u32::try_from(version).unwrap_or(u32::MAX))?;
        }
        let metadata: Self = serde_json::from_value(value)
            .map_err(|e| Error::invalid_file(path, format!("metadata: {e}")))?;
        metadata.check()?;
        Ok(metadata)
    }

    /// The text of `metadata.json`.
    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::config("metadata", e.to_string()))
    }

    /// Length of a vector before truncation.
    pub(crate) fn embedding_size(&self, hidden_size: usize) -> usize {
        self.dense.last().map_or(hidden_size, |layer| layer.out_features)
    }

    /// Checks what types cannot express.
    pub(crate) fn check(&self) -> Result<()> {
        let dimensions = dimensions(&self.architecture, &self.config)?;
        let whole = output_width(&self.dense, dimensions.hidden_size)?;
        let wrong = |size: &&usize| !(1..=whole).contains(*size);
        if let Some(size) = self.matryoshka_dimensions.iter().find(wrong) {
            let reason = format!("has {size}, a vector of the model allows 1 to {whole}");
            return Err(Error::config("matryoshka_dimensions", reason));
        }
        let most = dimensions.max_position_embeddings;
        if self.max_seq_length == 0 || self.max_seq_length > most {
            let reason = format!("is {}, the model allows 1 to {most}", self.max_seq_length);
            return Err(Error::config("max_seq_length", reason));
        }
        if let Normalize::P(p) = self.normalize
            && !(p.is_finite() && p >= 1.0)
        {
            return Err(Error::config("normalize", format!("has p = {p}, the least is 1")));
        }
        if let Some(name) = &self.default_prompt_name
            && !self.prompts.contains_key(name)
        {
            return Err(Error::config(
                "default_prompt_name",
                format!("is {name:?}, which is not among the prompts"),
            ));
        }
        if !SIMILARITIES.contains(&self.similarity.as_str()) {
            return Err(Error::config(
                "similarity",
                format!("is {:?}; known are {}", self.similarity, SIMILARITIES.join(", ")),
            ));
        }
        Ok(())
    }
}

/// The similarity functions of sentence-transformers.
const SIMILARITIES: [&str; 4] = ["cosine", "dot", "euclidean", "manhattan"];

fn default_true() -> bool {
    true
}

fn default_similarity() -> String {
    "cosine".to_owned()
}

/// The name and version that this crate writes into files.
pub(crate) fn tool() -> String {
    concat!("arrowembed ", env!("CARGO_PKG_VERSION")).to_owned()
}
