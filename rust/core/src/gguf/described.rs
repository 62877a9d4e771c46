//! What the metadata of a GGUF file say of its model, in the words of Hugging Face.

use std::path::Path;

use serde_json::{Value, json};

use super::file::GgufFile;
use super::names::{self, Names};
use crate::dense::{DenseActivation, DenseLayer};
use crate::error::{Error, Result};
use crate::metadata::{FORMAT_VERSION, Metadata, tool};
use crate::pool::{Normalize, Pooling};
use crate::weights::DType;

/// What llama.cpp calls the architectures that this crate runs.
const ARCHITECTURES: &[&str] =
    &["bert", "gemma-embedding", "jina-bert-v2", "modern-bert", "nomic-bert", "qwen2", "qwen3"];

/// What the metadata describe.
pub(super) struct Described {
    /// As Hugging Face calls it.
    pub(super) architecture: &'static str,
    pub(super) names: Names,
    config: Value,
}

/// Reads an architecture's values by llama.cpp's keys.
struct Keys<'a> {
    file: &'a GgufFile,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn size(&self, key: &str) -> Result<usize> {
        let key = self.key(key);
        let size = self.file.metadata().unsigned(&key)?;
        size.ok_or_else(|| Error::config(&key, "is missing in the GGUF file"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.file.metadata().unsigned(&self.key(key))?.unwrap_or(default))
    }

    fn number(&self, key: &str) -> Result<f64> {
        let key = self.key(key);
        let number = self.file.metadata().float(&key)?;
        number.ok_or_else(|| Error::config(&key, "is missing in the GGUF file"))
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.file.metadata().float(&self.key(key))?.unwrap_or(default))
    }

    /// The kind of rotary scaling, if there is one.
    fn rope_scaling(&self) -> Result<Option<String>> {
        let kind = self.file.metadata().text(&self.key("rope.scaling.type"))?;
        Ok(kind.filter(|&kind| kind != "none").map(str::to_owned))
    }

    /// Rows of the token types' table; files of 2024 have a single one as a vector.
    fn token_types(&self) -> Result<usize> {
        match self.file.get("token_types.weight").map(|tensor| tensor.shape.len()) {
            Some(1) => Ok(1),
            _ => self.rows("token_types.weight"),
        }
    }

    /// The id of the padding token where it is written as RoBERTa and its relatives have it.
    fn padding_of_roberta(&self) -> Result<Option<usize>> {
        let metadata = self.file.metadata();
        let Some(tokens) = metadata.strings("tokenizer.ggml.tokens")? else { return Ok(None) };
        let is_padding = |id: &usize| tokens.get(*id) == Some("<pad>");
        match metadata.unsigned("tokenizer.ggml.padding_token_id")? {
            Some(id) => Ok(Some(id).filter(is_padding)),
            None => Ok((0..tokens.len()).find(is_padding)),
        }
    }

    /// Rows of a table.
    fn rows(&self, tensor: &str) -> Result<usize> {
        let found = self.file.get(tensor).and_then(|tensor| tensor.shape.first());
        found.copied().ok_or_else(|| Error::MissingTensor { name: tensor.to_owned() })
    }
}

impl Described {
    pub(super) fn read(file: &GgufFile) -> Result<Self> {
        let prefix = file
            .metadata()
            .text("general.architecture")?
            .ok_or_else(|| Error::config("general.architecture", "is missing in the GGUF file"))?;
        let keys = Keys { file, prefix };
        if let Some(kind) = keys.rope_scaling()? {
            let reason = format!("scaled rotary positions ({kind:?}) in the GGUF file");
            return Err(Error::UnsupportedModel { reason });
        }
        match prefix {
            "bert" if file.get("token_types.weight").is_none() => Self::distilbert(&keys),
            "bert" => Self::bert(&keys),
            "jina-bert-v2" => Self::jina_bert(&keys),
            "nomic-bert" => Self::nomic_bert(&keys),
            "modern-bert" => Self::modernbert(&keys),
            "qwen2" => Self::qwen(&keys, "qwen2"),
            "qwen3" => Self::qwen(&keys, "qwen3"),
            "gemma-embedding" => Self::gemma3(&keys),
            other => Err(Error::UnsupportedModel {
                reason: format!(
                    "GGUF architecture {other:?}; this version runs {}",
                    ARCHITECTURES.join(", ")
                ),
            }),
        }
    }

    fn bert(keys: &Keys<'_>) -> Result<Self> {
        let positions = keys.rows("position_embd.weight")?;
        let padding = keys.padding_of_roberta()?.filter(|padding| unused(positions, *padding));
        let architecture = if padding.is_some() { "roberta" } else { "bert" };
        let config = json!({
            "model_type": architecture,
            "pad_token_id": padding,
            "hidden_size": keys.size("embedding_length")?,
            "num_hidden_layers": keys.size("block_count")?,
            "num_attention_heads": keys.size("attention.head_count")?,
            "intermediate_size": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": positions,
            "type_vocab_size": keys.token_types()?,
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?,
            "hidden_act": "gelu",
        });
        Ok(Self { architecture, names: names::BERT, config })
    }

    fn distilbert(keys: &Keys<'_>) -> Result<Self> {
        let config = json!({
            "model_type": "distilbert",
            "dim": keys.size("embedding_length")?,
            "n_layers": keys.size("block_count")?,
            "n_heads": keys.size("attention.head_count")?,
            "hidden_dim": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": keys.rows("position_embd.weight")?,
            "activation": "gelu",
        });
        Ok(Self { architecture: "distilbert", names: names::DISTILBERT, config })
    }

    fn jina_bert(keys: &Keys<'_>) -> Result<Self> {
        let config = json!({
            "model_type": "bert",
            "position_embedding_type": "alibi",
            "feed_forward_type": "geglu",
            "hidden_size": keys.size("embedding_length")?,
            "num_hidden_layers": keys.size("block_count")?,
            "num_attention_heads": keys.size("attention.head_count")?,
            "intermediate_size": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": keys.size("context_length")?,
            "type_vocab_size": keys.token_types()?,
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?,
        });
        let gated = keys.file.get("blk.0.ffn_gate.weight").is_some();
        let names = if gated { names::JINA_BERT_GATED } else { names::JINA_BERT };
        Ok(Self { architecture: "jina-bert-v2", names, config })
    }

    fn nomic_bert(keys: &Keys<'_>) -> Result<Self> {
        let biased = keys.file.get("blk.0.attn_qkv.bias").is_some();
        let config = json!({
            "model_type": "nomic_bert",
            "n_embd": keys.size("embedding_length")?,
            "n_layer": keys.size("block_count")?,
            "n_head": keys.size("attention.head_count")?,
            "n_inner": keys.size("feed_forward_length")?,
            "n_positions": keys.size("context_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "type_vocab_size": keys.token_types()?,
            "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon")?,
            "activation_function": "swiglu",
            "rotary_emb_base": keys.number("rope.freq_base")?,
            "qkv_proj_bias": biased,
        });
        Ok(Self { architecture: "nomic_bert", names: names::NOMIC_BERT, config })
    }

    fn modernbert(keys: &Keys<'_>) -> Result<Self> {
        let activation = keys.file.metadata().text(&keys.key("hidden_activation"))?;
        let config = json!({
            "model_type": "modernbert",
            "hidden_size": keys.size("embedding_length")?,
            "num_hidden_layers": keys.size("block_count")?,
            "num_attention_heads": keys.size("attention.head_count")?,
            "intermediate_size": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": keys.size("context_length")?,
            "hidden_activation": activation.unwrap_or("gelu"),
            "norm_eps": keys.number("attention.layer_norm_epsilon")?,
            "global_attn_every_n_layers": keys.size_or("attention.sliding_window_pattern", 3)?,
            "local_attention": keys.size("attention.sliding_window")?,
            "global_rope_theta": keys.number("rope.freq_base")?,
            "local_rope_theta": keys.number_or("rope.freq_base_swa", 10_000.0)?,
        });
        Ok(Self { architecture: "modernbert", names: names::MODERNBERT, config })
    }

    fn qwen(keys: &Keys<'_>, model_type: &'static str) -> Result<Self> {
        let (hidden, heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
        let causal = keys.file.metadata().flag(&keys.key("attention.causal"))?;
        let config = json!({
            "model_type": model_type,
            "hidden_size": hidden,
            "num_hidden_layers": keys.size("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": keys.size_or("attention.head_count_kv", heads)?,
            "head_dim": keys.size_or("attention.key_length", hidden / heads.max(1))?,
            "intermediate_size": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": keys.size("context_length")?,
            "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": keys.number_or("rope.freq_base", 10_000.0)?,
            "use_sliding_window": keys.size_or("attention.sliding_window", 0)? > 0,
            "hidden_act": "silu",
            "attention_bias": keys.file.get("blk.0.attn_q.bias").is_some(),
            "is_causal": causal.unwrap_or(true),
        });
        Ok(Self { architecture: model_type, names: names::QWEN, config })
    }

    fn gemma3(keys: &Keys<'_>) -> Result<Self> {
        let head_dim = keys.size("attention.key_length")?;
        let config = json!({
            "model_type": "gemma3_text",
            "hidden_size": keys.size("embedding_length")?,
            "num_hidden_layers": keys.size("block_count")?,
            "num_attention_heads": keys.size("attention.head_count")?,
            "num_key_value_heads": keys.size("attention.head_count_kv")?,
            "head_dim": head_dim,
            "intermediate_size": keys.size("feed_forward_length")?,
            "vocab_size": keys.rows("token_embd.weight")?,
            "max_position_embeddings": keys.size("context_length")?,
            "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?,
            "query_pre_attn_scalar": head_dim,
            "rope_theta": keys.number_or("rope.freq_base", 1_000_000.0)?,
            "rope_local_base_freq": keys.number_or("rope.freq_base_swa", 10_000.0)?,
            "hidden_activation": "gelu_pytorch_tanh",
            "sliding_window": keys.size("attention.sliding_window")?,
            "sliding_window_pattern": keys.size_or("attention.sliding_window_pattern", 6)?,
            "use_bidirectional_attention": true,
        });
        Ok(Self { architecture: "gemma3_text", names: names::GEMMA3, config })
    }

    pub(super) fn metadata(&self, file: &GgufFile, path: &Path) -> Result<Metadata> {
        let prefix = file.metadata().text("general.architecture")?.unwrap_or_default();
        let keys = Keys { file, prefix };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = stem.unwrap_or_else(|| "model".to_owned());
        let dense = dense(file, self.architecture)?;
        let dimensions = crate::models::dimensions(self.architecture, &self.config)?;
        let whole = dense.last().map_or(dimensions.hidden_size, |layer| layer.out_features);
        Ok(Metadata {
            format_version: FORMAT_VERSION,
            prompts: crate::known::prompts(&name),
            matryoshka_dimensions: crate::known::matryoshka_dimensions(&name, whole),
            name,
            architecture: self.architecture.to_owned(),
            config: self.config.clone(),
            pooling: self.pooling(&keys)?,
            dense,
            include_prompt: true,
            // Every embedding model that is passed around in this form is compared by cosines.
            normalize: Normalize::L2,
            default_prompt_name: None,
            max_seq_length: dimensions.max_position_embeddings,
            do_lower_case: false,
            similarity: "cosine".to_owned(),
            dtype: DType::Float32,
            source: None,
            tool: tool(),
        })
    }

    /// The file's own, or where it says nothing the last token for decoders and the mean for all others.
    fn pooling(&self, keys: &Keys<'_>) -> Result<Pooling> {
        let key = keys.key("pooling_type");
        match keys.file.metadata().unsigned(&key)? {
            None | Some(0) if self.architecture.starts_with("qwen") => Ok(Pooling::Last),
            None | Some(0 | 1) => Ok(Pooling::Mean),
            Some(2) => Ok(Pooling::Cls),
            Some(3) => Ok(Pooling::Last),
            Some(4) => Err(Error::UnsupportedModel {
                reason: "the GGUF file is a reranker, which gives scores and no vectors".to_owned(),
            }),
            Some(other) => Err(Error::config(&key, format!("is {other}, known are 0 to 4"))),
        }
    }
}

/// Whether RoBERTa's table of positions still has those that no token has, up to the padding token's id.
///
/// llama.cpp's converter leaves them out for RoBERTa and XLM-R but takes `CamemBERT` for BERT, and no key says which.
/// But models have a power of two of positions that are used.
fn unused(rows: usize, padding: usize) -> bool {
    rows.checked_sub(padding.saturating_add(1)).is_some_and(usize::is_power_of_two)
}

/// The dense layers behind the pooling.
fn dense(file: &GgufFile, architecture: &str) -> Result<Vec<DenseLayer>> {
    let others = ["dense_2.bias", "dense_3.bias"].into_iter().find(|name| file.get(name).is_some());
    let elsewhere = file.get("dense_2.weight").filter(|_| architecture != "gemma3_text");
    if let Some(name) = others.or_else(|| elsewhere.map(|_| "dense_2.weight")) {
        // Late-interaction models project every token with it.
        let reason = format!("the GGUF file has the tensor {name:?}, a layer of an unknown kind");
        return Err(Error::UnsupportedModel { reason });
    }
    let mut layers = Vec::new();
    for (tensor, name) in [("dense_2.weight", "2_Dense"), ("dense_3.weight", "3_Dense")] {
        let Some(found) = file.get(tensor) else { continue };
        let [out_features, in_features] = found.shape[..] else {
            return Err(Error::config(tensor, format!("has the shape {:?}", found.shape)));
        };
        let (name, activation) = (name.to_owned(), DenseActivation::Identity);
        layers.push(DenseLayer { name, in_features, out_features, bias: false, activation });
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::fixtures::Writer;

    /// A model of that many positions and no layers' tensors.
    fn described(positions: u64, tokens: &[&str], padding: Option<u32>) -> Described {
        let mut writer = Writer::new()
            .string("general.architecture", "bert")
            .u32("bert.embedding_length", 2)
            .u32("bert.block_count", 1)
            .u32("bert.attention.head_count", 1)
            .u32("bert.feed_forward_length", 4)
            .value("bert.attention.layer_norm_epsilon", 6, &1e-5_f32.to_le_bytes())
            .strings("tokenizer.ggml.tokens", tokens);
        if let Some(padding) = padding {
            writer = writer.u32("tokenizer.ggml.padding_token_id", padding);
        }
        let table = |writer: Writer, name: &str, rows: u64| {
            writer.tensor(name, &[2, rows], &vec![0.0; 2 * rows as usize])
        };
        let writer = table(writer, "token_embd.weight", tokens.len() as u64);
        let writer = table(writer, "position_embd.weight", positions);
        let writer = table(writer, "token_types.weight", 2);
        Described::read(&GgufFile::from_bytes(&writer.bytes()).unwrap()).unwrap()
    }

    #[test]
    fn positions_of_roberta_begin_where_the_table_says() {
        let roberta = ["<s>", "<pad>", "</s>", "<unk>"];
        let bert = ["[PAD]", "[CLS]", "[SEP]"];
        for (positions, tokens, padding, expected) in [
            // CamemBERT as BERT's converter leaves it.
            (514, &roberta[..], Some(1), ("roberta", 512)),
            (514, &roberta, None, ("roberta", 512)),
            (130, &["a", "b", "c", "<pad>"], Some(3), ("bert", 130)),
            (132, &["a", "b", "c", "<pad>"], Some(3), ("roberta", 128)),
            // RoBERTa's own converter has left out the first two.
            (512, &roberta, Some(1), ("bert", 512)),
            (8192, &roberta, Some(1), ("bert", 8192)),
            // BERT has no such positions, however many there are.
            (514, &bert, Some(1), ("bert", 514)),
            (513, &bert, Some(0), ("bert", 513)),
            (514, &roberta, Some(9), ("bert", 514)),
        ] {
            let described = described(positions, tokens, padding);
            let dimensions =
                crate::models::dimensions(described.architecture, &described.config).unwrap();
            let found = (described.architecture, dimensions.max_position_embeddings);
            assert_eq!(found, expected, "{positions} positions, {tokens:?}");
        }
    }
}
