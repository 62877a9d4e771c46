//! Dynamic batching: the texts of many callers, computed together.
//!
//! Requests queue. As soon as a thread is free it takes what is there, at most as many tokens as a micro-batch
//! has or as a few have where many wait, and computes it; meanwhile the next gather. Nothing waits for a batch to fill. Texts of a request may be
//! in several micro-batches, and a micro-batch has texts of several requests, which take turns.

mod queue;
mod request;
mod run;

use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use queue::QueueLimits;
pub use request::Scheduled;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::EncodeOptions;
use crate::process::PerProcess;
use request::{Done, Pending, Submission};
use run::Shared;

/// Told the texts and tokens of what was computed at a time.
pub(crate) type OnBatch = Box<dyn Fn(usize, usize) + Send + Sync>;

/// Computes the texts of many callers together, on the threads of all engines.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
/// # let engine = arrowembed::Engine::builder().cache_dir(folder.path()).open(model)?;
/// use arrowembed::{EncodeOptions, QueueLimits, Scheduler};
/// let scheduler = Scheduler::new(engine.into(), QueueLimits::default());
/// std::thread::scope(|scope| {
///     for client in 0..10 {
///         let scheduler = &scheduler;
///         scope.spawn(move || {
///             let texts = vec![format!("a text of client {client}")];
///             let answer = scheduler.encode(texts, EncodeOptions::new())?;
///             assert_eq!(answer.embeddings.len(), 1);
///             Ok::<(), arrowembed::Error>(())
///         });
///     }
/// });
/// assert!(scheduler.drain(None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// When it is dropped, what waits is still computed. A forked child has an empty queue of its own.
pub struct Scheduler {
    engine: Arc<Engine>,
    limits: QueueLimits,
    on_batch: Arc<OnBatch>,
    shared: PerProcess<Arc<Shared>>,
}

/// How full a [`Scheduler`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Requests of which texts wait.
    pub requests: usize,
    /// Texts that wait.
    pub texts: usize,
    /// Their tokens, roughly.
    pub tokens: usize,
    /// Batches that are being computed.
    pub running: usize,
}

/// What became of a request when it was submitted.
#[derive(Debug)]
pub enum Submitted {
    /// The cache had all its vectors; nobody else is told.
    Complete(Scheduled),
    /// It waits.
    Waiting(Ticket),
}

/// A request that waits or is being computed.
pub struct Ticket {
    pending: Weak<Pending>,
    shared: Weak<Shared>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    /// Drops what has not been computed; whether that was before the end of the request, whose caller then is
    /// not told any more.
    pub fn cancel(&self) -> bool {
        let Some(pending) = self.pending.upgrade() else { return false };
        let cancelled = pending.cancel();
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(&pending);
        }
        cancelled
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("engine", &self.engine)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// One with a queue of its own.
    pub fn new(engine: Arc<Engine>, limits: QueueLimits) -> Self {
        Self { engine, limits, on_batch: Arc::new(Box::new(|_, _| {})), shared: PerProcess::new() }
    }

    /// Tells `on_batch` the texts and tokens of what was computed at a time, on one of the scheduler's
    /// threads, which it must not keep.
    #[must_use]
    pub fn on_batch(mut self, on_batch: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        self.on_batch = Arc::new(Box::new(on_batch));
        self
    }

    /// The engine that computes.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Queues texts, unless the cache has all their vectors. `done` is told once how it ended, on one of the
    /// scheduler's threads, which it must not keep.
    ///
    /// # Errors
    /// At once: [`Error::QueueFull`], [`Error::Closed`] after [`drain`](Self::drain), [`Error::InvalidArgument`]
    /// for options outside what is allowed or more texts than ever fit, [`Error::OutOfMemory`]. `done` is told
    /// those of [`Engine::encode_with`].
    pub fn submit(
        &self,
        texts: Vec<String>,
        options: EncodeOptions,
        done: impl FnOnce(Result<Scheduled>) + Send + 'static,
    ) -> Result<Submitted> {
        let done: Done = Box::new(done);
        let shared = self.shared();
        shared.check_open()?;
        match Submission::of(&self.engine, texts, options, done)? {
            Submission::Complete(embeddings) => {
                let (queued, computed) = (Duration::ZERO, Duration::ZERO);
                Ok(Submitted::Complete(Scheduled { embeddings, queued, computed }))
            }
            Submission::Incomplete(pending, texts) => {
                let ticket =
                    Ticket { pending: Arc::downgrade(&pending), shared: Arc::downgrade(shared) };
                shared.push(pending, texts)?;
                Ok(Submitted::Waiting(ticket))
            }
        }
    }

    /// The vectors of texts, in their order, when it is their turn.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn encode(&self, texts: Vec<String>, options: EncodeOptions) -> Result<Scheduled> {
        let (sender, receiver) = sync_channel(1);
        let done = move |result| {
            // The receiver waits for it.
            let _ = sender.send(result);
        };
        match self.submit(texts, options, done)? {
            Submitted::Complete(scheduled) => Ok(scheduled),
            Submitted::Waiting(_) => receiver.recv().unwrap_or(Err(Error::Interrupted)),
        }
    }

    /// How full it is.
    pub fn info(&self) -> QueueInfo {
        self.shared.get().map_or_else(QueueInfo::default, |shared| shared.info())
    }

    /// The limits of the queue.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Takes no more requests and waits until all that were accepted have ended, at most as long as `timeout`
    /// says; whether they have.
    pub fn drain(&self, timeout: Option<Duration>) -> bool {
        self.shared().drain(timeout)
    }

    fn shared(&self) -> &Arc<Shared> {
        self.shared.get_or_init(|| {
            Shared::new(Arc::clone(&self.engine), self.limits, Arc::clone(&self.on_batch))
        })
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.get() {
            shared.close();
        }
    }
}
