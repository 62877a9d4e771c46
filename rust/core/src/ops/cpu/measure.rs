//! The matrix kernels by themselves, for the benchmarks. Not part of the interface.

use std::time::Instant;

use super::isa::{self, Isa};
use super::kernels::{LinearJob, LinearScratch, Then};
use super::load::{Linear, Loader};
use super::views::RowsMut;
use crate::error::Result;
use crate::ops::{LinearSpec, Load};
use crate::weights::DType;
use crate::weights::memory::InMemory;

/// The instruction sets of this machine, the fastest last.
pub fn instruction_sets() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Multiply-adds in single precision from registers, in floating-point operations a second: the best of
/// some tries, with the instructions of an instruction set.
///
/// # Errors
/// If it is not one of this machine.
pub fn peak(name: &str) -> Result<f64> {
    Ok(tries(name, false, 20)?.into_iter().fold(0.0, f64::max))
}

/// The same over some tenths of a second, as something else of that length would get it.
///
/// # Errors
/// If it is not one of this machine.
pub fn sustained_peak(name: &str) -> Result<f64> {
    tries(name, false, 200).map(|tries| mean(&tries))
}

/// The same with as many instructions beside them as the widest tile takes to load its numbers, which do nothing: what a
/// kernel that loads them so reaches at most, while others use the same core.
///
/// # Errors
/// If it is not one of this machine.
pub fn sustained_ceiling(name: &str) -> Result<f64> {
    tries(name, true, 100).map(|tries| mean(&tries))
}

/// Of rates, each of as many operations: their number by the mean of their times.
fn mean(rates: &[f64]) -> f64 {
    rates.len() as f64 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>()
}

/// Rates of tries of some milliseconds.
fn tries(name: &str, beside: bool, count: usize) -> Result<Vec<f64>> {
    const STEPS: usize = 1_000_000;
    let isa = name.parse::<Isa>()?;
    let try_once = |_| {
        let mut operations = 0;
        let started = Instant::now();
        isa::multiply_adds(isa, STEPS, beside, &mut operations);
        operations as f64 / started.elapsed().as_secs_f64()
    };
    Ok((0..count).map(try_once).collect())
}

/// Rows of numbers times a matrix of numbers.
#[derive(Debug)]
pub struct Product {
    isa: Isa,
    matrix: Linear,
    x: Vec<f32>,
    out: Vec<f32>,
    scratch: LinearScratch,
}

impl Product {
    /// # Errors
    /// If the instruction set is not one of this machine.
    pub fn new(name: &str, dtype: DType, rows: usize, shape: [usize; 2]) -> Result<Self> {
        let [out_features, in_features] = shape;
        let number = |i: usize| ((i * 7919 % 2003) as f32 - 1001.0) / 1001.0;
        let numbers = |len: usize| (0..len).map(number).collect::<Vec<_>>();
        let weights = numbers(out_features * in_features);
        let source = InMemory::default().encoded("m.weight", weights, in_features, dtype, true);
        let spec = LinearSpec { bias: false, ..LinearSpec::new("m", out_features, in_features) };
        Ok(Self {
            isa: name.parse::<Isa>()?,
            matrix: Loader::new(&source).linear(&spec)?,
            x: numbers(rows * in_features),
            out: vec![0.0; rows * out_features],
            scratch: LinearScratch::default(),
        })
    }

    /// Multiplies once.
    pub fn run(&mut self) {
        let (out_features, in_features) = (self.matrix.out_features, self.matrix.in_features);
        let job = LinearJob {
            x: &self.x,
            weight: self.matrix.weights(),
            in_features,
            out_features,
            bias: None,
            then: Then::Nothing,
            halves: true,
        };
        let rows = self.x.len() / in_features;
        let out = RowsMut::new(&mut self.out, rows, out_features, out_features);
        isa::linear(self.isa, &job, out, &mut self.scratch);
    }
}
