//! The engine as its users see it, on small models with random weights.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects by failing

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrowembed::{
    CacheLimits, Compute, ConvertOptions, EncodeOptions, Engine, Error, Normalize, Pooling,
    convert, num_threads, set_num_threads,
};
use common::{bits, expected, largest_difference, model, texts};
use proptest::prelude::*;

/// Where the tests unpack their models.
static UNPACKED: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());

fn open(name: &str, limits: CacheLimits) -> Engine {
    Engine::builder().cache(limits).cache_dir(UNPACKED.path()).open(model(name)).unwrap()
}

static BERT: LazyLock<Engine> = LazyLock::new(|| open("bert", CacheLimits::OFF));
static INT16: LazyLock<Engine> = LazyLock::new(|| computing(Compute::Int16));
static FLOAT16: LazyLock<Engine> = LazyLock::new(|| computing(Compute::Float16));
static BFLOAT16: LazyLock<Engine> = LazyLock::new(|| computing(Compute::BFloat16));
static INT8: LazyLock<Engine> = LazyLock::new(|| computing(Compute::Int8));

fn computing(compute: Compute) -> Engine {
    let builder = Engine::builder().compute(compute).cache(CacheLimits::OFF);
    builder.cache_dir(UNPACKED.path()).open(model("bert")).unwrap()
}

/// Engines of every arithmetic.
fn every_compute() -> [&'static Engine; 5] {
    [&BERT, &FLOAT16, &BFLOAT16, &INT16, &INT8]
}

/// Held by tests that change the process's number of threads.
fn threads() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn token_vectors_are_those_of_hugging_face() {
    let all = texts("bert");
    let tokens = BERT.encode_tokens(&all.texts).unwrap();
    for text in [0, 1, 3] {
        let expected = expected("bert", &format!("last_hidden_{text}"));
        let difference = largest_difference(&tokens.texts()[text], &expected);
        assert!(difference < 1e-5, "text {text}: {difference}");
        assert_eq!(tokens.texts()[text].len(), all.input_ids[text].len() * tokens.dim());
    }
}

/// What makes a single micro-batch is computed by several threads together when nothing else runs: the columns
/// of a text of 48 tokens, with two threads the rows of two such texts, the second thread's first row being in
/// the first text.
#[test]
fn few_texts_on_several_threads_are_the_same_and_never_stuck() {
    let long = "the quick brown fox jumps over the lazy dog ".repeat(20);
    for texts in [&[&long[..]][..], &[&long, "the quick brown", &long]] {
        on_several_threads(texts);
    }
}

fn on_several_threads(texts: &[&str]) {
    let _alone = threads();
    let before = num_threads().unwrap();
    for engine in every_compute() {
        set_num_threads(1).unwrap();
        let expected = bits(engine.encode(texts).unwrap().as_slice());
        for count in 1..6 {
            set_num_threads(count).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            assert_eq!(bits(engine.encode(texts).unwrap().as_slice()), expected);
                        }
                    });
                }
            });
        }
    }
    set_num_threads(before).unwrap();
}

#[cfg(feature = "candle")]
#[test]
fn candle_gives_the_same_vectors() {
    let texts = texts("bert").texts;
    let builder = Engine::builder().device("candle").cache_dir(UNPACKED.path());
    let candle = builder.open(model("bert")).unwrap();
    let difference = largest_difference(
        candle.encode(&texts).unwrap().as_slice(),
        BERT.encode(&texts).unwrap().as_slice(),
    );
    assert!(difference < 2e-6, "{difference}");
    assert!(!candle.info().unwrap().mapped);
}

/// candle multiplies the numbers that coarser ones stand for by activations that are not rounded.
#[cfg(feature = "candle")]
#[test]
fn candle_reads_models_of_coarser_numbers() {
    let (folder, texts) = (tempfile::tempdir().unwrap(), texts("bert").texts);
    for (dtype, engine, tolerance) in [
        ("float16", &FLOAT16, 5e-3),
        ("bfloat16", &BFLOAT16, 1e-2),
        ("int16", &INT16, 2e-4),
        ("int8", &INT8, 2e-2),
    ] {
        let target = folder.path().join(dtype);
        let options = ConvertOptions { dtype: dtype.parse().unwrap(), ..Default::default() };
        convert(&model("bert"), &target, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let candle = Engine::builder().device("candle").open(&target).unwrap();
        assert_eq!(candle.info().unwrap().compute, Compute::Float32);
        let vectors = candle.encode(&texts).unwrap();
        let ours = engine.encode(&texts).unwrap();
        let difference = largest_difference(vectors.as_slice(), ours.as_slice());
        assert!(difference < tolerance, "{dtype}: {difference}");
    }
}

#[test]
fn arithmetic_is_chosen_when_a_model_is_opened() {
    let texts = texts("bert").texts;
    let folder = tempfile::tempdir().unwrap();
    let mut seen = vec![BERT.encode(&texts).unwrap().into_vec()];
    for engine in &every_compute()[1..] {
        let compute = engine.info().unwrap().compute;
        let vectors = engine.encode(&texts).unwrap().into_vec();
        let target = folder.path().join(compute.name());
        let options =
            ConvertOptions { dtype: compute.name().parse().unwrap(), ..Default::default() };
        convert(&model("bert"), &target, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
        // Weights of float16 are computed in float32 unless half precision is asked for.
        let stored = Engine::open(&target).unwrap().info().unwrap().compute;
        let expected = if compute == Compute::Float16 { Compute::Float32 } else { compute };
        assert_eq!(stored, expected);
        let converted = Engine::builder().compute(compute).open(&target).unwrap();
        assert_eq!(converted.info().unwrap().compute, compute);
        assert_eq!(bits(converted.encode(&texts).unwrap().as_slice()), bits(&vectors));
        seen.push(vectors);
    }
    let [float32, float16, bfloat16, int16, int8] = &seen[..] else { panic!() };
    let far = largest_difference(float32, int8);
    for (near, name) in [(float16, "float16"), (bfloat16, "bfloat16"), (int16, "int16")] {
        let near = largest_difference(float32, near);
        // These weights are numbers of float16: where it is computed in float32, nothing is rounded.
        let rounded = name != "float16" || matches!(arrowembed::isa(), "avx512fp16" | "amx");
        assert_eq!(near > 0.0, rounded, "{name}: {near}");
        assert!(near < 1e-2 && near < far && far < 3e-2, "{name}: {near} {far}");
    }
}

#[test]
fn integers_are_for_the_cpu() {
    let builder = Engine::builder().compute(Compute::Int16).device("cuda:0");
    let error = builder.open(model("bert")).unwrap_err().to_string();
    assert!(error.starts_with("compute: is int16; device \"cuda:0\" allows auto"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is in the batch, in whatever order and on however many threads, a text's vector is
    /// bit for bit that of the text alone.
    #[test]
    fn batched_is_single(
        order in prop::collection::vec(0_usize..15, 0..60),
        words in prop::collection::vec("[a-z ]{0,120}", 0..10),
        threads in 1_usize..6,
        engine in prop::sample::select(every_compute().to_vec()),
        max_texts in prop::option::of(1_usize..9),
    ) {
        let known = texts("bert").texts;
        let mut batch: Vec<String> = order.iter().map(|&i| known[i].clone()).collect();
        batch.extend(words);
        let mut options = EncodeOptions::new();
        if let Some(max_texts) = max_texts {
            options = options.max_texts(max_texts);
        }

        let _alone = self::threads();
        let before = num_threads().unwrap();
        set_num_threads(threads).unwrap();
        let batched = engine.encode_with(&batch, &options, None).unwrap();
        set_num_threads(before).unwrap();

        prop_assert_eq!(batched.len(), batch.len());
        for (vector, text) in batched.rows().zip(&batch) {
            let single = engine.encode(std::slice::from_ref(text)).unwrap();
            prop_assert_eq!(bits(vector), bits(single.as_slice()), "{:?}", text);
        }
    }
}

#[test]
fn an_engine_is_for_all_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&*BERT);

    let cached = open("bert", CacheLimits { entries: Some(5), bytes: None });
    let texts = texts("bert").texts;
    let expected = bits(BERT.encode(&texts).unwrap().as_slice());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(bits(cached.encode(&texts).unwrap().as_slice()), expected);
                }
            });
        }
    });
    assert_eq!(cached.totals().texts, 8 * 5 * texts.len());
}

#[test]
fn no_texts_give_no_vectors() {
    let none = BERT.encode::<&str>(&[]).unwrap();
    assert_eq!((none.len(), none.dim(), none.is_empty()), (0, 64, true));
    assert!(BERT.encode_tokens::<String>(&[]).unwrap().texts().is_empty());
}

#[test]
fn statistics_count_what_was_done() {
    let engine = open("bert", CacheLimits::default());
    let all = texts("bert");
    let tokens: usize = all.input_ids.iter().map(Vec::len).sum();
    let cut = all.untruncated_lengths.iter().filter(|&&n| n > 48).count();
    assert!(cut > 0);

    let first = engine.encode(&all.texts).unwrap().stats();
    assert_eq!(
        (first.texts, first.tokens, first.truncated, first.cache_hits),
        (15, tokens, cut, 0)
    );
    let twice: Vec<_> = all.texts.iter().chain(&all.texts).collect();
    let second = engine.encode(&twice).unwrap().stats();
    assert_eq!((second.texts, second.cache_hits), (30, 30));
    assert_eq!((second.tokens, second.truncated), (2 * tokens, 2 * cut));

    let totals = engine.totals();
    assert_eq!((totals.texts, totals.tokens, totals.truncated), (45, 3 * tokens, 3 * cut));
    let cache = engine.cache_info();
    assert_eq!((cache.entries, cache.hits, cache.misses), (15, 30, 15));
    engine.cache_clear();
    assert_eq!(engine.cache_info().entries, 0);
}

#[test]
fn a_cached_vector_is_the_computed_one_under_every_option() {
    let cached = open("bert", CacheLimits::default());
    let texts = texts("bert").texts;
    let choices = [
        EncodeOptions::new(),
        EncodeOptions::new().prompt("query: "),
        EncodeOptions::new().pooling(Pooling::Max),
        EncodeOptions::new().normalize(Normalize::None),
        EncodeOptions::new().truncate_dim(16),
        EncodeOptions::new().truncate_dim(16).normalize(Normalize::P(3.0)),
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        for options in &choices {
            let vectors = cached.encode_with(&texts, options, None).unwrap();
            let computed = BERT.encode_with(&texts, options, None).unwrap();
            assert_eq!(bits(vectors.as_slice()), bits(computed.as_slice()), "{options:?}");
            seen.push(bits(vectors.as_slice()));
        }
    }
    assert_eq!(seen[..6], seen[6..]);
    assert!((1..6).all(|i| seen[i] != seen[0]));
}

#[test]
fn pooling_and_normalisation_follow_from_the_token_vectors() {
    let text = ["The quick brown fox"];
    let tokens = BERT.encode_tokens(&text).unwrap();
    let (hidden, dim) = (&tokens.texts()[0], tokens.dim());
    let pooled = |pooling| {
        let options = EncodeOptions::new().pooling(pooling).normalize(Normalize::None);
        BERT.encode_with(&text, &options, None).unwrap().into_vec()
    };
    assert_eq!(pooled(Pooling::Cls), hidden[..dim]);
    assert_eq!(pooled(Pooling::Last), hidden[hidden.len() - dim..]);
    let mean = (0..dim).map(|i| {
        let column = hidden.iter().skip(i).step_by(dim);
        column.map(|&x| f64::from(x)).sum::<f64>() / (hidden.len() / dim) as f64
    });
    let mean: Vec<f32> = mean.map(|x| x as f32).collect();
    assert!(largest_difference(&pooled(Pooling::Mean), &mean) < 1e-6);

    let options = EncodeOptions::new().truncate_dim(16);
    let cut = BERT.encode_with(&text, &options, None).unwrap();
    let length: f32 = cut.as_slice().iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6, "renormalised");
    let full = BERT.encode(&text).unwrap();
    let ratio = cut.as_slice()[0] / full.as_slice()[0];
    assert!(cut.as_slice().iter().zip(full.as_slice()).all(|(a, b)| (a - b * ratio).abs() < 1e-5));
}

#[test]
fn a_prompt_is_a_text_before_the_text() {
    let options = EncodeOptions::new().prompt("Hello ");
    let prompted = BERT.encode_with(&["world"], &options, None).unwrap();
    let joined = BERT.encode(&["Hello world"]).unwrap();
    assert_eq!(bits(prompted.as_slice()), bits(joined.as_slice()));
}

#[test]
fn pooling_leaves_a_prompt_out_where_the_model_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let mut go_on = |_, _| ControlFlow::Continue(());
    convert(&model("bert-mean"), &target, &ConvertOptions::default(), &mut go_on).unwrap();
    let file = target.join("metadata.json");
    let metadata = std::fs::read_to_string(&file).unwrap();
    assert!(metadata.contains("\"include_prompt\": true"));
    let excluding = metadata.replace("\"include_prompt\": true", "\"include_prompt\": false");
    std::fs::write(file, excluding).unwrap();
    let engine = Engine::open(&target).unwrap();

    let options = EncodeOptions::new().prompt("a prompt: ").normalize(Normalize::None);
    let pooled = engine.encode_with(&["the text"], &options, None).unwrap();
    let tokens = engine.encode_tokens_with(&["the text"], &options, None).unwrap();
    // The opening token and the prompt's own come before the text.
    let opening_and_prompt = engine.tokenize(&["a prompt:"], &EncodeOptions::new(), None).unwrap();
    let skip = opening_and_prompt[0].ids.len() - 1;
    let (dim, counted) = (tokens.dim(), &tokens.texts()[0][skip * tokens.dim()..]);
    let mean: Vec<f32> = (0..dim)
        .map(|i| {
            let column = counted.iter().skip(i).step_by(dim);
            (column.map(|&x| f64::from(x)).sum::<f64>() / (counted.len() / dim) as f64) as f32
        })
        .collect();
    assert!(largest_difference(pooled.as_slice(), &mean) < 1e-6);
}

/// More texts than go through the steps together: repeated ones and positions span the windows.
#[test]
fn a_long_list_is_worked_through_in_windows() {
    let mut texts: Vec<String> = (0..9000).map(|i| format!("{} {}", i % 5000, i % 7)).collect();
    let vectors = BERT.encode(&texts).unwrap();
    assert_eq!(vectors.stats().texts, 9000);
    for position in [0, 4095, 4096, 8191, 8192, 8999] {
        let alone = BERT.encode(&texts[position..=position]).unwrap();
        assert_eq!(bits(vectors.row(position).unwrap()), bits(alone.as_slice()));
    }
    texts[8500] = "word ".repeat(100);
    let refuse = EncodeOptions::new().truncate(false);
    let error = BERT.encode_with(&texts, &refuse, None).unwrap_err();
    assert!(matches!(error, Error::TextTooLong { index: 8500, .. }), "{error:?}");
    let mut seen = Vec::new();
    let mut monitor = |finished| {
        seen.push(finished);
        ControlFlow::Continue(())
    };
    BERT.encode_with(&texts, &EncodeOptions::new(), Some(&mut monitor)).unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    // However fast the windows are.
    assert!([4096, 8192, 9000].iter().all(|end| seen.contains(end)), "{seen:?}");
}

#[test]
fn a_text_that_is_too_long_can_be_refused() {
    let cached = open("bert", CacheLimits::default());
    let long = "word ".repeat(100);
    let texts = ["short", long.as_str()];
    let refuse = EncodeOptions::new().truncate(false);
    for _ in 0..2 {
        let error = cached.encode_with(&texts, &refuse, None).unwrap_err();
        let Error::TextTooLong { index: 1, tokens, limit: 48 } = error else { panic!("{error:?}") };
        assert!(tokens > 100);
        // The second time the vector is in the cache.
        cached.encode(&texts).unwrap();
    }
    assert!(cached.tokenize(&texts, &refuse, None).is_err());
    assert_eq!(cached.tokenize(&texts, &EncodeOptions::new(), None).unwrap()[1].ids.len(), 48);
}

#[test]
fn the_length_limit_can_be_set_up_to_the_positions() {
    let with_limit = |tokens| {
        Engine::builder().max_seq_length(tokens).cache_dir(UNPACKED.path()).open(model("bert"))
    };
    let most = BERT.info().unwrap().dimensions.max_position_embeddings;
    assert!(most > 48);
    let engine = with_limit(most).unwrap();
    let long = "word ".repeat(2 * most);
    assert_eq!(engine.encode(&[&long]).unwrap().stats().tokens, most);
    for wrong in [0, 1, most + 1] {
        let error = with_limit(wrong).unwrap_err();
        assert!(error.to_string().starts_with("max_seq_length: is "), "{error}");
    }
}

#[test]
fn wrong_options_are_named() {
    let message = |options| BERT.encode_with(&["text"], &options, None).unwrap_err().to_string();
    let new = EncodeOptions::new;
    assert_eq!(message(new().truncate_dim(0)), "truncate_dim: is 0, this model allows 1 to 64");
    assert_eq!(message(new().truncate_dim(65)), "truncate_dim: is 65, this model allows 1 to 64");
    assert_eq!(message(new().max_texts(0)), "max_texts: is 0, the least is 1");
    let device = Engine::builder().device("abacus").cache_dir(UNPACKED.path()).open(model("bert"));
    assert!(device.unwrap_err().to_string().contains("abacus"));
}

#[test]
fn a_monitor_sees_progress_and_stops_the_call() {
    let texts: Vec<String> = (0..20_000).map(|i| format!("text number {i}")).collect();
    let mut seen = Vec::new();
    let mut watch = |finished| {
        seen.push(finished);
        ControlFlow::Continue(())
    };
    BERT.encode_with(&texts[..5000], &EncodeOptions::new(), Some(&mut watch)).unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&5000), "{seen:?}");

    let mut stop = |finished| {
        std::thread::sleep(Duration::from_millis(1));
        if finished > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = BERT.encode_with(&texts, &EncodeOptions::new(), Some(&mut stop));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert!(BERT.encode(&["still usable"]).is_ok());
}

/// A copy of a small model that takes long texts.
fn endless(folder: &Path) -> PathBuf {
    let endless = folder.join("endless");
    copy_folder(&model("qwen2"), &endless);
    for (file, setting) in [
        ("config.json", "\"max_position_embeddings\": 128"),
        ("sentence_bert_config.json", "\"max_seq_length\": 96"),
    ] {
        let json = std::fs::read_to_string(endless.join(file)).unwrap();
        let (name, _) = setting.split_once(": ").unwrap();
        let changed = json.replace(setting, &format!("{name}: 40000"));
        assert_ne!(changed, json);
        std::fs::write(endless.join(file), changed).unwrap();
    }
    endless
}

/// Its rows are multiplied in several goes, its heads one after the other.
#[test]
fn a_long_text_is_the_same_on_any_number_of_threads() {
    let _alone = threads();
    let before = num_threads().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = "the quick brown fox jumps over the lazy dog ".repeat(40);
    let open = |device| {
        let builder = Engine::builder().cache(CacheLimits::OFF).cache_dir(folder.path());
        builder.device(device).open(endless(folder.path())).unwrap()
    };
    let engine = open("cpu");
    assert!(engine.tokenize(&[&text], &EncodeOptions::new(), None).unwrap()[0].ids.len() > 1100);
    let together = engine.encode(&[&text, "a short one", &text]).unwrap();
    for count in [1, 2, 3] {
        set_num_threads(count).unwrap();
        let alone = engine.encode(&[&text]).unwrap();
        for row in [0, 2] {
            assert_eq!(bits(alone.as_slice()), bits(together.row(row).unwrap()), "{count} threads");
        }
    }
    set_num_threads(before).unwrap();
    #[cfg(feature = "candle")]
    {
        let candle = open("candle").encode(&[&text]).unwrap();
        let difference = largest_difference(candle.as_slice(), together.row(0).unwrap());
        assert!(difference < 4e-6, "{difference}");
    }
}

/// One text of many thousands of tokens is a single job, which takes a second.
#[test]
fn a_monitor_stops_a_single_long_text() {
    let _alone = threads();
    let before = num_threads().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endless = endless(folder.path());
    for (device, sentences) in [
        ("cpu", 500),
        // candle holds all scores at once.
        #[cfg(feature = "candle")]
        ("candle", 110),
    ] {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(sentences);
        let builder = Engine::builder().cache(CacheLimits::OFF).cache_dir(folder.path());
        let engine = builder.device(device).open(&endless).unwrap();
        let vectors = bits(engine.encode(&["a text", "another"]).unwrap().as_slice());
        for count in [1, 2] {
            set_num_threads(count).unwrap();
            let mut asked = 0;
            let mut monitor = |_| {
                asked += 1;
                if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped = engine.encode_with(&[&text], &EncodeOptions::new(), Some(&mut monitor));
            assert!(matches!(stopped, Err(Error::Interrupted)), "{device}, {count} threads");
            // Not at the call's end, when the monitor is asked too.
            assert_eq!(asked, 2, "{device}, {count} threads");
            assert!(engine.totals().tokens < 100, "{device}, {count} threads");
            let after = bits(engine.encode(&["a text", "another"]).unwrap().as_slice());
            assert_eq!(after, vectors, "{device}, {count} threads");
        }
    }
    set_num_threads(before).unwrap();
}

#[test]
fn an_output_that_is_not_finite_is_an_error_with_the_texts_position() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged");
    copy_folder(&model("bert"), &damaged);
    // Large but finite weights, of one word only: sound to the reader, infinite in a sum.
    let word = BERT.tokenize(&["fox"], &EncodeOptions::new(), None).unwrap()[0].ids[1] as usize;
    fill_row(&damaged.join("model.safetensors"), "embeddings.word_embeddings.weight", word, 3e38);
    let engine = Engine::builder().cache_dir(folder.path()).open(&damaged).unwrap();
    let error = engine.encode(&["a", "dog", "a fox", "a"]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 2 }), "{error:?}");
    let error = engine.encode_tokens(&["a fox"]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 0 }), "{error:?}");
    assert!(engine.encode(&["a", "dog"]).is_ok());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

/// Sets a row of a float32 tensor in a safetensors file.
fn fill_row(file: &Path, tensor: &str, row: usize, value: f32) {
    let mut bytes = std::fs::read(file).unwrap();
    let range = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor(tensor).unwrap();
        let start = view.data().as_ptr().addr() - bytes.as_ptr().addr();
        let row_bytes = view.shape()[1] * 4;
        start + row * row_bytes..start + (row + 1) * row_bytes
    };
    for number in bytes[range].chunks_exact_mut(4) {
        number.copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn an_engine_says_what_it_is() {
    let info = BERT.info().unwrap();
    assert!(info.mapped && info.path.is_file() && info.weights_bytes > 0);
    assert_eq!((info.device.as_str(), info.max_seq_length), ("cpu", 48));
    assert_eq!(info.dimensions.hidden_size, 64);
    assert!(info.num_parameters > info.dimensions.vocab_size * 64);
    assert!(info.dtypes.values().sum::<usize>() > 10);
    assert_eq!(BERT.metadata().architecture, "bert");
    assert!(format!("{:?}", *BERT).contains("cpu"));
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_while_it_is_mapped_is_an_error_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let arrow = folder.path().join("arrow");
    convert(&model("bert"), &arrow, &ConvertOptions::default(), &mut |_, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let gguf = folder.path().join("model.gguf");
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/gguf");
    std::fs::copy(committed.join("bert-256-Q8_0.gguf"), &gguf).unwrap();
    let sound = open("bert", CacheLimits::OFF);
    let text = ["a text of a few words"];
    let expected = sound.encode(&text).unwrap();
    for (path, file) in [(&arrow, arrow.join("model.arrow")), (&gguf, gguf.clone())] {
        let engine = Engine::builder().cache(CacheLimits::OFF).open(path).unwrap();
        engine.encode(&text).unwrap();
        // Behind its header, before most of its weights.
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(40_000).unwrap();
        for _ in 0..2 {
            let error = engine.encode(&text).unwrap_err();
            assert!(matches!(error.code(), "invalid_file" | "io"), "{error}");
            assert!(error.to_string().contains(file.file_name().unwrap().to_str().unwrap()));
        }
        assert_eq!(engine.preload(1 << 16, None).unwrap_err().code(), "invalid_file");
        assert_eq!(sound.encode(&text).unwrap(), expected);
    }
}
