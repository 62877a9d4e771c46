//! Locking weights in memory. A process of its own, because it changes the process's limits.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)] // system calls; a test says what it expects by failing

use arrowembed::{Engine, ModelConfig};

/// The user who may do nothing.
const NOBODY: libc::c_long = 65_534;

fn locked_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
}

fn limit_of_locked_memory(bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live structure of the type that both calls take.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit)
    };
    assert_eq!(set, 0);
}

#[test]
fn weights_are_locked_or_the_error_says_what_to_do() {
    let unpacked = tempfile::tempdir().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
    let builder = ModelConfig::builder().path(path).cache_dir(unpacked.path());
    let file_of = |engine: &Engine| std::fs::metadata(engine.path()).unwrap().len();
    let locked = builder.clone().lock_memory(true).build().unwrap().open().unwrap();
    assert!(locked_kilobytes() >= file_of(&locked) / 1024);
    drop(locked);
    assert_eq!(locked_kilobytes(), 0);

    let engine = builder.build().unwrap().open().unwrap();
    limit_of_locked_memory(4096);
    let error = std::thread::scope(|scope| {
        let lock = || {
            // SAFETY: changes the user of this thread alone, as the call of glibc would not. The superuser has
            // no limit; for any other user it fails and does not matter.
            unsafe { libc::syscall(libc::SYS_setuid, NOBODY) };
            engine.lock_memory().unwrap_err()
        };
        scope.spawn(lock).join().unwrap()
    });
    assert_eq!(error.code(), "out_of_memory");
    let message = error.to_string();
    assert!(message.contains(&format!("locking the {} bytes of ", file_of(&engine))), "{message}");
    assert!(message.contains("RLIMIT_MEMLOCK, is 4096 bytes; `ulimit -l KIB` raises"), "{message}");
    // It goes on without.
    assert_eq!(engine.encode(&["a text"]).unwrap().len(), 1);
}
