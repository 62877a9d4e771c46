//! Every instruction set against plain float64 arithmetic, over random shapes.

mod attention;
mod integers;
mod reference;

#[cfg(unix)]
use std::sync::Arc;

#[cfg(unix)]
use arrow_buffer::Buffer;
use proptest::prelude::*;
use reference::{activation, product_in_halves, rounded};

use super::isa::{self, Isa};
use super::kernels::{LinearJob, LinearScratch, NormJob, Then};
use super::load::{self, Loader};
use super::views::RowsMut;
use crate::ops::{Activation, LinearSpec, Load, Rope};
use crate::weights::DType;
#[cfg(unix)]
use crate::weights::map::MappedFile;
use crate::weights::memory::InMemory;
use crate::weights::values::read_f32;
#[cfg(unix)]
use crate::{InFile, Result, Tensor, TensorSource};

/// Numbers in -1..1, the same for the same seed.
pub(super) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[track_caller]
pub(super) fn assert_close(isa: Isa, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= tolerance,
            "{} at {i}: {found} instead of {expected}, off by {difference:e}",
            isa.name()
        );
    }
}

/// The dtypes of matrices in panels.
const DTYPES: [DType; 5] =
    [DType::Float32, DType::Float16, DType::BFloat16, DType::Int16, DType::Int8];

/// A matrix as a model file has it, and the float64 values that it stands for.
fn matrix(rows: Vec<f32>, width: usize, dtype: DType) -> (load::Linear, Vec<f64>) {
    let out = rows.len() / width;
    let source = InMemory::default().encoded("m.weight", rows, width, dtype, true);
    let spec = LinearSpec { bias: false, ..LinearSpec::new("m", out, width) };
    let (tensor, values) = read_f32(&source, "m.weight").unwrap();
    assert_eq!(tensor.dtype, dtype);
    let matrix = Loader::new(&source).linear(&spec).unwrap();
    (matrix, values.into_iter().map(f64::from).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_is_the_matrix_product(
        rows in 0_usize..90,
        width in 1_usize..900,
        out in 1_usize..150,
        kind in 0_usize..7,
        seed in 0_u64..1000,
    ) {
        let x = numbers(seed, rows * width);
        let bias = numbers(seed + 2, out);
        let other = numbers(seed + 3, rows * out);
        let (then, bias) = match kind {
            0 => (Then::Nothing, None),
            1 => (Then::Add(&other), Some(&bias)),
            2 => (Then::Activate(Activation::Gelu), Some(&bias)),
            3 => (Then::Activate(Activation::GeluTanh), Some(&bias)),
            4 => (Then::Activate(Activation::Relu), Some(&bias)),
            5 => (Then::Multiply(&other), None),
            _ => (Then::Activate(Activation::Silu), Some(&bias)),
        };
        for (dtype, halves) in DTYPES.map(|dtype| (dtype, false)).into_iter().chain([(DType::Float16, true)]) {
            let (matrix, values) = matrix(numbers(seed + 4, out * width), width, dtype);
            let job = LinearJob {
                x: &x,
                weight: matrix.weights(),
                in_features: width,
                out_features: out,
                bias: bias.map(Vec::as_slice),
                then,
                halves,
            };
            for isa in Isa::available() {
                let inputs = rounded(&x, width, dtype, isa);
                let expected: Vec<f64> = (0..rows * out).map(|i| {
                    let (r, o) = (i / out, i % out);
                    let weights = &values[o * width..][..width];
                    let product: f64 = if halves && isa.name() == "avx512fp16" {
                        product_in_halves(&x[r * width..][..width], weights)
                    } else {
                        inputs[r * width..].iter().zip(weights).map(|(x, weight)| x * weight).sum()
                    };
                    let sum = product + bias.map_or(0.0, |bias| f64::from(bias[o]));
                    match then {
                        Then::Nothing => sum,
                        Then::Activate(kind) => activation(kind, sum),
                        Then::Add(other) => sum + f64::from(other[i]),
                        Then::Multiply(other) => sum * f64::from(other[i]),
                    }
                }).collect();
                // Scratch memory that has been used for more rows, and for numbers that are none.
                let mut scratch = LinearScratch::default();
                let nothing = vec![f32::NAN; (rows + 20) * width];
                let mut found = vec![0.0; (rows + 20) * out];
                let before = LinearJob { x: &nothing, then: Then::Nothing, ..job };
                isa::linear(isa, &before, RowsMut::new(&mut found, rows + 20, out, out), &mut scratch);
                let mut found = vec![f32::NAN; rows * out];
                isa::linear(isa, &job, RowsMut::new(&mut found, rows, out, out), &mut scratch);
                // With AMX, the product of the lower parts is left out.
                let tolerance = match (isa.name(), dtype) {
                    ("amx", DType::Float16) => 4e-4,
                    _ => 1e-4,
                };
                assert_close(isa, &found, &expected, tolerance);
                for r in 0..rows {
                    let job = LinearJob {
                        x: &x[r * width..(r + 1) * width],
                        then: match then {
                            Then::Add(other) => Then::Add(&other[r * out..(r + 1) * out]),
                            Then::Multiply(other) => Then::Multiply(&other[r * out..(r + 1) * out]),
                            then => then,
                        },
                        ..job
                    };
                    let mut alone = vec![f32::NAN; out];
                    isa::linear(isa, &job, RowsMut::new(&mut alone, 1, out, out), &mut LinearScratch::default());
                    prop_assert_eq!(&alone, &found[r * out..(r + 1) * out], "{} row {}", isa.name(), r);
                }
            }
        }
    }

    #[test]
    fn norms_are_those_of_their_definitions(
        rows in 0_usize..5,
        width in 1_usize..100,
        pieces in 1_usize..4,
        margin in 0_usize..20,
        centred: bool,
        biased: bool,
        shift in -3.0_f32..3.0,
        seed in 0_u64..1000,
    ) {
        // Some columns in the middle of each row, in pieces, as the heads of queries are normalised.
        let columns = margin..margin + pieces * width;
        let stride = columns.end + margin;
        let x: Vec<f32> = numbers(seed, rows * stride).iter().map(|x| x + shift).collect();
        let (weight, bias) = (numbers(seed + 1, width), numbers(seed + 2, width));
        let epsilon = 1e-3;
        let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for row in expected.chunks_mut(stride) {
            for piece in row[columns.clone()].chunks_mut(width) {
                let n = width as f64;
                let mean = if centred { piece.iter().sum::<f64>() / n } else { 0.0 };
                let variance = piece.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                for (i, x) in piece.iter_mut().enumerate() {
                    let normed = (*x - mean) / (variance + f64::from(epsilon)).sqrt();
                    let bias = if biased { f64::from(bias[i]) } else { 0.0 };
                    *x = normed * f64::from(weight[i]) + bias;
                }
            }
        }
        let bias = biased.then_some(&bias[..]);
        let job = NormJob { weight: &weight, bias, epsilon, centred };
        for isa in Isa::available() {
            let mut found = x.clone();
            isa::norm(isa, &job, &mut found, stride, columns.clone());
            assert_close(isa, &found, &expected, 5e-5);
        }
    }

    #[test]
    fn heads_are_rotated_by_their_position(
        positions in prop::collection::vec(0_u32..300, 0..5),
        half in 1_usize..40,
        heads in 1_usize..4,
        margin in 0_usize..20,
        seed in 0_u64..1000,
    ) {
        let columns = margin..margin + heads * 2 * half;
        let stride = columns.end + margin;
        let x = numbers(seed, positions.len() * stride);
        let rotations = Rope::new(10_000.0, 2 * half).rotations(300);
        let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for (row, &position) in expected.chunks_mut(stride).zip(&positions) {
            for head in row[columns.clone()].chunks_mut(2 * half) {
                for i in 0..half {
                    let angle = f64::from(position)
                        * 10_000.0_f64.powf(-(i as f64) / half as f64);
                    let (a, b) = (head[i], head[i + half]);
                    head[i] = a * angle.cos() - b * angle.sin();
                    head[i + half] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        for isa in Isa::available() {
            let mut found = x.clone();
            isa::rotate(isa, &rotations, &positions, &mut found, stride, columns.clone());
            assert_close(isa, &found, &expected, 1e-4);
        }
    }

    #[test]
    fn embedding_adds_table_rows(
        ids in prop::collection::vec(0_u32..9, 0..20),
        width in 1_usize..50,
        seed in 0_u64..1000,
    ) {
        for dtype in [DType::Float32, DType::Float16, DType::Int8] {
            let rows = numbers(seed, 9 * width);
            let source = InMemory::default().encoded("t.weight", rows, width, dtype, false);
            let values = read_f32(&source, "t.weight").unwrap().1;
            let table = Loader::new(&source).table("t", 9, width).unwrap();
            let start = numbers(seed + 5, ids.len() * width);
            let expected: Vec<f64> = (0..start.len())
                .map(|i| {
                    let element = values[ids[i / width] as usize * width + i % width];
                    f64::from(start[i]) + f64::from(element)
                })
                .collect();
            for isa in Isa::available() {
                let mut found = start.clone();
                isa::add_embedding(isa, table.in_memory().unwrap(), &ids, &mut found);
                assert_close(isa, &found, &expected, 1e-4);
            }
        }
    }
}

/// A table in a file.
#[cfg(unix)]
struct InFileOnly {
    tensors: InMemory,
    file: Arc<MappedFile>,
}

#[cfg(unix)]
impl TensorSource for InFileOnly {
    fn names(&self) -> Vec<&str> {
        self.tensors.names()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let tensor = self.tensors.get(name)?;
        Ok(tensor.map(|tensor| match name {
            "t.weight" => Tensor { data: self.file.map().clone(), ..tensor },
            _ => tensor,
        }))
    }

    fn in_file(&self, data: &Buffer) -> Option<InFile> {
        InFile::find(&self.file, data)
    }
}

#[cfg(unix)]
#[test]
fn rows_of_a_large_table_are_read_from_its_file() {
    let (rows, width) = (2050, 513);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let ids = [2049, 0, 7, 7, 1024];
    for dtype in [DType::Float32, DType::Float16, DType::Int8] {
        let tensors =
            InMemory::default().encoded("t.weight", numbers(1, rows * width), width, dtype, false);
        std::fs::write(&path, &tensors.require("t.weight").unwrap().data).unwrap();
        let mapped = Loader::new(&tensors).table("t", rows, width).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let read = Loader::new(&InFileOnly { tensors, file }).table("t", rows, width).unwrap();
        let sum = |table: &load::Table| -> Vec<f32> {
            let mut out = numbers(2, ids.len() * width);
            table
                .look_up(&ids, |places, data, ids| {
                    let out = &mut out[places.start * width..places.end * width];
                    isa::add_embedding(Isa::chosen(), data, ids, out);
                })
                .unwrap();
            out
        };
        assert_eq!(sum(&read), sum(&mapped), "{}", dtype.name());
        assert_eq!(read.look_up(&[2050], |_, _, _| ()).unwrap_err().code(), "invalid_config");

        // A file that was cut short is an error, and not a crash.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
        assert_eq!(read.look_up(&ids, |_, _, _| ()).unwrap_err().code(), "io");
    }
}

/// The identity matrix as weights, so that `linear` does nothing but activate.
fn activated(isa: Isa, kind: Activation, x: &[f32]) -> Vec<f32> {
    let (one, _) = matrix(vec![1.0], 1, DType::Float32);
    let job = LinearJob {
        x,
        weight: one.weights(),
        in_features: 1,
        out_features: 1,
        bias: None,
        then: Then::Activate(kind),
        halves: false,
    };
    let mut out = vec![0.0; x.len()];
    let view = RowsMut::new(&mut out, x.len(), 1, 1);
    isa::linear(isa, &job, view, &mut LinearScratch::default());
    out
}

#[test]
fn activations_are_exact_to_a_millionth() {
    let x: Vec<f32> = (-120_000..=120_000).map(|i| i as f32 / 10_000.0).collect();
    for isa in Isa::available() {
        for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu] {
            let expected: Vec<f64> = x.iter().map(|&x| activation(kind, f64::from(x))).collect();
            let found = activated(isa, kind, &x);
            // A millionth up to |x| = 4; beyond, the last place of x itself is larger.
            for ((&x, &found), &expected) in x.iter().zip(&found).zip(&expected) {
                let tolerance = 1e-6_f64.max(3e-7 * f64::from(x.abs()));
                let difference = (f64::from(found) - expected).abs();
                assert!(difference <= tolerance, "{} {kind:?}({x}) = {found}", isa.name());
            }
        }
    }
}

/// Rows times a matrix in half precision, where the processor has that.
fn multiplied_in_halves(isa: Isa, matrix: &load::Linear, x: &[f32]) -> Vec<f32> {
    let (in_features, out_features) = (matrix.in_features, matrix.out_features);
    let job = LinearJob {
        x,
        weight: matrix.weights(),
        in_features,
        out_features,
        bias: None,
        then: Then::Nothing,
        halves: true,
    };
    let rows = x.len() / in_features;
    let mut out = vec![f32::NAN; rows * out_features];
    let view = RowsMut::new(&mut out, rows, out_features, out_features);
    isa::linear(isa, &job, view, &mut LinearScratch::default());
    out
}

#[test]
fn half_precision_has_no_small_and_no_large_rows() {
    let (rows, width, out) = (5, 300, 40);
    let x = numbers(1, rows * width);
    let (matrix, _) = matrix(numbers(2, out * width), width, DType::Float16);
    for isa in Isa::available() {
        let plain = multiplied_in_halves(isa, &matrix, &x);
        for factor in [2.0_f32.powi(-80), 2.0_f32.powi(-20), 2.0_f32.powi(80)] {
            let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let expected: Vec<f32> = plain.iter().map(|x| x * factor).collect();
            assert_eq!(multiplied_in_halves(isa, &matrix, &scaled), expected, "{}", isa.name());
        }
    }
}

#[test]
fn members_of_a_team_have_their_columns() {
    let (rows, width, out) = (20, 450, 100);
    let x = numbers(1, rows * width);
    let (bias, other) = (numbers(3, out), numbers(4, rows * out));
    let thens = [
        Then::Nothing,
        Then::Activate(Activation::Gelu),
        Then::Add(&other),
        Then::Multiply(&other),
    ];
    for (dtype, halves) in
        DTYPES.map(|dtype| (dtype, false)).into_iter().chain([(DType::Float16, true)])
    {
        let (matrix, _) = matrix(numbers(2, out * width), width, dtype);
        for (isa, then) in
            Isa::available().into_iter().flat_map(|isa| thens.map(|then| (isa, then)))
        {
            let job = LinearJob {
                x: &x,
                weight: matrix.weights(),
                in_features: width,
                out_features: out,
                bias: Some(&bias),
                then,
                halves,
            };
            let mut expected = vec![f32::NAN; rows * out];
            let whole = RowsMut::new(&mut expected, rows, out, out);
            isa::linear(isa, &job, whole, &mut LinearScratch::default());
            let mut found = vec![f32::NAN; rows * out];
            for columns in [64..100, 0..32, 32..64] {
                let view = RowsMut::new(&mut found, rows, out, out).only(columns);
                isa::linear(isa, &job, view, &mut LinearScratch::default());
            }
            assert_eq!(found, expected, "{}, {dtype:?}, {then:?}", isa.name());
        }
    }
}

#[test]
fn what_is_no_number_stays_so_and_in_its_row() {
    let (width, out) = (100, 40);
    let dtypes = [DType::Float16, DType::Int16, DType::Int8];
    for (isa, dtype) in
        Isa::available().into_iter().flat_map(|isa| dtypes.map(|dtype| (isa, dtype)))
    {
        let (matrix, _) = matrix(numbers(2, out * width), width, dtype);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.0; 3 * width];
            x[width + 70] = wrong;
            let found = multiplied_in_halves(isa, &matrix, &x);
            assert!(found[out..2 * out].iter().all(|x| !x.is_finite()), "{}", isa.name());
            let others = found[..out].iter().chain(&found[2 * out..]);
            assert!(others.into_iter().all(|&x| x == 0.0), "{}", isa.name());
        }
    }
}

#[test]
fn extreme_values_stay_what_they_are() {
    for isa in Isa::available() {
        let gelu = activated(isa, Activation::Gelu, &[1e30, -1e30, 0.0, f32::INFINITY, f32::NAN]);
        assert_eq!(gelu[..4], [1e30, 0.0, 0.0, f32::INFINITY], "{}", isa.name());
        assert!(gelu[4].is_nan(), "{}: NaN must not be lost", isa.name());
        let relu = activated(isa, Activation::Relu, &[-1.0, f32::NAN]);
        assert!(relu[0] == 0.0 && relu[1].is_nan(), "{}", isa.name());
        let silu = activated(isa, Activation::Silu, &[-1e4, 1e4, f32::NAN]);
        assert!(silu[0].abs() < 1e-30 && silu[1] == 1e4 && silu[2].is_nan(), "{}", isa.name());
    }
}
