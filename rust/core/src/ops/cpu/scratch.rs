//! A thread's reusable memory.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// One cache line of floats, so that rows of the usual widths never straddle one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Buffers that are not in use at the moment.
///
/// An `Rc`, so that a context and its tensors cannot leave their thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Vec<Line>>>>);

impl Pool {
    /// A matrix of that size, with arbitrary (but initialised) contents.
    pub(super) fn take(&self, rows: usize, width: usize) -> Tensor {
        let len = rows * width;
        let lines = len.div_ceil(16);
        let mut free = self.0.borrow_mut();
        // The smallest that is large enough, or else the largest, which then grows.
        let best = free
            .iter()
            .enumerate()
            .min_by_key(|(_, buffer)| {
                let size = buffer.len();
                (size < lines, size.abs_diff(lines))
            })
            .map(|(i, _)| i);
        let mut buffer = best.map(|i| free.swap_remove(i)).unwrap_or_default();
        if buffer.len() < lines {
            buffer.resize(lines, Line([0.0; 16]));
        }
        Tensor { buffer, len, width, pool: self.clone() }
    }
}

/// Activations: a matrix in memory that returns to its thread's pool when dropped.
#[derive(Debug)]
pub(crate) struct Tensor {
    buffer: Vec<Line>,
    len: usize,
    width: usize,
    pool: Pool,
}

impl Tensor {
    pub(super) fn rows(&self) -> usize {
        self.len.checked_div(self.width).unwrap_or(0)
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }
}

#[allow(unsafe_code)]
impl Deref for Tensor {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        debug_assert!(self.len <= 16 * self.buffer.len());
        // SAFETY: `take` made the buffer at least `len` floats long; a line is 16 floats without
        // padding.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.len) }
    }
}

#[allow(unsafe_code)]
impl DerefMut for Tensor {
    fn deref_mut(&mut self) -> &mut [f32] {
        debug_assert!(self.len <= 16 * self.buffer.len());
        // SAFETY: `take` made the buffer at least `len` floats long; a line is 16 floats without
        // padding.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.pool.0.borrow_mut().push(std::mem::take(&mut self.buffer));
    }
}
