//! What the tests of whole models share.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hf").join(name)
}

#[derive(Deserialize)]
pub(crate) struct Fixture {
    pub(crate) texts: Vec<String>,
    pub(crate) input_ids: Vec<Vec<u32>>,
    pub(crate) untruncated_lengths: Vec<usize>,
    pub(crate) max_seq_length: usize,
    #[serde(default)]
    pub(crate) prompted_texts: Vec<String>,
    #[serde(default)]
    pub(crate) prompted_input_ids: Vec<Vec<u32>>,
}

pub(crate) fn texts(name: &str) -> Fixture {
    let json = std::fs::read(model(name).join("texts.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// A float32 array of a fixture's `expected.npz`.
pub(crate) fn expected(name: &str, array: &str) -> Vec<f32> {
    self::array(&model(name).join("expected.npz"), array)
}

/// A float32 array of an `.npz` file without compression.
pub(crate) fn array(path: &Path, array: &str) -> Vec<f32> {
    let zip = std::fs::read(path).unwrap();
    let find = |bytes: &[u8], from: usize| {
        from + zip[from..].windows(bytes.len()).position(|window| window == bytes).unwrap()
    };
    let npy = find(b"\x93NUMPY", find(format!("{array}.npy").as_bytes(), 0));
    let header = usize::from(u16::from_le_bytes([zip[npy + 8], zip[npy + 9]]));
    let description = std::str::from_utf8(&zip[npy + 10..npy + 10 + header]).unwrap();
    assert!(description.contains("'<f4'"), "{description}");
    let shape = description.split(['(', ')']).nth(1).unwrap();
    let numbers = shape.split(',').filter_map(|d| d.trim().parse::<usize>().ok()).product();
    let data = zip[npy + 10 + header..].chunks_exact(4).take(numbers);
    data.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Bits, so that equal means equal.
pub(crate) fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|x| x.to_bits()).collect()
}
