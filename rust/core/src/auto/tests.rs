//! Models whose integers of 16 bits lose nothing, and one that loses nearly all.

use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;
use tempfile::TempDir;

use super::*;
use crate::convert::ConvertOptions;
use crate::fixtures::{convert_to, hf, hf_copy};

/// A model, and a cache of its own.
struct Case {
    config: ModelConfig,
    folder: TempDir,
}

impl Case {
    fn new(source: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = ModelConfig::builder().path(source(folder.path()));
        let config = builder.cache_dir(folder.path().join("cache")).build().unwrap();
        Self { config, folder }
    }

    fn chosen(&self) -> Compute {
        by_loss(&self.config, &SourceModel::open(&self.config.path).unwrap()).unwrap()
    }

    /// Files in the cache with that extension.
    fn cached(&self, extension: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path().join("cache/unpacked")).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.extension().unwrap() == extension).collect()
    }

    fn verdict(&self) -> PathBuf {
        let [verdict] = self.cached("loss").try_into().unwrap();
        verdict
    }

    fn vectors(&self, compute: Compute) -> Embeddings {
        let mut config = self.config.clone();
        config.compute = Some(compute);
        config.map().unwrap().encode(&TEXTS).unwrap()
    }
}

/// A model with the same vectors, of which one feature of the values is 2¹² times as large, and the weights that it is
/// multiplied with as much smaller. In floating-point numbers nothing else changes.
fn with_a_feature_far_off(parent: &Path) -> PathBuf {
    let folder = hf_copy("bert", parent);
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.clone();
    let tensors = SafeTensors::deserialize(&whole).unwrap();
    let mut scale = |name: &str, numbers: &mut dyn Iterator<Item = usize>, factor: f32| {
        let data = tensors.tensor(name).unwrap().data();
        let begin = data.as_ptr() as usize - whole.as_ptr() as usize;
        for i in numbers {
            let place = &mut bytes[begin + 4 * i..][..4];
            let scaled = f32::from_le_bytes((&*place).try_into().unwrap()) * factor;
            place.copy_from_slice(&scaled.to_le_bytes());
        }
    };
    for layer in 0..2 {
        let layer = format!("encoder.layer.{layer}.attention");
        scale(&format!("{layer}.self.value.weight"), &mut (0..64), 4096.0);
        scale(&format!("{layer}.self.value.bias"), &mut (0..1), 4096.0);
        let column = &mut (0..64 * 64).step_by(64);
        scale(&format!("{layer}.output.dense.weight"), column, 1.0 / 4096.0);
    }
    fs::write(&path, bytes).unwrap();
    folder
}

#[test]
fn integers_that_lose_nothing_are_taken_and_measured_once() {
    let case = Case::new(|_| hf("bert"));
    assert_eq!(case.chosen(), Compute::Int16);
    let loss = read(&case.verdict()).unwrap();
    let measured = worst(&case.vectors(Compute::Int16), &case.vectors(Compute::Float32));
    assert_eq!(loss, measured);
    assert!(loss > 0.0 && loss <= INVISIBLE, "{loss:e}");
    // What is kept is believed, and not measured again.
    fs::write(case.verdict(), "1e-4\n").unwrap();
    assert_eq!(case.chosen(), Compute::Float32);
    fs::write(case.verdict(), "1e-5\n").unwrap();
    assert_eq!(case.chosen(), Compute::Int16);
}

#[test]
fn a_model_that_loses_by_integers_stays_with_float32() {
    let (usual, case) = (Case::new(|_| hf("bert")), Case::new(with_a_feature_far_off));
    assert_eq!(case.chosen(), Compute::Float32);
    assert!(read(&case.verdict()).unwrap() > 10.0 * INVISIBLE);
    let floats = case.cached("arrow");
    assert_eq!(floats.len(), 1);
    assert_eq!(case.vectors(Compute::Float32), usual.vectors(Compute::Float32));
    assert_eq!(case.cached("arrow"), floats, "nobody wants its integers");
    // Who asked for integers keeps them.
    drop(case.vectors(Compute::Int16));
    fs::remove_file(case.verdict()).unwrap();
    assert_eq!(case.chosen(), Compute::Float32);
    assert_eq!(case.cached("arrow").len(), 2);
}

#[test]
fn what_was_packed_only_to_be_measured_is_removed() {
    let case = Case::new(|_| hf("bert"));
    case.chosen();
    let integers = case.cached("arrow");
    assert_eq!(integers.len(), 1);
    case.vectors(Compute::Int16);
    assert_eq!(case.cached("arrow"), integers, "float32 was removed");
    case.vectors(Compute::Float32);
    fs::remove_file(case.verdict()).unwrap();
    case.chosen();
    assert_eq!(case.cached("arrow").len(), 2, "somebody wants float32");
}

#[test]
fn it_is_measured_of_whole_texts_and_again_with_other_metadata() {
    let mut case = Case::new(|folder| {
        let target = folder.join("model");
        convert_to(&hf("bert"), &target, &ConvertOptions::default());
        target
    });
    case.config.max_seq_length = Some(2);
    case.chosen();
    let loss = read(&case.verdict()).unwrap();
    case.config.max_seq_length = None;
    fs::remove_file(case.verdict()).unwrap();
    case.chosen();
    assert_eq!(read(&case.verdict()).unwrap(), loss);

    let metadata = case.config.path.join("metadata.json");
    let text = fs::read_to_string(&metadata).unwrap();
    let other = text.replace("\"pooling\": \"cls\"", "\"pooling\": \"mean\"");
    assert_ne!(other, text);
    fs::write(&metadata, other).unwrap();
    case.chosen();
    assert_eq!(case.cached("loss").len(), 2);
}

#[test]
fn many_at_once_agree() {
    for (case, chosen) in [
        (Case::new(|_| hf("bert")), Compute::Int16),
        (Case::new(with_a_feature_far_off), Compute::Float32),
    ] {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| case.chosen())).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), chosen);
            }
        });
        case.verdict();
    }
}

#[test]
fn what_is_stored_in_integers_is_not_measured() {
    let blocks = hf("../gguf/bert-256-Q4_K_M.gguf");
    for (source, dtype) in
        [(blocks, None), (hf("bert"), Some(DType::Int16)), (hf("bert"), Some(DType::Int8))]
    {
        let case = Case::new(|folder| match dtype {
            None => source,
            Some(dtype) => {
                let target = folder.join("model");
                convert_to(&source, &target, &ConvertOptions { dtype, ..Default::default() });
                target
            }
        });
        assert_eq!(settle(&case.config).unwrap(), Compute::Auto);
        assert!(!case.folder.path().join("cache").exists());
    }
}

#[test]
fn what_is_kept_but_damaged_is_measured_again() {
    let case = Case::new(|_| hf("bert"));
    case.chosen();
    let whole = fs::read(case.verdict()).unwrap();
    for damaged in ["", "-1", "NaN", "no number", "1e-9 1e-9"] {
        fs::write(case.verdict(), damaged).unwrap();
        assert_eq!(case.chosen(), Compute::Int16);
        assert_eq!(fs::read(case.verdict()).unwrap(), whole, "{damaged:?}");
    }
}

#[test]
fn without_a_cache_it_is_measured_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "no folder").unwrap();
    for (source, chosen) in
        [(hf("bert"), Compute::Int16), (with_a_feature_far_off(folder.path()), Compute::Float32)]
    {
        let config = ModelConfig::builder().path(&source).cache_dir(&blocked).build().unwrap();
        assert_eq!(by_loss(&config, &SourceModel::open(&source).unwrap()).unwrap(), chosen);
    }
}

#[test]
fn the_loss_is_that_of_the_directions() {
    assert_eq!(apart(&[3.0, 4.0], &[6.0, 8.0]), 0.0);
    assert!((apart(&[1.0, 0.0], &[0.0, 2.0]) - 1.0).abs() < 1e-15);
    assert!((apart(&[1.0, 0.0], &[-1.0, 0.0]) - 2.0).abs() < 1e-15);
    assert_eq!(apart(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
    let angle = 1e-5_f64;
    let turned = apart(&[1.0, 0.0], &[angle.cos() as f32, angle.sin() as f32]);
    assert!((turned / (angle * angle / 2.0) - 1.0).abs() < 1e-6, "{turned:e}");
}
