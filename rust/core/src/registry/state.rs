//! Which models are in memory, and which of them may go. All of it under one lock, nothing of it slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::config::WhenFull;
use crate::error::{Error, Result};

/// The models of an engine, by name; one that was never loaded is not here.
pub(crate) struct State<M> {
    slots: HashMap<String, Slot<M>>,
    /// The thread that unloads idle models, once it is needed.
    pub(crate) idle_thread: Option<JoinHandle<()>>,
    /// Whether the engine is being dropped.
    pub(crate) closed: bool,
}

enum Slot<M> {
    /// A thread opens it; `reserved` bytes are spoken for.
    Loading {
        loading: Arc<Loading<M>>,
        reserved: u64,
    },
    Loaded(Loaded<M>),
    /// Unloaded, but perhaps still in someone's hands.
    Unloaded {
        model: Weak<M>,
        bytes: u64,
    },
}

struct Loaded<M> {
    model: Arc<M>,
    bytes: u64,
    since: Instant,
    used: Instant,
}

impl<M> Loaded<M> {
    /// Whether someone besides the registry holds it. Under the lock nobody can come to hold it meanwhile:
    /// what is handed out is cloned from `model`, or from what was handed out before.
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.model) > 1
    }
}

/// A load under way, which others wait for.
pub(crate) struct Loading<M> {
    pub(crate) result: OnceLock<Result<Arc<M>>>,
    /// Bytes read ahead, and bytes in all.
    pub(crate) done: AtomicUsize,
    pub(crate) all: AtomicUsize,
}

impl<M> Default for Loading<M> {
    fn default() -> Self {
        Self { result: OnceLock::new(), done: AtomicUsize::new(0), all: AtomicUsize::new(0) }
    }
}

impl<M> Loading<M> {
    /// How far it has come.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }
}

/// What is to be done for someone who asks for a model.
pub(crate) enum Asked<M> {
    Here(Arc<M>),
    /// The same, of one that was unloaded and counts as loaded again.
    Back(Arc<M>),
    Wait(Arc<Loading<M>>),
    /// The asker has to open it.
    Open(Arc<Loading<M>>),
}

/// A model that was unloaded. To be dropped once the lock is open again: that takes a while.
pub(crate) struct Gone<M> {
    pub(crate) name: String,
    _model: Arc<M>,
}

/// What is known of a model in memory.
pub(crate) struct InMemory {
    pub(crate) bytes: u64,
    pub(crate) loaded_for: Duration,
    pub(crate) idle_for: Duration,
}

impl<M> State<M> {
    pub(crate) fn new() -> Self {
        Self { slots: HashMap::new(), idle_thread: None, closed: false }
    }

    /// What a forked child goes on with, taken from its copy of the parent's state: the models in memory.
    /// Loads under way ended with their threads.
    pub(crate) fn take_models(&mut self) -> Self {
        let slots = std::mem::take(&mut self.slots).into_iter();
        let loaded = slots.filter(|(_, slot)| matches!(slot, Slot::Loaded(_)));
        Self { slots: loaded.collect(), ..Self::new() }
    }

    /// The model, or whom to wait for, or the task to open it.
    pub(crate) fn ask(&mut self, name: &str, now: Instant) -> Asked<M> {
        match self.slots.get_mut(name) {
            Some(Slot::Loaded(loaded)) => {
                loaded.used = now;
                return Asked::Here(Arc::clone(&loaded.model));
            }
            Some(Slot::Loading { loading, .. }) => return Asked::Wait(Arc::clone(loading)),
            Some(Slot::Unloaded { model, bytes }) => {
                let bytes = *bytes;
                // It never left memory, and has counted all the time.
                if let Some(model) = model.upgrade() {
                    self.loaded(name, Arc::clone(&model), bytes, now);
                    return Asked::Back(model);
                }
            }
            None => {}
        }
        let loading = Arc::new(Loading::default());
        let slot = Slot::Loading { loading: Arc::clone(&loading), reserved: 0 };
        self.slots.insert(name.to_owned(), slot);
        Asked::Open(loading)
    }

    /// A model is in memory from now on.
    pub(crate) fn loaded(&mut self, name: &str, model: Arc<M>, bytes: u64, now: Instant) {
        let loaded = Loaded { model, bytes, since: now, used: now };
        self.slots.insert(name.to_owned(), Slot::Loaded(loaded));
    }

    /// A model could not be loaded; whoever asks next tries again.
    pub(crate) fn failed(&mut self, name: &str) {
        self.slots.remove(name);
    }

    /// A model was used until now.
    pub(crate) fn used(&mut self, name: &str, now: Instant) {
        if let Some(Slot::Loaded(loaded)) = self.slots.get_mut(name) {
            loaded.used = now;
        }
    }

    /// Reserves `needed` bytes for a model that is being loaded. Returns what was evicted for it.
    ///
    /// # Errors
    /// [`Error::MemoryBudget`] if it does not fit; then nothing was evicted.
    pub(crate) fn admit(
        &mut self,
        name: &str,
        needed: u64,
        budget: Option<u64>,
        when_full: WhenFull,
    ) -> Result<Vec<Gone<M>>> {
        let mut evicted = Vec::new();
        if let Some(budget) = budget {
            let victims = match when_full {
                WhenFull::Refuse => Vec::new(),
                WhenFull::Evict => self.unused(),
            };
            let in_use = self.bytes();
            let mut left = in_use;
            let mut go = Vec::new();
            for (victim, bytes) in victims {
                if left.saturating_add(needed) <= budget {
                    break;
                }
                left = left.saturating_sub(bytes);
                go.push(victim);
            }
            if left.saturating_add(needed) > budget {
                let (name, loaded) = (name.to_owned(), self.names_in_memory());
                return Err(Error::MemoryBudget {
                    name,
                    needed,
                    budget,
                    in_use,
                    loaded,
                    when_full,
                });
            }
            evicted.extend(go.into_iter().filter_map(|name| self.unload(&name)));
        }
        if let Some(Slot::Loading { reserved, .. }) = self.slots.get_mut(name) {
            *reserved = needed;
        }
        Ok(evicted)
    }

    /// Takes a model out of memory, once nobody uses it any more. `None` if it is not loaded.
    pub(crate) fn unload(&mut self, name: &str) -> Option<Gone<M>> {
        let slot = self.slots.get_mut(name)?;
        let Slot::Loaded(loaded) = slot else { return None };
        let (model, bytes) = (Arc::clone(&loaded.model), loaded.bytes);
        // Of these two one goes with the slot, one to the caller.
        if Arc::strong_count(&model) > 2 {
            *slot = Slot::Unloaded { model: Arc::downgrade(&model), bytes };
        } else {
            self.slots.remove(name);
        }
        Some(Gone { name: name.to_owned(), _model: model })
    }

    /// Unloads what nobody has used for `timeout`; also says when the next one may be due.
    pub(crate) fn unload_idle(
        &mut self,
        timeout: Duration,
        now: Instant,
    ) -> (Vec<Gone<M>>, Option<Instant>) {
        let (mut idle, mut next) = (Vec::new(), None::<Instant>);
        for (name, slot) in &mut self.slots {
            let Slot::Loaded(loaded) = slot else { continue };
            if loaded.in_use() {
                loaded.used = now;
            }
            let due = loaded.used + timeout;
            if due <= now {
                idle.push(name.clone());
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        (idle.iter().filter_map(|name| self.unload(name)).collect(), next)
    }

    /// What is known of a model, if it is loaded.
    pub(crate) fn in_memory(&self, name: &str, now: Instant) -> Option<InMemory> {
        let Slot::Loaded(loaded) = self.slots.get(name)? else { return None };
        Some(InMemory {
            bytes: loaded.bytes,
            loaded_for: now.saturating_duration_since(loaded.since),
            idle_for: now.saturating_duration_since(loaded.used),
        })
    }

    /// A model that is in memory, even if it was unloaded and someone still uses it.
    pub(crate) fn peek(&self, name: &str) -> Option<Arc<M>> {
        match self.slots.get(name)? {
            Slot::Loaded(loaded) => Some(Arc::clone(&loaded.model)),
            Slot::Unloaded { model, .. } => model.upgrade(),
            Slot::Loading { .. } => None,
        }
    }

    /// Whether a model is in memory or on its way there.
    pub(crate) fn is_here(&self, name: &str) -> bool {
        match self.slots.get(name) {
            Some(Slot::Loading { .. } | Slot::Loaded(_)) => true,
            Some(Slot::Unloaded { model, .. }) => model.strong_count() > 0,
            None => false,
        }
    }

    /// Models that nobody is using, the least recently used one first, with their bytes.
    fn unused(&self) -> Vec<(String, u64)> {
        let loaded = self.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Loaded(loaded) if !loaded.in_use() => Some((loaded.used, name, loaded.bytes)),
            _ => None,
        });
        let mut unused: Vec<_> = loaded.collect();
        unused.sort_unstable();
        unused.into_iter().map(|(_, name, bytes)| (name.clone(), bytes)).collect()
    }

    /// Bytes of the models in memory, and of those on their way there.
    fn bytes(&self) -> u64 {
        self.slots.values().map(Slot::bytes).fold(0, u64::saturating_add)
    }

    fn names_in_memory(&self) -> Vec<String> {
        let here = self.slots.iter().filter(|(_, slot)| slot.bytes() > 0);
        let mut names: Vec<_> = here.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }
}

impl<M> Slot<M> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Loading { reserved, .. } => *reserved,
            Self::Loaded(loaded) => loaded.bytes,
            Self::Unloaded { model, .. } if model.strong_count() == 0 => 0,
            Self::Unloaded { bytes, .. } => *bytes,
        }
    }
}
