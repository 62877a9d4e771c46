//! Many models in one process: registered by name, loaded when first used, unloaded when not needed.
//!
//! [`config`] is what may be used; [`pool`] lets many threads share models, over the [`state`] that says which
//! are in memory and which may go; [`names`] is the list of what is registered.

mod config;
mod names;
mod pool;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{EngineConfig, EngineConfigBuilder, WhenFull};
use names::Names;
use pool::{Clock, Pool};

use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model_config::{LoadMonitor, ModelConfig};
use crate::options::EncodeOptions;
use crate::pipeline::monitor_of;
use crate::resident::PRELOAD_CHUNK;
use crate::threads::{self, Monitor};

/// Models by name, for any number of threads.
///
/// A model is loaded when it is first asked for, once however many threads ask at the same time: one loads it,
/// the others wait. If that fails, all of them get the error and the next one who asks tries again. A model that
/// is unloaded while others compute with it stays for them and is dropped after.
///
/// In a forked child, models that were loaded are still there.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// use arrowembed::{EmbeddingEngine, EncodeOptions, EngineConfig, ModelConfig, WhenFull};
///
/// let config = EngineConfig::builder().memory_budget(1 << 30).when_full(WhenFull::Evict).build()?;
/// let engine = EmbeddingEngine::new(config)?;
/// engine.register("small", ModelConfig::builder().path(path).cache_dir(folder.path()).build()?)?;
/// assert!(!engine.is_loaded("small"));
///
/// let vector = engine.embed("small", "a text")?;
/// assert_eq!(vector.len(), engine.embedding_dimensions("small")?);
/// let vectors = engine.embed_batch("small", &["one", "two"], &EncodeOptions::new(), None)?;
/// assert_eq!(vectors.len(), 2);
///
/// assert!(engine.unload("small"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddingEngine {
    models: Names<Registered>,
    pool: Pool<Engine>,
}

/// A name may be registered several times; the newest counts.
struct Registered {
    name: String,
    config: ModelConfig,
}

/// A registered model, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredModel {
    /// Its name.
    pub name: String,
    /// What it is opened from.
    pub path: PathBuf,
    /// Bytes of its weights; `None`, as the next two are, if it is not loaded.
    pub bytes: Option<u64>,
    /// How long it has been loaded.
    pub loaded_for: Option<Duration>,
    /// How long ago it was last used.
    pub idle_for: Option<Duration>,
}

impl fmt::Debug for EmbeddingEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingEngine").field("models", &self.names()).finish_non_exhaustive()
    }
}

impl EmbeddingEngine {
    /// Without models yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a number of threads outside what is allowed.
    pub fn new(config: EngineConfig) -> Result<Self> {
        Self::with_clock(config, Arc::new(Instant::now))
    }

    fn with_clock(config: EngineConfig, clock: Clock) -> Result<Self> {
        config.num_threads.map_or(Ok(()), threads::set_num_threads)?;
        Ok(Self { models: Names::new(), pool: Pool::new(config, clock) })
    }

    /// Names a model, which is not opened yet. A name that is there already then stands for this model; to say
    /// the same again changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model of that name is in memory or being loaded, and was registered with
    /// other settings; or if the name is empty.
    pub fn register(&self, name: impl Into<String>, config: ModelConfig) -> Result<()> {
        let registered = Registered { name: name.into(), config };
        if registered.name.is_empty() {
            return Err(Error::argument("name", "is empty"));
        }
        let name = registered.name.clone();
        // A load reads the settings once it is known to be under way, so it has those or is seen here.
        self.pool.while_known(&name, |in_memory| match self.newest(&name) {
            Some(there) if there.config == registered.config => Ok(()),
            Some(there) if in_memory => {
                let reason = format!(
                    "{name:?} is already registered for {} with other settings, and is loaded; unload it \
                     and let those who use it finish, or choose another name",
                    there.config.path().display()
                );
                Err(Error::argument("name", reason))
            }
            _ => {
                self.models.add(registered);
                Ok(())
            }
        })
    }

    /// The names of all models, in the order in which they were first registered.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.models.iter().map(|model| model.name.as_str()).collect();
        names.reverse();
        let mut seen = HashSet::new();
        names.retain(|&name| seen.insert(name));
        names
    }

    /// A model, loaded if it was not. As long as this is held, the model is in use and will not be evicted.
    ///
    /// # Errors
    /// As for [`load_with`](Self::load_with).
    pub fn load(&self, name: &str) -> Result<Arc<Engine>> {
        self.load_with(name, None)
    }

    /// The same; `monitor` sees how the weights are read ahead, by whichever thread does it, and can stop it or
    /// the waiting for it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that is not registered, [`Error::MemoryBudget`] if there is no room
    /// for the model, [`Error::Interrupted`] if the monitor says so, and whatever may be wrong with the model.
    pub fn load_with(&self, name: &str, monitor: Option<LoadMonitor<'_>>) -> Result<Arc<Engine>> {
        self.registered(name)?;
        self.pool.get(name, monitor, |monitor, admit| {
            // Not before: until it is known that this is under way, the name can be registered anew.
            let config = &self.registered(name)?.config;
            let engine = Engine::open_admitted(config, admit)?;
            config.make_resident(&engine, Some(monitor))?;
            let bytes = engine.weights_bytes();
            Ok((engine, bytes))
        })
    }

    /// The same, for those who rely on the settings that they registered.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name stands for another model or other settings by now.
    pub fn load_registered(
        &self,
        name: &str,
        config: &ModelConfig,
        monitor: Option<LoadMonitor<'_>>,
    ) -> Result<Arc<Engine>> {
        let unchanged = || match self.registered(name)? {
            there if there.config == *config => Ok(()),
            _ => {
                let reason =
                    "was registered anew, with another model or other settings; get it again";
                Err(Error::argument("model", format!("{name:?} {reason}")))
            }
        };
        unchanged()?;
        let engine = self.load_with(name, monitor)?;
        // What is held cannot be registered anew, so these are the settings that it was loaded with.
        unchanged()?;
        Ok(engine)
    }

    /// A model if it is in memory with these settings. Loads none and counts as no use.
    pub fn peek(&self, name: &str, config: &ModelConfig) -> Option<Arc<Engine>> {
        let engine = self.pool.peek(name)?;
        self.newest(name).filter(|there| there.config == *config).map(|_| engine)
    }

    /// Says that a model was used until now, for those who hold it from [`load`](Self::load).
    pub fn touch(&self, name: &str) {
        self.pool.used(name);
    }

    /// Unloads a model, once those who compute with it are done. False if it was not loaded; one that is only
    /// being loaded is not.
    pub fn unload(&self, name: &str) -> bool {
        self.pool.unload(name)
    }

    /// Whether a model is loaded.
    pub fn is_loaded(&self, name: &str) -> bool {
        self.pool.in_memory(name).is_some()
    }

    /// The vector of a text.
    ///
    /// # Errors
    /// As for [`embed_batch`](Self::embed_batch).
    pub fn embed(&self, name: &str, text: &str) -> Result<Vec<f32>> {
        self.embed_batch(name, &[text], &EncodeOptions::new(), None).map(Embeddings::into_vec)
    }

    /// The vectors of texts, however many, in their order; `monitor` sees how many are done and can stop the
    /// call.
    ///
    /// # Errors
    /// As for [`load_with`](Self::load_with) and [`Engine::encode_with`].
    pub fn embed_batch<S: AsRef<str> + Sync>(
        &self,
        name: &str,
        texts: &[S],
        options: &EncodeOptions,
        monitor: Option<Monitor<'_>>,
    ) -> Result<Embeddings> {
        let engine = self.load(name)?;
        let embeddings = engine.encode_with(texts, options, monitor);
        self.touch(name);
        embeddings
    }

    /// The vectors of the same texts by several models, in the order of their names. `monitor` sees the texts
    /// of all models that are done.
    ///
    /// # Errors
    /// As for [`embed_batch`](Self::embed_batch), from the first model that fails.
    pub fn embed_multi<S: AsRef<str> + Sync>(
        &self,
        names: &[impl AsRef<str>],
        texts: &[S],
        options: &EncodeOptions,
        mut monitor: Option<Monitor<'_>>,
    ) -> Result<Vec<Embeddings>> {
        // A slip in the last name is told before the first model has computed for an hour.
        names.iter().try_for_each(|name| self.registered(name.as_ref()).map(drop))?;
        let one = |(i, name): (usize, &_)| {
            let before = i * texts.len();
            let mut ask = monitor.as_mut().map(|monitor| |done| monitor(before + done));
            self.embed_batch(AsRef::as_ref(name), texts, options, monitor_of(&mut ask))
        };
        names.iter().enumerate().map(one).collect()
    }

    /// Length of a model's vectors; loads it if it is not.
    ///
    /// # Errors
    /// As for [`load_with`](Self::load_with).
    pub fn embedding_dimensions(&self, name: &str) -> Result<usize> {
        self.load(name).map(|engine| engine.embedding_size())
    }

    /// Longest input of a model in tokens; loads it if it is not.
    ///
    /// # Errors
    /// As for [`load_with`](Self::load_with).
    pub fn max_sequence_length(&self, name: &str) -> Result<usize> {
        self.load(name).map(|engine| engine.max_seq_length())
    }

    /// Bytes of a model's weights; loads it if it is not.
    ///
    /// # Errors
    /// As for [`load_with`](Self::load_with).
    pub fn model_size(&self, name: &str) -> Result<u64> {
        self.load(name).map(|engine| engine.weights_bytes())
    }

    /// Loads a model, reads its weights into memory and computes a text, so that the first call takes no
    /// longer than others. `monitor` sees the bytes that are read and can stop it.
    ///
    /// # Errors
    /// As for [`embed_batch`](Self::embed_batch).
    pub fn warmup(&self, name: &str, mut monitor: Option<LoadMonitor<'_>>) -> Result<()> {
        let mut report = monitor.as_mut().map(|monitor| |done, all| monitor(done, all));
        let engine =
            self.load_with(name, report.as_mut().map(|report| report as LoadMonitor<'_>))?;
        engine.preload(PRELOAD_CHUNK, monitor)?;
        // Vectors of tokens, because the cache has no part in them.
        engine.encode_tokens(&["warm up"])?;
        self.touch(name);
        Ok(())
    }

    /// How each model stands, in the order in which they were first registered. Loads none and counts as no use.
    pub fn info(&self) -> Vec<RegisteredModel> {
        let models = self.names().into_iter().filter_map(|name| self.newest(name));
        models.map(|model| self.info_of(model)).collect()
    }

    fn info_of(&self, model: &Registered) -> RegisteredModel {
        let here = self.pool.in_memory(&model.name);
        RegisteredModel {
            name: model.name.clone(),
            path: model.config.path().to_owned(),
            bytes: here.as_ref().map(|here| here.bytes),
            loaded_for: here.as_ref().map(|here| here.loaded_for),
            idle_for: here.as_ref().map(|here| here.idle_for),
        }
    }

    fn newest(&self, name: &str) -> Option<&Registered> {
        self.models.iter().find(|model| model.name == name)
    }

    fn registered(&self, name: &str) -> Result<&Registered> {
        self.newest(name).ok_or_else(|| {
            let known = self.names().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Error::argument("model", format!("{name:?} is not registered; registered are {known}"))
        })
    }
}
