//! What an [`EmbeddingEngine`](super::EmbeddingEngine) may use.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::env::Variables;
use crate::error::{Error, Result};
use crate::threads;

/// What happens when a model does not fit into the memory budget any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// It is refused with [`Error::MemoryBudget`].
    #[default]
    Refuse,
    /// The least recently used models that nobody is using are unloaded; it is refused if that is not enough.
    Evict,
}

impl WhenFull {
    const ALL: [Self; 2] = [Self::Refuse, Self::Evict];

    /// The name used in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Evict => "evict",
        }
    }
}

impl FromStr for WhenFull {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|when_full| when_full.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("when_full", format!("is {name:?}, allowed are {names}"))
        })
    }
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an engine of many models may use, checked; by default as much as it likes.
///
/// ```
/// use std::time::Duration;
/// use arrowembed::{EngineConfig, WhenFull};
///
/// let config = EngineConfig::builder()
///     .memory_budget(2 << 30)
///     .when_full(WhenFull::Evict)
///     .idle_timeout(Duration::from_secs(600))
///     .build()?;
/// # let _ = config;
/// let error = EngineConfig::builder().memory_budget(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "memory_budget: is 0, allowed is 1 or more");
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineConfig {
    pub(crate) memory_budget: Option<u64>,
    pub(crate) when_full: WhenFull,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) num_threads: Option<usize>,
}

impl EngineConfig {
    /// Settings to be made; none is needed.
    pub fn builder() -> EngineConfigBuilder {
        EngineConfigBuilder::default()
    }

    /// What the environment says: `ARROWEMBED_MEMORY_BUDGET` in bytes, `ARROWEMBED_WHEN_FULL` (`refuse` or
    /// `evict`), `ARROWEMBED_IDLE_TIMEOUT` in seconds, `ARROWEMBED_NUM_THREADS`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the variable, its value and what is allowed.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&Variables::of_process())
    }

    pub(crate) fn from_variables(variables: &Variables<'_>) -> Result<Self> {
        let budget = variables.number("ARROWEMBED_MEMORY_BUDGET", 1..=usize::MAX)?;
        let seconds = variables.number("ARROWEMBED_IDLE_TIMEOUT", 1..=LONGEST_SECONDS as usize)?;
        Ok(Self {
            memory_budget: budget.map(|bytes| bytes as u64),
            when_full: variables.named("ARROWEMBED_WHEN_FULL")?.unwrap_or_default(),
            idle_timeout: seconds.map(|seconds| Duration::from_secs(seconds as u64)),
            num_threads: threads::from_variables(variables)?,
        })
    }
}

/// A hundred years, far from where adding to the time of day overflows.
const LONGEST_SECONDS: u32 = 100 * 366 * 24 * 3600;

/// While a model is in use, the thread that unloads idle ones looks as often as this again.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// Makes an [`EngineConfig`].
#[derive(Debug, Clone, Default)]
pub struct EngineConfigBuilder(EngineConfig);

impl EngineConfigBuilder {
    /// Most bytes of weights in memory, of all models together; no limit by default. Models that were
    /// unloaded and are still computing count.
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.0.memory_budget = Some(bytes);
        self
    }

    /// What happens when a model does not fit into the budget; by default it is refused.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.0.when_full = when_full;
        self
    }

    /// How long nobody has to use a model until it is unloaded, a millisecond or more; by default none ever is.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.0.idle_timeout = Some(timeout);
        self
    }

    /// How many threads compute, for all engines of the process; see
    /// [`set_num_threads`](crate::set_num_threads).
    #[must_use]
    pub fn num_threads(mut self, num_threads: usize) -> Self {
        self.0.num_threads = Some(num_threads);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the one that is outside what is allowed.
    pub fn build(self) -> Result<EngineConfig> {
        let Self(config) = self;
        if config.memory_budget == Some(0) {
            return Err(Error::argument("memory_budget", "is 0, allowed is 1 or more"));
        }
        let longest = Duration::from_secs(LONGEST_SECONDS.into());
        if let Some(timeout) = config.idle_timeout.filter(|t| *t < SHORTEST_TIMEOUT || *t > longest)
        {
            let reason = format!("is {timeout:?}, allowed are {SHORTEST_TIMEOUT:?} to {longest:?}");
            return Err(Error::argument("idle_timeout", reason));
        }
        config.num_threads.map_or(Ok(()), threads::check_num_threads)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn settings_outside_what_is_allowed_are_named() {
        let builder = EngineConfig::builder;
        for (wrong, name) in [
            (builder().memory_budget(0), "memory_budget"),
            (builder().idle_timeout(Duration::ZERO), "idle_timeout"),
            (builder().idle_timeout(Duration::from_nanos(1)), "idle_timeout"),
            (builder().idle_timeout(Duration::MAX), "idle_timeout"),
            (builder().num_threads(0), "num_threads"),
        ] {
            let error = wrong.build().unwrap_err();
            assert_eq!(error.code(), "invalid_argument");
            assert!(error.to_string().starts_with(&format!("{name}: is ")), "{error}");
        }
        assert_eq!(builder().build().unwrap(), EngineConfig::default());
    }

    #[test]
    fn the_environment_sets_what_the_builder_sets() {
        let from = |pairs: &[(&str, &str)]| {
            let look_up = |name: &str| {
                let pair = pairs.iter().find(|(variable, _)| *variable == name);
                pair.map(|(_, value)| OsString::from(value))
            };
            EngineConfig::from_variables(&Variables::of(&look_up))
        };
        assert_eq!(from(&[]).unwrap(), EngineConfig::default());
        let everything = [
            ("ARROWEMBED_MEMORY_BUDGET", "8000000000"),
            ("ARROWEMBED_WHEN_FULL", "evict"),
            ("ARROWEMBED_IDLE_TIMEOUT", "90"),
            ("ARROWEMBED_NUM_THREADS", "3"),
        ];
        let expected = EngineConfig::builder()
            .memory_budget(8_000_000_000)
            .when_full(WhenFull::Evict)
            .idle_timeout(Duration::from_secs(90))
            .num_threads(3);
        assert_eq!(from(&everything).unwrap(), expected.build().unwrap());
        for (name, _) in everything {
            let error = from(&[(name, "plenty")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: is \"plenty\", allowed are ")), "{error}");
        }
    }
}
