//! The architectures, one file each, and the table that finds them by name.

mod bert;
mod distilbert;
mod gemma3;
mod jina_bert;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod qwen;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::ops::{Backend, Heads, Load, Ops};
use crate::plan::MicroBatch;

/// A loaded model: token ids in, token vectors out.
pub(crate) trait Encoder<B: Backend, O: Ops<B>>: Send + Sync {
    /// The position of every token, where it is not just its place in the sequence.
    fn positions(&self, _batch: &MicroBatch) -> Option<Vec<u32>> {
        None
    }

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
                other => Err(unknown(other)),
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
                other => Err(unknown(other)),
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
                other => Err(unknown(other)),
            }
        }
    };
}

architectures! {
    "bert" => bert::Bert,
    "camembert" => bert::Bert,
    "distilbert" => distilbert::DistilBert,
    "gemma3_text" => gemma3::Gemma3,
    "jina-bert-v2" => jina_bert::JinaBert,
    "modernbert" => modernbert::ModernBert,
    "mpnet" => mpnet::MpNet,
    "nomic_bert" => nomic_bert::NomicBert,
    "qwen2" => qwen::Qwen,
    "qwen3" => qwen::Qwen,
    "roberta" => bert::Bert,
    "xlm-roberta" => bert::Bert,
}

/// The architecture that a `config.json` describes: its `model_type`, but for checkpoints that say "bert" and
/// mean a relative with code of its own.
pub(crate) fn architecture(model_type: &str, config: &Value) -> String {
    let positions = config.get("position_embedding_type").and_then(Value::as_str);
    match (model_type, positions) {
        ("bert", Some("alibi")) => "jina-bert-v2".to_owned(),
        _ => model_type.to_owned(),
    }
}

fn unknown(architecture: &str) -> Error {
    unsupported(format!(
        "architecture {architecture:?}; this version runs {}",
        ARCHITECTURES.join(", ")
    ))
}

fn unsupported(reason: impl Into<String>) -> Error {
    Error::UnsupportedModel { reason: reason.into() }
}

/// The keys that an architecture needs.
fn parse<T: DeserializeOwned>(config: &Value) -> Result<T> {
    T::deserialize(config).map_err(|e| Error::config("config", e.to_string()))
}

/// Refuses sizes that are zero or absurd.
fn check_sizes(sizes: &[(&str, usize, usize)]) -> Result<()> {
    for &(field, value, most) in sizes {
        if value == 0 || value > most {
            return Err(Error::config(field, format!("is {value}, allowed are 1 to {most}")));
        }
    }
    Ok(())
}

fn check_epsilon(field: &str, epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("is {epsilon}")))
}

/// A rotary embedding's base, which must be a number above one.
fn check_theta(field: &str, theta: f32) -> Result<()> {
    if theta.is_finite() && theta > 1.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("is {theta}")))
}

/// The base of a rotary embedding: in `rope_parameters`, as transformers 5 writes it, of a kind of layers where there
/// are several, or under the older key.
///
/// # Errors
/// If there is none, or positions are scaled, which is not computed.
fn rope_theta(config: &Value, key: &str, layer_type: &str) -> Result<Option<f32>> {
    let parameters = config.get("rope_parameters").unwrap_or(&Value::Null);
    let parameters = parameters.get(layer_type).unwrap_or(parameters);
    for scaling in [config.get("rope_scaling").unwrap_or(&Value::Null), parameters] {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        match kind {
            None | Some(Value::Null) => {}
            Some(kind) if kind == "default" => {}
            Some(kind) => return Err(unsupported(format!("scaled rotary positions ({kind})"))),
        }
    }
    let theta = match parameters.get("rope_theta") {
        None | Some(Value::Null) => config.get(key),
        found => found,
    };
    let Some(theta) = theta.filter(|theta| !theta.is_null()) else { return Ok(None) };
    let theta = theta.as_f64().ok_or_else(|| Error::config(key, format!("is {theta}")))? as f32;
    check_theta(key, theta)?;
    Ok(Some(theta))
}

/// Refuses heads that cannot be grouped or rotated.
fn check_rotated(heads: Heads) -> Result<()> {
    let Heads { count, kv_count, head_dim } = heads;
    if !count.is_multiple_of(kv_count.max(1)) {
        return Err(Error::config(
            "num_key_value_heads",
            format!("is {kv_count}, of which num_attention_heads {count} is no multiple"),
        ));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(Error::config("head_dim", format!("is {head_dim}, which has no two halves")));
    }
    Ok(())
}

/// Heads of equal width that together are as wide as the hidden state.
fn heads(hidden_size: usize, count: usize) -> Result<Heads> {
    if count > 0 && hidden_size.is_multiple_of(count) {
        return Ok(Heads::equal(count, hidden_size / count));
    }
    Err(Error::config(
        "num_attention_heads",
        format!("hidden_size {hidden_size} is not a multiple of {count}"),
    ))
}

/// The prefix under which a checkpoint has its encoder: none, or one of these where it was saved with a task's
/// head on top.
fn prefix<B: Backend>(from: &impl Load<B>, prefixes: &[&'static str], name: &str) -> &'static str {
    prefixes.iter().find(|prefix| from.contains(&format!("{prefix}{name}"))).copied().unwrap_or("")
}

/// Positions as RoBERTa and MPNet count them: from the one behind the padding token's id on, padding tokens
/// themselves having that id as position and not counting.
fn positions_behind_padding(batch: &MicroBatch, padding: u32) -> Vec<u32> {
    let mut positions = Vec::with_capacity(batch.ids.len());
    for bounds in batch.offsets.windows(2) {
        let mut last = padding;
        positions.extend(batch.ids[bounds[0]..bounds[1]].iter().map(|&id| {
            if id == padding {
                padding
            } else {
                last += 1;
                last
            }
        }));
    }
    positions
}

impl Dimensions {
    /// Refuses what leaves no position for a token.
    fn check(self) -> Result<()> {
        if self.max_position_embeddings == 0 {
            return Err(Error::config("max_position_embeddings", "leaves no position for a token"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    /// A fixture's architecture and configuration with some keys changed; null takes one away.
    fn changed(fixture: &str, changes: &Value) -> (String, Value) {
        let text = std::fs::read_to_string(fixtures::hf(fixture).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        let keys = config.as_object_mut().unwrap();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(keys.remove(key)),
                value => drop(keys.insert(key.clone(), value.clone())),
            }
        }
        let model_type = config["model_type"].as_str().unwrap().to_owned();
        (architecture(&model_type, &config), config)
    }

    fn check(fixture: &str, changes: &Value) -> Result<Dimensions> {
        let (architecture, config) = changed(fixture, changes);
        dimensions(&architecture, &config)
    }

    #[test]
    fn rotary_bases_are_read_as_transformers_5_writes_them() {
        let one = json!({"rope_type": "default", "rope_theta": 5e5});
        let two = json!({"full_attention": one, "sliding_attention": one});
        for (fixture, old_keys, parameters) in [
            ("qwen2", &["rope_theta"][..], &one),
            ("qwen3", &["rope_theta", "rope_scaling"], &one),
            ("gemma3-embedding", &["rope_theta", "rope_local_base_freq"], &two),
            ("modernbert", &["global_rope_theta", "local_rope_theta"], &two),
            ("nomic-bert", &["rotary_emb_base"], &one),
        ] {
            let mut changes = json!({"rope_parameters": parameters});
            for key in old_keys {
                changes[*key] = Value::Null;
            }
            check(fixture, &changes).unwrap();
            let (_, config) = changed(fixture, &changes);
            let theta = rope_theta(&config, old_keys[0], "full_attention").unwrap();
            assert_eq!(theta, Some(5e5), "{fixture}");
        }
    }

    #[test]
    fn what_would_change_the_result_is_refused_by_name() {
        for (fixture, changes, message) in [
            ("qwen2", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "yarn"),
            ("qwen3", json!({"rope_parameters": {"rope_type": "linear"}}), "linear"),
            ("qwen2", json!({"use_sliding_window": true}), "use_sliding_window"),
            ("qwen2", json!({"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}), "is_causal"),
            ("qwen3", json!({"num_key_value_heads": 3}), "num_key_value_heads"),
            ("gemma3-embedding", json!({"attn_logit_softcapping": 30.0}), "softcapping"),
            ("gemma3-embedding", json!({"head_dim": 23}), "two halves"),
            ("modernbert", json!({"num_attention_heads": 48}), "two halves"),
            ("nomic-bert", json!({"num_experts": 8}), "experts"),
            ("nomic-bert", json!({"prenorm": true}), "prenorm"),
            ("nomic-bert", json!({"activation_function": "gelu"}), "gelu"),
            ("jina-bert-v2", json!({"feed_forward_type": "glu"}), "feed_forward_type"),
            ("bert", json!({"position_embedding_type": "relative_key"}), "relative_key"),
            ("roberta", json!({"max_position_embeddings": 2}), "no position"),
            ("mpnet", json!({"relative_attention_num_buckets": 512}), "relative_attention"),
            ("mpnet", json!({"relative_attention_num_buckets": 3}), "relative_attention"),
            ("distilbert", json!({"n_heads": 5}), "multiple"),
        ] {
            let error = check(fixture, &changes).unwrap_err().to_string();
            assert!(error.contains(message), "{fixture}: {error}");
        }
    }

    #[test]
    fn what_does_not_change_the_result_is_accepted() {
        for (fixture, changes) in [
            ("qwen3", json!({"rope_scaling": {"rope_type": "default"}})),
            ("qwen2", json!({"auto_map": {"AutoModel": "m.M"}, "is_causal": false})),
            ("gemma3-embedding", json!({"sliding_window_pattern": 6})),
            ("distilbert", json!({"sinusoidal_pos_embds": true})),
            ("modernbert", json!({"layer_types": ["full_attention"], "local_rope_theta": null})),
        ] {
            check(fixture, &changes).unwrap();
        }
    }
}
