//! The operations on our own kernels, straight from the mapped file.
//!
//! [`load`] takes slices of the map; [`isa`] chooses the instruction set; [`kernels`] are the
//! operations on whole tensors, over [`matmul`], [`attention`], [`rows`] and [`math`], all written
//! once over [`simd`]; [`finish`] is what happens to a product's sums; [`scan`] multiplies queries with stored vectors;
//! [`team`] puts one text on several threads. `avx2`, `avx512`, `neon` and [`scalar`] are the instruction sets; `amx` computes
//! products and attention on tiles, `halves` products in half precision.
// A kernel is compiled for an instruction set only where it is inlined into that set's entry point.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod expand;
mod finish;
#[cfg(target_arch = "x86_64")]
mod halves;
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
pub(crate) mod scan;
mod scratch;
mod simd;
mod stored;
mod team;
#[cfg(test)]
mod tests;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod views;

use std::cell::{Cell, RefCell};
use std::ops::Range;

pub(crate) use isa::Isa;
use kernels::{AttentionJob, AttentionScratch, LinearJob, LinearScratch, Then};
pub(crate) use load::{Cpu, Loader};
pub(crate) use scratch::Tensor;
pub(crate) use team::{Member, team};

use views::Rows;

use super::{Attention, Epilogue, Ops, Rope};
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::plan::MicroBatch;
use crate::threads;

/// Output features that a member of a team takes at a time: the width of the widest tile.
const PANELS: usize = 2 * simd::LANES;

/// Rows for each member from which on a team divides the rows of a batch, and not the columns of each
/// output. Members then meet once a layer and not seven times, and only keys and values go from one
/// core to another, but each multiplies with all of the weights.
const ROWS: usize = 32;

/// Rows of a product, and tokens of a sequence, that are computed in one go; with more, a thread asks in between
/// whether its call goes on. Enough to make little of what each go costs.
const ROWS_IN_ONE_GO: usize = 1024;

/// How a thread takes part in a team.
#[derive(Debug)]
enum Part {
    /// Of every output its share of columns.
    Columns(Member),
    /// The whole output for these rows.
    Rows(Member, Range<usize>),
}

/// A thread's own memory for forward passes, reused from one to the next.
#[derive(Debug)]
pub(crate) struct Context {
    isa: Isa,
    pool: scratch::Pool,
    attention: RefCell<AttentionScratch>,
    /// What the forward passes compute in.
    compute: Cell<Compute>,
    linear: RefCell<LinearScratch>,
    /// While this thread computes a share of a batch.
    part: RefCell<Option<Part>>,
}

impl Context {
    pub(crate) fn new(isa: Isa) -> Self {
        Self {
            isa,
            pool: scratch::Pool::default(),
            attention: RefCell::default(),
            compute: Cell::new(Compute::Float32),
            linear: RefCell::default(),
            part: RefCell::default(),
        }
    }

    /// The next forward passes are computed as exactly as that.
    pub(crate) fn set_compute(&self, compute: Compute) {
        self.compute.set(compute);
    }

    /// Runs a forward pass as a member of a team. Only where members may `divide_rows` do they multiply with
    /// all of the weights.
    pub(crate) fn as_member(
        &self,
        member: Member,
        batch: &MicroBatch,
        divide_rows: bool,
        forward: impl FnOnce(&MicroBatch) -> Result<Tensor>,
    ) -> Result<Tensor> {
        /// Leaves the team however the forward pass ends.
        struct Leave<'a>(&'a RefCell<Option<Part>>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                *self.0.borrow_mut() = None;
            }
        }
        let _leave = Leave(&self.part);
        let tokens = batch.ids.len();
        if !divide_rows || member.size() == 1 || tokens < member.size() * ROWS {
            *self.part.borrow_mut() = Some(Part::Columns(member));
            return forward(batch);
        }
        let rows = member.share(tokens);
        *self.part.borrow_mut() = Some(Part::Rows(member, rows.clone()));
        let own = forward(&batch.tokens(rows))?;
        match &mut *self.part.borrow_mut() {
            Some(Part::Rows(member, rows)) => {
                member.gather(tokens, rows.clone(), rows_of(&own, 0..own.rows(), 0..own.width()))
            }
            _ => Ok(own),
        }
    }

    /// A tensor for the output of an operation, and this thread's share of `count` parts of it.
    fn output(&self, rows: usize, width: usize, count: usize) -> (Tensor, Range<usize>) {
        match &mut *self.part.borrow_mut() {
            Some(Part::Columns(member)) => (member.tensor(rows, width), member.share(count)),
            _ => (self.pool.take(rows, width), 0..count),
        }
    }

    /// Waits until the others have written their shares too.
    fn meet(&self) -> Result<()> {
        match &*self.part.borrow() {
            Some(Part::Columns(member)) => member.meet(),
            _ => Ok(()),
        }
    }
}

/// Attention of some rows of a batch.
struct BatchAttention<'a> {
    /// Queries in the first columns, a row for each of `own`.
    qkv: &'a Tensor,
    /// Which of the batch's rows these are.
    own: Range<usize>,
    /// Keys from a column on and then values, for all rows of the batch.
    all: &'a Tensor,
    keys: usize,
    layer: &'a Attention<'a>,
    offsets: &'a [usize],
}

impl Context {
    /// Some heads of the rows' output, a sequence after the other.
    fn attend(&self, of: &BatchAttention<'_>, share: Range<usize>, out: &mut Tensor) -> Result<()> {
        let heads = of.layer.heads;
        let [queries, keys, _] = heads.columns();
        let longest = of.offsets.windows(2).map(|bounds| bounds[1] - bounds[0]).max();
        let biases = of.layer.bias.map(|bias| bias.biases(longest.unwrap_or(0)));
        let mut out = out.whole();
        for bounds in of.offsets.windows(2) {
            let here = bounds[0].max(of.own.start)..bounds[1].min(of.own.end);
            if here.is_empty() {
                continue;
            }
            let rows = here.start - of.own.start..here.end - of.own.start;
            let sequence = bounds[0]..bounds[1];
            let values = of.keys + keys.len();
            let whole = AttentionJob {
                queries: rows_of(of.qkv, rows.clone(), queries.clone()),
                first_query: here.start - bounds[0],
                keys: rows_of(of.all, sequence.clone(), of.keys..values),
                values: rows_of(of.all, sequence, values..values + keys.len()),
                heads,
                share: 0..0,
                scale: of.layer.scale,
                mask: of.layer.mask,
                biases: biases.as_deref(),
                rounded: matches!(self.compute.get(), Compute::BFloat16 | Compute::Int8),
            };
            // All heads, or of a long sequence those that share keys and values.
            let long = bounds[1] - bounds[0] > ROWS_IN_ONE_GO;
            let step = if long { heads.count / heads.kv_count } else { share.len() };
            for first in share.clone().step_by(step.max(1)) {
                threads::go_on()?;
                let share = first..share.end.min(first + step);
                let out = out.part(rows.clone(), 0, queries.len());
                let job = AttentionJob { share, ..whole.clone() };
                isa::attention(self.isa, &job, out, &mut self.attention.borrow_mut());
            }
        }
        Ok(())
    }

    /// Changes rows of a tensor in place. Of one that the members of a team have each for itself, all; of one that
    /// they share, this member's.
    fn change_rows(
        &self,
        x: &mut Tensor,
        change: impl FnOnce(Range<usize>, &mut [f32]),
    ) -> Result<()> {
        let share = match &*self.part.borrow() {
            Some(Part::Columns(member)) if x.is_shared() => member.share(x.rows()),
            _ => 0..x.rows(),
        };
        change(share.clone(), x.rows_mut(share));
        if x.is_shared() { self.meet() } else { Ok(()) }
    }
}

/// Some columns of some rows.
fn rows_of(x: &Tensor, rows: Range<usize>, columns: Range<usize>) -> Rows<'_> {
    Rows::new(x, x.rows(), x.width(), x.width()).rows(rows).columns(columns.start, columns.len())
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
        let mut sums = self.pool.take(tokens, width);
        let rows = sums.rows_mut(0..tokens);
        rows.fill(0.0);
        for (table, ids) in lookups {
            expect("embedding", (tokens, width), (ids.len(), table.width))?;
            table.look_up(ids, |places, data, ids| {
                let rows = &mut rows[places.start * width..places.end * width];
                isa::add_embedding(self.isa, data, ids, rows);
            })?;
        }
        Ok(sums)
    }

    fn tensor(&self, numbers: &[f32], width: usize) -> Result<Tensor> {
        let rows = numbers.len() / width.max(1);
        expect("tensor", (rows, rows * width), (rows, numbers.len()))?;
        let mut tensor = self.pool.take(rows, width);
        tensor.rows_mut(0..rows).copy_from_slice(numbers);
        Ok(tensor)
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor> {
        // Members of a team have each its own: that takes less time than to meet once more.
        let mut own = self.pool.take(x.rows(), x.width());
        own.rows_mut(0..x.rows()).copy_from_slice(x);
        Ok(own)
    }

    fn scale(&self, mut x: Tensor, factor: f32) -> Result<Tensor> {
        self.change_rows(&mut x, |_, rows| rows.iter_mut().for_each(|x| *x *= factor))?;
        Ok(x)
    }

    fn add(&self, mut a: Tensor, b: &Tensor) -> Result<Tensor> {
        expect("add", (a.rows(), a.width()), (b.rows(), b.width()))?;
        let width = a.width();
        self.change_rows(&mut a, |share, rows| {
            let others = &b[share.start * width..share.end * width];
            rows.iter_mut().zip(others).for_each(|(a, b)| *a += b);
        })?;
        Ok(a)
    }

    fn norm(&self, x: Tensor, norm: &load::Norm) -> Result<Tensor> {
        let job = norm.job();
        expect("norm", (x.rows(), job.weight.len()), (x.rows(), x.width()))?;
        // Of few rows each member of a team has its own, which takes less time than to meet once more.
        let mut x = if x.is_shared() { self.copy(&x)? } else { x };
        let (rows, width) = (x.rows(), x.width());
        isa::norm(self.isa, &job, x.rows_mut(0..rows), width, 0..width);
        Ok(x)
    }

    fn norm_heads(
        &self,
        mut x: Tensor,
        columns: Range<usize>,
        norm: &load::Norm,
    ) -> Result<Tensor> {
        let (job, width) = (norm.job(), x.width());
        expect_heads("norm_heads", &columns, width, job.weight.len())?;
        self.change_rows(&mut x, |_, rows| isa::norm(self.isa, &job, rows, width, columns))?;
        Ok(x)
    }

    fn rotate(
        &self,
        mut x: Tensor,
        columns: Range<usize>,
        rope: &Rope,
        positions: &[u32],
    ) -> Result<Tensor> {
        let width = x.width();
        expect("rotate", (x.rows(), width), (positions.len(), width))?;
        let last = positions.iter().max().map_or(0, |&position| position as usize);
        let rotations = rope.rotations(last + 1);
        expect_heads("rotate", &columns, width, 2 * rotations.half)?;
        self.change_rows(&mut x, |share, rows| {
            isa::rotate(self.isa, &rotations, &positions[share], rows, width, columns);
        })?;
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
            Epilogue::Multiply(other) => {
                let shape = (x.rows(), weight.out_features);
                expect("linear's product", shape, (other.rows(), other.width()))?;
                Then::Multiply(other)
            }
        };
        let (columns, panels) = (weight.out_features, weight.out_features.div_ceil(PANELS));
        let (mut out, share) = self.output(x.rows(), columns, panels);
        let share = (share.start * PANELS).min(columns)..(share.end * PANELS).min(columns);
        let mut whole = out.whole();
        let goes = x.rows().div_ceil(ROWS_IN_ONE_GO);
        for go in 0..goes {
            threads::go_on()?;
            let rows = go * x.rows() / goes..(go + 1) * x.rows() / goes;
            let job = LinearJob {
                x: &x[rows.start * x.width()..rows.end * x.width()],
                weight: weight.weights(),
                in_features: weight.in_features,
                out_features: weight.out_features,
                bias: weight.bias(),
                then: then.rows(rows.clone(), columns),
                halves: self.compute.get() == Compute::Float16,
            };
            let out = whole.part(rows, 0, columns).only(share.clone());
            isa::linear(self.isa, &job, out, &mut self.linear.borrow_mut());
        }
        self.meet()?;
        Ok(out)
    }

    fn attention(&self, qkv: &Tensor, layer: &Attention<'_>, offsets: &[usize]) -> Result<Tensor> {
        let heads = layer.heads;
        let [queries, keys, values] = heads.columns();
        let tokens = offsets.last().copied().unwrap_or(0);
        if let Some(Part::Rows(member, own)) = &mut *self.part.borrow_mut() {
            expect("attention", (own.len(), heads.width()), (qkv.rows(), qkv.width()))?;
            let keys_and_values = rows_of(qkv, 0..own.len(), keys.start..values.end);
            let all = member.gather(tokens, own.clone(), keys_and_values)?;
            let mut out = self.pool.take(own.len(), queries.len());
            let of = BatchAttention { qkv, own: own.clone(), all: &all, keys: 0, layer, offsets };
            self.attend(&of, 0..heads.count, &mut out)?;
            return Ok(out);
        }
        expect("attention", (tokens, heads.width()), (qkv.rows(), qkv.width()))?;
        let (mut out, share) = self.output(tokens, queries.len(), heads.count);
        let keys = keys.start;
        let of = BatchAttention { qkv, own: 0..tokens, all: qkv, keys, layer, offsets };
        self.attend(&of, share, &mut out)?;
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

/// The same for columns that should be whole heads.
fn expect_heads(operation: &str, columns: &Range<usize>, width: usize, head: usize) -> Result<()> {
    if head > 0
        && columns.start <= columns.end
        && columns.end <= width
        && columns.len().is_multiple_of(head.max(1))
    {
        return Ok(());
    }
    Err(Error::config(operation, format!("columns {columns:?} of {width} are no heads of {head}")))
}
