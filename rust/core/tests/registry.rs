//! Many models in one process, as users see them, on small models with random weights.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects by failing

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, LazyLock};

use arrowembed::{
    CacheLimits, ConvertOptions, EmbeddingEngine, EncodeOptions, Engine, EngineConfig, Error,
    ModelConfig, WhenFull, convert,
};
use common::{bits, model, texts};

/// Where the tests unpack their models.
static UNPACKED: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn config(path: impl Into<PathBuf>) -> ModelConfig {
    let builder = ModelConfig::builder().path(path).cache_dir(UNPACKED.path());
    builder.cache(CacheLimits::OFF).build().unwrap()
}

fn engine(settings: EngineConfig) -> EmbeddingEngine {
    let engine = EmbeddingEngine::new(settings).unwrap();
    for name in ["bert", "bert-mean"] {
        engine.register(name, config(model(name))).unwrap();
    }
    engine
}

fn alone(name: &str, texts: &[String]) -> Vec<u32> {
    let engine = config(model(name)).open().unwrap();
    bits(engine.encode(texts).unwrap().as_slice())
}

fn to_arrow(name: &str, target: &Path) {
    let options = ConvertOptions::default();
    convert(&model(name), target, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
}

#[test]
fn models_are_loaded_when_they_are_first_used() {
    let engine = engine(EngineConfig::default());
    assert_eq!(engine.names(), ["bert", "bert-mean"]);
    assert!(engine.info().iter().all(|model| model.bytes.is_none() && model.idle_for.is_none()));
    let vector = engine.embed("bert", "a text").unwrap();
    assert!(engine.is_loaded("bert") && !engine.is_loaded("bert-mean"));

    let direct = config(model("bert")).open().unwrap();
    assert_eq!(vector, direct.encode(&["a text"]).unwrap().into_vec());
    assert_eq!(engine.embedding_dimensions("bert").unwrap(), vector.len());
    assert_eq!(engine.max_sequence_length("bert").unwrap(), direct.max_seq_length());
    assert_eq!(engine.model_size("bert").unwrap(), direct.weights_bytes());
    let info = engine.info();
    assert_eq!((&*info[0].name, &*info[1].name), ("bert", "bert-mean"));
    assert_eq!(info[0].path, model("bert"));
    assert_eq!(info[0].bytes, Some(direct.weights_bytes()));
    assert!(info[0].loaded_for.unwrap() >= info[0].idle_for.unwrap());

    assert!(engine.unload("bert") && !engine.unload("bert"));
    assert!(!engine.is_loaded("bert"));
    assert!(!engine.unload("never registered") && !engine.is_loaded("never registered"));
}

#[test]
fn threads_that_ask_together_share_one_model() {
    let (engine, barrier) = (engine(EngineConfig::default()), Barrier::new(8));
    let engines: Vec<Arc<Engine>> = std::thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            engine.load("bert").unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(engines.iter().all(|engine| Arc::ptr_eq(engine, &engines[0])));
}

#[test]
fn batches_of_any_size_keep_their_order() {
    let (engine, options) = (engine(EngineConfig::default()), EncodeOptions::new());
    let some = texts("bert").texts;
    let none: [&str; 0] = [];
    assert!(engine.embed_batch("bert", &none, &options, None).unwrap().is_empty());

    // Several windows, of texts of all lengths, each known by its number.
    let many: Vec<String> = (0..5000).map(|i| format!("{} {i}", some[i % some.len()])).collect();
    let mut seen = 0;
    let mut monitor = |done| {
        assert!(done >= seen);
        seen = done;
        ControlFlow::Continue(())
    };
    let vectors = engine.embed_batch("bert", &many, &options, Some(&mut monitor)).unwrap();
    assert_eq!((vectors.len(), seen), (many.len(), many.len()));
    for i in [0, 1, 17, 4095, 4096, 4999] {
        let single = engine.embed("bert", &many[i]).unwrap();
        assert_eq!(bits(&single), bits(vectors.row(i).unwrap()), "text {i}");
    }

    let mut stop = |_| ControlFlow::Break(());
    let stopped = engine.embed_batch("bert", &many, &options, Some(&mut stop));
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

#[test]
fn several_models_embed_the_same_texts() {
    let (engine, some) = (engine(EngineConfig::default()), texts("bert").texts);
    let names = ["bert-mean", "bert", "bert-mean"];
    let mut last = 0;
    let mut monitor = |done| {
        last = done;
        ControlFlow::Continue(())
    };
    let options = EncodeOptions::new();
    let all = engine.embed_multi(&names, &some, &options, Some(&mut monitor)).unwrap();
    for (name, vectors) in names.iter().zip(&all) {
        assert_eq!(bits(vectors.as_slice()), alone(name, &some), "{name}");
    }
    assert_eq!((all.len(), last), (3, 3 * some.len()));

    let error = engine.embed_multi(&["bert", "brt"], &some, &options, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model: \"brt\" is not registered; registered are bert, bert-mean"
    );
}

#[test]
fn a_model_that_is_unloaded_while_others_compute_stays_for_them() {
    let (engine, some) = (engine(EngineConfig::default()), texts("bert").texts);
    let (expected, options) = (alone("bert", &some), EncodeOptions::new());
    let (in_the_midst, unloaded) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let (in_the_midst, unloaded, engine) = (&in_the_midst, &unloaded, &engine);
        let many: Vec<&str> = (0..200).flat_map(|_| some.iter().map(String::as_str)).collect();
        let computing = scope.spawn(move || {
            let mut first = true;
            let mut monitor = |_| {
                if std::mem::take(&mut first) {
                    in_the_midst.wait();
                    unloaded.wait();
                }
                ControlFlow::Continue(())
            };
            engine.embed_batch("bert", &many, &EncodeOptions::new(), Some(&mut monitor))
        });
        in_the_midst.wait();
        assert!(engine.unload("bert"));
        assert!(!engine.is_loaded("bert"));
        unloaded.wait();
        let vectors = computing.join().unwrap().unwrap();
        for vectors in bits(vectors.as_slice()).chunks(expected.len()) {
            assert_eq!(vectors, expected);
        }

        // Loads, unloads and computations in any order.
        for _ in 0..3 {
            let (expected, options, some) = (&expected, &options, &some);
            scope.spawn(move || {
                for _ in 0..20 {
                    let vectors = engine.embed_batch("bert", some, options, None).unwrap();
                    assert_eq!(bits(vectors.as_slice()), *expected);
                    engine.unload("bert");
                }
            });
        }
    });
    // The last one who holds it may be whoever asked for it.
    let held = engine.load("bert").unwrap();
    drop(engine);
    assert_eq!(bits(held.encode(&some).unwrap().as_slice()), expected);
}

#[test]
fn a_budget_holds_for_all_models_together() {
    let bytes = |name: &str| config(model(name)).open().unwrap().weights_bytes();
    let (one, other) = (bytes("bert"), bytes("bert-mean"));
    let budget = EngineConfig::builder().memory_budget(one + other - 1);

    let refusing = engine(budget.clone().build().unwrap());
    refusing.embed("bert", "text").unwrap();
    let error = refusing.embed("bert-mean", "text").unwrap_err();
    let Error::MemoryBudget { name, needed, budget: all, in_use, loaded, when_full } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((&**name, *needed, *all, *in_use), ("bert-mean", other, one + other - 1, one));
    assert_eq!((&**loaded, *when_full), (&["bert".to_owned()][..], WhenFull::Refuse));
    assert!(error.to_string().ends_with("or let the least recently used be evicted"), "{error}");
    assert!(refusing.is_loaded("bert"));

    let evicting = engine(budget.when_full(WhenFull::Evict).build().unwrap());
    for name in ["bert", "bert-mean", "bert"] {
        evicting.embed(name, "text").unwrap();
        assert_eq!(evicting.info().iter().filter(|model| model.bytes.is_some()).count(), 1);
        assert!(evicting.is_loaded(name));
    }
    let _used = evicting.load("bert").unwrap();
    let error = evicting.load("bert-mean").unwrap_err().to_string();
    assert!(error.contains("use fewer at a time or raise memory_budget"), "{error}");

    let small = engine(EngineConfig::builder().memory_budget(one - 1).build().unwrap());
    let error = small.load("bert").unwrap_err().to_string();
    assert!(error.ends_with("bytes; raise memory_budget"), "{error}");
}

#[test]
fn a_model_that_cannot_be_opened_evicts_nobody() {
    let one = config(model("bert")).open().unwrap().weights_bytes();
    let budget = EngineConfig::builder().memory_budget(one).when_full(WhenFull::Evict);
    let engine = engine(budget.build().unwrap());
    let too_long = ModelConfig::builder().path(model("bert")).cache_dir(UNPACKED.path());
    engine.register("wrong", too_long.max_seq_length(1 << 30).build().unwrap()).unwrap();
    engine.load("bert").unwrap();
    let error = engine.load("wrong").unwrap_err().to_string();
    assert!(error.starts_with("max_seq_length: is "), "{error}");
    assert!(engine.is_loaded("bert"));
}

#[test]
fn a_model_that_could_not_be_loaded_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let engine = EmbeddingEngine::new(EngineConfig::default()).unwrap();
    engine.register("late", config(&path)).unwrap();
    for _ in 0..2 {
        assert_eq!(engine.embed("late", "text").unwrap_err().code(), "model_not_found");
    }
    assert!(!engine.is_loaded("late"));
    to_arrow("bert", &path);
    assert!(!engine.embed("late", "text").unwrap().is_empty());
}

#[test]
fn a_name_stands_for_one_model() {
    let engine = engine(EngineConfig::default());
    engine.register("bert", config(model("bert"))).unwrap();
    assert_eq!(engine.names().len(), 2);
    let held = engine.load("bert").unwrap();
    let refused = || {
        let error = engine.register("bert", config(model("bert-mean"))).unwrap_err().to_string();
        assert!(error.starts_with("name: \"bert\" is already registered for "), "{error}");
    };
    refused();
    // What someone still uses would be back when it is asked for.
    assert!(engine.unload("bert"));
    refused();
    drop(held);
    let error = engine.register("", config(model("bert"))).unwrap_err().to_string();
    assert_eq!(error, "name: is empty");
}

#[test]
fn a_name_can_be_registered_again_until_it_is_loaded() {
    let engine = engine(EngineConfig::default());
    let nowhere = config("no/such/model");
    engine.register("late", nowhere.clone()).unwrap();
    assert_eq!(engine.load("late").unwrap_err().code(), "model_not_found");
    engine.register("late", config(model("bert"))).unwrap();
    assert_eq!(engine.names(), ["bert", "bert-mean", "late"]);
    assert_eq!(engine.info()[2].path, model("bert"));
    let of_nowhere = engine.load_registered("late", &nowhere, None).unwrap_err();
    assert!(of_nowhere.to_string().contains("\"late\" was registered anew"), "{of_nowhere}");
    assert!(!engine.is_loaded("late") && engine.peek("late", &config(model("bert"))).is_none());
    let late = engine.load_registered("late", &config(model("bert")), None).unwrap();
    assert!(Arc::ptr_eq(&engine.peek("late", &config(model("bert"))).unwrap(), &late));
    assert!(engine.peek("late", &nowhere).is_none());
}

#[test]
fn weights_are_read_ahead_with_progress() {
    let folder = tempfile::tempdir().unwrap();
    to_arrow("bert", folder.path());
    let file = std::fs::metadata(folder.path().join("model.arrow")).unwrap().len() as usize;
    let builder = ModelConfig::builder().path(folder.path()).preload(true).preload_chunk(1);
    let config = builder.build().unwrap();
    let mut seen = Vec::new();
    let mut monitor = |done, all| {
        seen.push((done, all));
        ControlFlow::Continue(())
    };
    config.open_with(Some(&mut monitor)).unwrap();
    assert_eq!(seen.last(), Some(&(file, file)));
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    let mut stop = |_, _| ControlFlow::Break(());
    assert!(matches!(config.open_with(Some(&mut stop)), Err(Error::Interrupted)));

    let engine = EmbeddingEngine::new(EngineConfig::default()).unwrap();
    engine.register("model", config).unwrap();
    assert!(matches!(engine.load_with("model", Some(&mut stop)), Err(Error::Interrupted)));
    assert!(!engine.is_loaded("model"));
    let mut last = (0, 0);
    let mut monitor = |done, all| {
        last = (done, all);
        ControlFlow::Continue(())
    };
    engine.warmup("model", Some(&mut monitor)).unwrap();
    assert_eq!(last, (file, file));
    assert!(engine.is_loaded("model"));
    // Every kind of file is whole.
    let unpacked = Engine::builder().cache_dir(UNPACKED.path()).open(model("bert")).unwrap();
    let mut last = (0, 0);
    let mut monitor = |done, all| {
        last = (done, all);
        ControlFlow::Continue(())
    };
    unpacked.preload(1 << 20, Some(&mut monitor)).unwrap();
    let file = std::fs::metadata(unpacked.path()).unwrap().len() as usize;
    assert_eq!(last, (file, file));
}
