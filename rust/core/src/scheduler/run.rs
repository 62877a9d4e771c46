//! The threads of a scheduler: each takes a micro-batch, has it computed and tells the callers.
//!
//! They are callers of the engine like others, so that what computes are the threads of all engines; there is one
//! more of them, which has the next micro-batch ready when a worker is free.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{Queue, Text};
use super::request::Pending;
use super::{OnBatch, QueueInfo, QueueLimits};
use crate::cache::Entry;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pipeline::finite;
use crate::plan::budget;
use crate::threads;
use crate::tokenize::Tokens;

/// Micro-batches that a thread takes at most at a time, where many wait: each time callers are told costs them a
/// change of threads.
const BATCHES: usize = 4;

/// What the threads of a scheduler and its callers share.
pub(super) struct Shared {
    engine: Arc<Engine>,
    on_batch: Arc<OnBatch>,
    state: Mutex<State>,
    /// Something was queued, or nothing more will be.
    queued: Condvar,
    /// Nothing waits and nothing runs.
    empty: Condvar,
}

struct State {
    queue: Queue<Arc<Pending>>,
    closed: bool,
    /// Threads that there are, and how many of them wait for something to do.
    threads: usize,
    idle: usize,
    running: usize,
}

type Taken = Vec<(Arc<Pending>, Text)>;

impl Shared {
    pub(super) fn new(
        engine: Arc<Engine>,
        limits: QueueLimits,
        on_batch: Arc<OnBatch>,
    ) -> Arc<Self> {
        let queue = Queue::new(limits);
        let state = State { queue, closed: false, threads: 0, idle: 0, running: 0 };
        let (queued, empty) = (Condvar::new(), Condvar::new());
        Arc::new(Self { engine, on_batch, state: Mutex::new(state), queued, empty })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.state().closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Queues a request and sees to it that a thread takes it.
    pub(super) fn push(
        self: &Arc<Self>,
        pending: Arc<Pending>,
        texts: VecDeque<Text>,
    ) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.threads == 0 {
            self.start_thread(&mut state)?;
        }
        state.queue.push(pending, texts)?;
        self.call_thread(&mut state);
        Ok(())
    }

    /// Whether a thread has something to do: what waits where a worker is free, or else a whole micro-batch to have
    /// ready for the first that is. Fewer texts wait for more to come meanwhile.
    fn is_worth_taking(&self, state: &State, threads: usize) -> bool {
        let free = state.running < threads && state.queue.requests() > 0;
        free || state.queue.tokens() >= self.engine.model.tokens_at_once()
    }

    /// Wakes a thread or starts one, if there is something to do for it.
    fn call_thread(self: &Arc<Self>, state: &mut State) {
        let threads = threads::num_threads().unwrap_or(1);
        let most = threads + 1;
        if !self.is_worth_taking(state, threads) {
            return;
        }
        if state.idle > 0 {
            self.queued.notify_one();
        } else if state.threads < most {
            // Without one more, those that there are do it.
            let _ = self.start_thread(state);
        }
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let shared = Arc::clone(self);
        std::thread::Builder::new()
            .name("arrowembed-queue".to_owned())
            .spawn(move || shared.run())
            .map_err(|error| Error::OutOfMemory {
                reason: format!("starting a thread: {error}"),
            })?;
        state.threads += 1;
        Ok(())
    }

    /// Drops the texts of a request that wait.
    pub(super) fn forget(&self, pending: &Arc<Pending>) {
        let mut state = self.state();
        state.queue.remove(|other| Arc::ptr_eq(other, pending));
        self.tell_if_empty(&state);
    }

    pub(super) fn info(&self) -> QueueInfo {
        let State { queue, running, .. } = &*self.state();
        QueueInfo {
            requests: queue.requests(),
            texts: queue.texts(),
            tokens: queue.tokens(),
            running: *running,
        }
    }

    /// Takes no more requests; the threads end when nothing waits.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.queued.notify_all();
    }

    pub(super) fn drain(&self, timeout: Option<Duration>) -> bool {
        self.close();
        let mut state = self.state();
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while !state.is_empty() {
            state = match until {
                None => self.empty.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn tell_if_empty(&self, state: &State) {
        if state.is_empty() {
            self.empty.notify_all();
        }
    }

    fn run(self: &Arc<Self>) {
        let mut state = self.state();
        loop {
            let threads = threads::num_threads().unwrap_or(1);
            let most = self.engine.model.tokens_at_once();
            if self.is_worth_taking(&state, threads) {
                let waiting = state.queue.tokens();
                let batches = (waiting / (2 * threads * most)).clamp(1, BATCHES);
                let taken = state.queue.take(batches * budget(waiting, threads, most));
                state.running += 1;
                let more = state.queue.requests() > 0;
                self.call_thread(&mut state);
                // To divide it among all threads takes less time but more work.
                let together = !more && state.running == 1;
                drop(state);
                self.work(taken, together);
                state = self.state();
                state.running -= 1;
                self.tell_if_empty(&state);
            } else if state.closed && state.queue.requests() == 0 {
                // Those that wait for more to take have to end, too.
                self.queued.notify_all();
                return;
            } else {
                state.idle += 1;
                state = self.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Computes what was taken and tells the callers, also if that panics.
    fn work(&self, taken: Taken, together: bool) {
        let requests: Vec<Arc<Pending>> =
            taken.iter().map(|(request, _)| request.clone()).collect();
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute(taken, together)));
        let failed = computed.unwrap_or_else(|panic| {
            let reason = panic
                .downcast_ref::<&str>()
                .map(|reason| (*reason).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Error::Internal { reason: reason.unwrap_or_else(|| "a panic".to_owned()) })
        });
        if let Err(error) = failed {
            for request in requests {
                request.fail(error.clone());
            }
        }
    }

    /// A request whose text has an error fails alone; what is returned is everybody's.
    fn compute(&self, taken: Taken, together: bool) -> Result<()> {
        let engine = &*self.engine;
        if together && taken.len() == 1 {
            threads::rouse();
        }
        let mut work: Vec<(Arc<Pending>, usize)> = Vec::with_capacity(taken.len());
        let mut tokens: Vec<Tokens> = Vec::with_capacity(taken.len());
        for (pending, Text { position, .. }) in taken {
            pending.start();
            if !pending.is_wanted() {
                continue;
            }
            match engine.tokens_of(pending.text(position), &pending.request(), position) {
                Ok(of_text) => {
                    tokens.push(of_text);
                    work.push((pending, position));
                }
                Err(error) => pending.fail(error),
            }
        }
        let mut vectors: Vec<Result<Vec<f32>>> = Vec::new();
        vectors.resize_with(work.len(), || Ok(Vec::new()));
        engine.forward(
            &tokens,
            vectors.iter_mut().collect(),
            (usize::MAX, together),
            None,
            |i, slot, hidden| {
                let (pending, position) = &work[i];
                let request = pending.request();
                let mut vector = vec![0.0; request.variant.dim];
                engine.vector(&request, hidden, &mut vector)?;
                *slot = finite(&vector, *position).map(|()| vector);
                Ok(1)
            },
        )?;
        if let Some(mut table) = engine.cache.lock() {
            for (((pending, position), tokens), vector) in work.iter().zip(&tokens).zip(&vectors) {
                let Ok(vector) = vector else { continue };
                let request = pending.request();
                let text = pending.text(*position);
                table.insert(request.variant, request.prompt, text, Entry::new(vector, tokens));
            }
        }
        (self.on_batch)(work.len(), tokens.iter().map(|tokens| tokens.ids.len()).sum());
        for (((pending, position), tokens), vector) in work.into_iter().zip(&tokens).zip(vectors) {
            match vector {
                Ok(vector) => pending.complete(engine, position, tokens, &vector),
                Err(error) => pending.fail(error),
            }
        }
        Ok(())
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.queue.requests() == 0 && self.running == 0
    }
}
