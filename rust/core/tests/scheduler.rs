//! The scheduler: what it answers, how it fills up, empties and ends.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects by failing

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use arrowembed::{
    CacheLimits, EncodeOptions, Engine, Error, Pooling, QueueInfo, QueueLimits, Result, Scheduled,
    Scheduler, Submitted, Ticket,
};

fn engine(limits: CacheLimits) -> Arc<Engine> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hf/bert");
    let cache = tempfile::tempdir().unwrap();
    Engine::builder().cache_dir(cache.path()).cache(limits).open(path).unwrap().into()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn options() -> EncodeOptions {
    EncodeOptions::new()
}

/// Holds whoever goes through while it is closed.
#[derive(Default)]
struct Gate {
    /// Whether it is open, and how many stand before it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn go_through(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(open, _)| !*open).unwrap());
    }

    fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, waiting)| *waiting < count).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }
}

/// As many threads of a scheduler as compute at a time, each with a request that was computed and is held before it is told.
struct Held {
    gate: Arc<Gate>,
    requests: Vec<Receiver<Result<Scheduled>>>,
}

impl Held {
    fn hold(scheduler: &Scheduler, gate: &Arc<Gate>) -> Self {
        let threads = arrowembed::num_threads().unwrap();
        let requests = (1..=threads).map(|number| {
            let request = submit(scheduler, &[&format!("holds thread {number}")]).unwrap().1;
            gate.wait_for(number);
            request
        });
        Self { gate: Arc::clone(gate), requests: requests.collect() }
    }

    fn release(self) {
        self.gate.open();
        for request in self.requests {
            request.recv().unwrap().unwrap();
        }
    }
}

/// A scheduler whose threads are all held.
fn held(limits: QueueLimits) -> (Scheduler, Held) {
    let gate = Arc::new(Gate::default());
    let through = Arc::clone(&gate);
    let scheduler =
        Scheduler::new(engine(CacheLimits::OFF), limits).on_batch(move |_, _| through.go_through());
    let held = Held::hold(&scheduler, &gate);
    (scheduler, held)
}

fn submit(scheduler: &Scheduler, texts: &[&str]) -> Result<(Ticket, Receiver<Result<Scheduled>>)> {
    let (sender, receiver) = channel();
    let done = move |result| sender.send(result).unwrap();
    match scheduler.submit(self::texts(texts), options(), done)? {
        Submitted::Waiting(ticket) => Ok((ticket, receiver)),
        Submitted::Complete(_) => panic!("the cache is off"),
    }
}

#[test]
fn many_callers_get_what_each_would_get_alone() {
    let engine = engine(CacheLimits::default());
    let scheduler = Scheduler::new(Arc::clone(&engine), QueueLimits::default());
    let alone = self::engine(CacheLimits::OFF);
    let variants = [
        options(),
        options().prompt("query: ").truncate_dim(16),
        options().pooling(Pooling::Cls).normalize(arrowembed::Normalize::None),
    ];
    std::thread::scope(|scope| {
        for client in 0..24 {
            let (scheduler, alone, options) = (&scheduler, &alone, &variants[client % 3]);
            scope.spawn(move || {
                for round in 0..4 {
                    // Some are common to all clients, and one is there twice.
                    let texts: Vec<String> = (0..(client + 3) * (round % 2) + 2)
                        .map(|i| format!("text {} {}", i % 7, "and more ".repeat(i % 23 * client)))
                        .collect();
                    let answer = scheduler.encode(texts.clone(), options.clone()).unwrap();
                    let expected = alone.encode_with(&texts, options, None).unwrap();
                    assert_eq!(answer.embeddings.as_slice(), expected.as_slice());
                    let (stats, expected) = (answer.embeddings.stats(), expected.stats());
                    assert_eq!(
                        (stats.texts, stats.tokens, stats.truncated),
                        (expected.texts, expected.tokens, expected.truncated)
                    );
                }
            });
        }
    });
    assert!(scheduler.drain(None));
    assert_eq!(scheduler.info(), QueueInfo::default());
    assert_eq!(engine.totals().texts, alone.totals().texts);
}

#[test]
fn what_the_cache_has_is_there_at_once() {
    let (cached, gate) = (engine(CacheLimits::default()), Arc::new(Gate::default()));
    let through = Arc::clone(&gate);
    let scheduler = Scheduler::new(Arc::clone(&cached), QueueLimits::default())
        .on_batch(move |_, _| through.go_through());
    let known = cached.encode(&["known", "known too"]).unwrap();
    let held = Held::hold(&scheduler, &gate);
    let submitted = scheduler.submit(texts(&["known too", "known", "known"]), options(), |_| {
        panic!("is told by the return value")
    });
    let Ok(Submitted::Complete(complete)) = submitted else { panic!("{submitted:?}") };
    assert_eq!(complete.embeddings.row(0), known.row(1));
    assert_eq!(complete.embeddings.row(2), known.row(0));
    assert_eq!(complete.embeddings.stats().cache_hits, 3);
    let none = scheduler.encode(Vec::new(), options()).unwrap();
    assert!(none.embeddings.is_empty());

    // Of others only what is missing is computed, and is known then.
    let (sender, receiver) = channel();
    let done = move |result| sender.send(result).unwrap();
    let submitted = scheduler.submit(texts(&["known", "new", "new"]), options(), done);
    assert!(matches!(submitted, Ok(Submitted::Waiting(_))));
    assert_eq!(scheduler.info().texts, 1);
    held.release();
    let stats = receiver.recv().unwrap().unwrap().embeddings.stats();
    assert_eq!((stats.texts, stats.cache_hits), (3, 1));
    assert_eq!(cached.encode(&["new"]).unwrap().stats().cache_hits, 1);
}

#[test]
fn a_full_queue_refuses_at_once_and_forgets_nobody() {
    let (scheduler, held) = held(QueueLimits { texts: 4, tokens: 100 });
    let waiting: Vec<_> = (0..2).map(|_| submit(&scheduler, &["one", "two"]).unwrap().1).collect();
    let info = scheduler.info();
    assert_eq!((info.requests, info.texts), (2, 4));
    assert_eq!(info.running, arrowembed::num_threads().unwrap());
    let refused = submit(&scheduler, &["three"]).unwrap_err();
    assert!(matches!(refused, Error::QueueFull { texts: 4, max_texts: 4, .. }), "{refused}");
    let never = submit(&scheduler, &["1", "2", "3", "4", "5"]).unwrap_err();
    assert!(matches!(never, Error::InvalidArgument { name: "texts", .. }), "{never}");
    assert_eq!(scheduler.info(), info);
    held.release();
    for request in waiting {
        assert_eq!(request.recv().unwrap().unwrap().embeddings.len(), 2);
    }
    submit(&scheduler, &["three"]).unwrap().1.recv().unwrap().unwrap();
}

#[test]
fn a_cancelled_request_is_not_computed() {
    let (scheduler, held) = held(QueueLimits::default());
    let (ticket, cancelled) = submit(&scheduler, &["nobody", "wants this"]).unwrap();
    let (_, wanted) = submit(&scheduler, &["somebody wants this"]).unwrap();
    assert!(ticket.cancel());
    assert!(!ticket.cancel());
    assert_eq!(scheduler.info().texts, 1);
    let before = held.requests.len();
    held.release();
    let scheduled = wanted.recv().unwrap().unwrap();
    assert!(scheduled.queued > Duration::ZERO && scheduled.computed > Duration::ZERO);
    // Its callback is gone without having been called.
    assert!(cancelled.recv().is_err());
    assert!(scheduler.drain(None));
    assert_eq!(scheduler.engine().totals().texts, before + 1);
}

#[test]
fn a_request_fails_alone() {
    let (scheduler, held) = held(QueueLimits::default());
    let long = "long ".repeat(2000);
    let (sender, failed) = channel();
    let done = move |result| sender.send(result).unwrap();
    let strict = options().truncate(false);
    scheduler.submit(texts(&["fits", &long, "fits too"]), strict, done).unwrap();
    let (_, cut) = submit(&scheduler, &["fits", &long]).unwrap();
    let panics = |_| panic!("the caller's own fault");
    scheduler.submit(texts(&["a text"]), options(), panics).unwrap();
    let (_, other) = submit(&scheduler, &["another text"]).unwrap();
    held.release();
    let error = failed.recv().unwrap().unwrap_err();
    assert!(matches!(error, Error::TextTooLong { index: 1, .. }), "{error}");
    assert_eq!(cut.recv().unwrap().unwrap().embeddings.stats().truncated, 1);
    other.recv().unwrap().unwrap();
    let wrong = scheduler.submit(texts(&["a"]), options().truncate_dim(0), |_| {});
    assert_eq!(wrong.unwrap_err().code(), "invalid_argument");
}

#[test]
fn draining_refuses_new_requests_and_answers_the_others() {
    let (scheduler, held) = held(QueueLimits::default());
    let (_, waiting) = submit(&scheduler, &["was accepted"]).unwrap();
    let began = Instant::now();
    assert!(!scheduler.drain(Some(Duration::from_millis(20))));
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(matches!(submit(&scheduler, &["comes too late"]), Err(Error::Closed)));
    let cached = scheduler.submit(Vec::new(), options(), |_| {});
    assert!(matches!(cached, Err(Error::Closed)));
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| scheduler.drain(None));
        held.release();
        assert!(drained.join().unwrap());
    });
    assert_eq!(waiting.try_recv().unwrap().unwrap().embeddings.len(), 1);
}

#[test]
fn what_waits_when_a_scheduler_is_dropped_is_computed() {
    let (scheduler, held) = held(QueueLimits::default());
    let (ticket, waiting) = submit(&scheduler, &["still waits"]).unwrap();
    drop(scheduler);
    held.release();
    waiting.recv().unwrap().unwrap();
    assert!(!ticket.cancel());
}
