//! Values that belong to one process and are made anew in a forked child.
//!
//! After `fork` a child has the parent's memory but none of its other threads: a thread pool has no
//! workers, a lock that another thread held stays locked for ever, a structure it was changing stays
//! half changed. Such values live in a [`PerProcess`], which gives a child a fresh one and never
//! touches the parent's copy again.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value made on first use in each process.
pub(crate) struct PerProcess<T> {
    slot: AtomicPtr<Slot<T>>,
}

struct Slot<T> {
    pid: u32,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// Without a value yet.
    pub(crate) const fn new() -> Self {
        Self { slot: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's value, made by `make` if there is none. Takes no lock; when several threads
    /// arrive first together, each makes one and all get the same.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.get_or_inherit(|_| make())
    }

    /// The same where `make` is given the value of the process that this one was forked from, if there was
    /// one. Other threads may have been in the midst of changing it: its locks may only be tried, and what a
    /// held one protects not looked at.
    pub(crate) fn get_or_inherit(&self, make: impl FnOnce(Option<&T>) -> T) -> &T {
        let pid = std::process::id();
        let current = self.slot.load(Ordering::Acquire);
        if let Some(value) = Self::value_of(current, pid) {
            return value;
        }
        // SAFETY: as in `value_of`; a slot of another process is never freed in this one.
        #[allow(unsafe_code)]
        let inherited = unsafe { current.as_ref() }.map(|slot| &slot.value);
        let fresh = Box::into_raw(Box::new(Slot { pid, value: make(inherited) }));
        // In a child, the parent's slot is replaced and leaked on purpose.
        match self.slot.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Self::value_of(fresh, pid),
            Err(winner) => {
                // SAFETY: `fresh` came from `Box::into_raw` above and was not published.
                #[allow(unsafe_code)]
                drop(unsafe { Box::from_raw(fresh) });
                Self::value_of(winner, pid)
            }
        }
        .unwrap_or_else(|| unreachable!("a slot published in this process carries its id"))
    }

    /// This process's value, if there is one.
    pub(crate) fn get(&self) -> Option<&T> {
        Self::value_of(self.slot.load(Ordering::Acquire), std::process::id())
    }

    /// The value in `slot` if it belongs to process `pid`.
    fn value_of<'a>(slot: *mut Slot<T>, pid: u32) -> Option<&'a T> {
        // SAFETY: the pointer is null or was published by `get_or_init`, and a published slot is
        // freed only in `drop`, which has the owner of `self` to itself.
        #[allow(unsafe_code)]
        let slot = unsafe { slot.as_ref() }?;
        (slot.pid == pid).then_some(&slot.value)
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let slot = *self.slot.get_mut();
        // SAFETY: null or published by `get_or_init`; nobody else can reach it any more.
        #[allow(unsafe_code)]
        let of_this_process =
            unsafe { slot.as_ref() }.is_some_and(|slot| slot.pid == std::process::id());
        if of_this_process {
            // SAFETY: as above, and it came from `Box::into_raw`.
            #[allow(unsafe_code)]
            drop(unsafe { Box::from_raw(slot) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn threads_that_arrive_together_get_one_value() {
        let cell = PerProcess::new();
        let barrier = std::sync::Barrier::new(8);
        let addresses: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8_usize)
                .map(|i| {
                    let (cell, barrier) = (&cell, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        ptr::from_ref(cell.get_or_init(|| i)).addr()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(addresses.iter().all(|&address| address == addresses[0]));
    }

    #[test]
    fn a_value_of_another_process_is_replaced_and_never_dropped() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let drops = Arc::new(AtomicUsize::new(0));
        let foreign =
            Slot { pid: std::process::id().wrapping_add(1), value: Counted(Arc::clone(&drops)) };
        let cell = PerProcess { slot: AtomicPtr::new(Box::into_raw(Box::new(foreign))) };
        assert!(cell.get().is_none());
        let own = cell.get_or_inherit(|foreign| Counted(Arc::clone(&foreign.unwrap().0)));
        assert!(ptr::eq(own, cell.get_or_init(|| unreachable!())));
        drop(cell);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }
}
