//! What `auto` computes a model in, where that depends on the model: integers of 16 bits, if it loses nothing by them
//! that could be seen.
//!
//! Floating-point numbers are rounded by a share of themselves, whatever the model. Integers are rounded by a share of
//! their whole block: a few features that are far larger than all others, as large decoders are known to have (Dettmers
//! et al. 2022, `LLM.int8()`), leave the others of their block few bits. So the loss is measured of the model itself, once,
//! and kept in the cache beside the weights that were made for it.

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::cache::CacheLimits;
use crate::compute::Compute;
use crate::embeddings::Embeddings;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::model_config::ModelConfig;
use crate::open::SourceModel;
use crate::unpack;
use crate::weights::DType;
use crate::weights::embedded::hex;

/// Largest 1 - cosine of a text that counts as invisible: what weights of float16 are held to.
const INVISIBLE: f64 = 1e-5;

/// Languages, scripts, code and lengths; some 300 tokens in all.
const TEXTS: [&str; 12] = [
    "a",
    "Hello, world!",
    "The weather is lovely today.",
    "How do I return an article that I bought last week?",
    "Dr. Smith's 3rd visit cost $1,234.56 (incl. 7.5% VAT) on 2024-02-29 at 14:05:09.",
    "Der Vertrag kann bis zum Ende des Monats gekündigt werden.",
    "¿Cuánto cuesta un billete de ida y vuelta a Sevilla?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "人人生而自由，在尊严和权利上一律平等。",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n",
    "https://example.org/path/page.html?query=1&lang=en#top user.name+tag@example.org",
    "The reading room opened at nine, and by a quarter past every seat by the windows was taken. Students spread \
     maps over two desks at once, the librarian pretended not to see it, and somebody had again left the ladder \
     standing in front of the dictionaries. Nobody moved it, because nobody wanted to be asked why it had been there.",
];

/// What a model is computed in that is opened with [`Compute::Auto`] on the CPU.
///
/// # Errors
/// If the model cannot be opened.
pub(crate) fn settle(config: &ModelConfig) -> Result<Compute> {
    let model = SourceModel::open(&config.path)?;
    let stored = model.weights.dtype();
    let in_integers = Compute::Auto.chosen(stored) == Compute::Int16;
    if !in_integers || stored == DType::Int16 || model.weights.quantized() {
        return Ok(Compute::Auto);
    }
    by_loss(config, &model)
}

/// Integers of 16 bits, if this model loses nothing visible by them; else float32.
fn by_loss(config: &ModelConfig, model: &SourceModel) -> Result<Compute> {
    let in_cache = |compute, extension: &str| {
        let (dtype, cache) = (model.dtype_for(Some(compute)), config.cache_dir.as_deref());
        unpack::place(&model.metadata, &model.files, dtype, cache, extension)
    };
    let Ok(verdict) = in_cache(Compute::Int16, &format!("{}.loss", version(&model.metadata)?))
    else {
        return Ok(chosen(measured(config)?));
    };
    if let Some(loss) = read(&verdict) {
        return Ok(chosen(loss));
    }
    let mut packed_before = Vec::new();
    for compute in [Compute::Int16, Compute::Float32] {
        let path = in_cache(compute, "arrow")?;
        packed_before.push((compute, path.exists(), path));
    }
    let loss = measured(config)?;
    tracing::info!(loss, path = %config.path.display(), "measured what int16 loses");
    if let Err(error) = write(&verdict, loss) {
        tracing::warn!(%error, "the cache cannot be used; int16's loss is measured again each time");
    }
    for (compute, there, path) in packed_before {
        if compute != chosen(loss) && !there {
            // Only measuring needed it, and where a model is mapped as it is there is none.
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(chosen(loss))
}

fn chosen(loss: f64) -> Compute {
    if loss <= INVISIBLE { Compute::Int16 } else { Compute::Float32 }
}

/// Changes with all that the loss depends on beside the weights.
fn version(metadata: &Metadata) -> Result<String> {
    let mut hash = Sha256::new_with_prefix(metadata.to_json()?);
    for text in TEXTS {
        hash.update(text);
    }
    Ok(hex(&hash.finalize()[..8]))
}

/// The largest 1 - cosine between vectors of int16 and of float32.
fn measured(config: &ModelConfig) -> Result<f64> {
    let encode = |compute| {
        let mut config = config.clone();
        config.cache = CacheLimits::OFF;
        config.compute = Some(compute);
        // What is kept is for all who open the model.
        config.max_seq_length = None;
        // The model is verified when it is opened after this.
        config.verify = false;
        match config.map()?.encode(&TEXTS) {
            Err(Error::NonFinite { .. }) => Ok(None),
            vectors => vectors.map(Some),
        }
    };
    Ok(match (encode(Compute::Int16)?, encode(Compute::Float32)?) {
        (Some(integers), Some(exact)) => worst(&integers, &exact),
        _ => f64::INFINITY,
    })
}

fn worst(a: &Embeddings, b: &Embeddings) -> f64 {
    a.rows().zip(b.rows()).map(|(a, b)| apart(a, b)).fold(0.0, f64::max)
}

/// 1 - cosine as half of the squared distance of the unit vectors, which keeps its digits where the cosine would round
/// to 1.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let length = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    // A text without tokens has the vector zero, which stays.
    let unit = |x: f32, length: f64| f64::from(x) / if length == 0.0 { 1.0 } else { length };
    let (of_a, of_b) = (length(a), length(b));
    0.5 * a.iter().zip(b).map(|(&a, &b)| (unit(a, of_a) - unit(b, of_b)).powi(2)).sum::<f64>()
}

fn read(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|loss: &f64| *loss >= 0.0)
}

/// Whole or not at all, as others may read it meanwhile.
fn write(path: &Path, loss: f64) -> Result<()> {
    let mut file = unpack::temporary(path)?;
    writeln!(file, "{loss:e}").map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}
