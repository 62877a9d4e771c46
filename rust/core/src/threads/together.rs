//! Jobs that wait for each other, each on a worker of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::jobs::{Monitor, run};
use super::{CALLS, Call, num_threads, pool};
use crate::error::{Error, Result};

/// How long a worker that was woken waits for what it was woken for.
const PATIENCE: Duration = Duration::from_micros(100);

/// A worker waits for [`at_once`].
static ROUSED: AtomicBool = AtomicBool::new(false);

/// Wakes a worker for an [`at_once`] that will come soon: that takes tens of microseconds, in which a text
/// can be tokenized.
pub(crate) fn rouse() {
    let idle = CALLS.get_or_init(AtomicUsize::default).load(Ordering::Relaxed) == 0;
    if !idle || matches!(num_threads(), Ok(1)) || ROUSED.swap(true, Ordering::Relaxed) {
        return;
    }
    let Ok(pool) = pool() else { return };
    pool.spawn(|| {
        let woken = Instant::now();
        while ROUSED.load(Ordering::Relaxed) && woken.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        ROUSED.store(false, Ordering::Relaxed);
    });
}

/// Does `first` and at the same time `other`, with jobs that wait for each other.
///
/// `jobs` is told the number of threads and makes as many jobs, the first of which is `first`'s; each
/// must end when another one is dropped. `None` where the pool serves another call, behind which a job
/// might stay while the others wait.
///
/// The calling thread does `first`. With a monitor it has no job and asks the monitor, as in [`for_each`]; to wake a
/// worker in its stead takes tens of microseconds.
pub(crate) fn at_once<J: Send>(
    jobs: impl FnOnce(usize) -> Vec<J>,
    monitor: Option<Monitor<'_>>,
    first: impl FnOnce(J) -> Result<()> + Send,
    other: impl Fn(J) -> Result<()> + Sync,
) -> Option<Result<()>> {
    let _call = Call::alone()?;
    if monitor.is_none() && matches!(num_threads(), Ok(1)) {
        return jobs(1).pop().map(first);
    }
    // The pool's own number: the setting may change at any time, and each job needs its worker.
    let pool = match pool() {
        Ok(pool) => pool,
        Err(error) => return Some(Err(error)),
    };
    let mut jobs = jobs(pool.current_num_threads()).into_iter();
    let own = jobs.next()?;
    if let Some(monitor) = monitor {
        ROUSED.store(false, Ordering::Relaxed);
        let results = Mutex::new(Vec::new());
        let jobs = std::iter::once((own, Some(first))).chain(jobs.map(|job| (job, None)));
        let ended = run(&pool, jobs, Some(monitor), |(job, first)| {
            let result = match first {
                Some(first) => first(job),
                None => other(job),
            };
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            Ok(0)
        });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        return Some(ended.and_then(|()| reason(results)));
    }
    if jobs.len() == 0 {
        return Some(first(own));
    }
    let (sender, receiver) = channel();
    let other = &other;
    let own = pool.in_place_scope(|scope| {
        for job in jobs {
            let sender = sender.clone();
            scope.spawn(move |_| {
                // The receiver outlives the scope.
                let _ = sender.send(catch_unwind(AssertUnwindSafe(|| other(job))));
            });
        }
        ROUSED.store(false, Ordering::Relaxed);
        first(own)
    });
    drop(sender);
    let mut results = vec![own];
    for result in receiver {
        results.push(result.unwrap_or_else(|panic| resume_unwind(panic)));
    }
    Some(reason(results))
}

/// The result of jobs that wait for each other: one that ends early interrupts the others, and its reason is the
/// one to tell.
pub(super) fn reason(results: Vec<Result<()>>) -> Result<()> {
    let mut interrupted = Ok(());
    for result in results {
        match result {
            Ok(()) => {}
            Err(Error::Interrupted) => interrupted = result,
            Err(_) => return result,
        }
    }
    interrupted
}
