//! What a Hugging Face or sentence-transformers folder says of its model.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::dense::{DenseActivation, DenseLayer};
use crate::error::{Error, Result};
use crate::known;
use crate::metadata::{FORMAT_VERSION, Metadata, tool};
use crate::models::{architecture, dimensions};
use crate::pool::{Normalize, Pooling};
use crate::weights::DType;
use crate::weights::map::open_regular;

/// Longest JSON file that is read; the largest real ones, shard indices, have a few megabytes.
const MOST_JSON_BYTES: u64 = 64 << 20;

/// A folder with a transformer, and where its parts lie.
#[derive(Debug)]
pub(crate) struct HfFolder {
    /// All that is known of the model, `source` left empty.
    pub(crate) metadata: Metadata,
    /// The weights files, one or several shards.
    pub(crate) weights: Vec<PathBuf>,
    /// Those of the metadata's dense layers.
    pub(crate) dense: Vec<PathBuf>,
    /// Where `tokenizer.json` and `tokenizer_config.json` should be.
    pub(crate) tokenizer_folder: PathBuf,
}

/// Reads a folder's configuration files as sentence-transformers does.
///
/// Without `modules.json` the pooling is the mean and nothing is normalised.
///
/// # Errors
/// If a file is missing, malformed or asks for what this engine cannot do.
pub(crate) fn read_folder(folder: &Path) -> Result<HfFolder> {
    let modules = Modules::read(folder)?;
    let transformer = &modules.transformer;
    let config = Json::require(transformer.join("config.json"))?;
    let model_type = config
        .text("model_type")?
        .ok_or_else(|| config.invalid("model_type", "is missing; it names the architecture"))?;
    let architecture = architecture(&model_type, &config.value);
    let sizes = dimensions(&architecture, &config.value)?;
    let sentence = Json::read(transformer.join("sentence_bert_config.json"))?;
    let tokenizer = Json::read(transformer.join("tokenizer_config.json"))?;
    let prompting = Json::read(folder.join("config_sentence_transformers.json"))?;

    let name = name_of(folder);
    let mut prompts = prompting.texts("prompts")?;
    if prompts.values().all(String::is_empty) {
        prompts.extend(known::prompts(&name));
    }
    let whole = modules.dense.last().map_or(sizes.hidden_size, |layer| layer.out_features);
    let metadata = Metadata {
        matryoshka_dimensions: matryoshka_dimensions(&config, &prompting, &name, whole),
        format_version: FORMAT_VERSION,
        name,
        architecture,
        pooling: modules.pooling,
        dense: modules.dense,
        include_prompt: modules.include_prompt,
        normalize: modules.normalize,
        prompts,
        default_prompt_name: prompting.text("default_prompt_name")?,
        max_seq_length: max_seq_length(&sentence, &tokenizer, sizes.max_position_embeddings)?,
        do_lower_case: sentence.flag("do_lower_case")?.unwrap_or(false),
        similarity: prompting.text("similarity_fn_name")?.unwrap_or_else(|| "cosine".to_owned()),
        dtype: DType::Float32,
        source: None,
        tool: tool(),
        config: config.value,
    };
    metadata.check()?;
    Ok(HfFolder {
        metadata,
        weights: weights_files(transformer)?,
        dense: modules.dense_files,
        tokenizer_folder: modules.transformer,
    })
}

/// The sizes that one of the files names, else those of a known model; longest first.
fn matryoshka_dimensions(
    config: &Json,
    sentence_transformers: &Json,
    name: &str,
    whole: usize,
) -> Vec<usize> {
    const FIELD: &str = "matryoshka_dimensions";
    // What is told for information alone makes no model unusable, whatever it is.
    let named = |json: &Json| json.counts(FIELD).ok().flatten();
    let Some(mut sizes) = named(config).or_else(|| named(sentence_transformers)) else {
        return known::matryoshka_dimensions(name, whole);
    };
    sizes.push(whole);
    sizes.retain(|size| (1..=whole).contains(size));
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.dedup();
    sizes
}

/// The model's own limit: sentence-transformers' setting, else the tokenizer's, and never more than
/// there are positions. Tokenizers without a limit state an absurd one, such as 1e30.
fn max_seq_length(sentence: &Json, tokenizer: &Json, positions: usize) -> Result<usize> {
    let stated = match sentence.count("max_seq_length")? {
        Some(limit) => Some(limit),
        None => tokenizer.number("model_max_length")?.map(|limit| limit as usize),
    };
    match stated {
        Some(0) => Err(Error::config("max_seq_length", "is 0")),
        stated => Ok(stated.unwrap_or(positions).min(positions)),
    }
}

/// `model.safetensors`, or the shards that `model.safetensors.index.json` names.
fn weights_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = Json::read(folder.join("model.safetensors.index.json"))?;
    let shards: BTreeSet<String> = index.texts("weight_map")?.into_values().collect();
    if shards.is_empty() {
        let reason = if folder.join("pytorch_model.bin").is_file() {
            "there is only a pytorch_model.bin, which `arrowembed convert` reads".to_owned()
        } else {
            "there is neither model.safetensors nor model.safetensors.index.json".to_owned()
        };
        return Err(Error::ModelNotFound { path: folder.to_owned(), reason });
    }
    shards.iter().map(|shard| Ok(folder.join(inside(shard, "weight_map", &index)?))).collect()
}

/// The name under which a folder's model is known: the folder's, or in the Hugging Face cache, where that is a
/// commit, the repository's.
pub(crate) fn name_of(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = absolute
        .parent()
        .filter(|parent| parent.ends_with("snapshots"))
        .and_then(|snapshots| name(snapshots.parent()?))
        .and_then(|cached| Some(cached.strip_prefix("models--")?.rsplit("--").next()?.to_owned()));
    repository.or_else(|| name(&absolute)).unwrap_or_else(|| "model".to_owned())
}

/// The pipeline of `modules.json`.
struct Modules {
    transformer: PathBuf,
    pooling: Pooling,
    dense: Vec<DenseLayer>,
    dense_files: Vec<PathBuf>,
    include_prompt: bool,
    normalize: Normalize,
}

impl Modules {
    fn read(folder: &Path) -> Result<Self> {
        let mut modules = Self {
            transformer: folder.to_owned(),
            pooling: Pooling::Mean,
            dense: Vec::new(),
            dense_files: Vec::new(),
            include_prompt: true,
            normalize: Normalize::None,
        };
        let path = folder.join("modules.json");
        if !path.is_file() {
            return Ok(modules);
        }
        let json = Json::require(path)?;
        let list = json.value.as_array().ok_or_else(|| json.invalid("modules", "is not a list"))?;
        let mut kinds = Vec::new();
        for module in list {
            let module = Json { path: json.path.clone(), value: module.clone() };
            let kind = module
                .text("type")?
                .ok_or_else(|| module.invalid("type", "is missing in a module"))?;
            let kind = kind.rsplit('.').next().unwrap_or_default().to_owned();
            let name = module.text("path")?.unwrap_or_default();
            let path = folder.join(inside(&name, "path", &module)?);
            match kind.as_str() {
                "Transformer" => modules.transformer = path,
                "Pooling" => modules.read_pooling(&path)?,
                "Dense" => modules.read_dense(&name, &path)?,
                "Normalize" => modules.normalize = Normalize::L2,
                _ => {}
            }
            kinds.push(kind);
        }
        let behind = match kinds.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["Transformer", "Pooling", behind @ .., "Normalize"]
            | ["Transformer", "Pooling", behind @ ..] => behind.iter().all(|&kind| kind == "Dense"),
            _ => false,
        };
        if behind {
            return Ok(modules);
        }
        Err(Error::UnsupportedModel {
            reason: format!(
                "{} lists the modules {}; this version runs Transformer, Pooling and then \
                 possibly Dense and Normalize",
                json.path.display(),
                kinds.join(", ")
            ),
        })
    }

    fn read_dense(&mut self, name: &str, folder: &Path) -> Result<()> {
        let config = Json::require(folder.join("config.json"))?;
        let size = |field| config.count(field)?.ok_or_else(|| config.invalid(field, "is missing"));
        // What sentence-transformers takes where nothing is said.
        let class = config.text("activation_function")?;
        let class = class.as_deref().unwrap_or("torch.nn.modules.activation.Tanh");
        let activation =
            DenseActivation::of_torch(class).ok_or_else(|| Error::UnsupportedModel {
                reason: format!(
                    "{} has the activation_function {class:?}; known are Identity, Tanh, ReLU and \
                 Sigmoid",
                    config.path.display()
                ),
            })?;
        let file = folder.join("model.safetensors");
        if !file.is_file() {
            let reason = if folder.join("pytorch_model.bin").is_file() {
                "there is only a pytorch_model.bin for this dense layer, which `arrowembed convert` reads"
            } else {
                "there is no model.safetensors for this dense layer"
            };
            return Err(Error::ModelNotFound {
                path: folder.to_owned(),
                reason: reason.to_owned(),
            });
        }
        self.dense.push(DenseLayer {
            name: name.to_owned(),
            in_features: size("in_features")?,
            out_features: size("out_features")?,
            bias: config.flag("bias")?.unwrap_or(true),
            activation,
        });
        self.dense_files.push(file);
        Ok(())
    }

    fn read_pooling(&mut self, folder: &Path) -> Result<()> {
        let config = Json::require(folder.join("config.json"))?;
        self.include_prompt = config.flag("include_prompt")?.unwrap_or(true);
        let modes = pooling_modes(&config)?;
        let [mode] = modes.as_slice() else {
            return Err(Error::UnsupportedModel {
                reason: format!(
                    "{} asks for the pooling modes [{}]; this version runs exactly one",
                    config.path.display(),
                    modes.join(", ")
                ),
            });
        };
        self.pooling = match mode.as_str() {
            "cls" => Pooling::Cls,
            "mean" => Pooling::Mean,
            "max" => Pooling::Max,
            "mean_sqrt_len_tokens" => Pooling::MeanSqrt,
            "lasttoken" => Pooling::Last,
            other => {
                return Err(Error::UnsupportedModel {
                    reason: format!(
                        "{} asks for pooling mode {other:?}; known are cls, mean, max, \
                         mean_sqrt_len_tokens and lasttoken",
                        config.path.display()
                    ),
                });
            }
        };
        Ok(())
    }
}

/// The pooling modes that are on, by the names of the newer `pooling_mode`.
fn pooling_modes(config: &Json) -> Result<Vec<String>> {
    match config.value.get("pooling_mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) => return Ok(vec![mode.clone()]),
        Some(Value::Array(modes)) => {
            let texts = modes.iter().map(|mode| mode.as_str().map(str::to_owned));
            return texts
                .collect::<Option<_>>()
                .ok_or_else(|| config.invalid("pooling_mode", "is not a list of strings"));
        }
        Some(_) => return Err(config.invalid("pooling_mode", "is not a string")),
    }
    let mut modes = Vec::new();
    for (flag, mode, default) in [
        ("pooling_mode_cls_token", "cls", false),
        ("pooling_mode_mean_tokens", "mean", true),
        ("pooling_mode_max_tokens", "max", false),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", false),
        ("pooling_mode_weightedmean_tokens", "weightedmean", false),
        ("pooling_mode_lasttoken", "lasttoken", false),
    ] {
        if config.flag(flag)?.unwrap_or(default) {
            modes.push(mode.to_owned());
        }
    }
    Ok(modes)
}

/// A relative path that stays in its folder.
fn inside<'a>(path: &'a str, field: &str, json: &Json) -> Result<&'a Path> {
    let path = Path::new(path);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(path);
    }
    Err(json.invalid(field, format!("is {}, outside of the model's folder", path.display())))
}

/// A JSON file whose fields are read by name; null counts as absent.
struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    /// Reads a file; one that does not exist has no fields.
    fn read(path: PathBuf) -> Result<Self> {
        if path.is_file() {
            return Self::require(path);
        }
        Ok(Self { path, value: Value::Null })
    }

    fn require(path: PathBuf) -> Result<Self> {
        let text = read_text(&path)?;
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Self { path, value }),
            Err(e) => Err(Error::config(path.display().to_string(), format!("is malformed: {e}"))),
        }
    }

    fn invalid(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::config(format!("{}: {field}", self.path.display()), reason)
    }

    fn field<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.value.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.invalid(field, format!("is {value}, expected is {expected}"))),
            },
        }
    }

    fn text(&self, field: &str) -> Result<Option<String>> {
        self.field(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn flag(&self, field: &str) -> Result<Option<bool>> {
        self.field(field, "true or false", Value::as_bool)
    }

    fn number(&self, field: &str) -> Result<Option<f64>> {
        self.field(field, "a number", Value::as_f64)
    }

    fn count(&self, field: &str) -> Result<Option<usize>> {
        self.field(field, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    fn counts(&self, field: &str) -> Result<Option<Vec<usize>>> {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.field(field, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(count).collect()
        })
    }

    fn texts(&self, field: &str) -> Result<BTreeMap<String, String>> {
        let read = |value: &Value| {
            let text =
                |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            value.as_object()?.iter().map(text).collect()
        };
        Ok(self.field(field, "an object of strings", read)?.unwrap_or_default())
    }
}

/// Reads a JSON file's text, within reason.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut file = open_regular(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length > MOST_JSON_BYTES {
        return Err(Error::invalid_file(path, format!("it has {length} bytes, too many for JSON")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(Error::io(path))?;
    Ok(text)
}
