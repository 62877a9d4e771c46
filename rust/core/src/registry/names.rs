//! Values that are added, and removed only all together, without a lock that a fork could leave held for ever.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A list that grows at its head.
pub(crate) struct Names<T> {
    newest: AtomicPtr<Node<T>>,
}

struct Node<T> {
    value: T,
    older: *mut Node<T>,
}

impl<T: Send + Sync> Names<T> {
    pub(crate) const fn new() -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// All values, the newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut next = self.newest.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: null or published by `add`; nodes stay as they are until `drop`, which has the owner to
            // itself, while what this returns borrows from `self`.
            #[allow(unsafe_code)]
            let node = unsafe { next.as_ref() }?;
            next = node.older;
            Some(&node.value)
        })
    }

    /// Adds a value.
    pub(crate) fn add(&self, value: T) {
        let mut node = Box::new(Node { value, older: ptr::null_mut() });
        loop {
            node.older = self.newest.load(Ordering::Acquire);
            let older = node.older;
            let added = Box::into_raw(node);
            let exchange =
                self.newest.compare_exchange(older, added, Ordering::AcqRel, Ordering::Acquire);
            if exchange.is_ok() {
                return;
            }
            // SAFETY: `added` came from `Box::into_raw` just above and was not published.
            #[allow(unsafe_code)]
            let again = unsafe { Box::from_raw(added) };
            node = again;
        }
    }
}

impl<T> Drop for Names<T> {
    fn drop(&mut self) {
        let mut next = *self.newest.get_mut();
        while !next.is_null() {
            // SAFETY: published by `add`, where it came from `Box::into_raw`; each is reached once, and nobody
            // else can reach any of them any more.
            #[allow(unsafe_code)]
            let node = unsafe { Box::from_raw(next) };
            next = node.older;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn threads_that_add_together_lose_nothing() {
        let (names, barrier) = (Names::new(), Barrier::new(8));
        let (names, barrier) = (&names, &barrier);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    barrier.wait();
                    (0..100).for_each(|i| names.add(thread * 100 + i));
                });
            }
        });
        let mut all: Vec<_> = names.iter().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..800).collect::<Vec<_>>());
    }

    #[test]
    fn values_live_as_long_as_the_list() {
        let value = Arc::new(());
        let names = Names::new();
        for _ in 0..3 {
            names.add(Arc::clone(&value));
        }
        assert_eq!(Arc::strong_count(&value), 4);
        drop(names);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
