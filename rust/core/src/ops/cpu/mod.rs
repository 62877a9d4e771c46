//! The operations on our own kernels, straight from the mapped file.
//!
//! [`load`] takes slices of the map; [`isa`] chooses the instruction set; [`kernels`] are the
//! operations on whole tensors, over [`matmul`], [`attention`], [`rows`] and [`math`], all written
//! once over [`simd`]; [`team`] puts one text on several threads. `x86`, `neon`
//! and [`scalar`] are the instruction sets.
// A kernel is compiled for an instruction set only where it is inlined into that set's entry point.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod integer;
mod isa;
mod kernels;
mod load;
mod math;
mod matmul;
#[cfg(feature = "measure")]
pub mod measure;
#[cfg(target_arch = "aarch64")]
mod neon;
mod rows;
mod scalar;
mod scratch;
mod simd;
mod team;
#[cfg(test)]
mod tests;
mod views;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::{Cell, RefCell};
use std::ops::Range;

pub(crate) use isa::Isa;
use kernels::{AttentionJob, AttentionScratch, LinearJob, LinearScratch, NormJob, Then};
pub(crate) use load::{Cpu, Loader};
pub(crate) use scratch::Tensor;
pub(crate) use team::{Member, team};

use super::{Epilogue, Heads, Ops};
use crate::compute::Compute;
use crate::error::{Error, Result};

/// Output features that a member of a team takes at a time: the width of the widest tile.
const PANELS: usize = 2 * simd::LANES;

/// A thread's own memory for forward passes, reused from one to the next.
#[derive(Debug)]
pub(crate) struct Context {
    isa: Isa,
    pool: scratch::Pool,
    attention: RefCell<AttentionScratch>,
    /// Whether attention may round what it multiplies.
    rounded: Cell<bool>,
    linear: RefCell<LinearScratch>,
    /// While this thread computes a share of a batch.
    member: RefCell<Option<Member>>,
}

impl Context {
    pub(crate) fn new(isa: Isa) -> Self {
        Self {
            isa,
            pool: scratch::Pool::default(),
            attention: RefCell::default(),
            rounded: Cell::default(),
            linear: RefCell::default(),
            member: RefCell::default(),
        }
    }

    /// Attention of the next forward passes is computed as exactly as that.
    pub(crate) fn set_compute(&self, compute: Compute) {
        self.rounded.set(matches!(compute, Compute::BFloat16 | Compute::Int8));
    }

    /// Runs a forward pass as a member of a team.
    pub(crate) fn as_member<T>(&self, member: Member, forward: impl FnOnce() -> T) -> T {
        /// Leaves the team however the forward pass ends.
        struct Leave<'a>(&'a RefCell<Option<Member>>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                *self.0.borrow_mut() = None;
            }
        }
        *self.member.borrow_mut() = Some(member);
        let _leave = Leave(&self.member);
        forward()
    }

    /// A tensor for the output of an operation, and this thread's share of `count` parts of it.
    fn output(&self, rows: usize, width: usize, count: usize) -> (Tensor, Range<usize>) {
        match &mut *self.member.borrow_mut() {
            Some(member) => (member.tensor(rows, width), member.share(count)),
            None => (self.pool.take(rows, width), 0..count),
        }
    }

    /// Waits until the others have written their shares too.
    fn meet(&self) -> Result<()> {
        self.member.borrow().as_ref().map_or(Ok(()), Member::meet)
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Isa::chosen())
    }
}

impl Ops<Cpu> for Context {
    type Tensor = Tensor;
    type Host = Tensor;

    fn embedding(&self, lookups: &[(&load::Table, &[u32])]) -> Result<Tensor> {
        let (width, tokens) =
            lookups.first().map_or((0, 0), |(table, ids)| (table.width, ids.len()));
        let (mut sums, share) = self.output(tokens, width, tokens);
        let rows = sums.rows_mut(share.clone());
        rows.fill(0.0);
        for (table, ids) in lookups {
            expect("embedding", (tokens, width), (ids.len(), table.width))?;
            table.check(ids)?;
            isa::add_embedding(self.isa, table.data(), &ids[share.clone()], rows);
        }
        self.meet()?;
        Ok(sums)
    }

    fn layer_norm(&self, mut x: Tensor, norm: &load::Norm) -> Result<Tensor> {
        let job = NormJob { weight: norm.weight(), bias: norm.bias(), epsilon: norm.epsilon };
        expect("layer norm", (x.rows(), job.weight.len()), (x.rows(), x.width()))?;
        let share = match &*self.member.borrow() {
            Some(member) => member.share(x.rows()),
            None => 0..x.rows(),
        };
        isa::layer_norm(self.isa, &job, x.rows_mut(share));
        self.meet()?;
        Ok(x)
    }

    fn linear(
        &self,
        x: &Tensor,
        weight: &load::Linear,
        epilogue: Epilogue<'_, Tensor>,
    ) -> Result<Tensor> {
        expect("linear", (x.rows(), weight.in_features), (x.rows(), x.width()))?;
        let then = match epilogue {
            Epilogue::None => Then::Nothing,
            Epilogue::Activate(activation) => Then::Activate(activation),
            Epilogue::Add(other) => {
                let shape = (x.rows(), weight.out_features);
                expect("linear's sum", shape, (other.rows(), other.width()))?;
                Then::Add(other)
            }
        };
        let (columns, panels) = (weight.out_features, weight.out_features.div_ceil(PANELS));
        let (mut out, share) = self.output(x.rows(), columns, panels);
        let share = (share.start * PANELS).min(columns)..(share.end * PANELS).min(columns);
        let job = LinearJob {
            x,
            weight: weight.weights(),
            in_features: weight.in_features,
            out_features: weight.out_features,
            bias: weight.bias(),
            then,
        };
        let share = out.whole().only(share);
        isa::linear(self.isa, &job, share, &mut self.linear.borrow_mut());
        self.meet()?;
        Ok(out)
    }

    fn attention(&self, qkv: &Tensor, heads: Heads, offsets: &[usize]) -> Result<Tensor> {
        let width = heads.count * heads.head_dim;
        let tokens = offsets.last().copied().unwrap_or(0);
        expect("attention", (tokens, 3 * width), (qkv.rows(), qkv.width()))?;
        let (mut out, share) = self.output(tokens, width, heads.count);
        for bounds in offsets.windows(2) {
            let qkv = &qkv[3 * width * bounds[0]..3 * width * bounds[1]];
            let share = share.clone();
            let job = AttentionJob { qkv, heads, share, rounded: self.rounded.get() };
            let mut whole = out.whole();
            let out = whole.part(bounds[0]..bounds[1], 0, width);
            isa::attention(self.isa, &job, out, &mut self.attention.borrow_mut());
        }
        self.meet()?;
        Ok(out)
    }

    fn to_host(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// A shape error here is a mistake in an architecture's file, whose sizes were checked when it was
/// loaded; it is still an error and never a read out of bounds.
fn expect(operation: &str, expected: (usize, usize), found: (usize, usize)) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::config(
        operation,
        format!("a tensor has shape {found:?}, the operation needs {expected:?}"),
    ))
}
