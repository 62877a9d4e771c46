//! Models that cannot be mapped as they are, unpacked once into a cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::convert::{Compression, Format, write_weights};
use crate::error::{Error, Result};
use crate::metadata::{FORMAT_VERSION, Metadata, tool};
use crate::open::OpenOptions;
use crate::weights::TensorSource;
use crate::weights::arrow::ArrowFile;
use crate::weights::embedded::hex;
use crate::weights::map::map_file;
use crate::weights::pack::plan_packed;
use crate::weights::write::WeightsFile;

/// Packed weights.
pub(crate) struct Unpacked {
    pub(crate) weights: ArrowFile,
    /// The file in the cache, or `None` for a temporary file without a name.
    pub(crate) path: Option<PathBuf>,
}

/// Finds or makes the packed form of some weights.
///
/// The dtypes stay as they are, but bfloat16 becomes float32. Two processes that do this at the same
/// time both write, and the later one's file replaces the earlier one's, which stays mapped. If the
/// cache cannot be written to, the packed form goes into a temporary file that lasts as long as it
/// is mapped.
pub(crate) fn unpack(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    options: &OpenOptions,
) -> Result<Unpacked> {
    let cached = cache_dir(options.cache_dir.as_deref())
        .and_then(|folder| Ok(folder.join(format!("{}.arrow", key(metadata, files)?))));
    let cached = match cached {
        Ok(path) => path,
        Err(error) => return unpack_unnamed(metadata, source, files, &error),
    };
    if let Some(weights) = usable(&cached, options.verify) {
        return Ok(Unpacked { weights, path: Some(cached) });
    }
    match unpack_named(metadata, source, files, &cached) {
        Ok(weights) => Ok(Unpacked { weights, path: Some(cached) }),
        Err(error @ Error::Io { .. }) => unpack_unnamed(metadata, source, files, &error),
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
    target: &Path,
) -> Result<ArrowFile> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unpacking-");
    // Temporary files are private by default; a cache may be shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder).map_err(Error::io(folder))?;
    let (file, temporary) = temporary.into_parts();
    let file = write_packed(metadata, source, files, file, target)?;
    let weights = ArrowFile::from_buffer(map_file(&file, target)?, target)?;
    // What is mapped is this very file, even if another process replaces it right after.
    temporary.persist(target).map_err(|e| Error::io(target)(e.error))?;
    Ok(weights)
}

fn unpack_unnamed(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    error: &Error,
) -> Result<Unpacked> {
    tracing::warn!(%error, "the cache cannot be used; the model is unpacked again each time");
    let name = Path::new("<temporary file>");
    let file = tempfile::tempfile().map_err(Error::io(name))?;
    let file = write_packed(metadata, source, files, file, name)?;
    let weights = ArrowFile::from_buffer(map_file(&file, name)?, name)?;
    Ok(Unpacked { weights, path: None })
}

fn write_packed(
    metadata: &Metadata,
    source: &dyn TensorSource,
    files: &[PathBuf],
    file: File,
    path: &Path,
) -> Result<File> {
    let planned = plan_packed(&metadata.architecture, &metadata.config, source)?;
    let origin = files.first().map_or(path, PathBuf::as_path);
    let progress = &mut |_, _| std::ops::ControlFlow::Continue(());
    let (format, compression) = (Format::Arrow, Compression::None);
    let target = WeightsFile { file, path, format, compression };
    let (file, _) = write_weights(target, metadata, source, origin, &planned, None, progress)?;
    Ok(file)
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
fn key(metadata: &Metadata, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(tool().as_bytes());
    add(&FORMAT_VERSION.to_le_bytes());
    add(metadata.architecture.as_bytes());
    add(metadata.config.to_string().as_bytes());
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
