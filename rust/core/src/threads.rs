//! The one place that decides how many threads compute, and the pool that they form.
//!
//! All engines of a process share one pool and all compute runs on its workers, so that neither many
//! engines nor many calling threads put more threads to work than were asked for.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::env::Variables;
use crate::error::{Error, Result};
use crate::process::PerProcess;

/// The environment variable that sets the number of threads.
const VARIABLE: &str = "ARROWEMBED_NUM_THREADS";

/// More than any machine has; keeps a slip from starting a million threads.
const MOST_THREADS: usize = 1024;

/// How long a call computes before it asks its monitor again.
const MONITOR_INTERVAL: Duration = Duration::from_millis(25);

/// How long a worker that was woken waits for what it was woken for.
const PATIENCE: Duration = Duration::from_micros(100);

/// The number of threads; 0 until it is first needed or set. A forked child inherits it.
static NUM_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Calls that use the pool at the moment.
static CALLS: PerProcess<AtomicUsize> = PerProcess::new();

static POOL: PerProcess<Mutex<Option<Arc<ThreadPool>>>> = PerProcess::new();

/// Asked now and then by a running call, with the number of texts finished so far, whether to go on.
///
/// It runs on the calling thread, at least every 50 ms or so. A long forward pass that it stops ends after the
/// operation that it is in.
pub type Monitor<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

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
fn reason(results: Vec<Result<()>>) -> Result<()> {
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

fn run<J: Send>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once() {
        let done: Vec<_> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        for_each(&done, None, false, |count| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(1)
        })
        .unwrap();
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn the_first_error_ends_the_call() {
        let begun = AtomicUsize::new(0);
        let result = for_each(0..1_000_000, None, false, |i| {
            begun.fetch_add(1, Ordering::Relaxed);
            if i == 10 { Err(Error::NonFinite { index: i }) } else { Ok(1) }
        });
        assert!(matches!(result, Err(Error::NonFinite { index: 10 })));
        assert!(begun.load(Ordering::Relaxed) < 10_000);
    }

    #[test]
    fn the_monitor_sees_progress_and_can_stop_the_call() {
        let mut seen = Vec::new();
        let mut monitor = |finished| {
            seen.push(finished);
            if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = for_each(0..1_000_000, Some(&mut monitor), false, |_| {
            std::thread::sleep(Duration::from_millis(1));
            Ok(1)
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(seen.len(), 3);
        assert!(seen.is_sorted() && seen[0] > 0 && seen[2] < 1_000_000, "{seen:?}");
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let panic = catch_unwind(|| {
            for_each(0..100, None, false, |i| {
                if i == 50 { std::panic::panic_any("fifty") } else { Ok(1) }
            })
        })
        .unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"fifty"));

        let mut monitor = |_| std::panic::panic_any("monitor");
        let panic = catch_unwind(AssertUnwindSafe(|| {
            for_each(0..100, Some(&mut monitor), false, |_| {
                std::thread::sleep(MONITOR_INTERVAL);
                Ok(1)
            })
        }))
        .unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"monitor"));

        for_each(0..100, None, false, |_| Ok(1)).unwrap();
    }

    #[test]
    fn a_job_learns_that_its_call_was_stopped() {
        let job = |_| {
            // Ends only by being told to.
            while go_on().is_ok() {
                std::thread::yield_now();
            }
            go_on().map(|()| 1)
        };
        let mut asked = 0;
        let mut monitor = |_| {
            asked += 1;
            if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // A single job too, and others that wait for each other.
        let result = for_each(0..1, Some(&mut monitor), false, job);
        assert!(matches!(result, Err(Error::Interrupted)));
        asked = 0;
        let result = loop {
            // Another test's call may have the pool at the moment.
            let jobs = |count| (0..count).collect();
            let mut monitor = |_| {
                asked += 1;
                if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let drop = |i| job(i).map(drop);
            if let Some(result) = at_once(jobs, Some(&mut monitor), drop, drop) {
                break result;
            }
        };
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(asked, 2);
        go_on().unwrap();
    }

    #[test]
    fn of_jobs_that_wait_for_each_other_the_reason_is_told() {
        let interrupted = || Err(Error::Interrupted);
        let results =
            vec![Ok(()), interrupted(), Err(Error::NonFinite { index: 3 }), interrupted()];
        assert!(matches!(reason(results), Err(Error::NonFinite { index: 3 })));
        assert!(matches!(reason(vec![interrupted(), Ok(())]), Err(Error::Interrupted)));
        assert!(reason(vec![Ok(()), Ok(())]).is_ok());
    }

    #[test]
    fn a_short_call_is_not_kept_waiting_by_a_long_one() {
        let long_is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (started, wait) = channel();
            let long_is_done = &long_is_done;
            scope.spawn(move || {
                for_each(0..2000, None, false, |_| {
                    let _ = started.send(());
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(1)
                })
                .unwrap();
                long_is_done.store(true, Ordering::Relaxed);
            });
            wait.recv().unwrap();
            for_each(0..1, None, false, |_| Ok(1)).unwrap();
            assert!(!long_is_done.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn a_worker_of_another_pool_may_call() {
        let other = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        other.install(|| for_each(0..100, None, false, |_| Ok(1))).unwrap();
    }

    #[test]
    fn the_variable_is_a_number_in_range() {
        let read = |value: &str| {
            from_variables(&Variables::of(&|name| (name == VARIABLE).then(|| value.into())))
        };
        assert_eq!(read(" 4 ").unwrap(), Some(4));
        for bad in ["0", "-1", "four", "1025"] {
            assert_eq!(read(bad).unwrap_err().code(), "invalid_argument", "{bad}");
        }
    }
}
