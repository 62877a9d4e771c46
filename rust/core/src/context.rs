//! Where a forward pass runs: a device, and on each thread the memory that it needs there.

use std::borrow::Cow;

use crate::compute::Compute;
use crate::dense::Dense;
#[cfg(not(feature = "candle"))]
use crate::error::Error;
use crate::error::Result;
use crate::metadata::Metadata;
use crate::models::{self, Encoder};
#[cfg(feature = "candle")]
use crate::ops::candle;
use crate::ops::{Backend, Ops, cpu};
use crate::plan::{EXPANDED_TOKENS, MicroBatch, TOKENS};
use crate::threads::{self, Monitor};
use crate::weights::TensorSource;

/// A thread's own scratch memory for forward passes, reused from one to the next.
///
/// The engine keeps one on each of its threads. It belongs to that thread:
///
/// ```compile_fail,E0277
/// let context = arrowembed::Context::default();
/// std::thread::spawn(move || drop(context));
/// ```
#[derive(Debug, Default)]
pub struct Context(cpu::Context);

thread_local! {
    static CONTEXT: Context = Context::default();
}

/// The instruction set that the CPU kernels use on this machine: scalar, avx2, avxvnni, avx512, avx512fp16, amx or
/// neon.
///
/// ```
/// let known = ["scalar", "avx2", "avxvnni", "avx512", "avx512fp16", "amx", "neon"];
/// assert!(known.contains(&arrowembed::isa()));
/// ```
pub fn isa() -> &'static str {
    cpu::Isa::chosen().name()
}

/// What is done with the vectors of a micro-batch's tokens, `[tokens, hidden_size]`, on the thread that has them.
pub(crate) type Consume<'a> = &'a mut (dyn FnMut(&[f32]) -> Result<()> + Send);

/// A loaded model on its device.
pub(crate) trait Model: Send + Sync {
    /// Runs a micro-batch on the calling thread's context and hands the vectors of its tokens to `consume`.
    ///
    /// # Errors
    /// Also [`Error::Interrupted`](crate::Error::Interrupted) if the call was stopped meanwhile.
    fn forward(&self, batch: &MicroBatch, consume: Consume<'_>) -> Result<()>;

    /// The same on several threads together, if that can be done now: where no other call needs them. The calling
    /// thread is one of them, or with a monitor asks that.
    ///
    /// # Errors
    /// As for `forward`; `None` if nothing was done.
    fn forward_together(
        &self,
        _batch: &MicroBatch,
        _monitor: Option<Monitor<'_>>,
        _consume: Consume<'_>,
    ) -> Option<Result<()>> {
        None
    }

    /// Tokens that a micro-batch should have at most.
    fn tokens_at_once(&self) -> usize {
        TOKENS
    }

    /// What the layers behind the pooling make of a pooled vector.
    fn project(&self, pooled: &[f32]) -> Result<Vec<f32>>;

    /// Whether the weights are used where the file is mapped, or else were copied.
    fn mapped(&self) -> bool;
}

/// Loads a model's weights onto a device, by its name.
pub(crate) fn load(
    device: &str,
    metadata: &Metadata,
    weights: &dyn TensorSource,
    compute: Compute,
) -> Result<Box<dyn Model>> {
    let (architecture, config) = (&metadata.architecture, &metadata.config);
    if device == "cpu" {
        let mut loader = cpu::Loader::new(weights);
        let encoder = models::load(architecture, config, &mut loader)?;
        let dense = Dense::load(&mut loader, &metadata.dense)?;
        let stored = |name: &&str| matches!(weights.stored_rows(name), Ok(Some(_)));
        let expands = weights.names().iter().any(stored);
        return Ok(Box::new(OnCpu { encoder, dense, compute, expands }));
    }
    #[cfg(feature = "candle")]
    {
        let device = candle::device(device)?;
        let mut loader = candle::Loader::new(weights, &device);
        let encoder = models::load(architecture, config, &mut loader)?;
        let dense = Dense::load(&mut loader, &metadata.dense)?;
        Ok(Box::new(OnCandle { encoder, dense, context: candle::Context::new(device) }))
    }
    #[cfg(not(feature = "candle"))]
    Err(Error::argument("device", format!("is {device:?}; this build has only cpu")))
}

/// A micro-batch with its tokens' positions as the model counts them.
fn placed<'a, B: Backend, O: Ops<B>>(
    encoder: &dyn Encoder<B, O>,
    batch: &'a MicroBatch,
) -> Cow<'a, MicroBatch> {
    match encoder.positions(batch) {
        Some(positions) => Cow::Owned(MicroBatch { positions, ..batch.clone() }),
        None => Cow::Borrowed(batch),
    }
}

/// Our own kernels on the mapped file.
struct OnCpu {
    encoder: Box<dyn Encoder<cpu::Cpu, cpu::Context>>,
    dense: Dense<cpu::Cpu>,
    compute: Compute,
    /// Whether matrices are expanded on the way into each product.
    expands: bool,
}

impl Model for OnCpu {
    fn forward(&self, batch: &MicroBatch, consume: Consume<'_>) -> Result<()> {
        CONTEXT.with(|Context(context)| {
            context.set_compute(self.compute);
            let hidden = self.encoder.forward(context, &placed(&*self.encoder, batch))?;
            consume(&context.to_host(hidden)?)
        })
    }

    fn forward_together(
        &self,
        batch: &MicroBatch,
        monitor: Option<Monitor<'_>>,
        consume: Consume<'_>,
    ) -> Option<Result<()>> {
        let batch = &*placed(&*self.encoder, batch);
        let forward = |member, consume: Consume<'_>| {
            CONTEXT.with(|Context(context)| {
                context.set_compute(self.compute);
                let forward = |batch: &MicroBatch| self.encoder.forward(context, batch);
                let hidden = context.as_member(member, batch, !self.expands, forward)?;
                consume(&context.to_host(hidden)?)
            })
        };
        threads::at_once(
            cpu::team,
            monitor,
            |member| forward(member, consume),
            |member| forward(member, &mut |_| Ok(())),
        )
    }

    fn tokens_at_once(&self) -> usize {
        if self.expands { EXPANDED_TOKENS } else { TOKENS }
    }

    fn project(&self, pooled: &[f32]) -> Result<Vec<f32>> {
        CONTEXT.with(|Context(context)| {
            context.set_compute(self.compute);
            self.dense.forward(context, pooled)
        })
    }

    fn mapped(&self) -> bool {
        true
    }
}

/// Tensors on one of candle's devices.
#[cfg(feature = "candle")]
struct OnCandle {
    encoder: Box<dyn Encoder<candle::Candle, candle::Context>>,
    dense: Dense<candle::Candle>,
    context: candle::Context,
}

#[cfg(feature = "candle")]
impl Model for OnCandle {
    fn forward(&self, batch: &MicroBatch, consume: Consume<'_>) -> Result<()> {
        let hidden = self.encoder.forward(&self.context, &placed(&*self.encoder, batch))?;
        consume(&self.context.to_host(hidden)?)
    }

    fn project(&self, pooled: &[f32]) -> Result<Vec<f32>> {
        self.dense.forward(&self.context, pooled)
    }

    fn mapped(&self) -> bool {
        false
    }
}
