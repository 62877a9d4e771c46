//! One text on several threads: each member of a team takes a share of the columns, or with many tokens of
//! the rows.
//!
//! All members go through the same forward pass at the same time. Each computes its share of an
//! operation's output, which lies in memory that all see, and waits until the others have done theirs;
//! with shares of rows, only for keys and values. An output's sum is the one that a thread alone would compute, so the bits are too.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::scratch::{Line, Tensor};
use super::views::Rows;
use crate::error::{Error, Result};
use crate::process::PerProcess;

/// How long a member looks whether the others have come before it sleeps. Shares of an operation take a
/// few microseconds more or less; whoever is later than this has lost its core to another process.
const PATIENCE: Duration = Duration::from_micros(50);

/// What the members share during one forward pass.
#[derive(Debug)]
struct Team {
    size: usize,
    /// Members that have come to the present meeting.
    present: AtomicUsize,
    /// Meetings so far.
    held: AtomicUsize,
    /// A member has left; whoever still waits would wait for ever.
    over: AtomicBool,
    /// For those who sleep until a meeting is held, and how many they are.
    sleeping: Mutex<()>,
    sleepers: AtomicUsize,
    woken: Condvar,
    tensors: Mutex<Tensors>,
}

/// The tensors that have been shared, in the order in which all members ask for them.
#[derive(Debug, Default)]
struct Tensors {
    buffers: Vec<Arc<Shared>>,
    /// For each that was asked for, its place among the buffers.
    places: Vec<usize>,
}

/// Memory that the members write in turns, or at the same time in different places.
#[derive(Debug, Default)]
pub(super) struct Shared(UnsafeCell<Vec<Line>>);

// SAFETY: between two meetings a member writes only its own share of a tensor, and reads only tensors
// that were finished before the last meeting (`Context`'s operations see to both).
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn as_ptr(&self) -> *mut f32 {
        // SAFETY: the vector itself is only changed by `Arc::get_mut`, when nobody else has it.
        unsafe { (*self.0.get()).as_ptr().cast_mut().cast() }
    }

    /// Floats that there is room for.
    fn len(&self) -> usize {
        // SAFETY: as in `as_ptr`.
        unsafe { (*self.0.get()).len() * Line::FLOATS }
    }
}

/// Buffers of the last team, for the next one.
static BUFFERS: PerProcess<Mutex<Vec<Arc<Shared>>>> = PerProcess::new();

/// A thread's place in a team.
#[derive(Debug)]
pub(crate) struct Member {
    team: Arc<Team>,
    index: usize,
    /// Tensors that this member has asked for.
    asked: usize,
}

/// The members of a new team.
pub(crate) fn team(size: usize) -> Vec<Member> {
    let team = Arc::new(Team {
        size,
        present: AtomicUsize::new(0),
        held: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        sleeping: Mutex::default(),
        sleepers: AtomicUsize::new(0),
        woken: Condvar::new(),
        tensors: Mutex::new(Tensors {
            buffers: std::mem::take(&mut lock(BUFFERS.get_or_init(Mutex::default))),
            places: Vec::new(),
        }),
    });
    (0..size).map(|index| Member { team: Arc::clone(&team), index, asked: 0 }).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// This member's share of `count` things.
    pub(super) fn share(&self, count: usize) -> Range<usize> {
        self.index * count / self.team.size..(self.index + 1) * count / self.team.size
    }

    /// The next tensor that all members write together, with arbitrary contents.
    ///
    /// Whoever asks must [`meet`](Self::meet) before asking again.
    pub(super) fn tensor(&mut self, rows: usize, width: usize) -> Tensor {
        let mut guard = lock(&self.team.tensors);
        let tensors = &mut *guard;
        if self.asked == tensors.places.len() {
            // The first to ask. A buffer that only this list knows is read by no member: each took it
            // before the meeting after which the others could have let it go.
            let lines = (rows * width).div_ceil(Line::FLOATS);
            let free = tensors.buffers.iter_mut().position(|b| Arc::get_mut(b).is_some());
            let place = free.unwrap_or_else(|| {
                tensors.buffers.push(Arc::default());
                tensors.buffers.len() - 1
            });
            if let Some(Shared(buffer)) = Arc::get_mut(&mut tensors.buffers[place])
                && buffer.get_mut().len() < lines
            {
                buffer.get_mut().resize(lines, Line::default());
            }
            tensors.places.push(place);
        }
        let place = tensors.places[self.asked];
        self.asked += 1;
        let shared = Arc::clone(&tensors.buffers[place]);
        assert!(rows * width <= shared.len(), "members disagree about a tensor");
        Tensor::shared(shared, rows, width)
    }

    /// How many members there are.
    pub(super) fn size(&self) -> usize {
        self.team.size
    }

    /// A tensor of `count` rows, of which each member has some.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a member has left.
    pub(super) fn gather(
        &mut self,
        count: usize,
        rows: Range<usize>,
        own: Rows<'_>,
    ) -> Result<Tensor> {
        let mut all = self.tensor(count, own.width);
        let to = all.rows_mut(rows).chunks_exact_mut(own.width);
        to.zip(own.iter()).for_each(|(to, row)| to.copy_from_slice(row));
        self.meet()?;
        Ok(all)
    }

    /// Waits until all members are here. What they wrote before can then be read.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a member has left.
    pub(super) fn meet(&self) -> Result<()> {
        let team = &*self.team;
        let this = team.held.load(Ordering::Acquire);
        if team.present.fetch_add(1, Ordering::AcqRel) + 1 == team.size {
            team.present.store(0, Ordering::Relaxed);
            team.held.store(this + 1, Ordering::SeqCst);
            // Either this sees the sleeper or the sleeper sees that the meeting was held.
            if team.sleepers.load(Ordering::SeqCst) > 0 {
                drop(lock(&team.sleeping));
                team.woken.notify_all();
            }
            return Ok(());
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE && !team.over.load(Ordering::Acquire) {
            for _ in 0..32 {
                if team.held.load(Ordering::Acquire) != this {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        let mut sleeping = lock(&team.sleeping);
        team.sleepers.fetch_add(1, Ordering::SeqCst);
        while team.held.load(Ordering::SeqCst) == this && !team.over.load(Ordering::Acquire) {
            sleeping = team.woken.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
        }
        team.sleepers.fetch_sub(1, Ordering::SeqCst);
        // Members leave after the last meeting too, when it has long been held.
        if team.held.load(Ordering::Acquire) == this { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.team.over.store(true, Ordering::Release);
        drop(lock(&self.team.sleeping));
        self.team.woken.notify_all();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let tensors = self.tensors.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = lock(BUFFERS.get_or_init(Mutex::default));
        // Of several teams the last one's are enough.
        *buffers = std::mem::take(&mut tensors.buffers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_what_everybody_wrote() {
        let size = 3;
        std::thread::scope(|scope| {
            for mut member in team(size) {
                scope.spawn(move || {
                    let mut last: Option<Tensor> = None;
                    for round in 0..200 {
                        let mut tensor = member.tensor(size, 5);
                        let share = member.share(size);
                        let own = (round * size + member.index) as f32;
                        tensor.rows_mut(share).fill(own);
                        member.meet().unwrap();
                        let expected = |round: usize| -> Vec<f32> {
                            (0..size * 5).map(|i| (round * size + i / 5) as f32).collect()
                        };
                        assert_eq!(tensor[..], expected(round));
                        // The one before is still what it was: its memory has not been given away.
                        if let Some(last) = last.replace(tensor) {
                            assert_eq!(last[..], expected(round - 1));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn shares_are_all_there_is() {
        let members = team(3);
        let shares: Vec<usize> = members.iter().flat_map(|member| member.share(10)).collect();
        assert_eq!(shares, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_waits_for_one_that_has_left() {
        let mut members = team(2);
        drop(members.pop());
        assert!(matches!(members[0].meet(), Err(Error::Interrupted)));
    }
}
