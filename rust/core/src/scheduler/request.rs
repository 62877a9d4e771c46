//! A request between its submission and its answer.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Text;
use crate::cache::Variant;
use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::EncodeOptions;
use crate::pipeline::Request;
use crate::repeated::Repeated;
use crate::tokenize::Tokens;

/// Bytes of text that make a token, roughly, in most languages and tokenizers.
const BYTES_PER_TOKEN: usize = 4;

/// The vectors of a request's texts, and how long they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// The vectors, in the order of the texts.
    pub embeddings: Embeddings,
    /// How long the first text waited; nothing if the cache had all.
    pub queued: Duration,
    /// From then until the last vector was there.
    pub computed: Duration,
}

/// Told once how a request ended, on one of the scheduler's threads, which it must not keep.
pub(super) type Done = Box<dyn FnOnce(Result<Scheduled>) + Send>;

/// A request whose texts wait or are being computed.
pub(super) struct Pending {
    texts: Vec<String>,
    options: EncodeOptions,
    variant: Variant,
    repeated: Repeated,
    submitted: Instant,
    state: Mutex<State>,
}

struct State {
    embeddings: Embeddings,
    /// Texts without a vector.
    missing: usize,
    started: Option<Instant>,
    /// `None` once it was told, or if nobody wants to know any more.
    done: Option<Done>,
}

/// What the cache made of a request.
pub(super) enum Submission {
    /// It had every vector.
    Complete(Embeddings),
    /// These texts are to be computed.
    Incomplete(Arc<Pending>, VecDeque<Text>),
}

impl Submission {
    /// Checks a request and takes from the cache what it has.
    pub(super) fn of(
        engine: &Engine,
        texts: Vec<String>,
        options: EncodeOptions,
        done: Done,
    ) -> Result<Self> {
        let request = engine.request(&options)?;
        let variant = request.variant;
        let mut embeddings = Embeddings::zeroed(texts.len(), variant.dim)?;
        embeddings.stats.texts = texts.len();
        let repeated = Repeated::find(&texts);
        let computed = engine.look_up(
            &texts,
            &repeated,
            &request,
            &mut embeddings.data,
            &mut embeddings.stats,
        )?;
        if computed.is_empty() {
            repeated.copy_rows(&mut embeddings.data, variant.dim);
            engine.finish(embeddings.stats, None)?;
            return Ok(Self::Complete(embeddings));
        }
        let limit = engine.max_seq_length();
        let expected = |position| {
            let text: &String = &texts[position];
            let tokens = (options.prompt.len() + text.len()) / BYTES_PER_TOKEN + 2;
            Text { position, tokens: tokens.min(limit) }
        };
        let waiting = computed.iter().map(|&position| expected(position)).collect();
        let state = State { embeddings, missing: computed.len(), started: None, done: Some(done) };
        let state = Mutex::new(state);
        let submitted = Instant::now();
        let pending = Pending { texts, options, variant, repeated, submitted, state };
        Ok(Self::Incomplete(Arc::new(pending), waiting))
    }
}

impl Pending {
    /// The options of the request, as the steps of a call take them.
    pub(super) fn request(&self) -> Request<'_> {
        Request::new(&self.options, self.variant)
    }

    pub(super) fn text(&self, position: usize) -> &str {
        &self.texts[position]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that its first texts leave the queue.
    pub(super) fn start(&self) {
        self.state().started.get_or_insert_with(Instant::now);
    }

    /// Whether somebody still wants it.
    pub(super) fn is_wanted(&self) -> bool {
        self.state().done.is_some()
    }

    /// Nobody wants it any more; whether that was before its end.
    pub(super) fn cancel(&self) -> bool {
        let done = self.state().done.take();
        done.is_some()
    }

    /// Ends it with an error, unless it has ended.
    pub(super) fn fail(&self, error: Error) {
        // What is called must not be called with the lock held.
        let done = self.state().done.take();
        if let Some(done) = done {
            tell(done, Err(error));
        }
    }

    /// Takes the vector of a text, and ends the request if it was the last.
    pub(super) fn complete(
        &self,
        engine: &Engine,
        position: usize,
        tokens: &Tokens,
        vector: &[f32],
    ) {
        let mut state = self.state();
        let State { embeddings, missing, started, done } = &mut *state;
        let dim = self.variant.dim;
        embeddings.data[position * dim..(position + 1) * dim].copy_from_slice(vector);
        let times = self.repeated.times[position];
        embeddings.stats.add(times, tokens.ids.len(), tokens.full_length);
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let Some(done) = done.take() else { return };
        self.repeated.copy_rows(&mut embeddings.data, dim);
        let started = started.unwrap_or(self.submitted);
        let empty = Embeddings { data: Vec::new(), rows: 0, ..*embeddings };
        let embeddings = std::mem::replace(embeddings, empty);
        drop(state);
        let scheduled =
            Scheduled { queued: started - self.submitted, computed: started.elapsed(), embeddings };
        let result = engine.finish(scheduled.embeddings.stats, None);
        tell(done, result.map(|()| scheduled));
    }
}

/// Others in the same micro-batch shall not suffer if a caller panics on hearing of its end.
fn tell(done: Done, result: Result<Scheduled>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("what was to be told of the end of a request panicked");
    }
}
