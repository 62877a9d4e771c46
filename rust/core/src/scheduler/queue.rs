//! What waits: requests in turns, so that a small one does not wait for all texts of a large one.

use std::collections::VecDeque;

use crate::error::{Error, Result};

/// Tokens of a request that are taken before it is the next one's turn, at least one text of it.
const TURN: usize = 32;

/// How much may wait in a [`Scheduler`](crate::Scheduler).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most texts.
    pub texts: usize,
    /// Most tokens, where a text counts as long as its bytes let expect.
    pub tokens: usize,
}

impl Default for QueueLimits {
    /// 4096 texts, a million tokens.
    fn default() -> Self {
        Self { texts: 4096, tokens: 1_000_000 }
    }
}

/// A text of a request that waits: its position there and its length in tokens, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) position: usize,
    pub(super) tokens: usize,
}

/// Texts of requests `R` in the order in which they will be taken.
#[derive(Debug)]
pub(super) struct Queue<R> {
    waiting: VecDeque<(R, VecDeque<Text>)>,
    texts: usize,
    tokens: usize,
    limits: QueueLimits,
}

impl<R: Clone> Queue<R> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { waiting: VecDeque::new(), texts: 0, tokens: 0, limits }
    }

    pub(super) fn requests(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn texts(&self) -> usize {
        self.texts
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds a request, whole.
    ///
    /// # Errors
    /// [`Error::QueueFull`] if it does not fit, [`Error::InvalidArgument`] if it never will.
    pub(super) fn push(&mut self, request: R, texts: VecDeque<Text>) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let QueueLimits { texts: max_texts, tokens: max_tokens } = self.limits;
        let count = texts.len();
        let tokens = texts.iter().map(|text| text.tokens).sum::<usize>();
        if count > max_texts || tokens > max_tokens {
            let reason = format!(
                "are {count} of about {tokens} tokens, and the queue holds {max_texts} and {max_tokens}; \
                 send fewer at a time or allow more"
            );
            return Err(Error::argument("texts", reason));
        }
        if count > max_texts - self.texts || tokens > max_tokens - self.tokens {
            return Err(Error::QueueFull {
                texts: self.texts,
                max_texts,
                tokens: self.tokens,
                max_tokens,
            });
        }
        self.texts += count;
        self.tokens += tokens;
        self.waiting.push_back((request, texts));
        Ok(())
    }

    /// Takes texts of at most `budget` tokens, at least one if any waits.
    pub(super) fn take(&mut self, budget: usize) -> Vec<(R, Text)> {
        let mut taken = Vec::new();
        let mut tokens = 0;
        while let Some((request, mut texts)) = self.waiting.pop_front() {
            let turn = tokens + TURN;
            let mut fits = true;
            while tokens < turn
                && let Some(&text) = texts.front()
            {
                fits = taken.is_empty() || tokens + text.tokens <= budget;
                if !fits {
                    break;
                }
                texts.pop_front();
                tokens += text.tokens;
                self.count_off(text);
                taken.push((request.clone(), text));
            }
            match (texts.is_empty(), fits) {
                (true, _) => {}
                (false, true) => self.waiting.push_back((request, texts)),
                (false, false) => {
                    // Still its turn.
                    self.waiting.push_front((request, texts));
                    break;
                }
            }
        }
        taken
    }

    /// Takes a request's texts out, if any wait.
    pub(super) fn remove(&mut self, is_it: impl Fn(&R) -> bool) {
        let Some(place) = self.waiting.iter().position(|(request, _)| is_it(request)) else {
            return;
        };
        for text in self.waiting.remove(place).into_iter().flat_map(|(_, texts)| texts) {
            self.count_off(text);
        }
    }

    fn count_off(&mut self, text: Text) {
        self.texts -= 1;
        self.tokens -= text.tokens;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(tokens: &[usize]) -> VecDeque<Text> {
        tokens.iter().enumerate().map(|(position, &tokens)| Text { position, tokens }).collect()
    }

    fn queue(limits: QueueLimits, requests: &[(char, &[usize])]) -> Queue<char> {
        let mut queue = Queue::new(limits);
        for &(request, tokens) in requests {
            queue.push(request, texts(tokens)).unwrap();
        }
        queue
    }

    fn names(taken: &[(char, Text)]) -> String {
        taken.iter().map(|&(request, _)| request).collect()
    }

    #[test]
    fn requests_take_turns() {
        let large = [16; 20];
        let mut queue =
            queue(QueueLimits::default(), &[('L', &large), ('s', &[8]), ('t', &[100, 8])]);
        // The third request's text does not fit any more, so it is the first of the next.
        assert_eq!(names(&queue.take(128)), "LLs");
        assert_eq!(names(&queue.take(128)), "tL");
        assert_eq!(names(&queue.take(128)), "LLtLLLLL");
        assert_eq!((queue.requests(), queue.texts(), queue.tokens()), (1, 10, 160));
    }

    #[test]
    fn a_text_longer_than_the_budget_is_taken_alone() {
        let mut queue = queue(QueueLimits::default(), &[('a', &[500, 3]), ('b', &[1])]);
        assert_eq!(names(&queue.take(128)), "a");
        assert_eq!(names(&queue.take(128)), "ba");
        assert!(queue.take(128).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let limits = QueueLimits { texts: 3, tokens: 50 };
        let mut queue = queue(limits, &[('a', &[10, 10])]);
        for tokens in [&[1, 1][..], &[40]] {
            let error = queue.push('b', texts(tokens)).unwrap_err();
            assert_eq!(error.code(), "queue_full", "{tokens:?}");
        }
        for tokens in [&[1; 4][..], &[51]] {
            let error = queue.push('b', texts(tokens)).unwrap_err();
            assert_eq!(error.code(), "invalid_argument", "{tokens:?}");
        }
        assert_eq!((queue.requests(), queue.texts(), queue.tokens()), (1, 2, 20));
        queue.push('b', texts(&[30])).unwrap();
        queue.remove(|&request| request == 'a');
        queue.remove(|&request| request == 'a');
        assert_eq!((queue.requests(), queue.texts(), queue.tokens()), (1, 1, 30));
        assert_eq!(names(&queue.take(128)), "b");
    }

    proptest! {
        #[test]
        fn every_text_is_taken_once_and_in_its_requests_order(
            requests in prop::collection::vec(prop::collection::vec(0_usize..300, 0..40), 0..20),
            budget in 1_usize..256,
        ) {
            let mut queue = Queue::new(QueueLimits::default());
            for (request, tokens) in requests.iter().enumerate() {
                queue.push(request, texts(tokens)).unwrap();
            }
            let mut seen = vec![Vec::new(); requests.len()];
            while queue.texts() > 0 {
                let taken = queue.take(budget);
                let tokens: usize = taken.iter().map(|(_, text)| text.tokens).sum();
                prop_assert!(taken.len() == 1 || tokens <= budget);
                for (request, text) in taken {
                    prop_assert_eq!(text.position, seen[request].len());
                    seen[request].push(text.tokens);
                }
            }
            prop_assert_eq!(seen, requests);
            prop_assert_eq!((queue.requests(), queue.tokens()), (0, 0));
        }
    }
}
