//! From a path to a model that is ready to run: its metadata, its tokenizer and packed weights.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::gguf::model::GgufModel;
use crate::hf::{self, HfFolder};
use crate::metadata::Metadata;
use crate::unpack;
use crate::weights::arrow::ArrowFile;
use crate::weights::pack::plan_packed;
use crate::weights::parquet::ParquetFile;
use crate::weights::safetensors::SafetensorsFiles;
use crate::weights::{DType, TensorSource};

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenOptions {
    /// Where models that cannot be mapped as they are get unpacked; see [`unpack::cache_dir`].
    pub(crate) cache_dir: Option<PathBuf>,
    /// What the weights are to be made for; `None` leaves them as they are stored.
    pub(crate) compute: Option<Compute>,
    /// Whether every tensor is compared with its checksum.
    pub(crate) verify: bool,
}

/// A model whose weights are mapped and packed.
pub(crate) struct OpenModel {
    pub(crate) metadata: Metadata,
    pub(crate) tokenizer: TokenizerSource,
    pub(crate) weights: Arc<dyn TensorSource>,
    /// The file that is mapped.
    pub(crate) path: PathBuf,
    pub(crate) weights_bytes: u64,
    /// What the CPU kernels compute in with these weights.
    pub(crate) compute: Compute,
}

/// Where a tokenizer comes from.
pub(crate) enum TokenizerSource {
    /// A `tokenizer.json`, which is there.
    File(PathBuf),
    /// The vocabulary of a GGUF file.
    Built(Box<tokenizers::Tokenizer>),
}

/// Opens a model folder, a model file, a Hugging Face folder, a safetensors file in one, or a GGUF file.
///
/// # Errors
/// [`Error::ModelNotFound`] if there is none of these at the path, and whatever may be wrong with it.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<OpenModel> {
    let model = SourceModel::open(path)?;
    let tokenizer = model.tokenizer()?;
    let checksums = matches!(model.weights, Weights::Arrow(_) | Weights::Parquet(_));
    if options.verify && checksums {
        model.verify(&mut |_, _| ControlFlow::Continue(()))?;
    }
    // Blocks of integers have lost more already than any arithmetic would add, and are the smallest form.
    let compute = options.compute.filter(|&c| c != Compute::Auto || !model.weights.quantized());
    let (stored, dtype) = (model.weights.dtype(), model.dtype_for(compute));
    let SourceModel { metadata, weights, files, .. } = model;
    let weights = match weights {
        // Kernels expand its rows where they are mapped.
        Weights::Gguf(model) if dtype.is_none() => {
            // Names alone: tensors that the architecture has no place for are refused here, too.
            plan_packed(&metadata, &*model)?;
            return Ok(OpenModel {
                metadata,
                tokenizer,
                weights_bytes: model.payload_bytes(),
                compute: Compute::Float32,
                path: files.into_iter().next().unwrap_or_default(),
                weights: Arc::new(*model),
            });
        }
        weights => weights,
    };
    let (weights, path) = match weights {
        Weights::Arrow(file) if dtype.is_none() && file.is_packed() => {
            (file, files.into_iter().next())
        }
        weights => {
            let unpacked = unpack::unpack(&metadata, weights.source(), &files, dtype, options)?;
            (unpacked.weights, unpacked.path.or_else(|| files.into_iter().next()))
        }
    };
    Ok(OpenModel {
        metadata,
        tokenizer,
        weights_bytes: weights.payload_bytes(),
        compute: compute.map_or(Compute::of(stored), |compute| compute.chosen(stored)),
        weights: Arc::new(weights),
        path: path.unwrap_or_default(),
    })
}

/// A model as it lies on the disk, in any form that can be read.
pub(crate) struct SourceModel {
    pub(crate) metadata: Metadata,
    pub(crate) weights: Weights,
    /// The files that hold the weights.
    pub(crate) files: Vec<PathBuf>,
    /// Where `tokenizer.json` and `tokenizer_config.json` should be; a GGUF file may do without.
    pub(crate) tokenizer_folder: PathBuf,
}

/// Weights in any form that can be read.
pub(crate) enum Weights {
    Arrow(ArrowFile),
    Parquet(ParquetFile),
    Safetensors(SafetensorsFiles),
    Gguf(Box<GgufModel>),
}

impl Weights {
    pub(crate) fn source(&self) -> &dyn TensorSource {
        match self {
            Self::Arrow(file) => file,
            Self::Parquet(file) => file,
            Self::Safetensors(files) => files,
            Self::Gguf(model) => &**model,
        }
    }

    /// What the matrices are stored in, as far as it matters for what they are computed in.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Arrow(file) => file.dtype(),
            Self::Parquet(file) => file.dtype(),
            Self::Safetensors(_) | Self::Gguf(_) => DType::Float32,
        }
    }

    /// Whether these are blocks of integers.
    pub(crate) fn quantized(&self) -> bool {
        matches!(self, Self::Gguf(model) if model.quantized())
    }

    /// The copy of `metadata.json` that the file carries.
    fn metadata(&self) -> Option<&str> {
        match self {
            Self::Arrow(file) => file.metadata(),
            Self::Parquet(file) => file.metadata(),
            Self::Safetensors(_) | Self::Gguf(_) => None,
        }
    }
}

impl SourceModel {
    /// The dtype that the weights have to be packed in to be computed so; `None` is the one that they have.
    pub(crate) fn dtype_for(&self, compute: Option<Compute>) -> Option<DType> {
        let dtype = compute.and_then(|compute| compute.dtype_for(self.weights.dtype()));
        match &self.weights {
            // Exact whatever the checkpoint was saved in; who wants less converts it.
            Weights::Safetensors(_) => dtype.or(Some(DType::Float32)),
            _ => dtype,
        }
    }

    /// Finds out what is at a path and opens it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let not_found = |reason: &str| Error::ModelNotFound {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        if path.is_dir() {
            for name in MODEL_FILES {
                let file = path.join(name);
                if file.exists() {
                    return Self::open_model_file(&file);
                }
            }
            if path.join("config.json").is_file() || path.join("modules.json").is_file() {
                return Self::open_hf_folder(path);
            }
            return Err(not_found(
                "the folder has no model.arrow, no model.parquet, and no config.json beside a \
                 model.safetensors",
            ));
        }
        if !path.exists() {
            return Err(not_found("there is no such file or folder"));
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("arrow" | "parquet") => Self::open_model_file(path),
            Some("safetensors") => Self::open_hf_folder(folder_of(path)),
            Some("gguf") => Self::open_gguf(path),
            _ => Err(not_found(
                "it is not a folder, and its name does not end in .arrow, .parquet, .safetensors or .gguf",
            )),
        }
    }

    fn open_model_file(path: &Path) -> Result<Self> {
        let weights = if path.extension().is_some_and(|extension| extension == "parquet") {
            Weights::Parquet(ParquetFile::open(path)?)
        } else {
            Weights::Arrow(ArrowFile::open(path)?)
        };
        let folder = folder_of(path);
        let beside = folder.join("metadata.json");
        let metadata = if beside.is_file() {
            Metadata::parse(&hf::read_text(&beside)?, &beside)?
        } else {
            let embedded = weights.metadata().ok_or_else(|| {
                Error::invalid_file(
                    path,
                    "it carries no metadata, and there is no metadata.json beside it",
                )
            })?;
            Metadata::parse(embedded, path)?
        };
        Ok(Self {
            metadata,
            weights,
            files: vec![path.to_owned()],
            tokenizer_folder: folder.join("tokenizer"),
        })
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let (model, metadata) = GgufModel::open(path)?;
        Ok(Self {
            metadata,
            files: model.paths(),
            weights: Weights::Gguf(Box::new(model)),
            tokenizer_folder: folder_of(path).to_owned(),
        })
    }

    /// A `tokenizer.json` in its place, or else what a GGUF file says itself.
    pub(crate) fn tokenizer(&self) -> Result<TokenizerSource> {
        let path = self.tokenizer_folder.join("tokenizer.json");
        match &self.weights {
            _ if path.is_file() => Ok(TokenizerSource::File(path)),
            Weights::Gguf(model) => Ok(TokenizerSource::Built(Box::new(model.tokenizer()?))),
            _ => Err(missing_tokenizer(&path)),
        }
    }

    fn open_hf_folder(folder: &Path) -> Result<Self> {
        let HfFolder { metadata, weights: mut files, dense, tokenizer_folder } =
            hf::read_folder(folder)?;
        let mut weights = SafetensorsFiles::open(&files)?;
        for (layer, file) in metadata.dense.iter().zip(dense) {
            weights.add(&file, &format!("{}.", layer.name))?;
            files.push(file);
        }
        let weights = Weights::Safetensors(weights);
        Ok(Self { metadata, weights, files, tokenizer_folder })
    }

    /// Compares every tensor with its checksum and returns how many there are.
    pub(crate) fn verify(
        &self,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<usize> {
        match &self.weights {
            Weights::Arrow(file) => file.verify(progress),
            Weights::Parquet(file) => file.verify(progress),
            Weights::Safetensors(_) | Weights::Gguf(_) => Err(Error::invalid_file(
                self.files.first().map_or(Path::new(""), PathBuf::as_path),
                "it has no checksums; only converted models can be verified",
            )),
        }
    }
}

/// Names of the weights file in a model folder, the preferred one first.
pub(crate) const MODEL_FILES: [&str; 2] = ["model.arrow", "model.parquet"];

/// The folder that a file is in; the current one for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The error for a model without `tokenizer.json`.
fn missing_tokenizer(path: &Path) -> Error {
    Error::Tokenizer {
        reason: format!(
            "there is no {}; for a Hugging Face model, \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one",
            path.display()
        ),
    }
}
