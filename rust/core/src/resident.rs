//! A model's weights in memory: read ahead, locked there, and whether there is room for them.

use std::hint::black_box;
#[cfg(unix)]
use std::io;
use std::path::Path;

use arrow_buffer::Buffer;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model_config::LoadMonitor;

/// Bytes that are read between two reports of progress, unless the caller says otherwise.
pub(crate) const PRELOAD_CHUNK: usize = 8 << 20;

/// The largest page of any system, so that chunks begin on pages.
const LARGEST_PAGE: usize = 64 << 10;
/// The smallest, so that every page is touched.
const SMALLEST_PAGE: usize = 4 << 10;

impl Engine {
    /// Reads the mapped weights into memory, `chunk` bytes at a time, so that no later call waits for the disk.
    /// Weights that were copied to a device are in memory anyway.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a chunk of 0, [`Error::Interrupted`] if the monitor says so.
    pub fn preload(&self, chunk: usize, monitor: Option<LoadMonitor<'_>>) -> Result<()> {
        if chunk == 0 {
            return Err(Error::argument("chunk", "is 0, allowed is 1 or more"));
        }
        preload(&self.maps, chunk, monitor)?;
        self.check_files()
    }

    /// Locks the mapped weights in memory until the engine is dropped (`mlock`): the system can neither drop
    /// nor swap them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system refuses, most often because of the user's limit (`ulimit -l`);
    /// [`Error::InvalidArgument`] on systems that cannot, or if the weights are a copy on another device.
    pub fn lock_memory(&self) -> Result<()> {
        if self.maps.is_empty() {
            let reason = "the weights are no mapped file but a copy on another device";
            return Err(Error::argument("lock_memory", reason));
        }
        lock(&self.maps, self.path())
    }
}

fn preload(maps: &[Buffer], chunk: usize, mut monitor: Option<LoadMonitor<'_>>) -> Result<()> {
    let chunk = chunk.checked_next_multiple_of(LARGEST_PAGE).unwrap_or(chunk);
    let all = maps.iter().map(Buffer::len).sum();
    let mut done = 0;
    for map in maps {
        let mut chunks = map.chunks(chunk).peekable();
        while let Some(part) = chunks.next() {
            if let Some(next) = chunks.peek() {
                // The disk is busy with it while this one's pages are mapped.
                read_ahead(next);
            }
            for page in part.chunks(SMALLEST_PAGE) {
                black_box(page.first().copied());
            }
            done += part.len();
            if monitor.as_mut().is_some_and(|monitor| monitor(done, all).is_break()) {
                return Err(Error::Interrupted);
            }
        }
    }
    Ok(())
}

/// Tells the system that these pages will be needed. What it makes of that is its own affair.
#[cfg(unix)]
fn read_ahead(part: &[u8]) {
    // SAFETY: the range is that of a live slice, and this advice changes nothing but what is cached.
    #[allow(unsafe_code)]
    let _ =
        unsafe { libc::madvise(part.as_ptr().cast_mut().cast(), part.len(), libc::MADV_WILLNEED) };
}

#[cfg(not(unix))]
fn read_ahead(_: &[u8]) {}

#[cfg(unix)]
fn lock(maps: &[Buffer], path: &Path) -> Result<()> {
    for (i, map) in maps.iter().enumerate() {
        // SAFETY: the range is that of a live buffer; locking reads its pages and changes no byte.
        #[allow(unsafe_code)]
        let locked = unsafe { libc::mlock(map.as_ptr().cast(), map.len()) } == 0;
        if !locked {
            let error = io::Error::last_os_error();
            // Part of the one that failed may be locked.
            for map in maps.iter().take(i + 1) {
                // SAFETY: as above.
                #[allow(unsafe_code)]
                let _ = unsafe { libc::munlock(map.as_ptr().cast(), map.len()) };
            }
            return Err(refused(&error, maps.iter().map(Buffer::len).sum(), path));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn refused(error: &io::Error, bytes: usize, path: &Path) -> Error {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live structure of the type that the call fills.
    #[allow(unsafe_code)]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    let limit = match limit.rlim_cur {
        _ if !known => String::new(),
        libc::RLIM_INFINITY => ", is unlimited".to_owned(),
        bytes => format!(", is {bytes} bytes"),
    };
    let reason = format!(
        "locking the {bytes} bytes of {} in memory: {error}; the limit on locked memory, \
         RLIMIT_MEMLOCK{limit}; `ulimit -l KIB` raises it, or open the model without lock_memory",
        path.display()
    );
    Error::OutOfMemory { reason }
}

#[cfg(not(unix))]
fn lock(_: &[Buffer], _: &Path) -> Result<()> {
    Err(Error::argument("lock_memory", "is not possible on this system"))
}

/// Whether a model of that size is more than fits into memory now; says so in the log. Its pages would be
/// read from the disk again and again.
pub(crate) fn warn_if_short_of_memory(bytes: u64, available: Option<u64>, path: &Path) -> bool {
    let Some(available) = available.filter(|&available| bytes > available) else { return false };
    tracing::warn!(
        path = %path.display(),
        bytes,
        available,
        "the model is larger than the memory that is available; its weights will be read from the disk \
         again and again"
    );
    true
}

/// Bytes of memory that can be had without swapping, pages of files that could be dropped included; `None`
/// where the system does not say.
pub(crate) fn available_memory() -> Option<u64> {
    let of_machine = available_in(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let of_container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_container = of_container.and_then(|limit| limit.trim().parse().ok());
    Some(of_container.map_or(of_machine, |limit: u64| limit.min(of_machine)))
}

/// The line `MemAvailable:   123 kB` of `/proc/meminfo`, in bytes.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn progress_comes_in_chunks_and_can_stop_it() {
        let maps = [Buffer::from(vec![1_u8; 200_000]), Buffer::from(vec![2_u8; 70_000])];
        let mut seen = Vec::new();
        let mut monitor = |done, all| {
            seen.push((done, all));
            ControlFlow::Continue(())
        };
        preload(&maps, 100_000, Some(&mut monitor)).unwrap();
        // Chunks are whole pages.
        assert_eq!(seen, [(131_072, 270_000), (200_000, 270_000), (270_000, 270_000)]);

        let mut calls = 0;
        let mut stop = |_, _| {
            calls += 1;
            ControlFlow::Break(())
        };
        assert!(matches!(preload(&maps, 1, Some(&mut stop)), Err(Error::Interrupted)));
        assert_eq!(calls, 1);
        preload(&maps, usize::MAX, None).unwrap();
    }

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:     42 kB\nBuffers: 7 kB\n";
        assert_eq!(available_in(meminfo), Some(42 * 1024));
        assert_eq!(available_in("MemTotal: 100 kB\n"), None);
        assert_eq!(available_in("MemAvailable: 99999999999999999999 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(available_memory().unwrap() > 0);
    }

    #[test]
    fn only_a_model_larger_than_memory_is_short_of_it() {
        let path = Path::new("model.arrow");
        assert!(warn_if_short_of_memory(11, Some(10), path));
        assert!(!warn_if_short_of_memory(10, Some(10), path));
        assert!(!warn_if_short_of_memory(u64::MAX, None, path));
    }
}
