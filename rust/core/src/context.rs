//! Where a forward pass runs: a device, and on each thread the memory that it needs there.

use crate::compute::Compute;
#[cfg(not(feature = "candle"))]
use crate::error::Error;
use crate::error::Result;
use crate::metadata::Metadata;
use crate::models::{self, Encoder};
#[cfg(feature = "candle")]
use crate::ops::candle;
use crate::ops::{Ops, cpu};
use crate::plan::MicroBatch;
use crate::threads;
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

/// The instruction set that the CPU kernels use on this machine: scalar, avx2, avxvnni, avx512, amx or
/// neon.
///
/// ```
/// let known = ["scalar", "avx2", "avxvnni", "avx512", "amx", "neon"];
/// assert!(known.contains(&arrowembed::isa()));
/// ```
pub fn isa() -> &'static str {
    cpu::Isa::chosen().name()
}

/// A loaded model on its device.
pub(crate) trait Model: Send + Sync {
    /// Runs a micro-batch on the calling thread's context and hands the vectors of its tokens,
    /// `[tokens, hidden_size]`, to `consume`.
    fn forward(
        &self,
        batch: &MicroBatch,
        consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()>;

    /// The same on the calling thread and others together, if that can be done now: where no other call
    /// needs them.
    ///
    /// # Errors
    /// As for `forward`; `None` if nothing was done.
    fn forward_together(
        &self,
        _batch: &MicroBatch,
        _consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Option<Result<()>> {
        None
    }

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
        let encoder = models::load(architecture, config, &mut cpu::Loader::new(weights))?;
        return Ok(Box::new(OnCpu { encoder, compute }));
    }
    #[cfg(feature = "candle")]
    {
        let device = candle::device(device)?;
        let encoder =
            models::load(architecture, config, &mut candle::Loader::new(weights, &device))?;
        Ok(Box::new(OnCandle { encoder, context: candle::Context::new(device) }))
    }
    #[cfg(not(feature = "candle"))]
    Err(Error::argument("device", format!("is {device:?}; this build has only cpu")))
}

/// Our own kernels on the mapped file.
struct OnCpu {
    encoder: Box<dyn Encoder<cpu::Cpu, cpu::Context>>,
    compute: Compute,
}

impl Model for OnCpu {
    fn forward(
        &self,
        batch: &MicroBatch,
        consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        CONTEXT.with(|Context(context)| {
            context.set_compute(self.compute);
            let hidden = self.encoder.forward(context, batch)?;
            consume(&context.to_host(hidden)?)
        })
    }

    fn forward_together(
        &self,
        batch: &MicroBatch,
        consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Option<Result<()>> {
        let forward = |member, consume: &mut dyn FnMut(&[f32]) -> Result<()>| {
            CONTEXT.with(|Context(context)| {
                context.set_compute(self.compute);
                let forward = |batch: &MicroBatch| self.encoder.forward(context, batch);
                let hidden = context.as_member(member, batch, forward)?;
                consume(&context.to_host(hidden)?)
            })
        };
        threads::at_once(
            cpu::team,
            |member| forward(member, consume),
            |member| forward(member, &mut |_| Ok(())),
        )
    }

    fn mapped(&self) -> bool {
        true
    }
}

/// Tensors on one of candle's devices.
#[cfg(feature = "candle")]
struct OnCandle {
    encoder: Box<dyn Encoder<candle::Candle, candle::Context>>,
    context: candle::Context,
}

#[cfg(feature = "candle")]
impl Model for OnCandle {
    fn forward(
        &self,
        batch: &MicroBatch,
        consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let hidden = self.encoder.forward(&self.context, batch)?;
        consume(&self.context.to_host(hidden)?)
    }

    fn mapped(&self) -> bool {
        false
    }
}
