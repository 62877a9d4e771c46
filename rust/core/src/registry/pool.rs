//! Models in memory for many threads: loaded once however many ask at once, unloaded when idle.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::EngineConfig;
use super::state::{Asked, Gone, InMemory, Loading, State};
use crate::error::{Error, Result};
use crate::model_config::LoadMonitor;
use crate::process::PerProcess;

/// How long a thread waits for another one's load before it asks its monitor again.
const MONITOR_INTERVAL: Duration = Duration::from_millis(25);

/// The time of day, which tests make up.
pub(crate) type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Told a model's size in bytes before it is read; refuses it by an error.
pub(crate) type Admit<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Models of type `M`, by name.
pub(crate) struct Pool<M: Send + Sync + 'static> {
    config: EngineConfig,
    clock: Clock,
    /// A forked child goes on with the models of its parent, and with locks of its own.
    shared: PerProcess<Arc<Shared<M>>>,
}

/// What the threads of one process share.
struct Shared<M> {
    state: Mutex<State<M>>,
    /// A load has ended, a model was unloaded, or the pool is being dropped.
    changed: Condvar,
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Send + Sync + 'static> Pool<M> {
    pub(crate) fn new(config: EngineConfig, clock: Clock) -> Self {
        Self { config, clock, shared: PerProcess::new() }
    }

    fn shared(&self) -> &Arc<Shared<M>> {
        self.shared.get_or_inherit(|parents| {
            // A lock that is held stays so for ever; then the models are opened again.
            let parents = parents.and_then(|shared| shared.state.try_lock().ok());
            let state = parents.map_or_else(State::new, |mut state| state.take_models());
            Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() })
        })
    }

    /// The model of that name. If it is not there, the first who asks opens it and the others wait; an error
    /// goes to all of them. `open` returns the model and its bytes.
    pub(crate) fn get(
        &self,
        name: &str,
        mut monitor: Option<LoadMonitor<'_>>,
        open: impl FnOnce(LoadMonitor<'_>, Admit<'_>) -> Result<(M, u64)>,
    ) -> Result<Arc<M>> {
        let shared = self.shared();
        loop {
            let asked = {
                let mut state = shared.lock();
                self.start_idle_thread(shared, &mut state)?;
                state.ask(name, (self.clock)())
            };
            match asked {
                Asked::Here(model) => return Ok(model),
                Asked::Back(model) => {
                    // The thread that unloads may sleep because nothing was loaded.
                    shared.changed.notify_all();
                    return Ok(model);
                }
                Asked::Open(loading) => return self.open(name, loading, monitor, open),
                Asked::Wait(loading) => match wait(shared, &loading, &mut monitor) {
                    // Who gave up was another one.
                    Some(Err(Error::Interrupted)) => {}
                    Some(result) => return result,
                    None => return Err(Error::Interrupted),
                },
            }
        }
    }

    fn open(
        &self,
        name: &str,
        loading: Arc<Loading<M>>,
        mut monitor: Option<LoadMonitor<'_>>,
        open: impl FnOnce(LoadMonitor<'_>, Admit<'_>) -> Result<(M, u64)>,
    ) -> Result<Arc<M>> {
        let shared = self.shared();
        let attempt = Attempt { shared, name, loading, clock: &self.clock };
        let mut report = |done, all| {
            attempt.loading.done.store(done, Ordering::Relaxed);
            attempt.loading.all.store(all, Ordering::Relaxed);
            monitor.as_mut().map_or(ControlFlow::Continue(()), |monitor| monitor(done, all))
        };
        let mut admit = |bytes| {
            let EngineConfig { memory_budget, when_full, .. } = self.config;
            let evicted = shared.lock().admit(name, bytes, memory_budget, when_full)?;
            let_go(evicted, "the memory budget is full");
            Ok(())
        };
        let opened = open(&mut report, &mut admit);
        attempt.end(opened)
    }

    /// Someone is done with a model.
    pub(crate) fn used(&self, name: &str) {
        self.shared().lock().used(name, (self.clock)());
    }

    /// Takes a model out of memory, once nobody uses it any more; false if it is not loaded.
    pub(crate) fn unload(&self, name: &str) -> bool {
        let shared = self.shared();
        let unloaded = shared.lock().unload(name);
        shared.changed.notify_all();
        unloaded.is_some()
    }

    /// A model that is in memory, even if it was unloaded and someone still uses it. Counts as no use.
    pub(crate) fn peek(&self, name: &str) -> Option<Arc<M>> {
        self.shared().lock().peek(name)
    }

    /// What `act` makes of whether a model is in memory or on its way there, which does not change meanwhile.
    pub(crate) fn while_known<T>(&self, name: &str, act: impl FnOnce(bool) -> T) -> T {
        let state = self.shared().lock();
        act(state.is_here(name))
    }

    /// What is known of a model, if it is loaded.
    pub(crate) fn in_memory(&self, name: &str) -> Option<InMemory> {
        self.shared().lock().in_memory(name, (self.clock)())
    }

    /// Starts the thread that unloads idle models, unless it runs in this process or is not wanted.
    fn start_idle_thread(&self, shared: &Arc<Shared<M>>, state: &mut State<M>) -> Result<()> {
        let Some(timeout) = self.config.idle_timeout else { return Ok(()) };
        if state.idle_thread.is_none() {
            let (shared, clock) = (Arc::clone(shared), Arc::clone(&self.clock));
            let thread = std::thread::Builder::new().name("arrowembed-idle".to_owned());
            let thread = thread.spawn(move || unload_idle(&shared, timeout, &*clock));
            state.idle_thread = Some(thread.map_err(|error| Error::OutOfMemory {
                reason: format!("starting the thread that unloads idle models: {error}"),
            })?);
        }
        Ok(())
    }

    /// Lets threads that sleep look at the clock again.
    #[cfg(test)]
    pub(crate) fn wake(&self) {
        let shared = self.shared();
        let _state = shared.lock();
        shared.changed.notify_all();
    }

    /// Returns after a model was unloaded.
    #[cfg(test)]
    pub(crate) fn wait_until_unloaded(&self, name: &str) {
        let shared = self.shared();
        let mut state = shared.lock();
        while state.in_memory(name, (self.clock)()).is_some() {
            state = shared.changed.wait(state).unwrap();
        }
    }
}

impl<M: Send + Sync + 'static> Drop for Pool<M> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.get() else { return };
        let mut state = shared.lock();
        state.closed = true;
        let thread = state.idle_thread.take();
        drop(state);
        shared.changed.notify_all();
        if let Some(thread) = thread {
            // It holds no lock of ours while it waits, and ends at once.
            let _ = thread.join();
        }
    }
}

/// An attempt to open a model. However it ends, those who wait for it are told.
struct Attempt<'a, M> {
    shared: &'a Shared<M>,
    name: &'a str,
    loading: Arc<Loading<M>>,
    clock: &'a Clock,
}

impl<M> Attempt<'_, M> {
    fn end(self, opened: Result<(M, u64)>) -> Result<Arc<M>> {
        let mut state = self.shared.lock();
        let result = match opened {
            Ok((model, bytes)) => {
                let model = Arc::new(model);
                state.loaded(self.name, Arc::clone(&model), bytes, (self.clock)());
                Ok(model)
            }
            Err(error) => {
                state.failed(self.name);
                Err(error)
            }
        };
        // Nobody else sets it.
        let _ = self.loading.result.set(result.clone());
        drop(state);
        result
    }
}

impl<M> Drop for Attempt<'_, M> {
    fn drop(&mut self) {
        // Without a result there was a panic: whoever waits tries for himself.
        if self.loading.result.get().is_none() {
            let mut state = self.shared.lock();
            state.failed(self.name);
            let _ = self.loading.result.set(Err(Error::Interrupted));
        }
        self.shared.changed.notify_all();
    }
}

/// What came of another thread's load; `None` if the monitor does not want to wait for it.
fn wait<M>(
    shared: &Shared<M>,
    loading: &Loading<M>,
    monitor: &mut Option<LoadMonitor<'_>>,
) -> Option<Result<Arc<M>>> {
    let mut state = shared.lock();
    loop {
        if let Some(result) = loading.result.get() {
            return Some(result.clone());
        }
        let Some(monitor) = monitor else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let waited = shared.changed.wait_timeout(state, MONITOR_INTERVAL);
        // The monitor may do anything, such as wait for a thread that waits for this lock.
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let (done, all) = loading.progress();
        if monitor(done, all).is_break() {
            return None;
        }
        state = shared.lock();
    }
}

/// Drops models and says so in the log, both without the lock: whoever hears the log may need it.
fn let_go<M>(models: Vec<Gone<M>>, reason: &str) {
    for model in models {
        tracing::info!(model = model.name, reason, "a model was unloaded");
    }
}

/// Sleeps until the next model is due, and unloads it; ends with the pool.
fn unload_idle<M>(shared: &Shared<M>, timeout: Duration, clock: &dyn Fn() -> Instant) {
    let mut state = shared.lock();
    while !state.closed {
        let now = clock();
        let (idle, next) = state.unload_idle(timeout, now);
        if !idle.is_empty() {
            drop(state);
            let_go(idle, "nobody used it");
            shared.changed.notify_all();
            state = shared.lock();
            continue;
        }
        state = match next {
            Some(next) => {
                let waited =
                    shared.changed.wait_timeout(state, next.saturating_duration_since(now));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}
