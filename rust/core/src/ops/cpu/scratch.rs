//! A thread's reusable memory.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;

use super::team::Shared;
use super::views::RowsMut;

/// One cache line of floats, so that rows of the usual widths never straddle one.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line([f32; Line::FLOATS]);

impl Line {
    pub(super) const FLOATS: usize = 16;
}

/// Buffers that are not in use at the moment.
///
/// An `Rc`, so that a context and its tensors cannot leave their thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Vec<Line>>>>);

impl Pool {
    /// A matrix of that size, with arbitrary (but initialised) contents.
    pub(super) fn take(&self, rows: usize, width: usize) -> Tensor {
        let lines = (rows * width).div_ceil(Line::FLOATS);
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
            // Not resized, which would copy and need both for a while.
            drop(buffer);
            buffer = vec![Line::default(); lines];
        }
        Tensor { memory: Memory::Own(buffer, self.clone()), rows, width }
    }
}

/// Activations: a matrix in memory that is used again when this is dropped.
#[derive(Debug)]
pub(crate) struct Tensor {
    memory: Memory,
    rows: usize,
    width: usize,
}

#[derive(Debug)]
enum Memory {
    /// Returns to its thread's pool.
    Own(Vec<Line>, Pool),
    /// Written by a team; at least as large as the matrix.
    Shared(Arc<Shared>),
}

impl Tensor {
    /// A matrix in memory of at least that size.
    pub(super) fn shared(memory: Arc<Shared>, rows: usize, width: usize) -> Self {
        Self { memory: Memory::Shared(memory), rows, width }
    }

    /// Whether other members of a team see it too.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Shared(_))
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    fn as_ptr(&self) -> *const f32 {
        match &self.memory {
            Memory::Own(buffer, _) => buffer.as_ptr().cast(),
            Memory::Shared(shared) => shared.as_ptr(),
        }
    }

    fn as_mut_ptr(&mut self) -> *mut f32 {
        match &mut self.memory {
            Memory::Own(buffer, _) => buffer.as_mut_ptr().cast(),
            Memory::Shared(shared) => shared.as_ptr(),
        }
    }

    /// Some whole rows, of which no other member of a team has any.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn rows_mut(&mut self, rows: Range<usize>) -> &mut [f32] {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows of a tensor");
        let (start, len) = (rows.start * self.width, rows.len() * self.width);
        // SAFETY: the buffer holds `rows` times `width` floats, a line being 16 of them without
        // padding; a member of a team takes its own share of rows only.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().add(start), len) }
    }

    /// All of it, for operations that write parts of rows.
    pub(super) fn whole(&mut self) -> RowsMut<'_> {
        let (rows, width) = (self.rows, self.width);
        // SAFETY: the buffer holds `rows` times `width` floats. Where a team shares them, each member
        // writes and reads its own share of columns only.
        unsafe { RowsMut::from_raw(self.as_mut_ptr(), rows, width, width) }
    }
}

impl Deref for Tensor {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the buffer holds `rows` times `width` floats. Where a team shares them, they are read
        // after a meeting, when nobody writes them any more.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.rows * self.width) }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if let Memory::Own(buffer, pool) = &mut self.memory {
            pool.0.borrow_mut().push(std::mem::take(buffer));
        }
    }
}
