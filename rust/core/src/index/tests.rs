//! Against brute force in double precision, and files that are not what they should be.

use std::path::Path;

use arrow_buffer::Buffer;
use proptest::prelude::*;

use super::bound::{Bounds, threshold};
use super::exact::{norm, similarity};
use super::*;
use crate::ops::cpu::Isa;
use crate::ops::cpu::scan::{Job, Scanner, Terms};
use crate::weights::DType;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];
const DTYPES: [DType; 3] = [DType::Float32, DType::Float16, DType::Int8];

/// Numbers in -1..1, the same for the same seed.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn written(folder: &Path, name: &str, vectors: &[f32], dim: usize, dtype: DType) -> VectorFile {
    let path = folder.join(name);
    VectorFile::write(&path, vectors, dim, dtype).unwrap();
    VectorFile::open(&path).unwrap()
}

/// The best rows of one query, by computing the similarity of all of them.
fn brute_force(
    vectors: &[f32],
    query: &[f32],
    k: usize,
    metric: Metric,
    kept: &[bool],
) -> Vec<u64> {
    let mut scored: Vec<(f64, u64)> = vectors
        .chunks(query.len())
        .zip(kept)
        .enumerate()
        .filter(|(_, (_, kept))| **kept)
        .map(|(row, (vector, _))| {
            (similarity(metric, query, norm(query), vector, norm(vector)), row as u64)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().take(k).map(|(_, row)| row).collect()
}

/// Vectors with what makes a search hard: equal ones, nearly equal ones, zeros and other magnitudes.
fn hard(seed: u64, rows: usize, dim: usize) -> Vec<f32> {
    let mut vectors = numbers(seed, rows * dim);
    for row in 1..rows {
        let (before, vector) = vectors[(row - 1) * dim..][..2 * dim].split_at_mut(dim);
        match (row as u64 ^ seed) % 9 {
            0 => vector.copy_from_slice(before),
            1 => {
                vector.copy_from_slice(before);
                vector[row % dim] = vector[row % dim].next_up();
            }
            2 => vector.fill(0.0),
            3 => vector.iter_mut().for_each(|x| *x *= 1e-3),
            4 => vector.iter_mut().for_each(|x| *x *= 100.0),
            _ => {}
        }
    }
    vectors
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_best_rows_in_their_order(
        dim in prop_oneof![1_usize..40, 300_usize..400],
        rows in 1_usize..400,
        count in prop_oneof![Just(1_usize), 2_usize..6, Just(20_usize)],
        k in 1_usize..30,
        share in 0_u8..=4,
        seed: u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let all = hard(seed, rows, dim);
        let queries = hard(seed ^ 7, count, dim);
        let bits: Vec<u8> = numbers(seed, rows.div_ceil(8) * 8)
            .chunks(8)
            .map(|eight| (0..8).fold(0, |bits, i| {
                bits | u8::from((eight[i] + 1.0) * 2.0 <= f32::from(share)) << i
            }))
            .collect();
        let first = rows / 3;
        for dtype in DTYPES {
            let mut files = vec![written(folder.path(), "second", &all[first * dim..], dim, dtype)];
            if first > 0 {
                files.insert(0, written(folder.path(), "first", &all[..first * dim], dim, dtype));
            }
            let mut stored = Vec::new();
            for file in &files {
                stored.extend(file.take(&(0..file.len()).collect::<Vec<_>>()).unwrap());
            }
            let files: Vec<_> = files.iter().collect();
            // The bitmap is of the last file, where all rows of the first are searched.
            let last = files[files.len() - 1].len();
            let bits = &bits[..last.div_ceil(8)];
            let kept: Vec<bool> = (0..rows)
                .map(|row| row < first || bits[(row - first) / 8] >> ((row - first) % 8) & 1 == 1)
                .collect();
            let mut keep = vec![None; files.len() - 1];
            keep.push(Some(bits));
            for metric in METRICS {
                let options = SearchOptions::new(k).metric(metric).keep(keep.clone());
                let found = search_vectors(&files, &queries, dim, &options, None).unwrap();
                prop_assert_eq!(found.per_query(), k.min(kept.iter().filter(|&&kept| kept).count()));
                for (q, query) in queries.chunks(dim).enumerate() {
                    let found = &found.rows()[q * found.per_query()..][..found.per_query()];
                    let expected = brute_force(&stored, query, k, metric, &kept);
                    prop_assert_eq!(found, expected, "{} {} of {}", dtype.name(), metric, q);
                }
            }
        }
    }

    #[test]
    fn no_similarity_is_above_its_bound(
        dim in 1_usize..400,
        count in prop_oneof![Just(1_usize), Just(5_usize)],
        exponent in -45_i32..45,
        seed: u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let magnitude = 2.0_f32.powi(exponent);
        let scaled = |numbers: Vec<f32>| numbers.into_iter().map(|x| x * magnitude).collect::<Vec<_>>();
        let vectors = scaled(hard(seed, 40, dim));
        let queries = hard(seed ^ 7, count, dim);
        for dtype in [DType::Float32, DType::Int8] {
            let file = written(folder.path(), "vectors", &vectors, dim, dtype);
            for isa in Isa::available() {
                let mut scanner = Scanner::new(isa);
                let mut dots = vec![0.0; count * 40];
                scanner.dots(&Job { vectors: file.scanned(), queries: &queries, dim }, &mut dots);
                for metric in METRICS {
                    let mut bounds = Bounds::default();
                    bounds.fill(metric, scanner.error(dim), (0..40).map(|row| file.known(row)));
                    let Bounds { scale, gain, loss } = &bounds;
                    for (query, dots) in queries.chunks(dim).zip(dots.chunks(40)) {
                        let norm = norm(query);
                        let terms = Terms { dots, scale, gain, loss, norm: norm as f32 };
                        for (row, vector) in vectors.chunks(dim).enumerate() {
                            let exact = similarity(metric, query, norm, vector, file.norm(row));
                            let reached = threshold(metric, dim, norm, exact);
                            let bound = terms.bound(row);
                            prop_assert!(bound >= reached || bound.is_nan(), "{bound} {reached}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_file_with_wrong_bytes_is_refused_or_read_within_its_bounds(
        dtype in prop_oneof![Just(DType::Float32), Just(DType::Float16), Just(DType::Int8)],
        at: prop::sample::Index,
        bytes in prop::collection::vec(any::<u8>(), 1..9),
        length: Option<prop::sample::Index>,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors");
        VectorFile::write(&path, &numbers(1, 60), 6, dtype).unwrap();
        let mut file = std::fs::read(&path).unwrap();
        let at = at.index(file.len());
        for (to, byte) in file[at..].iter_mut().zip(bytes) {
            *to = byte;
        }
        if let Some(length) = length {
            file.truncate(length.index(file.len()));
        }
        if let Ok(file) = VectorFile::from_buffer(Buffer::from(file), &path) {
            let rows: Vec<usize> = (0..file.len()).collect();
            let vectors = file.take(&rows).unwrap();
            prop_assert_eq!(vectors.len(), file.len() * file.dimension());
            prop_assert_eq!(file.to_arrow().value_length() as usize, file.dimension());
            let query = vec![1.0; file.dimension()];
            for metric in METRICS {
                let options = SearchOptions::new(5).metric(metric);
                let found = search_vectors(&[&file], &query, query.len(), &options, None).unwrap();
                prop_assert_eq!(found.rows().len(), 5.min(file.len()));
            }
            let _ = file.verify(None);
        }
    }
}

#[test]
fn a_search_that_is_stopped_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "vectors", &numbers(2, 1 << 14), 64, DType::Float32);
    // More than are searched at once: between them it is asked however fast that is.
    let queries = numbers(3, 300 * 64);
    let mut stop = |_| std::ops::ControlFlow::Break(());
    let options = SearchOptions::new(10);
    let stopped = search_vectors(&[&file], &queries, 64, &options, Some(&mut stop));
    assert_eq!(stopped.unwrap_err().code(), "interrupted");
    assert_eq!(file.verify(Some(&mut stop)).unwrap_err().code(), "interrupted");
    file.verify(None).unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    VectorFile::write(&path, &numbers(1, 60), 6, DType::Int8).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let reason = |bytes: &[u8]| {
        let error = VectorFile::from_buffer(Buffer::from(bytes), &path).unwrap_err();
        assert_eq!(error.code(), "invalid_store");
        error.to_string()
    };
    assert!(reason(b"nothing").contains("begin as an Arrow file"));
    assert!(reason(&whole[..whole.len() - 1]).contains("was cut short"));
    let key = VERSION_KEY_BYTES;
    let at = whole.windows(key.len()).position(|window| window == key).unwrap();
    let mut other = whole.clone();
    other[at] ^= 1;
    assert!(reason(&other).contains("no file of vectors"));
    let file = VectorFile::from_buffer(Buffer::from(&whole[..]), &path).unwrap();
    file.verify(None).unwrap();
    let vectors = file.take(&[0]).unwrap();
    let first = vectors[0].to_le_bytes();
    let at = whole.windows(4).position(|window| window == first).unwrap();
    let mut other = whole;
    other[at] ^= 1;
    let file = VectorFile::from_buffer(Buffer::from(other), &path).unwrap();
    let error = file.verify(None).unwrap_err().to_string();
    assert!(error.contains("column \"vector\" does not match its checksum"), "{error}");
}

const VERSION_KEY_BYTES: &[u8] = super::file::VERSION_KEY.as_bytes();
