//! What happens between threads, with models that are numbers and a clock that is set by hand.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};

use super::*;
use crate::registry::pool::Admit;
use crate::registry::state::{Asked, State};

/// A clock that stands still until it is set.
#[derive(Clone)]
struct HandSet(Arc<Mutex<Instant>>);

impl HandSet {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Arc::new(move || *now.lock().unwrap())
    }

    fn advance(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }
}

fn pool(config: EngineConfigBuilder, clock: &HandSet) -> Pool<u32> {
    Pool::new(config.build().unwrap(), clock.clock())
}

/// A load of a model of that many bytes.
fn sized(model: u32, bytes: u64) -> impl FnOnce(LoadMonitor<'_>, Admit<'_>) -> Result<(u32, u64)> {
    move |_, admit| {
        admit(bytes)?;
        Ok((model, bytes))
    }
}

fn never(_: LoadMonitor<'_>, _: Admit<'_>) -> Result<(u32, u64)> {
    panic!("it is there already")
}

const THREADS: usize = 8;

/// Many threads ask for one model. The one that opens it goes on only when all others wait: a monitor is asked
/// only then.
fn ask_together(
    pool: &Pool<u32>,
    opens: &AtomicUsize,
    result: impl Fn() -> Result<(u32, u64)> + Sync,
) -> Vec<Result<Arc<u32>>> {
    let all_wait = Barrier::new(THREADS);
    let ask = || {
        let mut waiting = false;
        let mut monitor = |_, _| {
            if !waiting {
                waiting = true;
                all_wait.wait();
            }
            ControlFlow::Continue(())
        };
        pool.get("model", Some(&mut monitor), |_, _| {
            opens.fetch_add(1, Ordering::Relaxed);
            all_wait.wait();
            result()
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn threads_that_ask_together_open_a_model_once() {
    let (pool, opens) = (pool(EngineConfig::builder(), &HandSet::new()), AtomicUsize::new(0));
    let models: Vec<_> =
        ask_together(&pool, &opens, || Ok((7, 1))).into_iter().map(Result::unwrap).collect();
    assert_eq!(opens.load(Ordering::Relaxed), 1);
    assert!(models.iter().all(|model| Arc::ptr_eq(model, &models[0])));
    assert!(Arc::ptr_eq(&pool.get("model", None, never).unwrap(), &models[0]));
}

#[test]
fn an_error_reaches_all_who_wait_and_the_next_one_tries_again() {
    let (pool, opens) = (pool(EngineConfig::builder(), &HandSet::new()), AtomicUsize::new(0));
    let results = ask_together(&pool, &opens, || Err(Error::config("field", "damaged")));
    assert_eq!(opens.load(Ordering::Relaxed), 1);
    for result in results {
        assert_eq!(result.unwrap_err().to_string(), "model configuration: field: damaged");
    }
    assert!(pool.in_memory("model").is_none());
    assert_eq!(*pool.get("model", None, sized(7, 1)).unwrap(), 7);
}

/// One thread opens a model in the way of `first` while another one waits for it.
fn one_waits(
    pool: &Pool<u32>,
    first: impl FnOnce(LoadMonitor<'_>) -> Result<(u32, u64)> + Send,
    monitor_of_the_other: impl Fn(usize, usize) -> ControlFlow<()> + Send,
) -> (std::thread::Result<Result<Arc<u32>>>, Result<Arc<u32>>) {
    let (begun, waiting) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let (begun, waiting) = (&begun, &waiting);
        let first = scope.spawn(move || {
            pool.get("model", None, |monitor, _| {
                begun.wait();
                waiting.wait();
                first(monitor)
            })
        });
        begun.wait();
        let mut asked = false;
        let mut monitor = |done, all| {
            if !asked {
                asked = true;
                waiting.wait();
            }
            monitor_of_the_other(done, all)
        };
        let second = pool.get("model", Some(&mut monitor), sized(2, 1));
        (first.join(), second)
    })
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn who_waits_goes_on_where_the_first_gave_up_or_panicked() {
    let pool = pool(EngineConfig::builder(), &HandSet::new());
    let (first, second) = one_waits(&pool, |_| Err(Error::Interrupted), go_on);
    assert!(matches!(first.unwrap(), Err(Error::Interrupted)));
    assert_eq!(*second.unwrap(), 2);

    assert!(pool.unload("model"));
    let (first, second) = one_waits(&pool, |_| std::panic::panic_any("oh"), go_on);
    assert_eq!(first.unwrap_err().downcast_ref(), Some(&"oh"));
    assert_eq!(*second.unwrap(), 2);
}

#[test]
fn who_waits_sees_the_progress_and_may_stop_waiting() {
    let (pool, stopped) = (pool(EngineConfig::builder(), &HandSet::new()), Barrier::new(2));
    let load = |monitor: LoadMonitor<'_>| {
        assert!(monitor(30, 100).is_continue());
        stopped.wait();
        Ok((1, 1))
    };
    let stop_at_30 = |done, all| {
        if (done, all) != (30, 100) {
            return ControlFlow::Continue(());
        }
        stopped.wait();
        ControlFlow::Break(())
    };
    let (first, second) = one_waits(&pool, load, stop_at_30);
    assert!(matches!(second, Err(Error::Interrupted)));
    assert_eq!(*first.unwrap().unwrap(), 1);
}

#[test]
fn a_full_budget_refuses_and_says_by_what_it_is_full() {
    let pool = pool(EngineConfig::builder().memory_budget(100), &HandSet::new());
    pool.get("a", None, sized(1, 60)).unwrap();
    pool.get("b", None, sized(2, 40)).unwrap();
    let error = pool.get("c", None, sized(3, 1)).unwrap_err();
    assert_eq!(error.code(), "memory_budget");
    let message = error.to_string();
    assert!(message.contains("\"c\" needs 1 bytes"), "{message}");
    assert!(message.contains("100 bytes 100 are in use (models: a, b)"), "{message}");
    assert!(pool.unload("b"));
    assert_eq!(*pool.get("c", None, sized(3, 40)).unwrap(), 3);
    // What is refused reserves nothing.
    assert_eq!(pool.get("d", None, sized(4, 1)).unwrap_err().code(), "memory_budget");
    assert!(pool.unload("a"));
    assert_eq!(*pool.get("d", None, sized(4, 60)).unwrap(), 4);
    // Neither does what fails after there was room for it.
    assert!(pool.unload("d"));
    let fails = pool.get("e", None, |_, admit| {
        admit(60)?;
        Err(Error::config("field", "damaged"))
    });
    assert_eq!(fails.unwrap_err().code(), "invalid_config");
    assert_eq!(*pool.get("d", None, sized(4, 60)).unwrap(), 4);
    let error = pool.get("e", None, sized(5, u64::MAX)).unwrap_err();
    assert_eq!(error.code(), "memory_budget");
}

#[test]
fn the_least_recently_used_model_that_nobody_uses_is_evicted() {
    let clock = HandSet::new();
    let config = EngineConfig::builder().memory_budget(100).when_full(WhenFull::Evict);
    let pool = pool(config, &clock);
    let a = pool.get("a", None, sized(1, 40)).unwrap();
    for (name, model) in [("b", 2), ("c", 3)] {
        clock.advance(1);
        pool.get(name, None, sized(model, 30)).unwrap();
    }
    clock.advance(1);
    pool.get("b", None, never).unwrap();
    // `a` is in use, `b` was used after `c`.
    pool.get("d", None, sized(4, 30)).unwrap();
    let here = |names: [&str; 4]| names.map(|name| pool.in_memory(name).is_some());
    assert_eq!(here(["a", "b", "c", "d"]), [true, true, false, true]);
    // Not enough even without all that may go: then nothing goes.
    assert_eq!(pool.get("e", None, sized(5, 61)).unwrap_err().code(), "memory_budget");
    assert_eq!(here(["a", "b", "c", "d"]), [true, true, false, true]);
    drop(a);
    pool.get("e", None, sized(5, 100)).unwrap();
    assert_eq!(here(["a", "b", "d", "e"]), [false, false, false, true]);
}

#[test]
fn an_unloaded_model_counts_and_can_be_had_again_as_long_as_someone_uses_it() {
    let pool = pool(EngineConfig::builder().memory_budget(100), &HandSet::new());
    let used = pool.get("a", None, sized(1, 60)).unwrap();
    assert!(pool.unload("a"));
    assert!(!pool.unload("a"));
    assert!(pool.in_memory("a").is_none());
    assert_eq!(pool.get("b", None, sized(2, 60)).unwrap_err().code(), "memory_budget");
    assert!(Arc::ptr_eq(&pool.get("a", None, never).unwrap(), &used));
    assert!(pool.unload("a"));
    drop(used);
    assert_eq!(*pool.get("b", None, sized(2, 60)).unwrap(), 2);
}

#[test]
fn idle_models_are_unloaded_by_a_thread_that_ends_with_the_pool() {
    let clock = HandSet::new();
    let pool = pool(EngineConfig::builder().idle_timeout(Duration::from_secs(60)), &clock);
    let used = pool.get("used", None, sized(1, 1)).unwrap();
    pool.get("idle", None, sized(2, 1)).unwrap();
    clock.advance(59);
    pool.get("later", None, sized(3, 1)).unwrap();
    clock.advance(1);
    pool.wake();
    pool.wait_until_unloaded("idle");
    let later = pool.in_memory("later").unwrap();
    assert_eq!((later.loaded_for.as_secs(), later.idle_for.as_secs()), (1, 1));
    assert!(pool.in_memory("used").is_some());
    // It counts as used until now.
    drop(used);
    clock.advance(59);
    pool.wake();
    pool.wait_until_unloaded("later");
    assert!(pool.in_memory("used").is_some());
    clock.advance(1);
    pool.wake();
    pool.wait_until_unloaded("used");

    let shared_with_the_thread = Arc::downgrade(&clock.0);
    drop((pool, clock));
    assert_eq!(shared_with_the_thread.strong_count(), 0);
}

#[test]
fn a_model_that_came_back_after_it_was_unloaded_is_unloaded_when_idle() {
    let clock = HandSet::new();
    let (tell, looked_at) = mpsc::channel();
    let told = {
        let clock = clock.clock();
        let tell = Mutex::new(tell);
        Arc::new(move || {
            let now = clock();
            if std::thread::current().name() == Some("arrowembed-idle") {
                // Nobody listens once the test is over.
                let _ = tell.lock().unwrap().send(now);
            }
            now
        })
    };
    let config = EngineConfig::builder().idle_timeout(Duration::from_millis(1));
    let pool: Pool<u32> = Pool::new(config.build().unwrap(), told);
    let used = pool.get("model", None, sized(1, 1)).unwrap();
    assert!(pool.unload("model"));
    clock.advance(1);
    pool.wake();
    // From then on the thread sleeps: it sees no model that could be due.
    let after = clock.clock()();
    assert!(looked_at.iter().any(|now| now == after));
    assert!(Arc::ptr_eq(&pool.get("model", None, never).unwrap(), &used));
    drop(used);
    clock.advance(1);
    pool.wait_until_unloaded("model");
}

#[test]
fn a_forked_child_takes_the_models_and_not_the_loads_of_dead_threads() {
    let now = Instant::now();
    let mut parent = State::new();
    parent.loaded("loaded", Arc::new(1), 10, now);
    assert!(matches!(parent.ask("loading", now), Asked::Open(_)));
    let mut child = parent.take_models();
    assert!(matches!(child.ask("loaded", now), Asked::Here(model) if *model == 1));
    assert!(matches!(child.ask("loading", now), Asked::Open(_)));
    // Nobody but the child holds them.
    assert_eq!(child.admit("other", 5, Some(10), WhenFull::Evict).unwrap().len(), 1);
}
