//! Whole calls of the engine as a share of what this machine's multiply-adds in single precision can reach:
//! `cargo bench -p arrowembed --features measure --bench share`.
//!
//! The model is `ARROWEMBED_MODEL`: a model folder of all-MiniLM-L6-v2, or one with its shapes. It is computed in float32
//! and in float16, or in what the command line names (`-- int16 int8`), one after the other. Each call takes about
//! half a second, and the multiply-adds are measured on as many threads for as long before and after it, so that both see the
//! same machine; the best of what they did in a few milliseconds is printed beside it. The second share is that of multiply-adds
//! with as many instructions beside them, which do nothing, as the widest tile takes to load its numbers.
//! `ARROWEMBED_ISA` chooses the instructions of both.

#![allow(clippy::expect_used, clippy::print_stdout)] // nothing to measure without a model

use std::path::PathBuf;
use std::time::Instant;

use arrowembed::measure::{peak, sustained_ceiling, sustained_peak};
use arrowembed::{CacheLimits, Compute, Engine, isa, set_num_threads};

const ROUNDS: usize = 15;

/// All-MiniLM-L6-v2: layers, width, width of the feed-forward layer.
const SHAPE: [usize; 3] = [6, 384, 1536];

/// Words that are one token each.
const WORDS: [&str; 12] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school",
];

/// Texts of so many tokens, of which two are special ones.
fn texts(lengths: &[usize]) -> Vec<String> {
    let word = |i: usize| WORDS[i * 7919 % 1009 % WORDS.len()];
    let text = |(i, &length): (usize, &usize)| {
        let words: Vec<&str> = (2..length).map(|j| word(i * 31 + j)).collect();
        words.join(" ")
    };
    lengths.iter().enumerate().map(text).collect()
}

/// Operations of a forward pass: four matrices and two of the feed-forward layer, scores and their sums of values.
fn operations(lengths: &[usize]) -> f64 {
    let [layers, width, inner] = SHAPE;
    let of_text = |&n: &usize| {
        let per_token = 2 * (4 * width * width + 2 * width * inner) + 4 * width * n;
        (layers * n * per_token) as f64
    };
    lengths.iter().map(of_text).sum()
}

/// Multiply-adds a second of some threads at once, in floating-point operations.
fn on(threads: usize, rate: fn(&str) -> arrowembed::Result<f64>) -> f64 {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|_| scope.spawn(move || rate(isa()).expect("a peak"))).collect();
        running.into_iter().map(|thread| thread.join().expect("a peak")).sum()
    })
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let model =
        std::env::var_os("ARROWEMBED_MODEL").expect("ARROWEMBED_MODEL names a model folder");
    let open = |compute: Compute| {
        let builder = Engine::builder().cache(CacheLimits::OFF).compute(compute);
        (compute, builder.open(PathBuf::from(&model)).expect("a model"))
    };
    let named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let mut computes: Vec<Compute> =
        named.map(|name| name.parse().expect("an arithmetic")).collect();
    if computes.is_empty() {
        computes = vec![Compute::Float32, Compute::Float16];
    }
    let engines: Vec<_> = computes.into_iter().map(open).collect();
    let spread = |i: usize, low: usize, high: usize| low + i * 7919 % (high - low + 1);
    let sets: [(&str, Vec<usize>); 3] = [
        ("short", (0..200).map(|i| spread(i, 8, 20)).collect()),
        ("mixed", (0..21).map(|i| spread(i, 8, 256)).collect()),
        ("long", vec![256; 11]),
    ];
    println!("{}, {ROUNDS} rounds", isa());
    for threads in [1, 2] {
        set_num_threads(threads).expect("threads");
        let mut shares = vec![vec![Vec::new(); engines.len()]; sets.len()];
        let (mut peaks, mut ceilings, mut best) = (Vec::new(), Vec::new(), 0.0_f64);
        for _ in 0..ROUNDS {
            for ((_, lengths), shares) in sets.iter().zip(&mut shares) {
                let texts = texts(lengths);
                for ((_, engine), shares) in engines.iter().zip(shares) {
                    let before = [sustained_peak, sustained_ceiling].map(|rate| on(threads, rate));
                    let started = Instant::now();
                    let encoded = engine.encode(&texts).expect("vectors");
                    let seconds = started.elapsed().as_secs_f64();
                    assert_eq!(encoded.stats().tokens, lengths.iter().sum::<usize>());
                    let after = [sustained_peak, sustained_ceiling].map(|rate| on(threads, rate));
                    let [peak_now, ceiling] = [0, 1].map(|i| f64::midpoint(before[i], after[i]));
                    let rate = 100.0 * operations(lengths) / seconds;
                    shares.push([rate / peak_now, rate / ceiling]);
                    peaks.push(peak_now / 1e9);
                    ceilings.push(ceiling / 1e9);
                    best = best.max(on(threads, peak) / 1e9);
                }
            }
        }
        println!(
            "{threads} threads, {:.0} GFLOP/s in multiply-adds, {best:.0} at best, {:.0} with as many loads' places",
            median(peaks),
            median(ceilings)
        );
        for ((name, _), shares) in sets.iter().zip(shares) {
            for ((compute, _), shares) in engines.iter().zip(shares) {
                let [of_peak, of_ceiling] =
                    [0, 1].map(|i| median(shares.iter().map(|share| share[i]).collect()));
                println!(
                    "  {name:6} {compute:8} {of_peak:5.1} % of the first, {of_ceiling:5.1} % of the last"
                );
            }
        }
    }
}
