//! Jobs that end by themselves, on the pool's workers.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::{Call, pool};
use crate::error::{Error, Result};

/// How long a call computes before it asks its monitor again.
pub(super) const MONITOR_INTERVAL: Duration = Duration::from_millis(25);

/// Asked now and then by a running call, with the number of texts finished so far, whether to go on.
///
/// It runs on the calling thread, at least every 50 ms or so. A long forward pass that it stops ends after the
/// operation that it is in.
pub type Monitor<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

thread_local! {
    /// Of the job that this thread does on behalf of a call: whether the call was stopped.
    static STOPPED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// What a job asks between its steps.
///
/// # Errors
/// [`Error::Interrupted`] if its call was stopped and nobody wants the result any more.
pub(crate) fn go_on() -> Result<()> {
    let stopped = |stopped: &Arc<AtomicBool>| stopped.load(Ordering::Relaxed);
    if STOPPED.with_borrow(|call| call.as_ref().is_some_and(stopped)) {
        return Err(Error::Interrupted);
    }
    Ok(())
}

/// Asks a monitor between the parts of a call, of which each may be over before it is asked.
///
/// # Errors
/// [`Error::Interrupted`] if it says so.
pub(crate) fn ask(monitor: Option<Monitor<'_>>, finished: usize) -> Result<()> {
    match monitor.map(|monitor| monitor(finished)) {
        Some(ControlFlow::Break(())) => Err(Error::Interrupted),
        _ => Ok(()),
    }
}

/// Does `work` on every job on the pool's workers, in no particular order.
///
/// `work` returns how many texts it finished, the sum of which the monitor sees. The first error, or
/// the monitor's `Break` as [`Error::Interrupted`], ends the call once the jobs under way have ended, which
/// [`go_on`] tells them to; the others are not begun. A panic in `work` goes on in the caller.
///
/// A single job that is `brief` is done on the calling thread where no other call is under way, and the monitor is
/// not asked meanwhile.
///
/// Jobs are handed out a few at a time and no worker is kept, so that a short call beside a long one
/// waits for a few jobs and not for the whole call.
pub(crate) fn for_each<J: Send>(
    jobs: impl IntoIterator<Item = J>,
    monitor: Option<Monitor<'_>>,
    brief: bool,
    work: impl Fn(J) -> Result<usize> + Sync,
) -> Result<()> {
    let mut jobs = jobs.into_iter();
    let Some(first) = jobs.next() else { return Ok(()) };
    let Some(second) = jobs.next() else {
        // Waking a worker would take longer than many a job.
        if brief && let Some(_call) = Call::alone() {
            return work(first).map(drop);
        }
        let _call = Call::begin();
        return run(&*pool()?, [first], monitor, work);
    };
    let _call = Call::begin();
    run(&*pool()?, [first, second].into_iter().chain(jobs), monitor, work)
}

pub(super) fn run<J: Send>(
    pool: &ThreadPool,
    jobs: impl IntoIterator<Item = J>,
    mut monitor: Option<Monitor<'_>>,
    work: impl Fn(J) -> Result<usize> + Sync,
) -> Result<()> {
    // One job under way for each worker and one waiting for the first that is done.
    let window = pool.current_num_threads() + 1;
    let (sender, receiver) = channel();
    let stopped = Arc::new(AtomicBool::new(false));
    let (stopped, work) = (&stopped, &work);
    let mut jobs = jobs.into_iter();
    pool.in_place_scope(|scope| {
        // However this closure ends, also by a panic of the monitor, waiting jobs are dropped and those under way
        // end soon.
        let _stop = StopOnDrop(stopped);
        let mut under_way = 0;
        let mut finished = 0;
        let mut asked = Instant::now();
        loop {
            while under_way < window
                && let Some(job) = jobs.next()
            {
                let sender = sender.clone();
                scope.spawn(move |_| {
                    if !stopped.load(Ordering::Relaxed) {
                        let _job = Job::of(stopped);
                        let result = catch_unwind(AssertUnwindSafe(|| work(job)));
                        // The receiver is gone only where the result no longer matters.
                        let _ = sender.send(result);
                    }
                });
                under_way += 1;
            }
            if under_way == 0 {
                return Ok(());
            }
            let result = match &mut monitor {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(monitor) => {
                    if asked.elapsed() >= MONITOR_INTERVAL {
                        if monitor(finished).is_break() {
                            return Err(Error::Interrupted);
                        }
                        asked = Instant::now();
                    }
                    receiver.recv_timeout(MONITOR_INTERVAL.saturating_sub(asked.elapsed()))
                }
            };
            match result {
                Ok(Ok(texts)) => {
                    finished += texts?;
                    under_way -= 1;
                }
                Ok(Err(panic)) => resume_unwind(panic),
                Err(_) => {}
            }
        }
    })
}

/// A job of a call that can be stopped, on the thread that does it, as long as this lives.
struct Job;

impl Job {
    fn of(stopped: &Arc<AtomicBool>) -> Self {
        STOPPED.set(Some(Arc::clone(stopped)));
        Self
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        STOPPED.set(None);
    }
}

/// Tells jobs that nobody waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
