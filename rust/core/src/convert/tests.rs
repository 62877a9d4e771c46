use std::fs;

use super::*;
use crate::fixtures::{all_values, convert_to, go_on, hf, hf_copy, open_with};
use crate::weights::arrow::ArrowFile;

fn entries(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_model_folder_holds_all_that_the_format_asks_for() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("deep/er/tiny");
    let report = convert_to(&hf("bert"), &target, &ConvertOptions::default());
    assert_eq!(entries(&target), ["metadata.json", "model.arrow", "tokenizer"]);
    assert_eq!(entries(&target.join("tokenizer")), ["tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(entries(target.parent().unwrap()), ["tiny"]);
    assert_eq!(report.path, target.join("model.arrow"));
    assert_eq!(report.bytes, fs::metadata(&report.path).unwrap().len());
    let source = fs::read(hf("bert").join("model.safetensors")).unwrap();
    assert_eq!(report.source_bytes, source.len() as u64);
    assert_eq!(report.source_sha256, crate::weights::embedded::sha256_hex(&source));

    let text = fs::read_to_string(target.join("metadata.json")).unwrap();
    let metadata = Metadata::parse(&text, &target).unwrap();
    assert_eq!(metadata.name, "tiny");
    assert_eq!(metadata.dtype, DType::Float16);
    assert_eq!(metadata.tool, concat!("arrowembed ", env!("CARGO_PKG_VERSION")));
    let recorded = metadata.source.unwrap();
    assert_eq!(recorded.file, "model.safetensors");
    assert_eq!(recorded.sha256, report.source_sha256);
    assert_eq!(ArrowFile::open(&report.path).unwrap().metadata(), Some(text.as_str()));
    assert_eq!(verify(&target, &mut go_on).unwrap(), report.tensors.len());
}

#[cfg(unix)]
#[test]
fn a_model_folder_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let (target, ordinary) = (parent.path().join("model"), parent.path().join("ordinary"));
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    fs::create_dir(&ordinary).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&target), mode(&ordinary));
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    let mut calls = 0;
    let options = ConvertOptions::default();
    convert(&hf("bert"), &target, &options, &mut |_, _| {
        calls += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    fs::remove_dir_all(&target).unwrap();
    for stop in 1..=calls {
        let mut call = 0;
        let error = convert(&hf("bert"), &target, &options, &mut |_, _| {
            call += 1;
            if call == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap_err();
        assert_eq!(error.code(), "interrupted");
        assert_eq!(entries(parent.path()), [""; 0]);
    }
}

#[test]
fn a_failed_conversion_leaves_the_old_model() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    let before = fs::read(target.join("model.arrow")).unwrap();
    let broken = hf_copy("bert", parent.path());
    let weights = fs::read(broken.join("model.safetensors")).unwrap();
    fs::write(broken.join("model.safetensors"), &weights[..weights.len() - 1]).unwrap();
    let error = convert(&broken, &target, &ConvertOptions::default(), &mut go_on).unwrap_err();
    assert_eq!(error.code(), "invalid_file");
    assert_eq!(fs::read(target.join("model.arrow")).unwrap(), before);
    assert_eq!(entries(parent.path()), ["hf-bert", "model"]);
}

#[test]
fn a_model_that_is_replaced_stays_mapped_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    convert_to(&hf("bert"), &target, &ConvertOptions::default());
    let old = open_with(&target, parent.path()).unwrap();
    let before = all_values(old.weights.as_ref());
    let name = Some("other".to_owned());
    convert_to(&hf("bert-mean"), &target, &ConvertOptions { name, ..Default::default() });
    let new = open_with(&target, parent.path()).unwrap();
    assert_eq!(new.metadata.name, "other");
    assert_eq!(all_values(old.weights.as_ref()), before);
    assert_eq!(entries(parent.path()), ["model"]);
}

#[test]
fn a_target_that_is_something_else_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let (file, folder) = (parent.path().join("file"), parent.path().join("folder"));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("thesis.tex"), "precious").unwrap();
    for target in [&file, &folder] {
        let error =
            convert(&hf("bert"), target, &ConvertOptions::default(), &mut go_on).unwrap_err();
        assert_eq!(error.code(), "invalid_argument", "{error}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
    assert_eq!(fs::read_to_string(folder.join("thesis.tex")).unwrap(), "precious");
    let within = parent.path().join("file/model");
    let error = convert(&hf("bert"), &within, &ConvertOptions::default(), &mut go_on).unwrap_err();
    assert_eq!(error.code(), "io", "{error}");
}

#[test]
fn a_model_file_can_be_converted_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    let single = ConvertOptions { dtype: DType::Float32, ..Default::default() };
    let rows = ConvertOptions { arrangement: Arrangement::RowMajor, ..single.clone() };
    convert_to(&hf("bert"), &path("packed"), &single);
    convert_to(&path("packed"), &path("rows"), &rows);
    convert_to(&path("rows"), &path("again"), &single);
    convert_to(&path("packed/model.arrow"), &path("half"), &ConvertOptions::default());
    let bytes = |name: &str| {
        let file = ArrowFile::open(&path(name).join("model.arrow")).unwrap();
        all_values(&file)
    };
    assert_eq!(bytes("packed"), bytes("again"));
    assert_eq!(bytes("packed"), bytes("rows"));
    let half = open_with(&path("half"), parent.path()).unwrap();
    assert_eq!(half.metadata.name, "packed", "a model file keeps its name");
    assert_eq!(half.metadata.source.unwrap().file, "model.arrow");
}

#[test]
fn a_model_can_be_converted_in_place() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    let zipped = ConvertOptions { compression: Compression::Zstd, ..Default::default() };
    convert_to(&hf("bert"), &target, &zipped);
    let before = all_values(&ArrowFile::open(&target.join("model.arrow")).unwrap());
    convert_to(&target, &target, &ConvertOptions::default());
    let file = ArrowFile::open(&target.join("model.arrow")).unwrap();
    assert!(file.is_packed());
    assert_eq!(all_values(&file), before);
}

#[test]
fn a_tensor_that_does_not_fit_its_dtype_is_reported() {
    let parent = tempfile::tempdir().unwrap();
    let source = hf_copy("bert", parent.path());
    let weights = source.join("model.safetensors");
    let name = "encoder.layer.1.output.dense.weight";
    set_first(&weights, name, 1e6);
    let report = convert_to(&source, &parent.path().join("model"), &ConvertOptions::default());
    let fallbacks: Vec<_> = report.tensors.iter().filter(|t| t.fallback.is_some()).collect();
    assert_eq!(fallbacks.len(), 1);
    assert_eq!(fallbacks[0].name, name);
    assert_eq!(fallbacks[0].dtype, DType::Float32);
    assert!(fallbacks[0].fallback.as_ref().unwrap().contains("1000000"));

    set_first(&weights, name, f32::NAN);
    let target = parent.path().join("nan");
    let error = convert(&source, &target, &ConvertOptions::default(), &mut go_on).unwrap_err();
    assert!(error.to_string().contains(name) && error.to_string().contains("NaN"), "{error}");
    assert!(!target.exists());
}

/// Overwrites a float32 tensor's first element.
fn set_first(path: &Path, name: &str, value: f32) {
    let mut bytes = fs::read(path).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let at = 8 + header + metadata.info(name).unwrap().data_offsets.0;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_tokenizer_that_is_missing_or_none_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let source = hf_copy("bert", parent.path());
    let target = parent.path().join("model");
    let refused = || convert(&source, &target, &ConvertOptions::default(), &mut go_on).unwrap_err();
    fs::write(source.join("tokenizer.json"), "{}").unwrap();
    assert_eq!(refused().code(), "tokenizer");
    fs::remove_file(source.join("tokenizer.json")).unwrap();
    assert!(refused().to_string().contains("save_pretrained"));
    assert!(!target.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let source = SourceModel::open(&hf("bert")).unwrap();
    let SourceModel { metadata, weights, .. } = source;
    let planned = plan_packed(&metadata, weights.source()).unwrap();
    for format in [Format::Arrow, Format::Parquet] {
        let path = Path::new("/dev/full");
        let file = File::options().write(true).open(path).unwrap();
        let target = WeightsFile { file, path, format, compression: Compression::None };
        let error =
            write_weights(target, &metadata, weights.source(), path, &planned, None, &mut go_on)
                .unwrap_err();
        let Error::Io { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{format:?}");
    }
}
