//! From any model that can be read to a model folder.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::folder::FolderInTheMaking;
use crate::hf::name_of;
use crate::metadata::{FORMAT_VERSION, Metadata, Source, tool};
use crate::open::{SourceModel, TokenizerSource};
use crate::weights::embedded::hex;
use crate::weights::guard;
use crate::weights::pack::{Planned, plan_packed, plan_row_major};
use crate::weights::write::{WeightsFile, WeightsWriter};
use crate::weights::{DType, TensorSource};

/// How a model is converted.
///
/// ```
/// use arrowembed::{ConvertOptions, DType};
///
/// let options = ConvertOptions { dtype: DType::Int8, ..ConvertOptions::default() };
/// assert_eq!(options.compression, "none".parse()?);
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// What matrices and tables are stored in; with bfloat16 and int16 tables are stored as float16.
    pub dtype: DType,
    /// Packed for the CPU kernels, or as Hugging Face has it.
    pub arrangement: Arrangement,
    /// File format of the weights.
    pub format: Format,
    /// Compression of the weights. Compressed files cannot be mapped; they are unpacked when opened.
    pub compression: Compression,
    /// Name of the model; `None` keeps a model file's, or takes the target folder's.
    pub name: Option<String>,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            dtype: DType::Float16,
            arrangement: Arrangement::Packed,
            format: Format::Arrow,
            compression: Compression::None,
            name: None,
        }
    }
}

/// Which tensors a weights file holds, and in which order their elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Those of the architecture, matrices stacked and in panels: what is mapped and computed with.
    Packed,
    /// Those of the source, under their names, row-major: for interchange.
    RowMajor,
}

/// File format of a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Arrow IPC file, `model.arrow`.
    Arrow,
    /// Parquet, `model.parquet`.
    Parquet,
}

impl Format {
    fn file_name(self) -> &'static str {
        match self {
            Self::Arrow => "model.arrow",
            Self::Parquet => "model.parquet",
        }
    }
}

/// Compression of a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None; an Arrow file can be mapped.
    None,
    /// LZ4: quick.
    Lz4,
    /// Zstandard: small.
    Zstd,
}

macro_rules! from_str {
    ($type:ident, $argument:literal, $($name:literal => $variant:ident),*) => {
        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => {
                        let known = [$($name),*].join(", ");
                        Err(Error::argument($argument, format!("is {name:?}; known are {known}")))
                    }
                }
            }
        }
    };
}

from_str!(Arrangement, "layout", "packed" => Packed, "row_major" => RowMajor);
from_str!(Format, "format", "arrow" => Arrow, "parquet" => Parquet);
from_str!(Compression, "compression", "none" => None, "lz4" => Lz4, "zstd" => Zstd);
from_str!(DType, "dtype", "float32" => Float32, "float16" => Float16,
    "bfloat16" => BFloat16, "int16" => Int16, "int8" => Int8);

/// What a conversion did.
#[derive(Debug, Clone)]
pub struct ConversionReport {
    /// The weights file that was written.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Size of the source's weights.
    pub source_bytes: u64,
    /// SHA-256 of the source's weights, shards one after the other, in hexadecimal.
    pub source_sha256: String,
    /// The tensors in the order of the file.
    pub tensors: Vec<TensorReport>,
}

/// How one tensor was converted.
#[derive(Debug, Clone)]
pub struct TensorReport {
    /// Name in the file.
    pub name: String,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// What it was stored as.
    pub dtype: DType,
    /// Order of its elements: `row_major`, `panel16`, `panel16x2` or `panel16x4`.
    pub layout: &'static str,
    /// Euclidean norm of the rounding error over that of the tensor.
    pub relative_error: f64,
    /// Why it was stored in float32 against the dtype asked for.
    pub fallback: Option<String>,
}

/// Writes the model folder `target` from a Hugging Face folder, a model folder or a model file.
///
/// The folder is made beside the target under another name and renamed at the end, so that a target
/// is either whole or not there. A model folder that is there already is replaced; anything else
/// there is left alone and refused. Files that are mapped while they are replaced stay as they were.
///
/// `progress` hears of tensors done and tensors in all; on `Break` nothing is left behind.
///
/// ```
/// # fn main() -> arrowembed::Result<()> {
/// # let parent = tempfile::tempdir().unwrap();
/// # let source = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert"));
/// # let target = parent.path().join("bert");
/// use std::ops::ControlFlow;
///
/// use arrowembed::{ConvertOptions, convert, verify};
///
/// let mut all = 0;
/// let report = convert(source, &target, &ConvertOptions::default(), &mut |_done, total| {
///     all = total;
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(report.tensors.len(), all);
/// assert!(report.bytes < report.source_bytes);
/// assert!(verify(&target, &mut |_, _| ControlFlow::Continue(()))? > 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the source cannot be read or is unsupported, a weight is not finite, the target is in the way
/// or cannot be written, or [`Error::Interrupted`] on `Break`.
pub fn convert(
    source: &Path,
    target: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<ConversionReport> {
    // First of all: nothing is computed for a target that cannot be written.
    let folder = FolderInTheMaking::new(target)?;
    let model = SourceModel::open(source)?;
    let tokenizer = model.tokenizer()?;
    let SourceModel { mut metadata, weights, files, tokenizer_folder } = model;
    let weights = weights.source();
    // What is written tensor by tensor must be a model that can be computed, too.
    let packed = plan_packed(&metadata, weights)?;
    let planned = match options.arrangement {
        Arrangement::Packed => packed,
        Arrangement::RowMajor => plan_row_major(weights),
    };

    let (source_bytes, source_sha256) = digest(&files, &mut || progress(0, planned.len()))?;
    let origin = files.first().map_or(source, PathBuf::as_path);
    metadata.format_version = FORMAT_VERSION;
    metadata.dtype = options.dtype;
    metadata.tool = tool();
    metadata.source = Some(Source {
        file: origin.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: source_sha256.clone(),
    });
    if let Some(name) = &options.name {
        metadata.name.clone_from(name);
    } else if origin.extension().is_some_and(|extension| extension == "safetensors") {
        metadata.name = name_of(target);
    }

    write_tokenizer(tokenizer, &tokenizer_folder, &folder)?;
    folder.write("metadata.json", metadata.to_json()?.as_bytes())?;
    let path = folder.path().join(options.format.file_name());
    let target_file = WeightsFile {
        file: File::create_new(&path).map_err(Error::io(&path))?,
        path: &path,
        format: options.format,
        compression: options.compression,
    };
    let (file, tensors) = write_weights(
        target_file,
        &metadata,
        weights,
        origin,
        &planned,
        Some(options.dtype),
        progress,
    )?;
    let bytes = file.metadata().map_err(Error::io(&path))?.len();
    drop(file);
    folder.finish()?;
    Ok(ConversionReport {
        path: target.join(options.format.file_name()),
        bytes,
        source_bytes,
        source_sha256,
        tensors,
    })
}

/// Compares every tensor of a model folder or model file with its checksum and returns how many there
/// are; see [`convert`] for an example.
///
/// # Errors
/// [`Error::ChecksumMismatch`] for the first tensor that differs, [`Error::InvalidFile`] if there
/// are no checksums or the file is damaged, [`Error::Interrupted`] if `progress` breaks.
pub fn verify(
    path: &Path,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<usize> {
    SourceModel::open(path)?.verify(progress)
}

/// Packs and writes tensors one at a time, and brings the file to the disk.
pub(crate) fn write_weights(
    target: WeightsFile<'_>,
    metadata: &Metadata,
    source: &dyn TensorSource,
    origin: &Path,
    planned: &[Planned],
    dtype: Option<DType>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(File, Vec<TensorReport>)> {
    let mut writer = WeightsWriter::new(target, metadata)?;
    let mut reports = Vec::with_capacity(planned.len());
    for (done, plan) in planned.iter().enumerate() {
        if progress(done, planned.len()).is_break() {
            return Err(Error::Interrupted);
        }
        let packed = plan.pack(source, dtype, origin)?;
        writer.write(&packed.tensor)?;
        for companion in &packed.companions {
            writer.write(companion)?;
        }
        reports.push(TensorReport {
            name: packed.tensor.name,
            shape: packed.tensor.shape,
            dtype: packed.tensor.dtype,
            layout: packed.tensor.layout.name(),
            relative_error: packed.relative_error,
            fallback: packed.fallback,
        });
    }
    if progress(planned.len(), planned.len()).is_break() {
        return Err(Error::Interrupted);
    }
    guard::check(&source.maps(), origin)?;
    Ok((writer.finish()?, reports))
}

/// Copies the tokenizer as it is, once it is known to be one, or writes the one that was built.
fn write_tokenizer(source: TokenizerSource, from: &Path, to: &FolderInTheMaking) -> Result<()> {
    let tokenizer = match source {
        TokenizerSource::File(path) => path,
        TokenizerSource::Built(built) => {
            let json = built
                .to_string(false)
                .map_err(|e| Error::Tokenizer { reason: format!("the vocabulary: {e}") })?;
            return to.write("tokenizer/tokenizer.json", json.as_bytes());
        }
    };
    let bytes = std::fs::read(&tokenizer).map_err(Error::io(&tokenizer))?;
    Tokenizer::from_bytes(&bytes)
        .map_err(|e| Error::Tokenizer { reason: format!("{}: {e}", tokenizer.display()) })?;
    to.write("tokenizer/tokenizer.json", &bytes)?;
    let config = from.join("tokenizer_config.json");
    if config.is_file() {
        let bytes = std::fs::read(&config).map_err(Error::io(&config))?;
        to.write("tokenizer/tokenizer_config.json", &bytes)?;
    }
    Ok(())
}

/// Length and SHA-256 of files, one after the other; `go_on` is asked every few milliseconds.
fn digest(files: &[PathBuf], go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<(u64, String)> {
    let (mut bytes, mut hash) = (0, Sha256::new());
    let mut piece = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path).map_err(Error::io(path))?;
        loop {
            let read = file.read(&mut piece).map_err(Error::io(path))?;
            if read == 0 {
                break;
            }
            if go_on().is_break() {
                return Err(Error::Interrupted);
            }
            bytes += read as u64;
            hash.update(piece.get(..read).unwrap_or_default());
        }
    }
    Ok((bytes, hex(&hash.finalize())))
}
