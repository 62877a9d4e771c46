use std::collections::BTreeMap;
use std::fs;

use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::*;
use crate::convert::{Arrangement, ConvertOptions, convert};
use crate::fixtures::{all_values, assert_invariant, convert_to, go_on, hf, hf_copy, open_with};
use crate::gguf::fixtures::gguf;
use crate::weights::{DType, Layout};

fn options(dtype: &str, layout: &str, format: &str, compression: &str) -> ConvertOptions {
    ConvertOptions {
        dtype: dtype.parse().unwrap(),
        arrangement: layout.parse().unwrap(),
        format: format.parse().unwrap(),
        compression: compression.parse().unwrap(),
        name: None,
    }
}

type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The numbers that every form of the fixture must give.
fn expected(folder: &TempDir) -> Values {
    let target = folder.path().join("expected");
    convert_to(&hf("bert"), &target, &options("float32", "packed", "arrow", "none"));
    all_values(open_with(&target, folder.path()).unwrap().weights.as_ref())
}

fn assert_packed(model: &OpenModel) {
    assert_invariant(model.weights.as_ref());
    let matrix = model.weights.require("encoder.layer.0.attention.self.qkv.weight").unwrap();
    assert_eq!(matrix.layout, Layout::Panel16);
    for name in model.weights.names() {
        let data = model.weights.require(name).unwrap().data;
        assert!((data.as_ptr() as usize).is_multiple_of(64), "{name}");
    }
}

#[test]
fn every_form_of_a_model_gives_the_same_packed_weights() {
    let folder = tempfile::tempdir().unwrap();
    let expected = expected(&folder);
    let cache = folder.path().join("cache");
    for (layout, format, compression) in [
        ("packed", "arrow", "none"),
        ("packed", "arrow", "lz4"),
        ("packed", "arrow", "zstd"),
        ("packed", "parquet", "none"),
        ("packed", "parquet", "lz4"),
        ("row_major", "arrow", "none"),
        ("row_major", "arrow", "zstd"),
        ("row_major", "parquet", "zstd"),
    ] {
        let target = folder.path().join(format!("{layout}-{format}-{compression}"));
        let report =
            convert_to(&hf("bert"), &target, &options("float32", layout, format, compression));
        for path in [&target, &report.path] {
            let model = open_with(path, &cache).unwrap();
            assert_packed(&model);
            assert_eq!(all_values(model.weights.as_ref()), expected, "{}", path.display());
            assert!(matches!(model.tokenizer, TokenizerSource::File(path) if path.is_file()));
            assert_eq!(model.metadata.max_seq_length, 48);
            let mapped_as_it_is = (layout, format, compression) == ("packed", "arrow", "none");
            assert_eq!(model.path == report.path, mapped_as_it_is);
        }
    }
    for source in [hf("bert"), hf("bert").join("model.safetensors")] {
        let model = open_with(&source, &cache).unwrap();
        assert_packed(&model);
        assert_eq!(all_values(model.weights.as_ref()), expected);
        assert!(model.path.starts_with(cache.join("unpacked")));
    }
}

#[test]
fn a_prefix_and_unused_tensors_are_no_hindrance() {
    let cache = tempfile::tempdir().unwrap();
    let model = open_with(&hf("bert-mean"), cache.path()).unwrap();
    let names = model.weights.names();
    assert!(names.contains(&"bert.encoder.layer.1.attention.self.qkv.bias"));
    assert!(names.iter().all(|name| name.starts_with("bert.")), "{names:?}");
}

#[test]
fn coarser_numbers_survive_being_unpacked() {
    for (dtype, expected, companions) in [
        ("bfloat16", DType::BFloat16, &[][..]),
        ("int16", DType::Int16, &["weight.scale", "weight.sum"]),
        ("int8", DType::Int8, &["weight.scale", "weight.sum"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (direct, detour) = (folder.path().join("direct"), folder.path().join("detour"));
        convert_to(&hf("bert"), &direct, &options(dtype, "packed", "arrow", "none"));
        convert_to(&hf("bert"), &detour, &options(dtype, "packed", "parquet", "zstd"));
        let direct = open_with(&direct, folder.path()).unwrap();
        let detour = open_with(&detour, folder.path()).unwrap();
        for end in companions.iter().chain(&["weight"]) {
            let name = format!("encoder.layer.0.intermediate.dense.{end}");
            let of = |model: &OpenModel| model.weights.require(&name).unwrap();
            assert!(of(&direct).data == of(&detour).data, "{dtype} {name}");
        }
        let name = "encoder.layer.0.intermediate.dense.weight";
        assert_eq!(direct.weights.require(name).unwrap().dtype, expected);
    }
}

#[test]
fn integers_of_an_earlier_format_are_packed_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    convert_to(&hf("bert"), &target, &options("int16", "packed", "arrow", "none"));
    let expected = all_values(open_with(&target, folder.path()).unwrap().weights.as_ref());
    let file = target.join("model.arrow");
    let mut bytes = fs::read(&file).unwrap();
    // The format's version, as a text of one letter in the schema and in its copy at the end.
    let of_version = |digit| [1, 0, 0, 0, digit, 0];
    let found: Vec<usize> =
        (0..bytes.len() - 6).filter(|&at| bytes[at..at + 6] == of_version(b'3')).collect();
    assert_eq!(found.len(), 2);
    for at in found {
        bytes[at..at + 6].copy_from_slice(&of_version(b'2'));
    }
    fs::write(&file, bytes).unwrap();
    let model = open_with(&target, &folder.path().join("cache")).unwrap();
    assert!(model.path.starts_with(folder.path().join("cache")), "{}", model.path.display());
    // Their products fit, and so they are the same.
    assert_eq!(all_values(model.weights.as_ref()), expected);
}

#[test]
fn half_precision_takes_float16_as_it_is_and_makes_it_of_all_else() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let options_for = |compute| OpenOptions {
        cache_dir: Some(cache.clone()),
        compute: Some(compute),
        ..OpenOptions::default()
    };
    let float16 = folder.path().join("float16");
    convert_to(&hf("bert"), &float16, &ConvertOptions::default());
    for compute in [Compute::Float32, Compute::Float16] {
        let model = open(&float16, &options_for(compute)).unwrap();
        assert_eq!((model.compute, model.path), (compute, float16.join("model.arrow")));
    }
    let expected = all_values(open(&float16, &OpenOptions::default()).unwrap().weights.as_ref());
    for dtype in ["float32", "int8"] {
        let other = folder.path().join(dtype);
        convert_to(&hf("bert"), &other, &options(dtype, "packed", "arrow", "none"));
        let model = open(&other, &options_for(Compute::Float16)).unwrap();
        assert_eq!(model.compute, Compute::Float16);
        assert!(model.path.starts_with(&cache), "{}", model.path.display());
        let values = all_values(model.weights.as_ref());
        assert_eq!(values == expected, dtype == "float32", "{dtype}");
        let name = "encoder.layer.0.intermediate.dense.weight";
        assert_eq!(model.weights.require(name).unwrap().dtype, DType::Float16, "{dtype}");
    }
}

#[test]
fn weights_made_when_opened_are_those_of_a_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let cache_dir = Some(folder.path().join("cache"));
    let source = folder.path().join("float16");
    convert_to(&hf("bert"), &source, &ConvertOptions::default());
    for compute in [Compute::BFloat16, Compute::Int16, Compute::Int8] {
        let dtype = compute.name();
        let converted = folder.path().join(dtype);
        convert_to(&source, &converted, &options(dtype, "packed", "arrow", "none"));
        let options =
            OpenOptions { cache_dir: cache_dir.clone(), compute: Some(compute), verify: true };
        let (opened, converted) =
            (open(&source, &options).unwrap(), open(&converted, &options).unwrap());
        assert_eq!((opened.compute, converted.compute), (compute, compute));
        assert!(converted.path.ends_with("model.arrow"), "it is mapped as it is");
        let expected = all_values(converted.weights.as_ref());
        assert_eq!(all_values(opened.weights.as_ref()), expected);

        let float32 = OpenOptions { compute: Some(Compute::Float32), ..options };
        let float32 = open(&folder.path().join(dtype), &float32).unwrap();
        assert_eq!(float32.compute, Compute::Float32);
        assert_packed(&float32);
        for (name, (_, values)) in all_values(float32.weights.as_ref()) {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 2048.0 + 6e-8;
            assert!(values.iter().zip(&expected[&name].1).all(close), "{dtype} {name}");
        }
    }
}

#[test]
fn half_precision_sources_stay_half_precision() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("half");
    convert_to(&hf("bert"), &target, &options("float16", "row_major", "arrow", "none"));
    let model = open_with(&target, folder.path()).unwrap();
    let matrix = model.weights.require("encoder.layer.0.output.dense.weight").unwrap();
    assert_eq!((matrix.dtype, matrix.layout), (DType::Float16, Layout::Panel16));
    let bias = model.weights.require("encoder.layer.0.output.dense.bias").unwrap();
    assert_eq!(bias.dtype, DType::Float32);
}

#[test]
fn the_metadata_beside_a_file_wins_over_the_copy_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    let beside = target.join("metadata.json");
    let changed = fs::read_to_string(&beside)
        .unwrap()
        .replace("\"max_seq_length\": 48", "\"max_seq_length\": 17");
    fs::write(&beside, changed).unwrap();
    assert_eq!(open_with(&target, folder.path()).unwrap().metadata.max_seq_length, 17);
    fs::remove_file(&beside).unwrap();
    assert_eq!(open_with(&target, folder.path()).unwrap().metadata.max_seq_length, 48);
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    let beside = target.join("metadata.json");
    let whole = fs::read_to_string(&beside).unwrap();
    for (from, to, named) in [
        ("\"format_version\": 3", "\"format_version\": 4", "upgrade"),
        ("\"format_version\": 3", "\"format_version\": 0", "format version 0"),
        ("\"max_seq_length\": 48", "\"max_seq_length\": 65", "max_seq_length"),
        ("\"max_seq_length\": 48", "\"max_seq_length\": -1", "invalid value"),
        ("\"pooling\": \"cls\"", "\"pooling\": \"sum\"", "unknown variant"),
        ("\"normalize\": \"l2\"", "\"normalize\": {\"p\": 0.5}", "normalize"),
        ("\"architecture\": \"bert\"", "\"architecture\": \"t5\"", "t5"),
        ("\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size"),
        ("\"vocab_size\": 470", "\"vocab_size\": 1000000000000", "vocab_size"),
        ("\"similarity\": \"cosine\"", "\"similarity\": \"edit\"", "similarity"),
        ("\"dtype\": \"float16\"", "\"dtype\": \"float8\"", "float8"),
    ] {
        assert!(whole.contains(from), "{from}");
        fs::write(&beside, whole.replace(from, to)).unwrap();
        let error = open_with(&target, folder.path()).err().unwrap().to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
    for length in (0..whole.len()).step_by(7) {
        fs::write(&beside, &whole[..length]).unwrap();
        assert!(open_with(&target, folder.path()).is_err(), "{length}");
    }
}

#[test]
fn what_is_not_a_model_is_refused_with_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "hello").unwrap();
    let bare = folder.path().join("bare");
    fs::create_dir(&bare).unwrap();
    for (path, said) in [
        (folder.path().join("nothing"), "no such file"),
        (text, ".arrow"),
        (bare.clone(), "model.arrow"),
    ] {
        let error = open_with(&path, folder.path()).err().unwrap();
        assert_eq!(error.code(), "model_not_found");
        assert!(error.to_string().contains(said), "{error}");
    }
    fs::create_dir(bare.join("config.json")).unwrap();
    assert!(open_with(&bare, folder.path()).is_err());
    fs::create_dir(bare.join("model.arrow")).unwrap();
    let error = open_with(&bare, folder.path()).err().unwrap();
    assert_eq!(error.code(), "invalid_file", "{error}");
}

#[test]
fn a_missing_tokenizer_is_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    fs::remove_file(target.join("tokenizer/tokenizer.json")).unwrap();
    let error = open_with(&target, folder.path()).err().unwrap();
    assert_eq!(error.code(), "tokenizer");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn weights_of_another_shape_than_the_configuration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = hf_copy("bert", folder.path());
    let config = fs::read_to_string(source.join("config.json")).unwrap();
    for (from, to, code) in [
        ("\"intermediate_size\": 128", "\"intermediate_size\": 256", "shape_mismatch"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "missing_tensor"),
        ("\"vocab_size\": 470", "\"vocab_size\": 471", "shape_mismatch"),
    ] {
        fs::write(source.join("config.json"), config.replace(from, to)).unwrap();
        let error = open_with(&source, folder.path()).err().unwrap();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn verification_finds_what_structure_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["arrow", "parquet"] {
        let target = folder.path().join(format);
        let report =
            convert_to(&hf("bert"), &target, &options("float16", "packed", format, "none"));
        let mut bytes = fs::read(&report.path).unwrap();
        // Within the word embeddings, the first and largest tensor.
        bytes[20_000] ^= 1;
        fs::write(&report.path, bytes).unwrap();
        let cache_dir = Some(folder.path().to_owned());
        let open = |verify| {
            let cache_dir = cache_dir.clone();
            open(&target, &OpenOptions { cache_dir, verify, ..OpenOptions::default() })
        };
        assert!(open(false).is_ok());
        let error = open(true).err().unwrap();
        assert_eq!(error.code(), "checksum_mismatch", "{error}");
        assert!(error.to_string().contains("word_embeddings"), "{error}");
    }
}

#[test]
fn both_names_of_an_option_are_understood() {
    assert_eq!("packed".parse::<Arrangement>().unwrap(), Arrangement::Packed);
    let error = "panels".parse::<Arrangement>().unwrap_err();
    assert_eq!(error.code(), "invalid_argument");
    assert!(error.to_string().contains("row_major"), "{error}");
}

/// Adds tensors to a folder's weights.
fn add_tensors(folder: &Path, names: &[&str]) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = [0_u8; 16];
    let added = names.iter().map(|&name| {
        let view = TensorView::new(safetensors::Dtype::F32, vec![4], &numbers).unwrap();
        (name.to_owned(), view)
    });
    let all: Vec<_> = tensors.tensors().into_iter().chain(added).collect();
    fs::write(&path, safetensors::serialize(all, None).unwrap()).unwrap();
}

#[test]
fn tensors_that_nobody_asks_for_are_refused_unless_they_are_heads() {
    let folder = tempfile::tempdir().unwrap();
    let open = |source: &Path| open_with(source, &folder.path().join("cache"));
    let source = hf_copy("jina-bert-v2", folder.path());
    add_tensors(&source, &["pooler.dense.bias", "cls.predictions.bias", "embeddings.position_ids"]);
    let with_heads = open(&source).unwrap();
    let without = open(&hf("jina-bert-v2")).unwrap();
    assert_eq!(all_values(with_heads.weights.as_ref()), all_values(without.weights.as_ref()));

    // As the models of that family have them that came later.
    let normed = "encoder.layer.1.attention.self.layer_norm_q.weight";
    add_tensors(&source, &[normed]);
    let error = open(&source).err().unwrap();
    assert_eq!(error.code(), "unsupported_model");
    assert!(error.to_string().contains(normed), "{error}");
    for layout in ["packed", "row_major"] {
        let options = options("float32", layout, "arrow", "none");
        let target = folder.path().join("target");
        let error = convert(&source, &target, &options, &mut go_on).unwrap_err();
        assert!(error.to_string().contains(normed), "{error}");
        assert!(!target.exists());
    }
}

#[test]
fn gguf_files_are_computed_where_they_are_mapped() {
    let cache = tempfile::tempdir().unwrap();
    let opened = |name: &str, compute: Option<Compute>| {
        let cache_dir = Some(cache.path().to_owned());
        let options = OpenOptions { cache_dir, compute, verify: true };
        open(&gguf(name), &options).unwrap()
    };
    for (name, compute) in [
        ("bert-F32.gguf", None),
        ("bert-F16.gguf", Some(Compute::Float32)),
        ("bert-256-Q4_K_M.gguf", Some(Compute::Auto)),
    ] {
        let model = opened(name, compute);
        assert_eq!((model.path, model.compute), (gguf(name), Compute::Float32));
        assert!(!model.weights.maps().is_empty());
        let file = std::fs::metadata(gguf(name)).unwrap().len();
        assert!((file / 4..file).contains(&model.weights_bytes), "{name}");
    }
    assert!(!cache.path().join("unpacked").exists());
    let model = opened("bert-256-Q4_K_M.gguf", Some(Compute::Int8));
    assert_eq!(model.compute, Compute::Int8);
    assert!(model.path.starts_with(cache.path()));
}
