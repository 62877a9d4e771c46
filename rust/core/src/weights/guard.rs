//! What happens when a mapped file is cut short by somebody else, or its disk fails.
//!
//! To touch a page that the file no longer has raises SIGBUS, which ends a process. Here a handler puts a page
//! of zeros in its place and notes that the map is damaged; whoever computes with it asks before the result is used.
//! A signal that concerns none of our maps goes to the handler that was there before.
//!
//! The list of maps is read by the handler, so it is a table of atomic numbers that nobody locks.

use std::path::Path;

use arrow_buffer::Buffer;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// A map that is watched as long as it lives.
pub(super) struct Guarded {
    map: Mmap,
    #[cfg(unix)]
    slot: Option<&'static signal::Slot>,
}

impl Guarded {
    pub(super) fn new(map: Mmap) -> Self {
        Self {
            #[cfg(unix)]
            slot: signal::watch(&map),
            map,
        }
    }
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(slot) = self.slot {
            // Before its addresses can be another's.
            slot.forget();
        }
    }
}

/// Whether what has been read of these maps was in their files.
///
/// # Errors
/// [`Error::InvalidFile`] if zeros were read instead.
pub(crate) fn check(maps: &[Buffer], path: &Path) -> Result<()> {
    if is_damaged(maps) {
        return Err(Error::invalid_file(
            path,
            "it was cut short or became unreadable while it was in use; put it back and open the model again. \
             (A model's file may be replaced by renaming another one, but not changed in place)",
        ));
    }
    Ok(())
}

/// Whether zeros were read in place of what was in the files of these maps.
pub(crate) fn is_damaged(maps: &[Buffer]) -> bool {
    #[cfg(unix)]
    let damaged = maps.iter().any(|map| signal::is_damaged(map.as_ptr() as usize));
    #[cfg(not(unix))]
    let damaged = {
        let _ = maps;
        false
    };
    damaged
}

#[cfg(unix)]
mod signal {
    #![allow(unsafe_code)]

    use std::mem::{transmute, zeroed};
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use libc::{c_int, c_void, sigaction, siginfo_t};

    /// More maps than any process has; those beyond are not watched.
    const SLOTS: usize = 1024;
    /// In place of an address while a slot is being filled; no map begins there.
    const RESERVED: usize = 1;

    /// A map that is watched.
    pub(super) struct Slot {
        /// Address of its first byte; 0 is a free slot.
        start: AtomicUsize,
        len: AtomicUsize,
        damaged: AtomicBool,
    }

    static TABLE: [Slot; SLOTS] = [const {
        Slot {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            damaged: AtomicBool::new(false),
        }
    }; SLOTS];

    /// Whether there was ever a damaged map, which there hardly ever is.
    static DAMAGE: AtomicBool = AtomicBool::new(false);

    /// What was done with the signal before, and the size of a page.
    static BEFORE: OnceLock<Option<(sigaction, usize)>> = OnceLock::new();

    impl Slot {
        pub(super) fn forget(&self) {
            self.start.store(RESERVED, Ordering::Release);
            self.damaged.store(false, Ordering::Relaxed);
            self.start.store(0, Ordering::Release);
        }
    }

    /// Watches a map, if the system lets us and there is room.
    pub(super) fn watch(map: &[u8]) -> Option<&'static Slot> {
        BEFORE.get_or_init(install).as_ref()?;
        let slot = TABLE.iter().find(|slot| {
            let taken =
                slot.start.compare_exchange(0, RESERVED, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        })?;
        slot.len.store(map.len(), Ordering::Relaxed);
        slot.start.store(map.as_ptr() as usize, Ordering::Release);
        Some(slot)
    }

    pub(super) fn is_damaged(start: usize) -> bool {
        DAMAGE.load(Ordering::Acquire)
            && TABLE.iter().any(|slot| {
                slot.start.load(Ordering::Acquire) == start && slot.damaged.load(Ordering::Acquire)
            })
    }

    /// Puts our handler in front of the one that is there.
    fn install() -> Option<(sigaction, usize)> {
        // SAFETY: `sigaction` is a plain structure, for which zeros are a valid value; both calls get
        // pointers to live ones, and the handler does only what a signal handler may do.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).ok()?;
            let mut before: sigaction = zeroed();
            let mut ours: sigaction = zeroed();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) != 0 {
                return None;
            }
            // A signal that comes before `BEFORE` is set is none of a map of ours: there is none yet.
            (libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0)
                .then_some((before, page))
        }
    }

    extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let before = BEFORE.get().and_then(Option::as_ref);
        // SAFETY: the system hands a valid structure to a handler with SA_SIGINFO, and for SIGBUS it has
        // the address.
        let address = unsafe { (*info).si_addr() } as usize;
        if before.is_some_and(|(_, page)| replace(address, *page)) {
            return;
        }
        let before = before.map(|(before, _)| before);
        match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
            libc::SIG_DFL | libc::SIG_IGN => {
                // SAFETY: a handler may do this. The instruction is tried again, and ends the process as it
                // would have without us.
                unsafe { libc::signal(number, libc::SIG_DFL) };
            }
            handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
                // SAFETY: whoever installed it with this flag said that it is such a function.
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    unsafe { transmute(handler) };
                handler(number, info, context);
            }
            handler => {
                // SAFETY: the same without the flag.
                let handler: extern "C" fn(c_int) = unsafe { transmute(handler) };
                handler(number);
            }
        }
    }

    /// Puts zeros in place of a map's pages from an address on, if it is of a map that is watched.
    fn replace(address: usize, page: usize) -> bool {
        let of_slot = |slot: &&Slot| {
            let start = slot.start.load(Ordering::Acquire);
            start > RESERVED && (start..start + slot.len.load(Ordering::Relaxed)).contains(&address)
        };
        let Some(slot) = TABLE.iter().find(of_slot) else { return false };
        let first = address / page * page;
        let end = slot.start.load(Ordering::Relaxed) + slot.len.load(Ordering::Relaxed);
        // Noted first: whoever reads a zero finds it noted.
        slot.damaged.store(true, Ordering::Release);
        DAMAGE.store(true, Ordering::Release);
        // SAFETY: the pages are those of a map that is alive, because this thread was reading it, and nobody
        // writes to them. The whole range is unmapped with the map.
        let zeros = unsafe {
            libc::mmap(
                first as *mut c_void,
                end - first,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        zeros != libc::MAP_FAILED
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::weights::map::map;

    #[test]
    fn a_map_of_a_file_that_was_cut_is_zeros_and_known_to_be_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = vec![7_u8; 300_000];
        fs::write(&path, &bytes).unwrap();
        let maps = [map(&path).unwrap()];
        let other = [map(&path).unwrap()];
        File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
        check(&maps, &path).unwrap();
        assert_eq!(maps[0][60_000], 7);
        check(&maps, &path).unwrap();
        assert_eq!(maps[0][250_000], 0);
        assert_eq!(maps[0][299_999], 0);
        let error = check(&maps, &path).unwrap_err();
        assert_eq!(error.code(), "invalid_file");
        assert!(error.to_string().contains("cut short"), "{error}");
        // Nothing of the other has been read yet, and what comes into the slot is a map of its own.
        check(&other, &path).unwrap();
        drop(maps);
        fs::write(&path, &bytes).unwrap();
        let again = [map(&path).unwrap()];
        assert!(again[0].iter().all(|&byte| byte == 7));
        check(&again, &path).unwrap();
    }
}
