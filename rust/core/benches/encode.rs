//! Whole calls of the engine: `cargo bench -p arrowembed`.
//!
//! The model is `ARROWEMBED_MODEL` (a model folder), or the small random one of the tests, which shows
//! what lies around the arithmetic.

#![allow(clippy::expect_used)] // nothing to measure without a model

use std::hint::black_box;
use std::path::PathBuf;

use arrowembed::{ArrowFile, CacheLimits, Engine};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn model() -> PathBuf {
    std::env::var_os("ARROWEMBED_MODEL").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert")),
        PathBuf::from,
    )
}

fn encode(criterion: &mut Criterion) {
    let unpacked = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::builder()
        .cache(CacheLimits::OFF)
        .cache_dir(unpacked.path())
        .open(model())
        .expect("the model opens");
    let sentence = "A memory map lets several processes share one copy of a file. ";
    let mut group = criterion.benchmark_group("encode");
    for (name, count, repeat) in
        [("one short", 1, 1), ("one long", 1, 30), ("short", 64, 1), ("long", 16, 30)]
    {
        let texts: Vec<String> =
            (0..count).map(|i| format!("{i} {}", sentence.repeat(repeat))).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| engine.encode(black_box(&texts)).expect("vectors"));
        });
    }
}

/// Mapping a model file and checking its structure, without the tokenizer.
fn map(criterion: &mut Criterion) {
    let unpacked = tempfile::tempdir().expect("a temporary folder");
    let engine =
        Engine::builder().cache_dir(unpacked.path()).open(model()).expect("the model opens");
    let path = engine.info().expect("information").path;
    criterion.bench_function("map", |bencher| {
        bencher.iter(|| ArrowFile::open(black_box(&path)).expect("the file opens"));
    });
}

criterion_group!(benches, encode, map);
criterion_main!(benches);
