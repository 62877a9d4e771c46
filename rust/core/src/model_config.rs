//! What a model is opened with.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::cache::CacheLimits;
use crate::compute::Compute;
use crate::engine::Engine;
use crate::env::Variables;
use crate::error::{Error, Result};
use crate::resident::PRELOAD_CHUNK;

/// Told how far reading a model into memory has come, in bytes done and bytes in all; says whether to go on.
/// 0 bytes in all say that nothing is known yet: so is asked who waits for another thread to open the model.
pub type LoadMonitor<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// Everything that a model is opened with, checked.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// use arrowembed::ModelConfig;
///
/// let config = ModelConfig::builder()
///     .path(model)
///     .cache_dir(folder.path())
///     .max_seq_length(32)
///     .preload(true)
///     .build()?;
/// assert_eq!(config.open()?.max_seq_length(), 32);
///
/// let error = ModelConfig::builder().path(model).max_seq_length(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "max_seq_length: is 0, allowed is 1 or more");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    pub(crate) path: PathBuf,
    pub(crate) device: String,
    pub(crate) compute: Option<Compute>,
    pub(crate) cache: CacheLimits,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) verify: bool,
    preload: bool,
    preload_chunk: usize,
    lock_memory: bool,
}

impl ModelConfig {
    /// Settings to be made; only the path is needed.
    pub fn builder() -> ModelConfigBuilder {
        ModelConfigBuilder(Self {
            path: PathBuf::new(),
            device: "cpu".to_owned(),
            compute: None,
            cache: CacheLimits::default(),
            cache_dir: None,
            max_seq_length: None,
            verify: false,
            preload: false,
            preload_chunk: PRELOAD_CHUNK,
            lock_memory: false,
        })
    }

    /// What the environment says: `ARROWEMBED_MODEL` (a path, needed), `ARROWEMBED_DEVICE`,
    /// `ARROWEMBED_COMPUTE`, `ARROWEMBED_MAX_SEQ_LENGTH`, `ARROWEMBED_CACHE_ENTRIES`,
    /// `ARROWEMBED_CACHE_BYTES`, and as `1` or `0` `ARROWEMBED_VERIFY`, `ARROWEMBED_PRELOAD` and
    /// `ARROWEMBED_LOCK_MEMORY`. What is unpacked goes below `ARROWEMBED_HOME` as always.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the variable, its value and what is allowed.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&Variables::of_process())
    }

    pub(crate) fn from_variables(variables: &Variables<'_>) -> Result<Self> {
        let Some(path) = variables.os("ARROWEMBED_MODEL") else {
            let reason = "is not set; it is the path of a model folder or file";
            return Err(Error::argument("ARROWEMBED_MODEL", reason));
        };
        let mut builder = Self::builder().path(path);
        if let Some(device) = variables.text("ARROWEMBED_DEVICE")? {
            builder = builder.device(device);
        }
        if let Some(compute) = variables.named("ARROWEMBED_COMPUTE")? {
            builder = builder.compute(compute);
        }
        if let Some(tokens) = variables.number("ARROWEMBED_MAX_SEQ_LENGTH", 1..=usize::MAX)? {
            builder = builder.max_seq_length(tokens);
        }
        let entries = variables.number("ARROWEMBED_CACHE_ENTRIES", 0..=usize::MAX)?;
        builder = builder.cache(CacheLimits {
            entries: entries.or(CacheLimits::default().entries),
            bytes: variables.number("ARROWEMBED_CACHE_BYTES", 0..=usize::MAX)?,
        });
        builder
            .verify(variables.flag("ARROWEMBED_VERIFY")?.unwrap_or(false))
            .preload(variables.flag("ARROWEMBED_PRELOAD")?.unwrap_or(false))
            .lock_memory(variables.flag("ARROWEMBED_LOCK_MEMORY")?.unwrap_or(false))
            .build()
    }

    /// The model folder, model file or Hugging Face folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the model computes.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// In which numbers it computes; `None` is those that it is stored in.
    pub fn compute(&self) -> Option<Compute> {
        self.compute
    }

    /// How many vectors are kept for texts that come again.
    pub fn cache(&self) -> CacheLimits {
        self.cache
    }

    /// Longest input in tokens; `None` is the model's own limit.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// Whether every tensor is compared with its checksum.
    pub fn verify(&self) -> bool {
        self.verify
    }

    /// Whether the weights are read into memory when the model is opened.
    pub fn preload(&self) -> bool {
        self.preload
    }

    /// Whether the weights are locked in memory.
    pub fn lock_memory(&self) -> bool {
        self.lock_memory
    }

    /// Opens the model.
    ///
    /// # Errors
    /// If there is no model, its files are damaged, it is of an unsupported kind, or it may not be locked in
    /// memory.
    pub fn open(&self) -> Result<Engine> {
        self.open_with(None)
    }

    /// Opens the model; `monitor` sees how it is read ahead and can stop that.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and [`Error::Interrupted`] if the monitor says so.
    pub fn open_with(&self, monitor: Option<LoadMonitor<'_>>) -> Result<Engine> {
        let engine = self.map()?;
        self.make_resident(&engine, monitor)?;
        Ok(engine)
    }

    /// Opens the model and neither reads it ahead nor locks it; [`make_resident`](Self::make_resident) does.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn map(&self) -> Result<Engine> {
        Engine::open_admitted(self, &mut |_| Ok(()))
    }

    /// Reads the weights into memory and locks them there, so far as these settings say.
    ///
    /// # Errors
    /// As for [`Engine::preload`] and [`Engine::lock_memory`].
    pub fn make_resident(&self, engine: &Engine, monitor: Option<LoadMonitor<'_>>) -> Result<()> {
        if self.preload {
            engine.preload(self.preload_chunk, monitor)?;
        }
        if self.lock_memory {
            engine.lock_memory()?;
        }
        Ok(())
    }
}

/// Makes a [`ModelConfig`], or opens a model at once.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// use arrowembed::{CacheLimits, Engine};
/// let engine = Engine::builder()
///     .max_seq_length(32)
///     .cache(CacheLimits { entries: None, bytes: Some(64 << 20) })
///     .cache_dir(folder.path())
///     .open(model)?;
/// assert_eq!(engine.max_seq_length(), 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ModelConfigBuilder(ModelConfig);

impl ModelConfigBuilder {
    /// A model folder, a model file or a Hugging Face folder.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = path.into();
        self
    }

    /// Where the model computes; `cpu`, the default, is this crate's own kernels.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.0.device = device.into();
        self
    }

    /// In which numbers the model computes; by default in those that it is stored in: float32 and float16
    /// weights compute in float32, the others in what they are. For another one the model is made anew
    /// once, in the cache; see [`cache_dir`](Self::cache_dir).
    #[must_use]
    pub fn compute(mut self, compute: Compute) -> Self {
        self.0.compute = Some(compute);
        self
    }

    /// How many vectors are kept for texts that come again; 10,000 by default.
    #[must_use]
    pub fn cache(mut self, limits: CacheLimits) -> Self {
        self.0.cache = limits;
        self
    }

    /// Where models that cannot be mapped as they are, or not for the arithmetic asked for, get unpacked;
    /// the user's cache folder by default.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.0.cache_dir = Some(folder.into());
        self
    }

    /// Longest input in tokens instead of the model's own limit, at most its number of positions.
    #[must_use]
    pub fn max_seq_length(mut self, tokens: usize) -> Self {
        self.0.max_seq_length = Some(tokens);
        self
    }

    /// Whether every tensor is compared with its checksum; not by default.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.0.verify = verify;
        self
    }

    /// Whether the weights are read into memory when the model is opened; by default each is read when it
    /// is first needed.
    #[must_use]
    pub fn preload(mut self, preload: bool) -> Self {
        self.0.preload = preload;
        self
    }

    /// How many bytes are read ahead between two reports of progress; 8 MiB by default.
    #[must_use]
    pub fn preload_chunk(mut self, bytes: usize) -> Self {
        self.0.preload_chunk = bytes;
        self
    }

    /// Whether the weights are locked in memory (`mlock`), so that the system never drops their pages; not by
    /// default. The user needs the right to it (`ulimit -l`).
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.0.lock_memory = lock;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the one that is outside what is allowed. What depends on the
    /// model is checked when it is opened.
    pub fn build(self) -> Result<ModelConfig> {
        let Self(config) = self;
        if config.path.as_os_str().is_empty() {
            return Err(Error::argument("path", "is missing; give a model folder or file"));
        }
        if config.device.is_empty() {
            return Err(Error::argument("device", "is empty; cpu is this crate's own kernels"));
        }
        for (name, value) in [
            ("max_seq_length", config.max_seq_length),
            ("preload_chunk", Some(config.preload_chunk)),
        ] {
            if value == Some(0) {
                return Err(Error::argument(name, "is 0, allowed is 1 or more"));
            }
        }
        if let Some(compute) = config.compute {
            compute.on_device(&config.device)?;
        }
        if config.lock_memory && config.device != "cpu" {
            let reason = format!("needs device cpu; {:?} has a copy of the weights", config.device);
            return Err(Error::argument("lock_memory", reason));
        }
        Ok(config)
    }

    /// Opens a model: a model folder, a model file or a Hugging Face folder.
    ///
    /// # Errors
    /// As for [`build`](Self::build) and [`ModelConfig::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Engine> {
        self.path(path.as_ref()).build()?.open()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn refused(builder: ModelConfigBuilder) -> String {
        let error = builder.build().unwrap_err();
        assert_eq!(error.code(), "invalid_argument");
        error.to_string()
    }

    #[test]
    fn settings_outside_what_is_allowed_are_named() {
        let builder = || ModelConfig::builder().path("model");
        assert!(refused(ModelConfig::builder()).starts_with("path: is missing"));
        assert!(refused(builder().device("")).starts_with("device: is empty"));
        assert!(refused(builder().max_seq_length(0)).starts_with("max_seq_length: is 0"));
        assert!(refused(builder().preload_chunk(0)).starts_with("preload_chunk: is 0"));
        let elsewhere = builder().device("cuda:0");
        assert!(refused(elsewhere.clone().compute(Compute::Int8)).starts_with("compute: is int8"));
        assert!(refused(elsewhere.lock_memory(true)).starts_with("lock_memory: needs device cpu"));
    }

    fn from(pairs: &[(&str, &str)]) -> Result<ModelConfig> {
        let look_up = |name: &str| {
            let pair = pairs.iter().find(|(variable, _)| *variable == name);
            pair.map(|(_, value)| OsString::from(value))
        };
        ModelConfig::from_variables(&Variables::of(&look_up))
    }

    #[test]
    fn the_environment_sets_what_the_builder_sets() {
        let everything = [
            ("ARROWEMBED_MODEL", "some/model"),
            ("ARROWEMBED_DEVICE", "cpu"),
            ("ARROWEMBED_COMPUTE", "int16"),
            ("ARROWEMBED_MAX_SEQ_LENGTH", "77"),
            ("ARROWEMBED_CACHE_ENTRIES", "0"),
            ("ARROWEMBED_CACHE_BYTES", "4096"),
            ("ARROWEMBED_VERIFY", "yes"),
            ("ARROWEMBED_PRELOAD", "1"),
            ("ARROWEMBED_LOCK_MEMORY", "true"),
        ];
        let expected = ModelConfig::builder()
            .path("some/model")
            .compute(Compute::Int16)
            .max_seq_length(77)
            .cache(CacheLimits { entries: Some(0), bytes: Some(4096) })
            .verify(true)
            .preload(true)
            .lock_memory(true);
        assert_eq!(from(&everything).unwrap(), expected.build().unwrap());
        let only_path = ModelConfig::builder().path("some/model").build().unwrap();
        assert_eq!(from(&everything[..1]).unwrap(), only_path);
    }

    #[test]
    fn a_wrong_variable_is_named_with_its_value() {
        assert!(from(&[]).unwrap_err().to_string().starts_with("ARROWEMBED_MODEL: is not set"));
        for (name, value) in [
            ("ARROWEMBED_COMPUTE", "int4"),
            ("ARROWEMBED_MAX_SEQ_LENGTH", "0"),
            ("ARROWEMBED_CACHE_ENTRIES", "-1"),
            ("ARROWEMBED_PRELOAD", "maybe"),
        ] {
            let error = from(&[("ARROWEMBED_MODEL", "m"), (name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: is {value:?}, allowed are ")), "{error}");
        }
    }
}
