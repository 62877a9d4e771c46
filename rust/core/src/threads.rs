//! The one place that decides how many threads compute, and the pool that they form.
//!
//! All engines of a process share one pool and all compute runs on its workers, so that neither many
//! engines nor many calling threads put more threads to work than were asked for.

mod jobs;
#[cfg(test)]
mod tests;
mod together;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::env::Variables;
use crate::error::{Error, Result};
use crate::process::PerProcess;

pub use jobs::Monitor;
pub(crate) use jobs::{ask, for_each, go_on};
pub(crate) use together::{at_once, rouse};

/// The environment variable that sets the number of threads.
const VARIABLE: &str = "ARROWEMBED_NUM_THREADS";

/// More than any machine has; keeps a slip from starting a million threads.
const MOST_THREADS: usize = 1024;

/// The number of threads; 0 until it is first needed or set. A forked child inherits it.
static NUM_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Calls that use the pool at the moment.
static CALLS: PerProcess<AtomicUsize> = PerProcess::new();

static POOL: PerProcess<Mutex<Option<Arc<ThreadPool>>>> = PerProcess::new();

/// Sets how many threads compute, for all engines of this process, from the next call on.
///
/// ```
/// arrowembed::set_num_threads(2)?;
/// assert_eq!(arrowembed::num_threads()?, 2);
/// # Ok::<(), arrowembed::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] unless it is between 1 and 1024.
pub fn set_num_threads(num_threads: usize) -> Result<()> {
    check_num_threads(num_threads)?;
    NUM_THREADS.store(num_threads, Ordering::Relaxed);
    Ok(())
}

/// Refuses a number of threads that no machine has.
pub(crate) fn check_num_threads(num_threads: usize) -> Result<()> {
    if (1..=MOST_THREADS).contains(&num_threads) {
        return Ok(());
    }
    let reason = format!("is {num_threads}, allowed are 1 to {MOST_THREADS}");
    Err(Error::argument("num_threads", reason))
}

/// How many threads compute: what [`set_num_threads`] said, else the environment variable
/// `ARROWEMBED_NUM_THREADS`, else what the machine grants this process (affinity and container quotas
/// included).
///
/// ```
/// assert!(arrowembed::num_threads()? >= 1);
/// # Ok::<(), arrowembed::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] if the environment variable is not a number between 1 and 1024.
pub fn num_threads() -> Result<usize> {
    let chosen = NUM_THREADS.load(Ordering::Relaxed);
    if chosen > 0 {
        return Ok(chosen);
    }
    let default = from_variables(&Variables::of_process())?.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
    });
    // Another thread may have set the number meanwhile; then that one holds.
    match NUM_THREADS.compare_exchange(0, default, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(default),
        Err(chosen) => Ok(chosen),
    }
}

/// The number of threads that the environment asks for.
pub(crate) fn from_variables(variables: &Variables<'_>) -> Result<Option<usize>> {
    variables.number(VARIABLE, 1..=MOST_THREADS)
}

/// This process's pool, with the number of threads that is set now.
fn pool() -> Result<Arc<ThreadPool>> {
    let threads = num_threads()?;
    let mut slot =
        POOL.get_or_init(|| Mutex::new(None)).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = slot.as_ref().filter(|pool| pool.current_num_threads() == threads) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("arrowembed-{i}"))
        .build()
        .map_err(|e| Error::OutOfMemory { reason: format!("starting {threads} threads: {e}") })?;
    let pool = Arc::new(pool);
    // Calls that still run keep the old pool alive until they end.
    *slot = Some(Arc::clone(&pool));
    Ok(pool)
}

/// A call that uses the pool, as long as this lives.
struct Call(&'static AtomicUsize);

impl Call {
    fn begin() -> Self {
        let calls = CALLS.get_or_init(AtomicUsize::default);
        calls.fetch_add(1, Ordering::Relaxed);
        Self(calls)
    }

    /// Only if there is no other. Calls that begin later have jobs that end by themselves.
    fn alone() -> Option<Self> {
        let calls = CALLS.get_or_init(AtomicUsize::default);
        calls.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(Self(calls))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
