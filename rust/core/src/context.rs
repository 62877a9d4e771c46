//! Where a forward pass runs: a device, and on each thread the memory that it needs there.

use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::models::{self, Encoder};
use crate::ops::{Ops, cpu};
use crate::plan::MicroBatch;
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

/// The instruction set that the CPU kernels use on this machine: scalar, avx2, avx512 or neon.
///
/// ```
/// assert!(["scalar", "avx2", "avx512", "neon"].contains(&arrowembed::isa()));
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

    /// Whether the weights are used where the file is mapped, or else were copied.
    fn mapped(&self) -> bool;
}

/// Loads a model's weights onto a device, by its name.
pub(crate) fn load(
    device: &str,
    metadata: &Metadata,
    weights: &dyn TensorSource,
) -> Result<Box<dyn Model>> {
    let (architecture, config) = (&metadata.architecture, &metadata.config);
    match device {
        "cpu" => {
            Ok(Box::new(OnCpu(models::load(architecture, config, &mut cpu::Loader::new(weights))?)))
        }
        other => Err(Error::argument("device", format!("is {other:?}, allowed is cpu"))),
    }
}

/// Our own kernels on the mapped file.
struct OnCpu(Box<dyn Encoder<cpu::Cpu, cpu::Context>>);

impl Model for OnCpu {
    fn forward(
        &self,
        batch: &MicroBatch,
        consume: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        CONTEXT.with(|Context(context)| {
            let hidden = self.0.forward(context, batch)?;
            consume(&context.to_host(hidden)?)
        })
    }

    fn mapped(&self) -> bool {
        true
    }
}
