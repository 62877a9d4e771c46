//! `Scheduler`.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrowembed::{Error, QueueLimits, Result, Scheduled, Submitted};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{Options, count};
use crate::engine::{Engine, Matrix, Stats, dict};
use crate::errors::{Raise, exception};
use crate::quantize::array;
use crate::texts::texts;

/// What Python is told, on a thread of its own: whoever computes must not wait for the GIL.
enum Told {
    /// A request's callback and how it ended.
    End(Py<PyAny>, Result<Scheduled>),
    /// Texts and tokens of a micro-batch.
    Batch(usize, usize),
    /// There is nothing more to tell.
    Stop,
}

#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct Scheduler {
    queue: arrowembed::Scheduler,
    sender: Sender<Told>,
    teller: Mutex<Option<JoinHandle<()>>>,
}

/// Vectors, statistics, seconds of waiting and of computing.
type Answer<'py> = (Matrix<'py>, Stats<'py>, f64, f64);

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments, named on Python's side
impl Scheduler {
    #[new]
    #[pyo3(signature = (engine, *, max_queued_texts, max_queued_tokens, on_batch=None))]
    fn new(
        py: Python<'_>,
        engine: &Engine,
        max_queued_texts: &Bound<'_, PyAny>,
        max_queued_tokens: &Bound<'_, PyAny>,
        on_batch: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let limits = QueueLimits {
            texts: count("max_queued_texts", max_queued_texts)?,
            tokens: count("max_queued_tokens", max_queued_tokens)?,
        };
        let mut scheduler = arrowembed::Scheduler::new(engine.shared(py)?, limits);
        let (sender, receiver) = channel();
        if on_batch.is_some() {
            let sender = sender.clone();
            scheduler = scheduler.on_batch(move |texts, tokens| {
                // The receiver is gone once there is nothing more to tell.
                let _ = sender.send(Told::Batch(texts, tokens));
            });
        }
        let teller = thread::Builder::new()
            .name("arrowembed-tell".to_owned())
            .spawn(move || tell(&receiver, on_batch.as_ref()))?;
        Ok(Self { queue: scheduler, sender, teller: Mutex::new(Some(teller)) })
    }

    /// The answer if it is there at once, else a ticket; then `on_end` is called with an answer or an exception.
    #[pyo3(signature = (
        texts, on_end, *, prompt="", pooling=None, normalize=None, truncate_dim=None, truncate=true,
    ))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        on_end: Py<PyAny>,
        prompt: &str,
        pooling: Option<&str>,
        normalize: Option<&Bound<'py, PyAny>>,
        truncate_dim: Option<&Bound<'py, PyAny>>,
        truncate: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options =
            Options { prompt, pooling, normalize, truncate_dim, max_texts: None, truncate };
        let options = options.read(py)?;
        let texts = self::texts(texts)?.iter().map(ToString::to_string).collect();
        let sender = self.sender.clone();
        let end = move |result| {
            let _ = sender.send(Told::End(on_end, result));
        };
        match py.detach(|| self.queue.submit(texts, options, end)).raise(py)? {
            Submitted::Complete(scheduled) => {
                Ok(answer(py, scheduled)?.into_pyobject(py)?.into_any())
            }
            Submitted::Waiting(ticket) => Ok(Ticket(ticket).into_pyobject(py)?.into_any()),
        }
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (info, limits) = (self.queue.info(), self.queue.limits());
        let dict = PyDict::new(py);
        dict.set_item("queued_requests", info.requests)?;
        dict.set_item("queued_texts", info.texts)?;
        dict.set_item("queued_tokens", info.tokens)?;
        dict.set_item("running_batches", info.running)?;
        dict.set_item("max_queued_texts", limits.texts)?;
        dict.set_item("max_queued_tokens", limits.tokens)?;
        Ok(dict)
    }

    #[pyo3(signature = (timeout=None))]
    fn drain(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = timeout.map(|seconds| {
            Duration::try_from_secs_f64(seconds).map_err(|error| {
                let reason = format!("is {seconds} seconds: {error}");
                Error::InvalidArgument { name: "timeout", reason }
            })
        });
        let timeout = timeout.transpose().raise(py)?;
        Ok(py.detach(|| self.queue.drain(timeout)))
    }

    /// Tells nothing more. To be called before the interpreter ends, which no other thread may enter then.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let _ = self.sender.send(Told::Stop);
            let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(teller) = teller {
                // A panic there has been reported.
                let _ = teller.join();
            }
        });
    }
}

/// A request that waits or is being computed.
#[pyclass(frozen, module = "arrowembed._core")]
pub(crate) struct Ticket(arrowembed::Ticket);

#[pymethods]
impl Ticket {
    fn cancel(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.cancel())
    }
}

fn tell(receiver: &Receiver<Told>, on_batch: Option<&Py<PyAny>>) {
    while let Ok(first) = receiver.recv() {
        let go_on = Python::attach(|py| {
            // Entering Python may take as long as all there is to tell.
            std::iter::once(first).chain(receiver.try_iter()).all(|told| {
                let called = match told {
                    Told::Stop => return false,
                    Told::Batch(texts, tokens) => {
                        on_batch.map(|call| call.call1(py, (texts, tokens))).transpose()
                    }
                    Told::End(call, Ok(scheduled)) => answer(py, scheduled)
                        .and_then(|answer| call.call1(py, (answer, py.None())))
                        .map(Some),
                    Told::End(call, Err(error)) => {
                        call.call1(py, (py.None(), exception(py, &error))).map(Some)
                    }
                };
                if let Err(error) = called {
                    error.write_unraisable(py, None);
                }
                true
            })
        });
        if !go_on {
            break;
        }
    }
}

fn answer(py: Python<'_>, scheduled: Scheduled) -> PyResult<Answer<'_>> {
    let Scheduled { embeddings, queued, computed } = scheduled;
    let (rows, dim, stats) = (embeddings.len(), embeddings.dim(), embeddings.stats());
    let vectors = array(py, rows, dim, embeddings.into_vec())?;
    Ok((vectors, dict(py, stats)?, queued.as_secs_f64(), computed.as_secs_f64()))
}
