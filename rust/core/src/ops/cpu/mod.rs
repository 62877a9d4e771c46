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
#[cfg(target_arch = "aarch64")]
mod neon;
mod rows;
mod scalar;
mod scratch;
mod simd;
mod team;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiled;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::RefCell;

pub(crate) use isa::Isa;
use kernels::{
    AttentionJob, AttentionScratch, KeysValues, LinearJob, LinearScratch, NormJob, Then,
};
pub(crate) use load::{Cpu, Loader};
pub(crate) use scratch::Tensor;
pub(crate) use team::{Member, team};

use super::{Epilogue, Heads, Ops};
use crate::error::{Error, Result};

/// A thread's own memory for forward passes, reused from one to the next.
#[derive(Debug)]
pub(crate) struct Context {
    isa: Isa,
    pool: scratch::Pool,
    attention: RefCell<AttentionScratch>,
    linear: RefCell<LinearScratch>,
    /// While this thread computes a share of a text.
    member: RefCell<Option<Member>>,
}

impl Context {
    pub(crate) fn new(isa: Isa) -> Self {
        Self {
            isa,
            pool: scratch::Pool::default(),
            attention: RefCell::default(),
            linear: RefCell::default(),
            member: RefCell::default(),
        }
    }

    /// Runs a forward pass over this member's share of a text.
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

    fn attend(
        &self,
        queries: &[f32],
        keys_values: &[KeysValues<'_>],
        heads: Heads,
        out: &mut [f32],
    ) {
        let query_stride = 3 * heads.count * heads.head_dim;
        let job = AttentionJob { queries, query_stride, keys_values, heads };
        isa::attention(self.isa, &job, out, &mut self.attention.borrow_mut());
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
        let mut rows = self.pool.take(tokens, width);
        rows.fill(0.0);
        for (table, ids) in lookups {
            expect("embedding", (tokens, width), (ids.len(), table.width))?;
            table.check(ids)?;
            isa::add_embedding(self.isa, table.data(), ids, &mut rows);
        }
        Ok(rows)
    }

    fn layer_norm(&self, mut x: Tensor, norm: &load::Norm) -> Result<Tensor> {
        let job = NormJob { weight: norm.weight(), bias: norm.bias(), epsilon: norm.epsilon };
        expect("layer norm", (x.rows(), job.weight.len()), (x.rows(), x.width()))?;
        isa::layer_norm(self.isa, &job, &mut x);
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
        let mut out = self.pool.take(x.rows(), weight.out_features);
        let job = LinearJob {
            x,
            weight: weight.weights(),
            in_features: weight.in_features,
            out_features: weight.out_features,
            bias: weight.bias(),
            then,
        };
        isa::linear(self.isa, &job, &mut out, &mut self.linear.borrow_mut());
        Ok(out)
    }

    fn attention(&self, qkv: &Tensor, heads: Heads, offsets: &[usize]) -> Result<Tensor> {
        let width = heads.count * heads.head_dim;
        let tokens = offsets.last().copied().unwrap_or(0);
        expect("attention", (tokens, 3 * width), (qkv.rows(), qkv.width()))?;
        let mut out = self.pool.take(tokens, width);
        if let Some(member) = &mut *self.member.borrow_mut() {
            let parts = member.exchange(|part| {
                part.clear();
                qkv.chunks_exact(3 * width).for_each(|row| part.extend_from_slice(&row[width..]));
            })?;
            let stride = 2 * width;
            let keys_values: Vec<_> = parts
                .iter()
                .map(|part| KeysValues { rows: part, stride, key: 0, value: width })
                .collect();
            self.attend(qkv, &keys_values, heads, &mut out);
            return Ok(out);
        }
        for bounds in offsets.windows(2) {
            let rows = &qkv[3 * width * bounds[0]..3 * width * bounds[1]];
            let stride = 3 * width;
            let keys_values = [KeysValues { rows, stride, key: width, value: 2 * width }];
            let out = &mut out[width * bounds[0]..width * bounds[1]];
            self.attend(rows, &keys_values, heads, out);
        }
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
