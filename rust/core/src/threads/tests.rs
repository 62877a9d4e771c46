//! Jobs, calls and the number of threads.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::jobs::MONITOR_INTERVAL;
use super::together::reason;
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
    let panic =
        catch_unwind(|| {
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
    let results = vec![Ok(()), interrupted(), Err(Error::NonFinite { index: 3 }), interrupted()];
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
