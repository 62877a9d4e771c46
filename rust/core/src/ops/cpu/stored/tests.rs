//! Every type and instruction set against plain expansion and float64 arithmetic.

use arrow_buffer::Buffer;
use proptest::prelude::*;

use super::super::Loader;
use super::super::isa::{self, Isa};
use super::super::kernels::{LinearJob, LinearScratch, Then, Weights};
use super::super::tests::numbers;
use super::super::views::RowsMut;
use super::*;
use crate::gguf::quants::dequantize;
use crate::gguf::types::GgmlType;
use crate::ops::{LinearSpec, Load};
use crate::{Result, Tensor, TensorSource};

/// Bytes that look random, the same for the same seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    numbers(seed, len).into_iter().map(|x| (x * 1e5) as i32 as u8).collect()
}

/// Rows of random blocks whose values are near one.
fn rows(kind: GgmlType, count: usize, width: usize, seed: u64) -> StoredRows {
    let mut data = bytes(seed, count * kind.row_bytes(width).unwrap());
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    for block in data.chunks_exact_mut(kind.block_bytes()) {
        let at = |from: usize, x: f32| (from, half(x));
        let scales = match kind {
            GgmlType::F32 => {
                let x = f32::from(block[0]) / 256.0 - 0.5;
                block.copy_from_slice(&x.to_le_bytes());
                vec![]
            }
            GgmlType::BF16 => {
                block[1] = 0x3f;
                vec![]
            }
            GgmlType::F16 => vec![at(0, f32::from(block[0]) / 256.0 - 0.5)],
            GgmlType::Q4_0 => vec![at(0, 0.1)],
            GgmlType::Q4_1 | GgmlType::Q5_1 => vec![at(0, 0.05), at(2, -0.7)],
            GgmlType::Q5_0 => vec![at(0, 0.06)],
            GgmlType::Q8_0 => vec![at(0, 0.01)],
            GgmlType::Q2K => vec![at(80, 0.04), at(82, 0.05)],
            GgmlType::Q3K => vec![at(108, 0.01)],
            GgmlType::Q4K | GgmlType::Q5K => vec![at(0, 0.002), at(2, 0.02)],
            GgmlType::Q6K => vec![at(208, 0.0004)],
            GgmlType::Q8K => {
                block[..4].copy_from_slice(&0.01_f32.to_le_bytes());
                vec![]
            }
        };
        for (from, scale) in scales {
            block[from..from + 2].copy_from_slice(&scale);
        }
    }
    StoredRows::new(kind, width, Buffer::from_vec(data)).unwrap()
}

fn product(
    isa: Isa,
    parts: &[StoredRows],
    x: &[f32],
    share: Range<usize>,
    scratch: &mut LinearScratch,
) -> Vec<f32> {
    let in_features = parts[0].width();
    let out_features = parts.iter().map(StoredRows::len).sum();
    let weight = Weights::Stored(Stored::new(parts, out_features, in_features));
    let job = LinearJob {
        x,
        weight,
        in_features,
        out_features,
        bias: None,
        then: Then::Nothing,
        halves: false,
    };
    let count = x.len() / in_features;
    let mut found = vec![f32::NAN; count * out_features];
    let out = RowsMut::new(&mut found, count, out_features, out_features).only(share);
    isa::linear(isa, &job, out, scratch);
    found
}

/// The product in float64, and beside each sum that of its terms' magnitudes.
fn expected(parts: &[StoredRows], x: &[f32]) -> Vec<(f64, f64)> {
    let width = parts[0].width();
    let weights: Vec<Vec<f32>> =
        parts.iter().flat_map(|part| (0..part.len()).map(|row| part.expand(row))).collect();
    let dot = |x: &[f32], w: &Vec<f32>| {
        let terms = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    x.chunks_exact(width).flat_map(|x| weights.iter().map(move |w| dot(x, w))).collect()
}

/// Rounding is a share of what has been added up, so it grows with the terms; `lower` is allowed beside it.
#[track_caller]
fn assert_near(isa: Isa, found: &[f32], expected: &[(f64, f64)], lower: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &(sum, size))) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - sum).abs();
        assert!(
            difference <= lower + size * 2.0_f64.powi(-21),
            "{} at {i}: {found} instead of {sum}, off by {difference:e}",
            isa.name()
        );
    }
}

/// Of two bfloat16 for each number, the product of the lower parts is left out.
fn lower_parts(isa: Isa) -> f64 {
    if isa.name() == "amx" { 4e-4 } else { 0.0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_instruction_set_expands_the_same_numbers(data in prop::collection::vec(any::<u8>(), 2 * 292)) {
        for kind in GgmlType::ALL {
            let len = 2 * kind.block_len() * if kind.block_len() == 1 { 9 } else { 1 };
            let bytes = &data[..kind.row_bytes(len).unwrap()];
            let mut expected = vec![f32::NAN; len];
            dequantize(kind, bytes, &mut expected);
            for isa in Isa::available() {
                let mut found = vec![f32::NAN; len];
                isa::expand(isa, kind, bytes, &mut found);
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    // Any scale occurs, NaN and infinity too.
                    let same = a == b || a.is_nan() && b.is_nan();
                    prop_assert!(same, "{} {kind:?} {i}: {a} {b}", isa.name());
                }
            }
        }
    }

    #[test]
    fn it_is_the_matrix_product(
        count in 0_usize..80,
        blocks in 1_usize..13,
        first in 0..GgmlType::ALL.len(),
        second in 0..GgmlType::ALL.len(),
        (above, below) in (1_usize..40, 1_usize..40),
        seed in 0_u64..1000,
    ) {
        let kinds = [GgmlType::ALL[first], GgmlType::ALL[second]];
        // Whole blocks of both; of floats any number.
        let width = match kinds.map(GgmlType::block_len).into_iter().max() {
            Some(1) => blocks * 37,
            Some(256) => 256 * blocks.div_ceil(4),
            block => blocks * block.unwrap_or(1),
        };
        let parts = [rows(kinds[0], above, width, seed), rows(kinds[1], below, width, seed + 1)];
        let (x, out) = (numbers(seed + 2, count * width), above + below);
        let expected = expected(&parts, &x);
        for isa in Isa::available() {
            // Scratch memory that has been used for more rows, and for numbers that are none.
            let mut scratch = LinearScratch::default();
            product(isa, &parts, &vec![f32::NAN; (count + 20) * width], 0..out, &mut scratch);
            let found = product(isa, &parts, &x, 0..out, &mut scratch);
            assert_near(isa, &found, &expected, lower_parts(isa));
            for (r, x) in x.chunks_exact(width).enumerate() {
                let alone = product(isa, &parts, x, 0..out, &mut scratch);
                prop_assert_eq!(&alone, &found[r * out..][..out], "{} row {}", isa.name(), r);
            }
            // What a member of a team computes.
            let middle = (out / 2).next_multiple_of(LANES).min(out);
            let upper = product(isa, &parts, &x, middle..out, &mut scratch);
            for r in 0..count {
                let columns = r * out + middle..(r + 1) * out;
                prop_assert_eq!(&upper[columns.clone()], &found[columns]);
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_the_cache_pass_in_spans() {
    let (count, width, out) = (300, 2560, 45);
    let parts = [rows(GgmlType::Q4K, out, width, 7)];
    assert!(span(count) < width / 2);
    let x = numbers(8, count * width);
    let expected = expected(&parts, &x);
    for isa in Isa::available() {
        let found = product(isa, &parts, &x, 0..out, &mut LinearScratch::default());
        // Sums of ten times as many numbers as above.
        assert_near(isa, &found, &expected, 10.0 * lower_parts(isa));
        let alone = product(isa, &parts, &x[..width], 0..out, &mut LinearScratch::default());
        assert_eq!(alone, found[..out], "{}", isa.name());
    }
}

/// Matrices that are stored in rows.
struct Matrices(Vec<(&'static str, StoredRows)>);

impl TensorSource for Matrices {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn get(&self, _: &str) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn stored_rows(&self, name: &str) -> Result<Option<StoredRows>> {
        Ok(self.0.iter().find(|(own, _)| *own == name).map(|(_, rows)| rows.clone()))
    }
}

#[test]
fn a_matrix_is_loaded_whole_or_from_its_parts() {
    let matrix = |count, seed| rows(GgmlType::Q8_0, count, 64, seed);
    let [above, below] = [matrix(3, 1), matrix(5, 2)];
    let together = [above.data().as_slice(), below.data()].concat();
    let whole = StoredRows::new(GgmlType::Q8_0, 64, Buffer::from_vec(together)).unwrap();
    let fused = LinearSpec::fused("m", "both", &["above", "below"], 8, 64).with_bias(false);
    let lower = LinearSpec::rows_of("m", "both", "lower", 3..8, 64).with_bias(false);
    let x = numbers(3, 64);
    let values = |source: &Matrices, spec: &LinearSpec| {
        let matrix = Loader::new(source).linear(spec).unwrap();
        let Weights::Stored(stored) = matrix.weights() else { panic!("not as stored") };
        product(
            Isa::chosen(),
            stored.parts,
            &x,
            0..stored.out_features,
            &mut LinearScratch::default(),
        )
    };
    let parts = Matrices(vec![("m.above.weight", above.clone()), ("m.below.weight", below)]);
    let one = Matrices(vec![("m.both.weight", whole)]);
    let all = values(&parts, &fused);
    assert_eq!(values(&one, &fused), all);
    assert_eq!(values(&one, &lower), all[3..]);

    let wrong = |source: &Matrices, spec: &LinearSpec| {
        Loader::new(source).linear(spec).err().unwrap().to_string()
    };
    let narrow = rows(GgmlType::Q8_0, 5, 32, 4);
    for (source, spec, named) in [
        (&one, LinearSpec { out_features: 9, ..fused.clone() }, "m.both.weight"),
        (
            &one,
            LinearSpec::rows_of("m", "both", "lower", 3..9, 64).with_bias(false),
            "m.both.weight",
        ),
        (&parts, LinearSpec { out_features: 9, ..fused.clone() }, "m.below.weight"),
        (&parts, LinearSpec { out_features: 2, ..fused.clone() }, "m.above.weight"),
        (
            &Matrices(vec![("m.above.weight", above), ("m.below.weight", narrow)]),
            fused,
            "m.below.weight",
        ),
    ] {
        assert!(wrong(source, &spec).contains(named), "{}", wrong(source, &spec));
    }
}
