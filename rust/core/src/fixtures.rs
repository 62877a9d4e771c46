//! What the tests of model files share.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::convert::{ConversionReport, ConvertOptions, convert};
use crate::error::Result;
use crate::open::{OpenModel, OpenOptions, open};
use crate::weights::values::read_f32;
use crate::weights::{Tensor, TensorSource};

/// A committed Hugging Face folder.
pub(crate) fn hf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hf").join(name)
}

/// A copy of a committed Hugging Face folder, to be changed.
pub(crate) fn hf_copy(name: &str, parent: &Path) -> PathBuf {
    let (from, to) = (hf(name), parent.join(format!("hf-{name}")));
    std::fs::create_dir_all(to.join("1_Pooling")).unwrap();
    for file in [
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to
}

pub(crate) fn go_on(_done: usize, _total: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn convert_to(
    source: &Path,
    target: &Path,
    options: &ConvertOptions,
) -> ConversionReport {
    convert(source, target, options, &mut go_on).unwrap()
}

/// Opens with a cache of one's own in `cache`.
pub(crate) fn open_with(path: &Path, cache: &Path) -> Result<OpenModel> {
    let cache_dir = Some(cache.to_owned());
    open(path, &OpenOptions { cache_dir, ..OpenOptions::default() })
}

/// All numbers of a source, by name.
pub(crate) fn all_values(source: &dyn TensorSource) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let names = source.names().into_iter();
    let numbers = |name: &str| {
        let (tensor, values) = read_f32(source, name).unwrap();
        (name.to_owned(), (tensor.shape, values))
    };
    names.map(numbers).collect()
}

/// Asserts what every tensor source promises of its tensors.
pub(crate) fn assert_invariant(source: &dyn TensorSource) {
    for name in source.names() {
        let tensor = source.require(name).unwrap();
        assert_eq!(tensor.name, name);
        let bytes = Tensor::byte_len(&tensor.shape, tensor.dtype, tensor.layout);
        assert_eq!(bytes, Some(tensor.data.len()), "{name}");
        assert!((tensor.data.as_ptr() as usize).is_multiple_of(tensor.dtype.size()), "{name}");
    }
}
