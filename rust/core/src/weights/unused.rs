//! Tensors of a checkpoint that the model has no use for: heads that were trained on top of it, which change no
//! vector, and everything else, without which vectors would be wrong in silence.

use std::collections::HashSet;

use super::integers_of;
use crate::error::{Error, Result};

/// Under what checkpoints with a head have their encoder.
const PREFIXES: [&str; 5] = ["bert.", "roberta.", "distilbert.", "mpnet.", "model."];

/// The first part of the names of heads, which stand beside the encoder or under its prefix.
const HEADS: [&str; 18] = [
    // Poolers of `[CLS]`, which sentence-transformers does not use.
    "pooler",
    // Masked language models: BERT and Nomic, RoBERTa and decoders, DistilBERT, ModernBERT.
    "cls",
    "predictions",
    "mlm",
    "lm_head",
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector",
    "head",
    "decoder",
    // Tasks.
    "seq_relationship",
    "classifier",
    "pre_classifier",
    "qa_outputs",
    "score",
    // What distillation has left behind.
    "fit_dense",
    "fit_denses",
    "logit_scale",
];

/// The last part of the names of tables that are computed anyway.
const COMPUTED: [&str; 3] = ["position_ids", "token_type_ids", "inv_freq"];

/// How many tensors an error names.
const MOST_NAMED: usize = 3;

/// Refuses a checkpoint with tensors, other than those of known heads, that are not in `used`.
///
/// # Errors
/// [`Error::UnsupportedModel`] that names the first few of them.
pub(super) fn refuse_unused(
    names: &[&str],
    used: &HashSet<&str>,
    architecture: &str,
) -> Result<()> {
    let of_integers = |name: &str| integers_of(name).is_some_and(|of| used.contains(of));
    let unused: Vec<&str> = names
        .iter()
        .copied()
        .filter(|&name| !used.contains(name) && !of_integers(name) && !is_harmless(name))
        .collect();
    if unused.is_empty() {
        return Ok(());
    }
    let named = unused[..unused.len().min(MOST_NAMED)].join(", ");
    let more = match unused.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::UnsupportedModel {
        reason: format!(
            "the weights have tensors that {architecture:?} as it is configured has no place for, without which \
             its vectors would be wrong: {named}{more}"
        ),
    })
}

fn is_harmless(name: &str) -> bool {
    let part = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let first = |name: &str| HEADS.contains(&name.split('.').next().unwrap_or_default());
    let last = name.rsplit('.').next().unwrap_or_default();
    first(name) || first(part) || COMPUTED.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(unused: &[&str]) -> Result<()> {
        let mut names = vec!["bert.encoder.layer.0.output.dense.weight", "embeddings.weight"];
        let used = names.iter().copied().collect();
        names.extend(unused);
        refuse_unused(&names, &used, "bert")
    }

    #[test]
    fn heads_and_computed_tables_are_passed_over() {
        refuse(&[]).unwrap();
        for harmless in [
            "pooler.dense.weight",
            "bert.pooler.dense.bias",
            "cls.predictions.transform.LayerNorm.weight",
            "cls.seq_relationship.bias",
            "lm_head.layer_norm.weight",
            "roberta.pooler.dense.weight",
            "classifier.out_proj.weight",
            "pre_classifier.bias",
            "vocab_transform.weight",
            "head.dense.weight",
            "decoder.bias",
            "score.weight",
            "embeddings.position_ids",
            "bert.embeddings.token_type_ids",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "embeddings.weight.scale",
            "embeddings.weight.sum",
        ] {
            refuse(&[harmless]).unwrap();
        }
    }

    #[test]
    fn anything_else_is_named() {
        for wrong in [
            "encoder.layer.0.attention.self.layer_norm_q.weight",
            "bert.encoder.layer.12.output.dense.weight",
            "encoder.head.weight",
            "embeddings.decoder.weight",
            "linear.weight",
            "2_Dense.linear.bias",
            "other.weight.scale",
        ] {
            let error = refuse(&[wrong, "pooler.dense.weight"]).unwrap_err();
            assert_eq!(error.code(), "unsupported_model");
            assert!(error.to_string().ends_with(&format!("wrong: {wrong}")), "{error}");
        }
        let error = refuse(&["a", "b", "c", "d", "e"]).unwrap_err().to_string();
        assert!(error.ends_with("wrong: a, b, c and 2 more"), "{error}");
    }
}
