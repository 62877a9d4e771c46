//! Models that cannot be mapped as they are, or not for the arithmetic asked for: packed once into a cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::convert::{Compression, Format, write_weights};
use crate::error::{Error, Result};
use crate::metadata::{FORMAT_VERSION, Metadata, tool};
use crate::open::OpenOptions;
use crate::weights::arrow::ArrowFile;
use crate::weights::embedded::hex;
use crate::weights::map::map_file;
use crate::weights::pack::plan_packed;
use crate::weights::write::WeightsFile;
use crate::weights::{DType, TensorSource};

/// Packed weights.
pub(crate) struct Unpacked {
    pub(crate) weights: ArrowFile,
    /// The file in the cache, or `None` for a temporary file without a name.
    pub(crate) path: Option<PathBuf>,
}

/// Finds or makes the packed form of some weights.
///
/// Matrices and tables are stored in `dtype`; with `None` the dtypes stay as they are, but a checkpoint's
/// bfloat16 becomes float32. Two processes that do this at the same
/// time both write, and the later one's file replaces the earlier one's, which stays mapped. If the
/// cache cannot be written to, the packed form goes into a temporary file that lasts as long as it
/// is mapped.
pub(crate) fn unpack(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    dtype: Option<DType>,
    options: &OpenOptions,
) -> Result<Unpacked> {
    let cached = match place(metadata, files, dtype, options.cache_dir.as_deref(), "arrow") {
        Ok(path) => path,
        Err(error) => return unpack_unnamed(metadata, source, files, dtype, &error),
    };
    if let Some(weights) = usable(&cached, options.verify) {
        return Ok(Unpacked { weights, path: Some(cached) });
    }
    match unpack_named(metadata, source, files, dtype, &cached) {
        Ok(weights) => Ok(Unpacked { weights, path: Some(cached) }),
        Err(error @ Error::Io { .. }) => unpack_unnamed(metadata, source, files, dtype, &error),
        Err(error) => Err(error),
    }
}

/// A cached file, if it is there and whole.
fn usable(path: &Path, verify: bool) -> Option<ArrowFile> {
    if !path.is_file() {
        return None;
    }
    let check = || {
        let weights = ArrowFile::open(path)?;
        if verify {
            weights.verify(&mut |_, _| std::ops::ControlFlow::Continue(()))?;
        }
        Ok::<_, Error>(weights)
    };
    match check() {
        Ok(weights) if weights.is_packed() => Some(weights),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "a file in the cache is damaged and is made again");
            None
        }
    }
}

fn unpack_named(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    dtype: Option<DType>,
    target: &Path,
) -> Result<ArrowFile> {
    let (file, temporary) = temporary(target)?.into_parts();
    let file = write_packed(metadata, source, files, dtype, file, target)?;
    let weights = ArrowFile::from_buffer(map_file(&file, target)?, target)?;
    // What is mapped is this very file, even if another process replaces it right after.
    temporary.persist(target).map_err(|e| Error::io(target)(e.error))?;
    Ok(weights)
}

fn unpack_unnamed(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    dtype: Option<DType>,
    error: &Error,
) -> Result<Unpacked> {
    tracing::warn!(%error, "the cache cannot be used; the model is unpacked again each time");
    let name = Path::new("<temporary file>");
    let file = tempfile::tempfile().map_err(Error::io(name))?;
    let file = write_packed(metadata, source, files, dtype, file, name)?;
    let weights = ArrowFile::from_buffer(map_file(&file, name)?, name)?;
    Ok(Unpacked { weights, path: None })
}

fn write_packed(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    dtype: Option<DType>,
    file: File,
    path: &Path,
) -> Result<File> {
    let planned = plan_packed(metadata, source)?;
    let origin = files.first().map_or(path, PathBuf::as_path);
    let progress = &mut |_, _| std::ops::ControlFlow::Continue(());
    let (format, compression) = (Format::Arrow, Compression::None);
    let target = WeightsFile { file, path, format, compression };
    let (file, _) = write_weights(target, metadata, source, origin, &planned, dtype, progress)?;
    Ok(file)
}

/// A new file beside one of the cache, to be renamed to it; makes the folder, too.
pub(crate) fn temporary(target: &Path) -> Result<NamedTempFile> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unpacking-");
    // Temporary files are private by default; a cache may be shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io(folder))
}

/// Where the cache has what belongs to a model in a dtype: `arrow` its packed form, `loss` what that loses.
///
/// # Errors
/// If there is no folder for a cache, or a file of the model cannot be found.
pub(crate) fn place(
    metadata: &Metadata,
    files: &[PathBuf],
    dtype: Option<DType>,
    cache: Option<&Path>,
    extension: &str,
) -> Result<PathBuf> {
    Ok(cache_dir(cache)?.join(format!("{}.{extension}", key(metadata, files, dtype)?)))
}

/// The folder for unpacked models: the one given, else `unpacked` under `ARROWEMBED_HOME`, else
/// `arrowembed/unpacked` under the platform's folder for caches.
pub(crate) fn cache_dir(given: Option<&Path>) -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || variable("HOME");
    let base = if let Some(given) = given {
        Some(given.to_owned())
    } else if let Some(own) = variable("ARROWEMBED_HOME") {
        Some(own)
    } else if cfg!(windows) {
        variable("LOCALAPPDATA").map(|folder| folder.join("arrowembed"))
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches/arrowembed"))
    } else {
        variable("XDG_CACHE_HOME")
            .or_else(|| home().map(|home| home.join(".cache")))
            .map(|folder| folder.join("arrowembed"))
    };
    base.map(|base| base.join("unpacked")).ok_or_else(|| {
        Error::argument("cache_dir", "neither it nor ARROWEMBED_HOME nor HOME is set")
    })
}

/// A name that changes when anything does that the packed form depends on.
fn key(metadata: &Metadata, files: &[PathBuf], dtype: Option<DType>) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(tool().as_bytes());
    add(&FORMAT_VERSION.to_le_bytes());
    add(metadata.architecture.as_bytes());
    add(metadata.config.to_string().as_bytes());
    add(dtype.map_or("", DType::name).as_bytes());
    for file in files {
        let real = file.canonicalize().map_err(Error::io(file))?;
        let status = real.metadata().map_err(Error::io(file))?;
        let modified = status.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        add(real.as_os_str().as_encoded_bytes());
        add(&status.len().to_le_bytes());
        add(&modified.map_or(0, |since| since.as_nanos()).to_le_bytes());
        #[cfg(unix)]
        add(&std::os::unix::fs::MetadataExt::ino(&status).to_le_bytes());
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::compute::Compute;
    use crate::convert::ConvertOptions;
    use crate::fixtures::{all_values, convert_to, hf, hf_copy, open_with};
    use crate::open::open;

    fn cached(cache: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(cache.join("unpacked")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_model_is_unpacked_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, cache) = (hf_copy("bert", folder.path()), folder.path().join("cache"));
        let first = open_with(&source, &cache).unwrap();
        let written = fs::metadata(&first.path).unwrap().modified().unwrap();
        let second = open_with(&source, &cache).unwrap();
        assert_eq!(first.path, second.path);
        assert_eq!(fs::metadata(&second.path).unwrap().modified().unwrap(), written);
        assert_eq!(cached(&cache), std::slice::from_ref(&first.path));

        let weights = source.join("model.safetensors");
        fs::copy(&weights, source.join("copy")).unwrap();
        fs::rename(source.join("copy"), &weights).unwrap();
        assert_ne!(open_with(&source, &cache).unwrap().path, first.path);
    }

    #[test]
    fn other_arithmetic_is_packed_once_for_each() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = folder.path().join("model");
        convert_to(&hf("bert"), &target, &ConvertOptions::default());
        let open = |compute| {
            let cache_dir = Some(cache.path().to_owned());
            open(&target, &OpenOptions { cache_dir, compute, verify: true }).unwrap()
        };
        let mut paths = Vec::new();
        for compute in [Compute::Int16, Compute::Int8, Compute::Int16, Compute::Int8] {
            let model = open(Some(compute));
            assert_eq!(model.compute, compute);
            paths.push((fs::metadata(&model.path).unwrap().modified().unwrap(), model.path));
        }
        assert_eq!(paths[..2], paths[2..]);
        assert_eq!(cached(cache.path()).len(), 2);
        for compute in [None, Some(Compute::Float32)] {
            let model = open(compute);
            assert_eq!((model.compute, model.path), (Compute::Float32, target.join("model.arrow")));
        }
        assert_eq!(cached(cache.path()).len(), 2);
    }

    #[test]
    fn a_damaged_file_in_the_cache_is_made_again() {
        let cache = tempfile::tempdir().unwrap();
        let first = open_with(&hf("bert"), cache.path()).unwrap();
        let (values, whole) = (all_values(first.weights.as_ref()), fs::read(&first.path).unwrap());
        for damaged in [&whole[..whole.len() / 2], &[], b"ARROW1 but no more"] {
            // Never in place: the first model is still mapped.
            fs::remove_file(&first.path).unwrap();
            fs::write(&first.path, damaged).unwrap();
            let again = open_with(&hf("bert"), cache.path()).unwrap();
            assert_eq!(again.path, first.path);
            assert_eq!(all_values(again.weights.as_ref()), values);
        }
        assert_eq!(fs::read(&first.path).unwrap(), whole);
        assert_eq!(cached(cache.path()).len(), 1);
    }

    #[test]
    fn without_a_cache_the_model_is_unpacked_into_a_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "no folder").unwrap();
        let model = open_with(&hf("bert"), &blocked).unwrap();
        let usual = open_with(&hf("bert"), folder.path()).unwrap();
        assert_eq!(all_values(model.weights.as_ref()), all_values(usual.weights.as_ref()));
        assert_eq!(model.path, hf("bert").join("model.safetensors"));
    }

    #[test]
    fn many_at_once_all_get_the_whole_model() {
        let cache = tempfile::tempdir().unwrap();
        let values = |_| {
            let model = open_with(&hf("bert"), cache.path()).unwrap();
            all_values(model.weights.as_ref())
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || values(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(cached(cache.path()).len(), 1);
    }
}
