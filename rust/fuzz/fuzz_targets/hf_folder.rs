//! Conversion of a Hugging Face folder of which one file is any bytes; the first byte says which.

#![no_main]

use std::cell::OnceCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use arrowembed::{ConvertOptions, convert};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 7] = [
    "model.safetensors",
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
];

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let name = FILES[usize::from(*which) % FILES.len()];
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(copy_of_the_fixture).path();
        let (file, whole) = (folder.join(name), folder.join(name).with_extension("whole"));
        fs::rename(&file, &whole).unwrap();
        fs::write(&file, content).unwrap();
        // Stopped before anything is written: what is tried here is the reading.
        let _ = convert(folder, &folder.join("target"), &ConvertOptions::default(), &mut |_, _| {
            ControlFlow::Break(())
        });
        fs::rename(&whole, &file).unwrap();
    });
});

fn copy_of_the_fixture() -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hf/bert-mean");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for name in FILES.into_iter().chain(["tokenizer.json"]) {
        fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    }
    folder
}
