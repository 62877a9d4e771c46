//! What the tests of GGUF files share: the committed files, and files made to measure.

use std::path::{Path, PathBuf};

/// A committed file.
pub(crate) fn gguf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/gguf").join(name)
}

/// All committed GGUF files.
pub(crate) fn all_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(gguf(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    files.sort();
    assert!(files.len() > 10);
    files
}

/// Writes GGUF files, valid and not.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    values: (u64, Vec<u8>),
    tensors: (u64, Vec<u8>),
    data: Vec<u8>,
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Writer {
    pub(crate) fn new() -> Self {
        let nothing = (0, Vec::new());
        let (values, tensors) = (nothing.clone(), nothing);
        Self { version: 3, alignment: 32, values, tensors, data: Vec::new() }
    }

    /// A value as its type's number and its bytes.
    pub(crate) fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.values.0 += 1;
        self.values.1.extend([&text(key), &kind.to_le_bytes()[..], bytes].concat());
        self
    }

    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        self.value(key, 8, &text(value))
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.value(key, 7, &[u8::from(value)])
    }

    /// An array of so many elements of a type.
    pub(crate) fn array(self, key: &str, kind: u32, count: u64, bytes: &[u8]) -> Self {
        self.value(key, 9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat())
    }

    pub(crate) fn strings(self, key: &str, values: &[&str]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        self.array(key, 8, values.len() as u64, &bytes)
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len() as u64, &bytes)
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len() as u64, &bytes)
    }

    /// A tensor's entry; dimensions as in the file, the contiguous one first.
    pub(crate) fn entry(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.0 += 1;
        let entry = &mut self.tensors.1;
        entry.extend(text(name));
        entry.extend((dims.len() as u32).to_le_bytes());
        entry.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        entry.extend(kind.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        self
    }

    /// A tensor of float32.
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.entry(name, dims, 0, offset)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensors.0.to_le_bytes());
        file.extend(self.values.0.to_le_bytes());
        file.extend(&self.values.1);
        file.extend(&self.tensors.1);
        if !self.data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
        }
        file.extend(&self.data);
        file
    }
}
