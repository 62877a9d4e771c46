//! Every architecture against the vectors of its reference implementation, on small models with random weights.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects by failing

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use arrowembed::{
    CacheLimits, Compute, ConvertOptions, EncodeOptions, Engine, convert, set_num_threads,
};
use common::{array, bits, expected, largest_difference, model, texts};

const FIXTURES: [&str; 13] = [
    "bert",
    "bert-mean",
    "distilbert",
    "gemma3-embedding",
    "jina-bert-v2",
    "modernbert",
    "mpnet",
    "nomic-bert",
    "qwen2",
    "qwen2-bidir",
    "qwen3",
    "roberta",
    "xlm-roberta",
];

fn open(path: &Path, cache: &Path, device: &str) -> Engine {
    Engine::builder().cache(CacheLimits::OFF).cache_dir(cache).device(device).open(path).unwrap()
}

/// What is expected of the texts' vectors; one without tokens, which Hugging Face makes NaN, is zero here.
fn expected_vectors(name: &str, array: &str) -> Vec<f32> {
    expected(name, array).iter().map(|&x| if x.is_nan() { 0.0 } else { x }).collect()
}

#[test]
fn vectors_are_those_of_hugging_face() {
    let cache = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let all = texts(name);
        let engine = open(&model(name), cache.path(), "cpu");
        let tokens = engine.tokenize(&all.texts, &EncodeOptions::new(), None).unwrap();
        for (i, tokens) in tokens.iter().enumerate() {
            assert_eq!(tokens.ids, all.input_ids[i], "{name}: tokens of text {i}");
            assert_eq!(tokens.full_length, all.untruncated_lengths[i], "{name}: text {i}");
        }
        let vectors = engine.encode(&all.texts).unwrap();
        let difference =
            largest_difference(vectors.as_slice(), &expected_vectors(name, "embeddings"));
        assert!(difference < 2e-6, "{name}: {difference}");

        let hidden = engine.encode_tokens(&all.texts).unwrap();
        for text in [0, 1, 3] {
            let expected = expected(name, &format!("last_hidden_{text}"));
            let difference = largest_difference(&hidden.texts()[text], &expected);
            assert!(difference < 4e-5, "{name}: token vectors of text {text}: {difference}");
        }
    }
}

#[test]
fn prompts_are_those_of_hugging_face() {
    let cache = tempfile::tempdir().unwrap();
    let mut prompted = 0;
    for name in FIXTURES {
        let all = texts(name);
        let engine = open(&model(name), cache.path(), "cpu");
        for (i, text) in all.prompted_texts.iter().enumerate() {
            // The fixture has the texts with their prompts already in front.
            let tokens = engine.tokenize(&[text], &EncodeOptions::new(), None).unwrap();
            assert_eq!(tokens[0].ids, all.prompted_input_ids[i], "{name}: {i}");
            prompted += 1;
        }
        if all.prompted_texts.is_empty() {
            continue;
        }
        let vectors = engine.encode(&all.prompted_texts).unwrap();
        let expected = expected_vectors(name, "prompted_embeddings");
        let difference = largest_difference(vectors.as_slice(), &expected);
        assert!(difference < 2e-6, "{name}: {difference}");
    }
    assert!(prompted > 0);
}

#[cfg(feature = "candle")]
#[test]
fn candle_and_the_kernels_agree() {
    let cache = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let texts: Vec<String> = texts(name).texts;
        let ours = open(&model(name), cache.path(), "cpu").encode(&texts).unwrap();
        let candle = open(&model(name), cache.path(), "candle").encode(&texts).unwrap();
        let difference = largest_difference(ours.as_slice(), candle.as_slice());
        assert!(difference < 4e-6, "{name}: {difference}");
    }
}

#[test]
fn batches_and_threads_change_no_bit() {
    let cache = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        // One text fills all positions, so that two threads divide its rows.
        let mut texts = texts(name).texts;
        texts.push("a much longer text than the model reads ".repeat(40));
        for compute in
            [Compute::Float32, Compute::Float16, Compute::BFloat16, Compute::Int16, Compute::Int8]
        {
            let builder = Engine::builder().cache(CacheLimits::OFF).cache_dir(cache.path());
            let engine = builder.compute(compute).open(model(name)).unwrap();
            set_num_threads(2).unwrap();
            let together = engine.encode(&texts).unwrap();
            for threads in [1, 2] {
                set_num_threads(threads).unwrap();
                for (i, text) in texts.iter().enumerate() {
                    let alone = engine.encode(&[text]).unwrap();
                    assert_eq!(
                        bits(alone.row(0).unwrap()),
                        bits(together.row(i).unwrap()),
                        "{name}: text {i}, {compute}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn converted_models_keep_their_vectors() {
    let folder = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let all = texts(name).texts;
        let wanted = expected_vectors(name, "embeddings");
        // Random weights make more of rounding than trained ones.
        for (dtype, layout, least) in [
            ("float32", "packed", 1.0 - 1e-9),
            ("float32", "row_major", 1.0 - 1e-9),
            ("float16", "packed", 0.9999),
            ("bfloat16", "packed", 0.995),
            ("int16", "packed", 0.9999),
            ("int8", "packed", 0.9),
        ] {
            let target = folder.path().join("converted");
            let options = ConvertOptions {
                dtype: dtype.parse().unwrap(),
                arrangement: layout.parse().unwrap(),
                ..ConvertOptions::default()
            };
            convert(&model(name), &target, &options, &mut |_, _| ControlFlow::Continue(()))
                .unwrap();
            let vectors = open(&target, folder.path(), "cpu").encode(&all).unwrap();
            for (i, (found, wanted)) in vectors.rows().zip(wanted.chunks(vectors.dim())).enumerate()
            {
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let lengths = (dot(found, found) * dot(wanted, wanted)).sqrt();
                let cosine = if lengths == 0.0 { 1.0 } else { dot(found, wanted) / lengths };
                assert!(cosine > least, "{name}, {dtype}, {layout}, text {i}: {cosine}");
            }
        }
    }
}

fn gguf(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/gguf").join(name)
}

#[test]
fn gguf_files_of_floats_have_the_vectors_of_hugging_face() {
    let cache = tempfile::tempdir().unwrap();
    let mut files = 0;
    for name in FIXTURES {
        for kind in ["F32", "F16"] {
            let path = gguf(&format!("{name}-{kind}.gguf"));
            if !path.is_file() {
                continue;
            }
            files += 1;
            let all = texts(name);
            let limit = all.max_seq_length;
            let builder = Engine::builder().cache(CacheLimits::OFF).cache_dir(cache.path());
            let engine = builder.max_seq_length(limit).open(&path).unwrap();
            let tokens = engine.tokenize(&all.texts, &EncodeOptions::new(), None).unwrap();
            for (i, tokens) in tokens.iter().enumerate() {
                assert_eq!(tokens.ids, all.input_ids[i], "{name}-{kind}: tokens of text {i}");
            }
            let vectors = engine.encode(&all.texts).unwrap();
            let difference =
                largest_difference(vectors.as_slice(), &expected_vectors(name, "embeddings"));
            assert!(difference < 2e-6, "{name}-{kind}: {difference}");
        }
    }
    assert_eq!(files, 14);
}

#[test]
fn gguf_files_of_blocks_have_the_vectors_of_what_they_hold() {
    let cache = tempfile::tempdir().unwrap();
    for (model, kinds) in [
        ("bert-256", &["Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"][..]),
        ("qwen2-256", &["Q4_0", "Q4_K_M", "Q8_0"]),
    ] {
        for kind in kinds {
            let record = std::fs::read(gguf(&format!("{model}-{kind}.json"))).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            let texts: Vec<String> = serde_json::from_value(record["texts"].clone()).unwrap();
            let ids: Vec<Vec<u32>> =
                serde_json::from_value(record["hf_token_ids"].clone()).unwrap();
            let longest = ids.iter().map(Vec::len).max().unwrap();
            let builder = Engine::builder().cache(CacheLimits::OFF).cache_dir(cache.path());
            let path = gguf(&format!("{model}-{kind}.gguf"));
            let engine = builder.max_seq_length(longest).open(&path).unwrap();
            let tokens = engine.tokenize(&texts, &EncodeOptions::new(), None).unwrap();
            for (i, tokens) in tokens.iter().enumerate() {
                assert_eq!(tokens.ids, ids[i], "{model}-{kind}: tokens of text {i}");
            }
            let vectors = engine.encode(&texts).unwrap();
            let expected: Vec<f32> =
                array(&gguf(&format!("{model}-{kind}.npz")), "dequant_embeddings")
                    .iter()
                    .map(|&x| if x.is_nan() { 0.0 } else { x })
                    .collect();
            let difference = largest_difference(vectors.as_slice(), &expected);
            // With AMX, numbers are taken for the sum of two bfloat16.
            assert!(difference < 5e-6, "{model}-{kind}: {difference}");

            let builder = Engine::builder().cache(CacheLimits::OFF).device("candle");
            let candle = builder.max_seq_length(longest).open(&path).unwrap();
            let difference =
                largest_difference(candle.encode(&texts).unwrap().as_slice(), &expected);
            assert!(difference < 5e-6, "{model}-{kind} on candle: {difference}");
        }
    }
}
