//! The operations on whole tensors, generic over the instruction set; [`super::isa`] compiles each
//! of them for every one.

use std::ops::Range;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::amx;
pub(super) use super::attention::AttentionJob;
use super::attention::{self, attention as attention_in_floats};
#[cfg(test)]
pub(super) use super::expand::expand;
use super::finish::Finish;
#[cfg(target_arch = "x86_64")]
use super::halves;
use super::integer::{self, Quantized};
use super::math::activate;
use super::matmul::{Panels, matmul};
pub(super) use super::rows::{NormJob, TableData};
use super::rows::{add_table_row, norm_row, rotate_head};
pub(super) use super::scan::{scan, select};
use super::simd::{LANES, Simd, combine, load_upto, store_upto};
use super::stored::{self, Stored};
use super::views::{Rows, RowsMut};
use crate::ops::{Activation, Rotations};

/// A matrix of any of the element types.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weights<'a> {
    Float32(Panels<'a, f32>),
    Float16(Panels<'a, f16>),
    BFloat16(Panels<'a, bf16>),
    Int16(Quantized<'a, i16>),
    Int8(Quantized<'a, i8>),
    Stored(Stored<'a>),
}

/// A matrix product with all that happens to it in registers.
#[derive(Debug)]
pub(super) struct LinearJob<'a> {
    /// `[rows, in_features]`
    pub(super) x: &'a [f32],
    pub(super) weight: Weights<'a>,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) then: Then<'a>,
    /// Whether weights of float16 may be multiplied in half precision.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AVX-512 has that"))]
    pub(super) halves: bool,
}

/// Memory that a product needs beside its input and output.
#[derive(Debug, Default)]
pub(super) struct LinearScratch {
    inputs: integer::Inputs,
    #[cfg(target_arch = "x86_64")]
    pub(super) tiles: amx::tiles::Scratch,
    #[cfg(target_arch = "x86_64")]
    halves: halves::Operands,
}

/// What happens after the bias.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then<'a> {
    Nothing,
    Activate(Activation),
    /// Sum with a tensor of the output's shape.
    Add(&'a [f32]),
    /// Product with a tensor of the output's shape.
    Multiply(&'a [f32]),
}

impl<'a> Then<'a> {
    /// The same for some rows of an output of so many columns.
    pub(super) fn rows(self, rows: Range<usize>, columns: usize) -> Self {
        let of = |other: &'a [f32]| &other[rows.start * columns..rows.end * columns];
        match self {
            Self::Add(other) => Self::Add(of(other)),
            Self::Multiply(other) => Self::Multiply(of(other)),
            then => then,
        }
    }
}

/// `out = then(x · weightᵀ + bias)`, in the columns that `out` asks for.
#[inline(always)]
pub(super) fn linear<S: Simd>(
    simd: S,
    job: &LinearJob<'_>,
    mut out: RowsMut<'_>,
    scratch: &mut LinearScratch,
) {
    let x = Rows::new(job.x, out.count, job.in_features, job.in_features);
    match job.weight {
        Weights::Float32(weight) => matmul(simd, x, weight, &mut out, job),
        Weights::Float16(weight) => {
            #[cfg(target_arch = "x86_64")]
            if let Some(proof) = simd.amx() {
                let scratch = &mut scratch.tiles;
                return amx::floats::matmul(simd, proof, x, weight, &mut out, job, scratch);
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(proof) = simd.halves().filter(|_| job.halves) {
                let scratch = &mut scratch.halves;
                return halves::matmul(simd, proof, x, weight, &mut out, job, scratch);
            }
            matmul(simd, x, weight, &mut out, job);
        }
        Weights::BFloat16(weight) => {
            #[cfg(target_arch = "x86_64")]
            if let Some(proof) = simd.amx() {
                let scratch = &mut scratch.tiles;
                return amx::bfloat16::matmul(simd, proof, x, weight, &mut out, job, scratch);
            }
            matmul(simd, x, weight, &mut out, job);
        }
        // On AMX, too: it multiplies bytes, of which 16 bits would take four products.
        Weights::Int16(weight) => {
            integer::matmul(simd, x, weight, &mut out, job, &mut scratch.inputs);
        }
        Weights::Int8(weight) => {
            #[cfg(target_arch = "x86_64")]
            if let Some(proof) = simd.amx() {
                let scratch = (&mut scratch.inputs, &mut scratch.tiles);
                return amx::integers::matmul_int8(simd, proof, x, weight, &mut out, job, scratch);
            }
            integer::matmul(simd, x, weight, &mut out, job, &mut scratch.inputs);
        }
        Weights::Stored(weight) => {
            // Two bfloat16 for each number are exact enough for weights that were rounded to 8 bits or less.
            #[cfg(target_arch = "x86_64")]
            if let Some(proof) = simd.amx().filter(|_| weight.quantized()) {
                let scratch = &mut scratch.tiles;
                return amx::stored::matmul(simd, proof, x, weight, &mut out, job, scratch);
            }
            stored::matmul(simd, x, weight, &mut out, job);
        }
    }
}

impl<S: Simd> Finish<S> for LinearJob<'_> {
    #[inline(always)]
    fn bias(&self) -> Option<&[f32]> {
        self.bias
    }

    #[inline(always)]
    fn finish(&self, simd: S, row: usize, column: usize, mut v: S::V) -> S::V {
        if let Some(bias) = self.bias {
            v = simd.add(v, sixteen(simd, bias, column));
        }
        match self.then {
            Then::Nothing => v,
            Then::Activate(activation) => activate(simd, activation, v),
            Then::Add(other) => simd.add(v, sixteen(simd, self.row_of(other, row), column)),
            Then::Multiply(other) => simd.mul(v, sixteen(simd, self.row_of(other, row), column)),
        }
    }

    /// Decides once for a row, and not again for every sixteen outputs, what happens to them.
    #[inline(always)]
    fn after_bias(&self, simd: S, row: usize, column: usize, outputs: &mut [f32]) {
        match self.then {
            Then::Nothing => {}
            Then::Activate(activation) => activate_all(simd, activation, outputs),
            Then::Add(other) => {
                combine(simd, outputs, &self.row_of(other, row)[column..], S::add);
            }
            Then::Multiply(other) => {
                combine(simd, outputs, &self.row_of(other, row)[column..], S::mul);
            }
        }
    }
}

/// The activation of each of some outputs.
#[inline(always)]
fn activate_all<S: Simd>(simd: S, activation: Activation, outputs: &mut [f32]) {
    // The same with a constant: the compiler would decide again for every sixteen.
    match activation {
        Activation::Gelu => activate_each(simd, Activation::Gelu, outputs),
        Activation::GeluTanh => activate_each(simd, Activation::GeluTanh, outputs),
        Activation::Relu => activate_each(simd, Activation::Relu, outputs),
        Activation::Silu => activate_each(simd, Activation::Silu, outputs),
    }
}

#[inline(always)]
#[allow(unsafe_code)]
fn activate_each<S: Simd>(simd: S, activation: Activation, outputs: &mut [f32]) {
    let (chunks, rest) = outputs.as_chunks_mut::<LANES>();
    for v in chunks {
        // SAFETY: the chunk is of sixteen.
        unsafe {
            simd.store(activate(simd, activation, simd.load(v.as_ptr())), v.as_mut_ptr());
        }
    }
    let n = rest.len();
    if n > 0 {
        // SAFETY: as many floats are read and written as there are.
        unsafe {
            let x = activate(simd, activation, load_upto(simd, n, rest.as_ptr()));
            store_upto(simd, n, x, rest.as_mut_ptr());
        }
    }
}

impl LinearJob<'_> {
    /// A row of a tensor of the output's shape.
    #[inline(always)]
    fn row_of<'a>(&self, other: &'a [f32], row: usize) -> &'a [f32] {
        &other[row * self.out_features..][..self.out_features]
    }
}

/// Sixteen floats from `at` on, or those that there are and zeros.
#[inline(always)]
#[allow(unsafe_code)]
fn sixteen<S: Simd>(simd: S, floats: &[f32], at: usize) -> S::V {
    let floats = &floats[at..];
    // SAFETY: as many floats are read as the slice holds, 16 at most.
    unsafe { load_upto(simd, floats.len(), floats.as_ptr()) }
}

/// Memory that attention needs beside its input and output.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    floats: attention::Scratch,
    #[cfg(target_arch = "x86_64")]
    tiles: amx::attention::Scratch,
}

/// Attention within one sequence, see [`attention::attention`].
#[inline(always)]
pub(super) fn attention<S: Simd>(
    simd: S,
    job: &AttentionJob<'_>,
    out: RowsMut<'_>,
    scratch: &mut AttentionScratch,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(proof) = simd.amx().filter(|_| job.rounded) {
        return amx::attention::attention(simd, proof, job, out, &mut scratch.tiles);
    }
    attention_in_floats(simd, job, out, &mut scratch.floats);
}

/// Normalises, in some columns of each row of `width`, pieces of the norm's width in place.
#[inline(always)]
pub(super) fn norm<S: Simd>(
    simd: S,
    job: &NormJob<'_>,
    rows: &mut [f32],
    width: usize,
    columns: Range<usize>,
) {
    for row in rows.chunks_exact_mut(width) {
        for piece in row[columns.clone()].chunks_exact_mut(job.weight.len()) {
            norm_row(simd, piece, job);
        }
    }
}

/// Rotates, in some columns of each row of `width`, the heads by the row's position.
#[inline(always)]
pub(super) fn rotate<S: Simd>(
    simd: S,
    rotations: &Rotations,
    positions: &[u32],
    rows: &mut [f32],
    width: usize,
    columns: Range<usize>,
) {
    let half = rotations.half;
    for (row, &position) in rows.chunks_exact_mut(width).zip(positions) {
        let here = position as usize * half..(position as usize + 1) * half;
        let (cos, sin) = (&rotations.cos[here.clone()], &rotations.sin[here]);
        for head in row[columns.clone()].chunks_exact_mut(2 * half) {
            rotate_head(simd, head, cos, sin);
        }
    }
}

/// Adds `table[ids[t]]` to row `t`.
#[inline(always)]
pub(super) fn add_embedding<S: Simd>(simd: S, table: TableData<'_>, ids: &[u32], rows: &mut [f32]) {
    if ids.is_empty() {
        return;
    }
    let width = rows.len() / ids.len();
    for (row, &id) in rows.chunks_exact_mut(width).zip(ids) {
        add_table_row(simd, table, id as usize, row);
    }
}

/// Multiply-adds in registers: what the product of floats could reach. With `beside`, as many instructions that do nothing
/// come with them as a step of the widest tile takes to load its numbers: what it could reach if memory were as near as
/// the registers. Tells how many operations that were.
#[cfg(feature = "measure")]
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn multiply_adds<S: Simd>(simd: S, steps: usize, beside: bool, operations: &mut usize) {
    let (x, y) = (std::hint::black_box(1e-3), std::hint::black_box(0.999));
    let (x, y) = (simd.splat(x), simd.splat(y));
    let nothing = || {
        // SAFETY: it does nothing.
        unsafe { std::arch::asm!("nop", options(nomem, nostack, preserves_flags)) };
    };
    let mut sums = [x; 36];
    let total = if beside {
        let (rows, panels) = (S::TILES[S::TILES.len() - 1], S::TILES.len());
        // Of a panel's weights: a value is an array of registers, which are aligned to their size.
        let registers = size_of::<S::V>() / align_of::<S::V>();
        let sums = &mut sums[..rows * panels];
        for _ in 0..steps {
            for _ in 0..panels * registers {
                nothing();
            }
            for row in sums.chunks_exact_mut(panels) {
                nothing();
                for sum in row {
                    *sum = simd.mul_add(*sum, y, x);
                }
            }
        }
        sums
    } else {
        // As many as hide the latency and fit into the registers.
        let sums = &mut sums[..S::TILES[0]];
        for _ in 0..steps {
            for sum in &mut *sums {
                *sum = simd.mul_add(*sum, y, x);
            }
        }
        sums
    };
    *operations = 2 * super::simd::LANES * total.len() * steps;
    let total = total.iter().fold(x, |total, &sum| simd.add(total, sum));
    std::hint::black_box(simd.sum(total));
}
