//! One text on several threads: each member of a team takes a share of the rows.
//!
//! All operations but attention treat rows one by one, so members meet only there, once a layer: each
//! leaves its keys and values for the others and waits until all have. The rows are computed exactly
//! as one thread alone would.

use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};

use crate::error::{Error, Result};

/// What the members share during one forward pass.
#[derive(Debug)]
struct Team {
    meeting: Mutex<Meeting>,
    met: Condvar,
    /// Each member's keys and values. There are two sets, used in turns: when a set is written again,
    /// a meeting has passed since it was last read.
    sets: [Vec<RwLock<Vec<f32>>>; 2],
}

#[derive(Debug, Default)]
struct Meeting {
    /// Meetings so far.
    held: usize,
    waiting: usize,
    /// A member has left; whoever still waits would wait for ever.
    over: bool,
}

/// A thread's place in a team.
#[derive(Debug)]
pub(crate) struct Member {
    team: Arc<Team>,
    index: usize,
    layer: usize,
}

/// The members of a new team, in the order of their rows.
pub(crate) fn team(size: usize) -> Vec<Member> {
    let set = || (0..size).map(|_| RwLock::default()).collect();
    let team =
        Arc::new(Team { meeting: Mutex::default(), met: Condvar::new(), sets: [set(), set()] });
    (0..size).map(|index| Member { team: Arc::clone(&team), index, layer: 0 }).collect()
}

impl Member {
    /// Gives this member's keys and values to the others, and returns everybody's in order.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a member has left.
    pub(super) fn exchange(
        &mut self,
        write: impl FnOnce(&mut Vec<f32>),
    ) -> Result<Vec<RwLockReadGuard<'_, Vec<f32>>>> {
        let set = &self.team.sets[self.layer % 2];
        self.layer += 1;
        write(&mut set[self.index].write().unwrap_or_else(PoisonError::into_inner));
        self.team.meet()?;
        Ok(set.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner)).collect())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.team.lock().over = true;
        self.team.met.notify_all();
    }
}

impl Team {
    fn lock(&self) -> std::sync::MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all members are here.
    fn meet(&self) -> Result<()> {
        let mut meeting = self.lock();
        let this = meeting.held;
        meeting.waiting += 1;
        if meeting.waiting == self.sets[0].len() {
            meeting.waiting = 0;
            meeting.held += 1;
            self.met.notify_all();
            return Ok(());
        }
        while meeting.held == this && !meeting.over {
            meeting = self.met.wait(meeting).unwrap_or_else(PoisonError::into_inner);
        }
        // Members leave after the last meeting too, when it has long been held.
        if meeting.held == this { Err(Error::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_everything_every_time() {
        let size = 3;
        std::thread::scope(|scope| {
            for mut member in team(size) {
                scope.spawn(move || {
                    for layer in 0..100 {
                        let own = (layer * size + member.index) as f32;
                        let parts = member.exchange(|part| *part = vec![own]).unwrap();
                        let found: Vec<f32> = parts.iter().map(|part| part[0]).collect();
                        let expected: Vec<f32> =
                            (0..size).map(|i| (layer * size + i) as f32).collect();
                        assert_eq!(found, expected);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_one_that_has_left() {
        let mut members = team(2);
        drop(members.pop());
        let result = members[0].exchange(|_| {});
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
