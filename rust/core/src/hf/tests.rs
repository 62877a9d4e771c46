use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::fixtures;

/// A copy of the bert fixture with some files replaced, or removed where there is no content.
fn folder(changes: &[(&str, Option<String>)]) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = fixtures::hf_copy("bert", parent.path());
    for (file, content) in changes {
        let path = folder.join(file);
        match content {
            Some(content) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            None => fs::remove_file(path).unwrap(),
        }
    }
    (parent, folder)
}

fn read(changes: &[(&str, Option<String>)]) -> Result<HfFolder> {
    let (_parent, folder) = folder(changes);
    read_folder(&folder)
}

fn metadata(file: &str, content: &Value) -> Metadata {
    read(&[(file, Some(content.to_string()))]).unwrap().metadata
}

fn refused(file: &str, content: &str, code: &str) -> String {
    let error = read(&[(file, Some(content.to_owned()))]).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    error.to_string()
}

#[test]
fn the_fixtures_are_what_their_files_say() {
    let bert = read_folder(&fixtures::hf("bert")).unwrap();
    assert_eq!(bert.metadata.name, "bert");
    assert_eq!(bert.metadata.architecture, "bert");
    assert_eq!(bert.metadata.pooling, Pooling::Cls);
    assert_eq!(bert.metadata.normalize, Normalize::L2);
    assert_eq!(bert.metadata.max_seq_length, 48);
    assert_eq!(bert.metadata.similarity, "cosine");
    assert_eq!(bert.metadata.default_prompt_name, None);
    assert!(bert.metadata.include_prompt && !bert.metadata.do_lower_case);
    assert_eq!(bert.weights, [fixtures::hf("bert").join("model.safetensors")]);
    let mean = read_folder(&fixtures::hf("bert-mean")).unwrap();
    assert_eq!(mean.metadata.pooling, Pooling::Mean);
}

#[test]
fn pooling_is_told_by_flags_or_by_name() {
    let flags = |flag: &str| json!({"pooling_mode_mean_tokens": false, flag: true});
    for (flag, name, pooling) in [
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_max_tokens", "max", Pooling::Max),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrt),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
    ] {
        assert_eq!(metadata("1_Pooling/config.json", &flags(flag)).pooling, pooling);
        let by_name = json!({"pooling_mode": name, "include_prompt": false});
        let by_name = metadata("1_Pooling/config.json", &by_name);
        assert_eq!(by_name.pooling, pooling);
        assert!(!by_name.include_prompt);
        let listed = json!({"pooling_mode": [name]});
        assert_eq!(metadata("1_Pooling/config.json", &listed).pooling, pooling);
    }
}

#[test]
fn other_poolings_are_refused_by_name() {
    for (config, named) in [
        (
            json!({"pooling_mode_weightedmean_tokens": true, "pooling_mode_mean_tokens": false}),
            "weightedmean",
        ),
        (
            json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}),
            "cls, mean, max",
        ),
        (json!({"pooling_mode": ["mean", "max"]}), "mean, max"),
        (json!({"pooling_mode_mean_tokens": false}), "[]"),
    ] {
        let message = refused("1_Pooling/config.json", &config.to_string(), "unsupported_model");
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn modules_decide_what_follows_the_transformer() {
    let module = |kind: &str, path: &str| json!({"idx": 0, "name": "0", "path": path, "type": format!("sentence_transformers.models.{kind}")});
    let pooled = json!([module("Transformer", ""), module("Pooling", "1_Pooling")]);
    assert_eq!(metadata("modules.json", &pooled).normalize, Normalize::None);

    let behind = |kinds: [&str; 2]| {
        let [first, second] = kinds.map(|kind| module(kind, ""));
        json!([module("Transformer", ""), module("Pooling", "1_Pooling"), first, second])
            .to_string()
    };
    for kinds in [["Normalize", "Dense"], ["LayerNorm", "Normalize"], ["Pooling", "Normalize"]] {
        // The second kind is never looked for: what comes before it is refused already.
        let json = behind(kinds);
        let error = read(&[("modules.json", Some(json))]).unwrap_err();
        assert!(
            matches!(error.code(), "unsupported_model" | "invalid_config"),
            "{kinds:?}: {error}"
        );
    }
    let alone = json!([module("Transformer", "")]).to_string();
    assert!(refused("modules.json", &alone, "unsupported_model").contains("Pooling"));

    let outside = json!([module("Transformer", "../elsewhere"), module("Pooling", "1_Pooling")]);
    let message = refused("modules.json", &outside.to_string(), "invalid_config");
    assert!(message.contains("outside"), "{message}");
}

#[test]
fn the_transformer_may_have_a_folder_of_its_own() {
    let (_parent, folder) = folder(&[]);
    let inner = folder.join("0_Transformer");
    fs::create_dir(&inner).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"]
    {
        fs::rename(folder.join(file), inner.join(file)).unwrap();
    }
    let modules = fs::read_to_string(folder.join("modules.json")).unwrap();
    let modules = modules.replacen("\"path\": \"\"", "\"path\": \"0_Transformer\"", 1);
    fs::write(folder.join("modules.json"), modules).unwrap();
    let read = read_folder(&folder).unwrap();
    assert_eq!(read.weights, [inner.join("model.safetensors")]);
    assert_eq!(read.tokenizer_folder, inner);
    assert_eq!(read.metadata.max_seq_length, 48);
}

#[test]
fn without_modules_the_mean_is_taken_and_nothing_normalised() {
    let metadata = read(&[("modules.json", None)]).unwrap().metadata;
    assert_eq!(metadata.pooling, Pooling::Mean);
    assert_eq!(metadata.normalize, Normalize::None);
}

#[test]
fn the_length_limit_is_the_strictest_that_is_meant() {
    let tokenizer = |limit: f64| {
        let content = json!({"model_max_length": limit}).to_string();
        [("sentence_bert_config.json", None), ("tokenizer_config.json", Some(content))]
    };
    let limit = |changes: &[_]| read(changes).unwrap().metadata.max_seq_length;
    assert_eq!(limit(&tokenizer(20.0)), 20);
    assert_eq!(limit(&tokenizer(1e30)), 64, "a sentinel leaves the positions");
    assert_eq!(limit(&[("sentence_bert_config.json", None), ("tokenizer_config.json", None)]), 64);
    let stated = |content: Value| [("sentence_bert_config.json", Some(content.to_string()))];
    assert_eq!(limit(&stated(json!({"max_seq_length": 512}))), 64, "there are 64 positions");
    assert_eq!(limit(&stated(json!({"max_seq_length": null}))), 64, "the tokenizer says 512");
    let zero = json!({"max_seq_length": 0}).to_string();
    assert!(refused("sentence_bert_config.json", &zero, "invalid_config").contains("is 0"));
    let lower = json!({"max_seq_length": 48, "do_lower_case": true});
    assert!(metadata("sentence_bert_config.json", &lower).do_lower_case);
}

#[test]
fn prompts_and_similarity_are_kept() {
    let file = "config_sentence_transformers.json";
    let config = json!({
        "prompts": {"query": "query: ", "document": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    });
    let metadata = metadata(file, &config);
    assert_eq!(metadata.prompts["query"], "query: ");
    assert_eq!(metadata.default_prompt_name.as_deref(), Some("query"));
    assert_eq!(metadata.similarity, "dot");
    let missing = json!({"default_prompt_name": "passage"}).to_string();
    assert!(refused(file, &missing, "invalid_config").contains("passage"));
    let unknown = json!({"similarity_fn_name": "hamming"}).to_string();
    assert!(refused(file, &unknown, "invalid_config").contains("hamming"));
}

#[test]
fn malformed_files_and_fields_are_named() {
    for file in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer_config.json",
    ] {
        for content in ["", "{", "[1, 2", "\"\\ud800\"", "{\"a\": 1e999}"] {
            let message = refused(file, content, "invalid_config");
            assert!(message.contains(file), "{file}: {message}");
        }
    }
    for (file, content, field) in [
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_cls_token": "yes"}),
            "pooling_mode_cls_token",
        ),
        ("1_Pooling/config.json", json!({"pooling_mode": 3}), "pooling_mode"),
        ("sentence_bert_config.json", json!({"max_seq_length": -3}), "max_seq_length"),
        ("config_sentence_transformers.json", json!({"prompts": ["query"]}), "prompts"),
        ("config.json", json!({"model_type": 7}), "model_type"),
        ("config.json", json!({}), "model_type"),
        ("modules.json", json!({}), "modules"),
        ("modules.json", json!([{"path": ""}]), "type"),
    ] {
        let message = refused(file, &content.to_string(), "invalid_config");
        assert!(message.contains(file) && message.contains(field), "{message}");
    }
    let other = json!({"model_type": "whisper"}).to_string();
    assert!(refused("config.json", &other, "unsupported_model").contains("whisper"));
}

#[test]
fn shards_are_found_through_their_index() {
    let index = |shard: &str| {
        let content = json!({"weight_map": {"a": shard, "b": "two.safetensors"}});
        [("model.safetensors", None), ("model.safetensors.index.json", Some(content.to_string()))]
    };
    let weights = read(&index("one.safetensors")).unwrap().weights;
    let names: Vec<_> = weights.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["one.safetensors", "two.safetensors"]);
    for escape in ["../one.safetensors", "/etc/passwd"] {
        assert_eq!(read(&index(escape)).unwrap_err().code(), "invalid_config");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_has() {
    let error = read(&[("model.safetensors", None)]).unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    let torch = [("model.safetensors", None), ("pytorch_model.bin", Some(String::new()))];
    let error = read(&torch).unwrap_err();
    assert!(error.to_string().contains("arrowembed convert"), "{error}");
}

#[test]
fn dense_layers_are_read_and_what_they_cannot_do_is_refused() {
    let layers = read_folder(&fixtures::hf("gemma3-embedding")).unwrap();
    let names: Vec<_> = layers.metadata.dense.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["2_Dense", "3_Dense"]);
    assert_eq!(layers.metadata.dense[0].out_features, 56);
    assert_eq!(layers.metadata.dense[0].activation, DenseActivation::Identity);
    assert_eq!(layers.dense.len(), 2);

    let (_parent, folder) = folder(&[]);
    let module =
        |kind: &str, path: &str| json!({"idx": 0, "name": "0", "path": path, "type": kind});
    let modules = json!([
        module("Transformer", ""),
        module("Pooling", "1_Pooling"),
        module("Dense", "2_Dense")
    ]);
    fs::write(folder.join("modules.json"), modules.to_string()).unwrap();
    let dense = folder.join("2_Dense");
    fs::create_dir(&dense).unwrap();
    let read = |config: serde_json::Value| {
        fs::write(dense.join("config.json"), config.to_string()).unwrap();
        read_folder(&folder)
    };
    let error = read(json!({"in_features": 64, "out_features": 8})).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    fs::copy(
        fixtures::hf("gemma3-embedding").join("2_Dense/model.safetensors"),
        dense.join("model.safetensors"),
    )
    .unwrap();
    let read_layer = read(json!({"in_features": 64, "out_features": 8})).unwrap().metadata.dense;
    assert_eq!((read_layer[0].activation, read_layer[0].bias), (DenseActivation::Tanh, true));
    let error = read(json!({"in_features": 63, "out_features": 8})).unwrap_err();
    assert!(error.to_string().contains("takes 63 numbers"), "{error}");
    let error = read(json!({"in_features": 64})).unwrap_err();
    assert!(error.to_string().contains("out_features"), "{error}");
    let softmax = json!({
        "in_features": 64, "out_features": 8, "activation_function": "torch.nn.Softmax"
    });
    assert!(read(softmax).unwrap_err().to_string().contains("Softmax"));
}

#[test]
fn sizes_to_cut_vectors_to_are_in_either_file() {
    for file in ["config.json", "config_sentence_transformers.json"] {
        let text = fs::read_to_string(fixtures::hf("bert").join(file)).unwrap();
        let with = |sizes: Value| {
            let mut config: Value = serde_json::from_str(&text).unwrap();
            config["matryoshka_dimensions"] = sizes;
            config
        };
        // The model's vectors have 64 numbers.
        for sizes in [json!([16, 64, 32, 1024, 16]), json!([16, 32])] {
            let sizes = metadata(file, &with(sizes)).matryoshka_dimensions;
            assert_eq!(sizes, [64, 32, 16], "{file}");
        }
        // Anything else is no reason to refuse a model.
        for other in [Value::Null, json!([16, "all"]), json!(true)] {
            assert!(metadata(file, &with(other)).matryoshka_dimensions.is_empty());
        }
    }
}

#[test]
fn known_models_have_sizes_where_their_files_name_none() {
    let parent = tempfile::tempdir().unwrap();
    let known = parent.path().join("embeddinggemma-300m");
    fs::rename(fixtures::hf_copy("bert", parent.path()), &known).unwrap();
    // None of that model's sizes are as short as these vectors; a model folder remembers the sizes of its source.
    assert!(read_folder(&known).unwrap().metadata.matryoshka_dimensions.is_empty());
    let known = parent.path().join("qwen3-embedding-tiny");
    fs::rename(fixtures::hf_copy("bert", parent.path()), &known).unwrap();
    let target = parent.path().join("renamed");
    fixtures::convert_to(&known, &target, &crate::ConvertOptions::default());
    let opened = fixtures::open_with(&target, parent.path()).unwrap();
    assert_eq!(opened.metadata.matryoshka_dimensions, [64, 32]);
}

#[test]
fn known_models_have_prompts_where_their_files_name_none() {
    let parent = tempfile::tempdir().unwrap();
    let copy = fixtures::hf_copy("bert", parent.path());
    let prompting = copy.join("config_sentence_transformers.json");
    fs::write(&prompting, json!({"prompts": {"query": "mine: "}}).to_string()).unwrap();
    let named = |path: &str| {
        let folder = parent.path().join(path);
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        fs::rename(&copy, &folder).unwrap();
        let read = read_folder(&folder).unwrap().metadata;
        fs::rename(&folder, &copy).unwrap();
        read
    };
    let own = named("e5-small-v2").prompts;
    assert_eq!((own.len(), own["query"].as_str()), (1, "mine: "));
    fs::remove_file(prompting).unwrap();
    assert!(named("mine").prompts.is_empty());
    assert_eq!(named("e5-small-v2").prompts["document"], "passage: ");
    let cached = named("models--intfloat--e5-base/snapshots/0123abc");
    assert_eq!((cached.name.as_str(), cached.prompts["query"].as_str()), ("e5-base", "query: "));
}
